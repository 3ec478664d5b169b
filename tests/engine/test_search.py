"""Search after a prefix: what Whisper's rules allow, from a library that applies them too late."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from simple_asr.engine.search import decode_after_prefix
from simple_asr.engine.tokens import LAST_TIMESTAMP, Tokenizer
from simple_asr.engine.window import Decode, Decoded, Hypothesis
from tests.support import decode_step

Logits = NDArray[np.float64]

SUPPRESSED = (11, 13)
LAST_INITIAL = 50


@pytest.fixture
def step(tokenizer: Tokenizer) -> Decode:
    return decode_step(
        tokenizer,
        prefix=" Well",
        suppress_tokens=SUPPRESSED,
        max_initial_timestamp_index=LAST_INITIAL,
    )


class Speaker:
    """A model whose logits are arbitrary, and always the same after the same tokens.

    Text and timestamps are likely by turns, so that every rule has something to forbid.
    """

    def __init__(self, tokenizer: Tokenizer, seed: int) -> None:
        self.tokenizer = tokenizer
        self._seed = seed

    def logits(self, tokens: tuple[int, ...]) -> Logits:
        """Of the next token, shape (vocabulary,)."""
        random = np.random.default_rng([self._seed, *tokens])
        begin = self.tokenizer.timestamp_begin
        logits = random.normal(size=begin + LAST_TIMESTAMP + 1)
        logits[random.integers(self.tokenizer.eot)] += random.uniform(0, 12)
        logits[[self.tokenizer.no_timestamps, *SUPPRESSED]] += random.uniform(0, 12)
        logits[self.tokenizer.eot] += random.choice([0, 7], p=[0.8, 0.2])
        return logits


def whisper(speaker: Speaker, step: Decode) -> Hypothesis:
    """What Whisper writes, from its rules as they stand in `ApplyTimestampRules`."""
    written: list[int] = []
    total = 0.0
    while len(written) < step.search.max_new_tokens:
        logits = speaker.logits((*step.prompt.tokens, *written))
        logits[[*SUPPRESSED, speaker.tokenizer.no_timestamps]] = -np.inf
        if not written:
            begin = speaker.tokenizer.timestamp_begin
            logits[:begin] = logits[begin + LAST_INITIAL + 1 :] = -np.inf
        else:
            forbid_by_timestamps(speaker.tokenizer, logits, written)
        token = int(logits.argmax())
        total += float(log_softmax(logits)[token])
        if token == speaker.tokenizer.eot:
            break
        written.append(token)
    return Hypothesis(tuple(written), total)


def forbid_by_timestamps(tokenizer: Tokenizer, logits: Logits, written: list[int]) -> None:
    begin = tokenizer.timestamp_begin
    stamps = [token for token in written if token >= begin]
    is_last = written[-1] >= begin
    is_penultimate = len(written) < 2 or written[-2] >= begin
    if is_last and is_penultimate:
        logits[begin:] = -np.inf
    elif is_last:
        logits[: tokenizer.eot] = -np.inf
    if stamps:
        logits[begin : stamps[-1] + (0 if is_last and not is_penultimate else 1)] = -np.inf
    if np.logaddexp.reduce(logits[begin:]) > logits[:begin].max():
        logits[:begin] = -np.inf


def log_softmax(logits: Logits) -> Logits:
    result: Logits = logits - np.logaddexp.reduce(logits)
    return result


class Library:
    """What CTranslate2 writes after a prompt: its rules look no further back than the prompt's end.

    Its first token obeys none but those for suppressed tokens.
    """

    def __init__(self, speaker: Speaker) -> None:
        self._speaker = speaker
        self._random = np.random.default_rng(0)
        self.num_calls = 0

    def __call__(self, step: Decode) -> Decoded:
        self.num_calls += 1
        tokenizer = self._speaker.tokenizer
        written: list[int] = []
        total = 0.0
        while len(written) < step.max_new_tokens:
            logits = self._speaker.logits((*step.prompt.tokens, *written))
            logits[[*step.search.suppress_tokens, tokenizer.no_timestamps]] = -np.inf
            if written:
                forbid_by_timestamps(tokenizer, logits, written)
            token = self._choose(logits, step.search.temperature)
            total += float(log_softmax(logits)[token])
            if token == tokenizer.eot:
                break
            written.append(token)
        return Decoded((Hypothesis(tuple(written), total),), no_speech_prob=0.25)

    def _choose(self, logits: Logits, temperature: float) -> int:
        if temperature == 0:
            return int(logits.argmax())
        return int((logits / temperature + self._random.gumbel(size=len(logits))).argmax())


@pytest.mark.parametrize("seed", range(20))
def test_what_follows_a_prefix_is_what_whisper_writes(
    tokenizer: Tokenizer, step: Decode, seed: int
) -> None:
    speaker = Speaker(tokenizer, seed)

    decoded = decode_after_prefix(Library(speaker), tokenizer, step)

    expected = whisper(speaker, step)
    assert decoded.hypotheses[0].tokens == expected.tokens
    assert decoded.hypotheses[0].sum_logprob == pytest.approx(expected.sum_logprob)


def test_the_library_alone_would_not_write_it(tokenizer: Tokenizer, step: Decode) -> None:
    speakers = [Speaker(tokenizer, seed) for seed in range(5)]

    assert all(
        Library(speaker)(step).hypotheses[0].tokens != whisper(speaker, step).tokens
        for speaker in speakers
    )


@pytest.mark.parametrize("max_new_tokens", [1, 2, 3, 4])
def test_no_more_is_written_than_was_asked_for(
    tokenizer: Tokenizer, step: Decode, max_new_tokens: int
) -> None:
    speaker = Speaker(tokenizer, seed=3)
    short = replace(step, search=replace(step.search, max_new_tokens=max_new_tokens))

    decoded = decode_after_prefix(Library(speaker), tokenizer, short)

    assert decoded.hypotheses[0].tokens == whisper(speaker, step).tokens[:max_new_tokens]


def test_samples_begin_with_a_timestamp_and_a_word(tokenizer: Tokenizer, step: Decode) -> None:
    begin = tokenizer.timestamp_begin
    samples = replace(step, search=replace(step.search, temperature=1.0, num_hypotheses=12))

    decoded = decode_after_prefix(Library(Speaker(tokenizer, seed=1)), tokenizer, samples)

    assert len({hypothesis.tokens for hypothesis in decoded.hypotheses}) == 12
    for first, second, *_ in (hypothesis.tokens for hypothesis in decoded.hypotheses):
        assert begin <= first <= begin + LAST_INITIAL
        assert second < begin


def test_the_library_goes_on_alone_after_the_first_words(
    tokenizer: Tokenizer, step: Decode
) -> None:
    library = Library(Talker(tokenizer, seed=0))

    decoded = decode_after_prefix(library, tokenizer, step)

    assert len(decoded.hypotheses[0].tokens) == step.search.max_new_tokens
    assert library.num_calls <= 6


class Talker(Speaker):
    """One who comes to no end."""

    def logits(self, tokens: tuple[int, ...]) -> Logits:
        logits = super().logits(tokens)
        logits[100 + len(tokens)] += 30
        return logits


def test_the_probability_of_no_speech_is_handed_on(tokenizer: Tokenizer, step: Decode) -> None:
    decoded = decode_after_prefix(Library(Speaker(tokenizer, seed=0)), tokenizer, step)

    assert decoded.no_speech_prob == 0.25
