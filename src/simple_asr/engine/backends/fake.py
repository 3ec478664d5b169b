"""A model that writes what it is told, for tests of scheduling and of doors. It hears nothing.

It refuses what the real backend refuses: batches whose rows cannot share a call.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from simple_asr.audio.features import N_FRAMES
from simple_asr.engine.backends.base import ModelInfo
from simple_asr.engine.tokens import Tokenizer
from simple_asr.engine.window import (
    Align,
    Aligned,
    Decode,
    Decoded,
    Detected,
    Encoded,
    Hypothesis,
    Step,
    shared_by_batch,
)

Script = Callable[[Decode], Decoded]
"""What the model writes for a step."""


class FakeBackend:
    """Answers at once, or, while `gate` is cleared, when the test sets it.

    `batches` lists the steps of every call, in order, for tests to look at, `encoded_together` the
    windows of every call of the encoder; `is_working` is set once there is a batch.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        script: Script | None = None,
        *,
        is_multilingual: bool = True,
        encode_batch_size: int = 1,
        name: str = "fake",
    ) -> None:
        self.encoded_together: list[int] = []
        self.batches: list[list[Step]] = []
        self.gate = threading.Event()
        self.gate.set()
        self.is_working = threading.Event()
        self.is_closed = False
        self._tokenizer = tokenizer
        self._script = script or self.say_hello
        self._info = ModelInfo(name, is_multilingual, 80, "cpu", "float32", encode_batch_size)

    @property
    def info(self) -> ModelInfo:
        return self._info

    @property
    def tokenizer(self) -> Tokenizer:
        return self._tokenizer

    def encode(self, log_mels: Sequence[NDArray[np.float32]]) -> list[Encoded]:
        shape = np.stack(log_mels).shape
        if len(log_mels) > self.info.encode_batch_size:
            raise ValueError(f"{len(log_mels)} windows at once")
        if shape[1] != 80 or not 0 < shape[2] <= N_FRAMES or shape[2] % 2:
            raise ValueError(f"expected windows of shape (80, context), got {shape}")
        self.encoded_together.append(len(log_mels))
        return [float(log_mel.mean()) for log_mel in log_mels]

    def detect_language(self, encoded: Sequence[Encoded]) -> list[Detected]:
        return [Detected({"en": 0.9, "ru": 0.1}) for _ in encoded]

    def decode(
        self, encoded: Sequence[Encoded], steps: Sequence[Decode]
    ) -> Iterator[dict[int, Decoded]]:
        self._record(encoded, steps)
        yield {row: self._script(step) for row, step in enumerate(steps)}

    def align(
        self, encoded: Sequence[Encoded], steps: Sequence[Align], num_frames: Sequence[int]
    ) -> list[Aligned]:
        """Every token lasts 200 ms."""
        if len(num_frames) != len(steps):
            raise ValueError("every row needs its number of frames")
        self._record(encoded, steps)
        return [
            Aligned(
                np.arange(len(step.text_tokens) + 1),
                np.arange(len(step.text_tokens) + 1) * 10,
                np.full(len(step.text_tokens), 0.9, dtype=np.float32),
            )
            for step in steps
        ]

    def close(self) -> None:
        self.is_closed = True

    def _record(self, encoded: Sequence[Encoded], steps: Sequence[Step]) -> None:
        if len({shared_by_batch(step) for step in steps}) != 1 or len(encoded) != len(steps):
            raise ValueError("the rows of a batch must have equal keys")
        self.batches.append(list(steps))
        self.is_working.set()
        self.gate.wait()

    def say_hello(self, _: Decode) -> Decoded:
        """One segment from 0 to 2 s, and nothing after it."""
        begin = self._tokenizer.timestamp_begin
        tokens = (begin, *self._tokenizer.encode(" Hello."), begin + 100)
        return Decoded((Hypothesis(tokens, sum_logprob=-1.0),), no_speech_prob=0.01)
