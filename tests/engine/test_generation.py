"""Whisper's search over a model whose predictions are known, alone and in company."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from simple_asr.engine.generation import generate, log_softmax
from simple_asr.engine.rules import Logits, Rules
from simple_asr.engine.tokens import LAST_TIMESTAMP, Tokenizer
from simple_asr.engine.window import Decode, Decoded
from tests.support import decode_step

SUPPRESSED = (11, 13)


@pytest.fixture
def greedy(tokenizer: Tokenizer) -> Decode:
    return step_of(tokenizer, window=0)


def step_of(tokenizer: Tokenizer, window: int, **search: Any) -> Decode:
    return decode_step(
        tokenizer, window, **{"max_new_tokens": 12, "suppress_tokens": SUPPRESSED, **search}
    )


class Speaker:
    """A model that remembers each row's tokens; its logits are arbitrary, the same after the same.

    Text and timestamps are likely by turns, so that every rule has something to forbid.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._rows: list[tuple[int, ...]] = []
        self._num_windows = 0
        self.windows_read: list[int] = []

    def read_prompt(self, tokens: NDArray[np.int64], wanted: Sequence[int]) -> Logits:
        self._rows = [tuple(row) for row in tokens.tolist()]
        self._num_windows = len(self._rows)
        return np.array(
            [[self.logits(row[: place + 1]) for place in wanted] for row in self._rows], np.float32
        )

    def read(self, tokens: NDArray[np.int64]) -> Logits:
        self.windows_read.append(self._num_windows)
        self._rows = [(*row, token) for row, token in zip(self._rows, tokens.tolist(), strict=True)]
        return np.array([self.logits(row) for row in self._rows], np.float32)

    def keep_rows(self, rows: NDArray[np.int64]) -> None:
        self._rows = [self._rows[row] for row in rows]

    def keep_windows(self, windows: NDArray[np.int64]) -> None:
        rows = np.arange(len(self._rows)).reshape(self._num_windows, -1)[windows].ravel()
        self.keep_rows(rows)
        self._num_windows = len(windows)

    def logits(self, tokens: tuple[int, ...]) -> Logits:
        """Of the next token, shape (vocabulary,)."""
        return np.array(_logits(self._tokenizer, tokens))

    def following(self, step: Decode, written: tuple[int, ...]) -> Logits:
        """Logs of the probabilities of what may follow."""
        logits = self.logits((*step.prompt.tokens, *written))
        Rules(self._tokenizer, step).apply(logits, written)
        return log_softmax(logits)


@cache
def _logits(tokenizer: Tokenizer, tokens: tuple[int, ...]) -> Logits:
    random = np.random.default_rng(tokens)
    begin = tokenizer.timestamp_begin
    logits = random.normal(size=begin + LAST_TIMESTAMP + 1)
    logits[random.integers(tokenizer.eot, size=3)] += random.uniform(0, 12, size=3)
    logits[[tokenizer.no_timestamps, *SUPPRESSED]] += random.uniform(0, 12)
    logits[tokenizer.eot] += random.choice([0, 9], p=[0.8, 0.2])
    return np.asarray(logits, np.float32)


def written_by(tokenizer: Tokenizer, *steps: Decode) -> list[Decoded]:
    """The answers in the order of the steps."""
    answers: dict[int, Decoded] = {}
    for ended in generate(Speaker(tokenizer), tokenizer, steps):
        answers.update(ended)
    return [answers[row] for row in range(len(steps))]


def test_the_likeliest_token_is_written_until_the_end(tokenizer: Tokenizer) -> None:
    for window in range(8):
        step = step_of(tokenizer, window)
        speaker = Speaker(tokenizer)
        expected: tuple[int, ...] = ()
        total = 0.0
        while len(expected) < step.max_new_tokens:
            following = speaker.following(step, expected)
            total += float(following.max())
            if following.argmax() == tokenizer.eot:
                break
            expected = (*expected, int(following.argmax()))

        (decoded,) = written_by(tokenizer, step)

        assert decoded.hypotheses[0].tokens == expected
        assert decoded.hypotheses[0].sum_logprob == pytest.approx(total, rel=1e-5)


@pytest.mark.parametrize("search", [{}, {"beam_size": 3}])
def test_windows_are_written_as_each_is_alone(tokenizer: Tokenizer, search: dict[str, int]) -> None:
    steps = [step_of(tokenizer, window, **search) for window in range(8)]

    together = written_by(tokenizer, *steps)

    assert together == [written_by(tokenizer, step)[0] for step in steps]
    lengths = {len(decoded.hypotheses[0].tokens) for decoded in together}
    assert len(lengths) > 2


