"""Decoded speech on disk: what every later step reads, a stretch at a time."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO

import numpy as np
from numpy.typing import NDArray

from simple_asr.audio import SAMPLE_RATE
from simple_asr.audio.decoder_protocol import BYTES_PER_SAMPLE

__all__ = ["SAMPLE_RATE", "Recording"]

_FULL_SCALE = 32_768.0
"""Value of int16 that stands for 1.0, as in openai/whisper, audio.py."""


class Recording:
    """16 kHz int16 samples in a file without a name: mono, or channels interleaved.

    On disk, memory does not grow with the length; without a name, nothing is left behind, however
    the process ends. Read it from any thread; whoever holds it closes it.
    """

    def __init__(
        self,
        file: IO[bytes],
        warnings: Sequence[str] = (),
        num_channels: int = 1,
        max_samples: int | None = None,
    ) -> None:
        """Takes over `file`, and knows the first `max_samples` of what is in it now.

        `warnings` are sentences for the caller about the media.
        """
        self._file = file
        self._num_channels = num_channels
        # Measured here: what the decoder process says of its own work proves nothing.
        counted = os.fstat(file.fileno()).st_size // (BYTES_PER_SAMPLE * num_channels)
        self._num_samples = counted if max_samples is None else min(counted, max_samples)
        self._warnings = tuple(warnings)

    @classmethod
    def from_samples(
        cls, samples: NDArray[np.int16] | NDArray[np.float32], spool: Path | None = None
    ) -> Recording:
        """A recording of `samples`, shape (n,): int16, or float32 in [-1, 1), clipped to it."""
        if samples.dtype != np.int16:
            scaled = np.round(samples * _FULL_SCALE)
            samples = np.clip(scaled, -_FULL_SCALE, _FULL_SCALE - 1).astype(np.int16)
        file = tempfile.TemporaryFile(dir=spool)  # noqa: SIM115  (the recording closes it)
        file.write(samples.tobytes())
        file.flush()
        return cls(file)

    @property
    def warnings(self) -> tuple[str, ...]:
        """Sentences for the caller, such as that parts of a damaged file are missing."""
        return self._warnings

    @property
    def num_samples(self) -> int:
        """Its length in samples; 0 is possible."""
        return self._num_samples

    @property
    def duration(self) -> float:
        """Its length in seconds, counted, never read from a header."""
        return self._num_samples / SAMPLE_RATE

    @property
    def channels(self) -> tuple[Channel, ...]:
        """Each channel as samples of its own, for as long as the recording is open."""
        return tuple(Channel(self, index) for index in range(self._num_channels))

    def read(self, start: int, stop: int, channel: int = 0) -> NDArray[np.float32]:
        """Samples `start` to `stop` in [-1, 1), shape (stop - start,); zeros outside the audio."""
        waveform = np.zeros(max(0, stop - start), dtype=np.float32)
        first = max(0, start)
        last = min(stop, self._num_samples)
        if first < last:
            waveform[first - start : last - start] = self._samples(first, last, channel)
            waveform /= _FULL_SCALE
        return waveform

    def close(self) -> None:
        """Gives the disk space back. Closing twice is harmless."""
        self._file.close()

    def __enter__(self) -> Recording:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _samples(self, first: int, last: int, channel: int) -> NDArray[np.int16]:
        """Samples of a channel from the file, int16; all of them exist."""
        # A read at a position, not a memory map: it needs no lock between threads, and were a
        # hijacked decoder to cut the file short, a map would end this process by SIGBUS.
        sample_bytes = BYTES_PER_SAMPLE * self._num_channels
        wanted = (last - first) * sample_bytes
        data = os.pread(self._file.fileno(), wanted, first * sample_bytes)
        if len(data) < wanted:
            raise OSError("The file of decoded samples was cut short while in use.")
        return np.frombuffer(data, dtype=np.int16).reshape(-1, self._num_channels)[:, channel]


@dataclass(frozen=True, slots=True)
class Channel:
    """One channel of a recording, read as a mono recording is."""

    recording: Recording
    index: int

    @property
    def num_samples(self) -> int:
        """Its length in samples."""
        return self.recording.num_samples

    def read(self, start: int, stop: int) -> NDArray[np.float32]:
        """As `Recording.read`."""
        return self.recording.read(start, stop, self.index)
