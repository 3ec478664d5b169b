"""What the engine asks of a model, whatever library runs it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from simple_asr.engine.tokens import Tokenizer
from simple_asr.engine.window import Align, Aligned, Decode, Decoded, Detected, Encoded


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """What is loaded. `device` is `cpu` or `cuda`; `compute_type` the number format in use.

    `encode_batch_size` windows are best encoded in one call: one on a CPU, where sharing gains
    nothing and takes twice the memory, and several on a GPU. `batch_size` windows are best decoded
    in one call.
    """

    name: str
    is_multilingual: bool
    n_mels: int
    device: str
    compute_type: str
    encode_batch_size: int = 1
    batch_size: int = 8


class Backend(Protocol):
    """One replica of a model. Only its worker thread calls it.

    In a batch, row i of the answer belongs to row i of the question. A method raises what its
    library raises; the engine turns that into EngineFailed for the batch and goes on.
    """

    @property
    def info(self) -> ModelInfo: ...

    @property
    def tokenizer(self) -> Tokenizer: ...

    def encode(self, log_mels: Sequence[NDArray[np.float32]]) -> list[Encoded]:
        """Hear windows of one shape, (n_mels, context): 3000 frames, or fewer and even."""
        ...

    def detect_language(self, encoded: Sequence[Encoded]) -> list[Detected]: ...

    def decode(
        self, encoded: Sequence[Encoded], steps: Sequence[Decode]
    ) -> Iterator[dict[int, Decoded]]:
        """All steps have equal batch keys. Gives the answers by their row, each as it is there.

        Where it can, it stops after each token, with no answer perhaps: its worker may then ask
        something else, and go on later or not at all.
        """
        ...

    def align(
        self, encoded: Sequence[Encoded], steps: Sequence[Align], num_frames: Sequence[int]
    ) -> list[Aligned]:
        """All steps have equal batch keys; `num_frames` are spectrogram frames that hold sound."""
        ...

    def close(self) -> None:
        """Give the memory back."""
        ...