def test_windows_that_have_ended_are_left_out_when_they_are_half(tokenizer: Tokenizer) -> None:
    speaker = Speaker(tokenizer)

    steps = [step_of(tokenizer, window) for window in range(8)]
    for _ in generate(speaker, tokenizer, steps):
        pass

    assert speaker.windows_read[0] == 8
    assert speaker.windows_read[-1] <= 4


def test_each_window_is_told_with_its_last_token_while_the_others_go_on(
    tokenizer: Tokenizer,
) -> None:
    steps = [step_of(tokenizer, window) for window in range(8)]

    told_after = {
        row: num_tokens
        for num_tokens, ended in enumerate(generate(Speaker(tokenizer), tokenizer, steps), 1)
        for row in ended
    }

    for row, step in enumerate(steps):
        [hypothesis] = written_by(tokenizer, step)[0].hypotheses
        assert told_after[row] == min(len(hypothesis.tokens) + 1, step.max_new_tokens)
    assert len(set(told_after.values())) > 2


@pytest.mark.parametrize("patience", [1.0, 2.0])
@pytest.mark.parametrize("window", range(5))
def test_beams_go_where_whisper_goes(tokenizer: Tokenizer, window: int, patience: float) -> None:
    step = step_of(tokenizer, window, beam_size=3, patience=patience, num_hypotheses=3)

    (decoded,) = written_by(tokenizer, step)

    expected = beams(Speaker(tokenizer), step, tokenizer.eot)
    found = {hypothesis.tokens: hypothesis.sum_logprob for hypothesis in decoded.hypotheses}
    assert found == pytest.approx(expected, rel=1e-5)


def beams(speaker: Speaker, step: Decode, eot: int) -> dict[tuple[int, ...], float]:
    """openai-whisper's `BeamSearchDecoder`, told plainly: all continuations, ranked."""
    size = step.search.beam_size
    running: dict[tuple[int, ...], float] = {(): 0.0}
    ended: dict[tuple[int, ...], float] = {}
    for _ in range(step.max_new_tokens):
        ranked = sorted(
            (
                (total + float(following[token]), (*tokens, int(token)))
                for tokens, total in running.items()
                for following in [speaker.following(step, tokens)]
                for token in np.argsort(-following)[: size + 1]
            ),
            reverse=True,
        )
        running = {}
        for total, tokens in ranked:
            if tokens[-1] != eot:
                running[tokens] = total
            elif len(ended) < round(size * step.search.patience):
                ended[tokens[:-1]] = total
            if len(running) == size:
                break
        if len(ended) >= round(size * step.search.patience):
            return ended
    missing = sorted(running.items(), key=lambda item: -item[1])[: max(0, size - len(ended))]
    return {**ended, **dict(missing)}


def test_samples_are_drawn_by_their_likelihood(tokenizer: Tokenizer, greedy: Decode) -> None:
    step = replace(
        greedy,
        search=replace(greedy.search, temperature=0.5, num_hypotheses=400, max_new_tokens=1),
    )

    (decoded,) = written_by(tokenizer, step)

    drawn = Counter(hypothesis.tokens[0] for hypothesis in decoded.hypotheses)
    warmed = np.exp(log_softmax(Speaker(tokenizer).following(step, ()) / np.float32(0.5)))
    token, count = drawn.most_common(1)[0]
    assert len(drawn) > 5
    assert count / 400 == pytest.approx(float(warmed[token]), abs=0.1)
    # Scores are those of the model, not of the warmed dice.
    cold = Speaker(tokenizer).following(step, ())
    assert all(
        hypothesis.sum_logprob == pytest.approx(float(cold[hypothesis.tokens[0]]), rel=1e-4)
        for hypothesis in decoded.hypotheses
    )


def test_no_more_is_written_than_was_asked_for(tokenizer: Tokenizer) -> None:
    longest = written_by(tokenizer, step_of(tokenizer, 3))[0].hypotheses[0].tokens

    for number in range(1, len(longest)):
        (decoded,) = written_by(tokenizer, step_of(tokenizer, 3, max_new_tokens=number))
        assert decoded.hypotheses[0].tokens == longest[:number]


def test_the_probability_of_no_speech_is_that_after_the_start(
    tokenizer: Tokenizer, greedy: Decode
) -> None:
    (decoded,) = written_by(tokenizer, greedy)

    logits = Speaker(tokenizer).logits((tokenizer.sot,))
    assert decoded.no_speech_prob == pytest.approx(
        float(np.exp(log_softmax(logits)[tokenizer.no_speech])), rel=1e-5
    )
