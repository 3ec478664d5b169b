"""Log-mel spectrograms, window by window, in bounded memory. What a window is, others decide."""

from __future__ import annotations

from functools import lru_cache
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from simple_asr.audio import SAMPLE_RATE

N_FFT = 400
HOP_LENGTH = 160
FRAMES_PER_SECOND = SAMPLE_RATE // HOP_LENGTH
N_FRAMES = 3000
"""Frames of one window: 30 s at the hop Whisper was trained with."""

_FRAMES_AT_ONCE = 500
_QUIETEST = -10.0  # log10 of the smallest power kept, 1e-10
_DYNAMIC_RANGE = 8.0  # everything this far below the loudest is as good as silent
_DITHER = -7.5  # log10 of the largest power that samples of -1, 0 and 1 of 32,768 come to


class Samples(Protocol):
    """Mono speech at 16 kHz that can be read in pieces (`audio.recording.Recording`)."""

    @property
    def num_samples(self) -> int: ...

    def read(self, start: int, stop: int) -> NDArray[np.float32]:
        """Samples in -1 to 1; zeros outside the recording."""
        ...


class LogMel:
    """Log-mel windows of one recording, normalised by the loudest frame of all of it.

    Whisper computes one spectrogram of the whole file and floors it at 8 (log10) below its peak;
    every window must know that peak. It is found in one pass that keeps nothing, and windows are
    computed again when they are needed: 1 s of work per hour of audio instead of 2.5 GiB.
    """

    def __init__(self, samples: Samples, n_mels: int) -> None:
        self._samples = samples
        self._n_mels = n_mels
        self._peak: float | None = None
        self._loudest_of_second = np.zeros(0, np.float32)
        # A clip of one window is computed for its peak and used for its only window.
        self._last_block: tuple[tuple[int, int, int], NDArray[np.float32]] | None = None

    @property
    def content_frames(self) -> int:
        """Whole frames of 10 ms in the recording."""
        return self._samples.num_samples // HOP_LENGTH

    def peak(self) -> float:
        """The largest log10 mel power in the recording. Reads all of it, the first time."""
        if self._peak is None:
            # The last frame with any sample of the recording in it is centred up to N_FFT / 2 past
            # its end.
            last_frame = (self._samples.num_samples + N_FFT // 2) // HOP_LENGTH + 1
            self._loudest_of_second = np.concatenate(
                [
                    self._block(start * HOP_LENGTH, N_FRAMES, HOP_LENGTH)
                    .reshape(self._n_mels, -1, FRAMES_PER_SECOND)
                    .max(axis=(0, 2))
                    for start in range(0, last_frame, N_FRAMES)
                ]
            )
            self._peak = float(self._loudest_of_second.max())
        return self._peak

    def is_silent(self, start_frame: int, num_frames: int) -> bool:
        """Whether nothing can be heard from `start_frame` on: it is all below the floor, or dither.

        The floor is Whisper's own: below it a window looks the same whatever is in it.
        """
        floor = max(self.peak() - _DYNAMIC_RANGE, _DITHER)
        first = start_frame // FRAMES_PER_SECOND
        last = -(-(start_frame + num_frames) // FRAMES_PER_SECOND)
        return bool(self._loudest_of_second[first:last].max(initial=-np.inf) <= floor)

    def window(
        self,
        start_frame: int,
        num_frames: int,
        context: int = N_FRAMES,
        *,
        hop_length: int = HOP_LENGTH,
    ) -> NDArray[np.float32]:
        """One window, shape (n_mels, context), as openai-whisper feeds it to the encoder.

        It begins at `start_frame` (10 ms each) and holds `num_frames` frames of `hop_length`
        samples; the rest is zeros, which is what Whisper pads with. A hop above 160 plays the
        audio faster without touching its pitch.

        Follows openai/whisper, transcribe(): `pad_or_trim(mel[:, seek : seek + segment_size])`.
        """
        log_spec = self._block(start_frame * HOP_LENGTH, N_FRAMES, hop_length)
        window = self._normalised(log_spec[:, :context])
        window[:, num_frames:] = 0.0
        return window

    def opening(self) -> NDArray[np.float32]:
        """The first 30 s, shape (n_mels, 3000), as openai-whisper detects the language from it.

        Unlike `window`, a short recording is followed by the spectrogram of silence.
        """
        return self._normalised(self._block(0, N_FRAMES, HOP_LENGTH))

    def _normalised(self, log_spec: NDArray[np.float32]) -> NDArray[np.float32]:
        floor = np.float32(self.peak() - _DYNAMIC_RANGE)
        normalised: NDArray[np.float32] = (np.maximum(log_spec, floor) + np.float32(4.0)) / (
            np.float32(4.0)
        )
        return normalised

    def _block(self, start: int, num_frames: int, hop_length: int) -> NDArray[np.float32]:
        """Frames from sample `start` on, not normalised, shape (n_mels, num_frames)."""
        key = (start, num_frames, hop_length)
        # A local name: another thread may be after another block of the same recording.
        block = self._last_block
        if block is None or block[0] != key:
            padded = self._read_reflected(
                start - N_FFT // 2, start + (num_frames - 1) * hop_length + N_FFT // 2
            )
            self._last_block = block = (key, log10_mel(padded, self._n_mels, hop_length))
        return block[1]

    def _read_reflected(self, start: int, stop: int) -> NDArray[np.float32]:
        """Samples with the beginning mirrored, as `torch.stft(center=True)` pads it."""
        if start >= 0:
            return self._samples.read(start, stop)
        mirrored = self._samples.read(1, 1 - start)[::-1]
        return np.concatenate([mirrored, self._samples.read(0, stop)])


def log10_mel(waveform: NDArray[np.float32], n_mels: int, hop_length: int) -> NDArray[np.float32]:
    """Unnormalised log10 mel power, shape (n_mels, frames), of every whole frame of `waveform`.

    Follows openai/whisper, audio.py, `log_mel_spectrogram`: 25 ms periodic Hann window, power
    spectrum, Slaney mel filters.
    """
    frames = np.lib.stride_tricks.sliding_window_view(waveform, N_FFT)[::hop_length]
    power = np.empty((len(frames), N_FFT // 2 + 1), np.float32)
    # A few seconds at a time: frames and spectra of 30 s take 24 MB, which malloc would keep.
    for start in range(0, len(frames), _FRAMES_AT_ONCE):
        part = slice(start, start + _FRAMES_AT_ONCE)
        spectrum = np.fft.rfft(frames[part] * _hann_window(), axis=-1)
        power[part] = np.square(spectrum.real) + np.square(spectrum.imag)
    mel: NDArray[np.float32] = mel_filters(n_mels) @ power.T
    log_mel: NDArray[np.float32] = np.log10(np.maximum(mel, np.float32(10.0**_QUIETEST)))
    return log_mel


@lru_cache(maxsize=1)
def _hann_window() -> NDArray[np.float32]:
    return np.hanning(N_FFT + 1)[:-1].astype(np.float32)


@lru_cache(maxsize=4)
def mel_filters(n_mels: int) -> NDArray[np.float32]:
    """Mel filter bank, shape (n_mels, 201): triangles of equal area on Slaney's mel scale.

    The scale is linear below 1 kHz (200/3 Hz per mel) and logarithmic above (27 mels per factor of
    6.4). Source: Slaney, Auditory Toolbox (1998); the same figures as openai/whisper's
    mel_filters.npz, to 1e-7.
    """
    bins = np.fft.rfftfreq(N_FFT, 1.0 / SAMPLE_RATE)
    corners = _hertz(np.linspace(_mel(0.0), _mel(SAMPLE_RATE / 2), n_mels + 2))
    widths = np.diff(corners)
    slopes = corners[:, None] - bins[None, :]
    rising = -slopes[:-2] / widths[:-1, None]
    falling = slopes[2:] / widths[1:, None]
    triangles = np.maximum(0.0, np.minimum(rising, falling))
    areas = 2.0 / (corners[2:] - corners[:-2])
    return (triangles * areas[:, None]).astype(np.float32)


_HERTZ_PER_MEL = 200.0 / 3
_LOG_START = 1000.0
_LOG_START_MEL = _LOG_START / _HERTZ_PER_MEL
_LOG_STEP = np.log(6.4) / 27.0


def _mel(hertz: float) -> float:
    if hertz < _LOG_START:
        return hertz / _HERTZ_PER_MEL
    return float(_LOG_START_MEL + np.log(hertz / _LOG_START) / _LOG_STEP)


def _hertz(mel: NDArray[np.float64]) -> NDArray[np.float64]:
    linear = mel * _HERTZ_PER_MEL
    logarithmic = _LOG_START * np.exp(_LOG_STEP * (mel - _LOG_START_MEL))
    return np.where(mel < _LOG_START_MEL, linear, logarithmic)
