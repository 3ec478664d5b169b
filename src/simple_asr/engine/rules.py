"""Which tokens may follow those written: Whisper's rules for suppression and for timestamps.

Source: openai/whisper, decoding.py, `SuppressBlank`, `SuppressTokens`, `ApplyTimestampRules`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from simple_asr.engine.tokens import LAST_TIMESTAMP, Tokenizer
from simple_asr.engine.window import Decode

Logits = NDArray[np.float32]
"""For each token of the vocabulary, the log of its probability but for a constant."""


class Rules:
    """Those of one window. `written` are tokens after the prompt and its prefix."""

    def __init__(self, tokenizer: Tokenizer, step: Decode) -> None:
        begin = tokenizer.timestamp_begin
        self.eot = tokenizer.eot
        self.text = range(begin)
        """All that is no timestamp, the end of text included."""
        self.timestamps = range(begin, begin + LAST_TIMESTAMP + 1)
        prompt = step.prompt
        last_task_token = prompt.tokens[prompt.sot_position + prompt.num_task_tokens - 1]
        self._writes_timestamps = last_task_token != tokenizer.no_timestamps
        suppressed = list(step.search.suppress_tokens)
        if self._writes_timestamps:
            suppressed.append(tokenizer.no_timestamps)
        self._suppressed = np.array(suppressed, np.int64)
        is_blank_suppressed = step.search.suppress_blank
        self._blank = [*tokenizer.encode(" "), tokenizer.eot] if is_blank_suppressed else []
        self._last_to_begin = begin + step.search.max_initial_timestamp_index

    def is_text(self, token: int) -> bool:
        return token in self.text

    def apply(self, logits: Logits, written: Sequence[int]) -> None:
        """Makes impossible, in place, what may not follow; shape (vocabulary,)."""
        self.forbid(logits, written)
        if not self.weigh_timestamps(written):
            return
        text = logits[: self.text.stop]
        if log_sum_exp(logits[self.timestamps.start : self.timestamps.stop]) > text.max():
            text[:] = -np.inf

    def forbid(self, logits: Logits, written: Sequence[int]) -> None:
        """The same before timestamps are weighed against text."""
        logits[self._suppressed] = -np.inf
        if not written:
            logits[self._blank] = -np.inf
        if self._writes_timestamps:
            self._forbid_by_timestamps(logits, written)

    def weigh_timestamps(self, written: Sequence[int]) -> bool:
        """Whether both a timestamp and another token may follow, so that the likelier kind does."""
        return self._writes_timestamps and bool(written) and not self._ends_with_pair(written)

    def _forbid_by_timestamps(self, logits: Logits, written: Sequence[int]) -> None:
        begin = self.timestamps.start
        if not written:
            logits[:begin] = -np.inf
            logits[self._last_to_begin + 1 :] = -np.inf
        elif self._ends_with_pair(written):
            logits[begin:] = -np.inf
        elif self.is_text(written[-1]):
            # A segment lasts some time: its end is later than its start.
            stamps = [token for token in written if not self.is_text(token)]
            logits[begin : max(stamps, default=begin - 1) + 1] = -np.inf
        else:
            # A segment's end is followed by the next one's start or by the end of text.
            logits[begin : written[-1]] = -np.inf
            logits[: self.eot] = -np.inf

    def _ends_with_pair(self, written: Sequence[int]) -> bool:
        """Whether a segment has just been opened; the first timestamp is a pair by itself."""
        return not any(self.is_text(token) for token in written[-2:])


def log_sum_exp(logits: Logits) -> float:
    """The log of all their probabilities together."""
    largest = float(logits.max())
    if largest == -math.inf:
        return largest
    return largest + math.log(float(np.exp(logits - np.float32(largest)).sum()))
