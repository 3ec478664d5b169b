"""Whisper's search for what was said: greedy, by samples or by beams, under its rules.

Source of all of it: openai/whisper, decoding.py. Pure but for `Reader`, which is the model, and
the samples' dice.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from simple_asr.engine.rules import Logits, Rules, log_sum_exp
from simple_asr.engine.tokens import Tokenizer
from simple_asr.engine.window import Decode, Decoded, Hypothesis


class Reader(Protocol):
    """A model that reads what is written about several windows, in as many rows each."""

    def read_prompt(self, tokens: NDArray[np.int64], wanted: Sequence[int]) -> Logits:
        """Reads prompts, shape (windows, tokens). What follows the tokens at places `wanted`."""
        ...

    def read(self, tokens: NDArray[np.int64]) -> Logits:
        """Reads a token a row. Returns the shape (rows, vocabulary)."""
        ...

    def keep_rows(self, rows: NDArray[np.int64]) -> None:
        """Goes on with these rows in their order, some perhaps more than once."""
        ...

    def keep_windows(self, windows: NDArray[np.int64]) -> None:
        """Goes on with all rows of these windows."""
        ...


def generate(
    reader: Reader, tokenizer: Tokenizer, steps: Sequence[Decode]
) -> Iterator[dict[int, Decoded]]:
    """What is said in each window; all steps have equal batch keys, and prompts of one length.

    After each token come the windows that have ended with it, by their index: mostly none.
    """
    prompts = np.array([step.prompt.tokens for step in steps], np.int64)
    start = steps[0].prompt.sot_position
    logits = reader.read_prompt(prompts, [start, prompts.shape[1] - 1])
    no_speech = np.exp(log_softmax(logits[:, 0])[:, tokenizer.no_speech])
    writing = {index: _search(tokenizer, step) for index, step in enumerate(steps)}
    for _ in _run(reader, list(writing.values()), logits[:, 1]):
        ended = [index for index, search in writing.items() if search.has_ended]
        yield {
            index: Decoded(writing.pop(index).hypotheses(), float(no_speech[index]))
            for index in ended
        }


def _search(tokenizer: Tokenizer, step: Decode) -> _Search:
    return (_Beams if step.search.beam_size > 1 else _Samples)(tokenizer, step)


def _run(reader: Reader, searches: Sequence[_Search], logits: Logits) -> Iterator[None]:
    """Writes token after token until every search has ended, and stops after each.

    `logits` are what may follow the prompts, shape (windows, vocabulary). A window that has ended
    is still read until half of them have: to leave it out, all others are copied.
    """
    running = list(searches)
    # The first tokens of all rows of a window are chosen from one and the same prediction.
    sources = [search.write(logits[[index]]) for index, search in enumerate(running)]
    reader.keep_rows(_across_windows(sources, rows_before=1))
    yield
    while not all(search.has_ended for search in running):
        going_on = [index for index, search in enumerate(running) if not search.has_ended]
        if len(going_on) <= len(running) // 2:
            reader.keep_windows(np.array(going_on))
            running = [running[index] for index in going_on]
        logits = reader.read(np.concatenate([search.last_tokens for search in running]))
        num_rows = len(logits) // len(running)
        sources = [
            search.write(logits[index * num_rows : (index + 1) * num_rows])
            for index, search in enumerate(running)
        ]
        reader.keep_rows(_across_windows(sources, rows_before=num_rows))
        yield


def _across_windows(sources: Sequence[NDArray[np.int64]], *, rows_before: int) -> NDArray[np.int64]:
    """Rows counted within each window, counted over all."""
    return np.concatenate([rows + rows_before * index for index, rows in enumerate(sources)])


@dataclass(slots=True)
class _Row:
    """Tokens written after the prompt, and the log of their probability."""

    tokens: tuple[int, ...] = ()
    sum_logprob: float = 0.0
    has_ended: bool = False

    def followed_by(self, token: int, logprob: float, eot: int) -> _Row:
        if token == eot:
            return _Row(self.tokens, self.sum_logprob + logprob, has_ended=True)
        return _Row((*self.tokens, token), self.sum_logprob + logprob)


class _Search(ABC):
    """The rows of one window. Before the first token there is one, afterwards `num_rows`."""

    def __init__(self, tokenizer: Tokenizer, step: Decode) -> None:
        self._rules = Rules(tokenizer, step)
        self._step = step
        self._eot = tokenizer.eot
        self._rows = [_Row()]
        self._num_written = 0

    @property
    def has_ended(self) -> bool:
        return self._num_written >= self._step.max_new_tokens or self._is_done

    @property
    def last_tokens(self) -> NDArray[np.int64]:
        """What each row has written last; after its end, the end."""
        return np.array([self._eot if row.has_ended else row.tokens[-1] for row in self._rows])

    def write(self, logits: Logits) -> NDArray[np.int64]:
        """Writes a token in each row, given what may follow; tells which row each one continues.

        A search that has ended stays as it is.
        """
        if self.has_ended:
            return np.arange(len(self._rows))
        for row, following in zip(self._rows, logits, strict=True):
            self._rules.apply(following, row.tokens)
        self._num_written += 1
        return self._choose(logits)

    @property
    @abstractmethod
    def _is_done(self) -> bool: ...

    @abstractmethod
    def _choose(self, logits: Logits) -> NDArray[np.int64]:
        """Goes on in each row; tells which row before each one continues."""

    @abstractmethod
    def hypotheses(self) -> tuple[Hypothesis, ...]: ...


class _Samples(_Search):
    """The likeliest tokens at temperature 0, above it rows of tokens drawn by their likelihood."""

    def __init__(self, tokenizer: Tokenizer, step: Decode) -> None:
        super().__init__(tokenizer, step)
        self._temperature = step.search.temperature
        self._num_rows = step.search.num_hypotheses if self._temperature > 0 else 1
        self._dice = np.random.default_rng()

    @property
    def _is_done(self) -> bool:
        return all(row.has_ended for row in self._rows)

    def _choose(self, logits: Logits) -> NDArray[np.int64]:
        sources = np.resize(np.arange(len(self._rows)), self._num_rows)
        logprobs = log_softmax(logits)
        self._rows = [
            row if row.has_ended else self._continued(row, logits[source], logprobs[source])
            for source, row in ((source, self._rows[source]) for source in sources)
        ]
        return sources

    def _continued(self, row: _Row, logits: Logits, logprobs: Logits) -> _Row:
        token = self._draw(logits)
        return row.followed_by(token, float(logprobs[token]), self._eot)

    def _draw(self, logits: Logits) -> int:
        if self._temperature == 0:
            return int(logits.argmax())
        # The largest after Gumbel noise is a draw by the softmax.
        return int((logits / self._temperature + self._dice.gumbel(size=logits.shape)).argmax())

    def hypotheses(self) -> tuple[Hypothesis, ...]:
        return tuple(Hypothesis(row.tokens, row.sum_logprob) for row in self._rows)


class _Beams(_Search):
    """Beam search: the likeliest rows go on, until `beam_size * patience` have ended."""

    def __init__(self, tokenizer: Tokenizer, step: Decode) -> None:
        super().__init__(tokenizer, step)
        self._beam_size = step.search.beam_size
        self._max_ended = round(self._beam_size * step.search.patience)
        self._ended: list[_Row] = []

    @property
    def _is_done(self) -> bool:
        return len(self._ended) >= self._max_ended

    def _choose(self, logits: Logits) -> NDArray[np.int64]:
        """One more token than there are beams is looked at in each: one of them may be the end."""
        candidates = [
            (source, row.followed_by(token, logprob, self._eot))
            for source, row in enumerate(self._rows)
            for token, logprob in likeliest(logits[source], self._beam_size + 1)
        ]
        candidates.sort(key=lambda candidate: candidate[1].sum_logprob, reverse=True)
        going_on: list[tuple[int, _Row]] = []
        for source, row in candidates:
            if not row.has_ended:
                going_on.append((source, row))
            elif not self._is_done:
                self._ended.append(row)
            if len(going_on) == self._beam_size:
                break
        self._rows = [row for _, row in going_on]
        return np.array([source for source, _ in going_on])

    def hypotheses(self) -> tuple[Hypothesis, ...]:
        """The beams that have ended, with the likeliest others where they are too few."""
        others = sorted(self._rows, key=lambda row: row.sum_logprob, reverse=True)
        found = [*self._ended, *others[: max(0, self._beam_size - len(self._ended))]]
        return tuple(Hypothesis(row.tokens, row.sum_logprob) for row in found)


def log_softmax(logits: Logits) -> Logits:
    """Logs of probabilities along the last axis."""
    largest = logits.max(axis=-1, keepdims=True)
    shifted: Logits = logits - largest
    shifted -= np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return shifted


def likeliest(logits: Logits, number: int) -> list[tuple[int, float]]:
    """The likeliest tokens, and the logs of their probabilities; shape (vocabulary,).

    For a few tokens, looking for the largest several times is quicker than any partition.
    """
    total = log_sum_exp(logits)
    rest = logits.copy()
    found = []
    for _ in range(number):
        token = int(rest.argmax())
        found.append((token, float(rest[token]) - total))
        rest[token] = -np.inf
    return found
