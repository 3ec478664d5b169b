"""Log-mel spectrograms: Whisper's own, in bounded memory."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from numpy.typing import NDArray

from simple_asr.audio import SAMPLE_RATE
from simple_asr.audio.features import HOP_LENGTH, N_FRAMES, LogMel, log10_mel, mel_filters


class Array:
    """Samples in memory; counts how many are read at once."""

    def __init__(self, samples: NDArray[np.float32]) -> None:
        self._samples = samples
        self.largest_read = 0

    @property
    def num_samples(self) -> int:
        return len(self._samples)

    def read(self, start: int, stop: int) -> NDArray[np.float32]:
        self.largest_read = max(self.largest_read, stop - start)
        inside = self._samples[start:stop]
        return np.pad(inside, (0, stop - start - len(inside)))


def tone(hertz: float, seconds: float, loudness: float = 0.5) -> NDArray[np.float32]:
    times = np.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    return (loudness * np.sin(2 * np.pi * hertz * times)).astype(np.float32)


def dither(seconds: float, steps: int) -> NDArray[np.float32]:
    """Noise of up to so many steps of 16 bits."""
    rng = np.random.default_rng(0)
    noise = rng.integers(-steps, steps + 1, int(seconds * SAMPLE_RATE)) / 32_768
    return noise.astype(np.float32)


@pytest.mark.parametrize("n_mels", [80, 128])
def test_every_mel_filter_has_the_area_slaney_gives_it(n_mels: int) -> None:
    filters = mel_filters(n_mels)

    assert filters.shape == (n_mels, 201)
    # Where a triangle spans several bins, its area in hertz is 1.
    assert filters[-1].sum() * 40 == pytest.approx(1.0, abs=0.05)
    assert (filters.sum(axis=1) > 0).all()


def test_a_tone_is_loudest_in_the_filter_of_its_pitch() -> None:
    spectrum = log10_mel(tone(1000, 0.5), n_mels=80, hop_length=160).mean(axis=1)

    loudest = int(spectrum.argmax())
    bins = np.fft.rfftfreq(400, 1 / SAMPLE_RATE)
    assert bins[mel_filters(80)[loudest].argmax()] == pytest.approx(1000, abs=40)


def test_a_window_holds_its_sound_and_then_zeros() -> None:
    log_mel = LogMel(Array(tone(440, 2)), n_mels=80)

    window = log_mel.window(50, 150)

    assert window.shape == (80, N_FRAMES)
    assert log_mel.content_frames == 200
    assert window[:, :150].any(axis=0).all()
    assert not window[:, 150:].any()


def test_the_opening_is_followed_by_the_spectrogram_of_silence() -> None:
    log_mel = LogMel(Array(tone(440, 2)), n_mels=80)

    opening = log_mel.opening()

    floor = (log_mel.peak() - 8 + 4) / 4
    assert np.allclose(opening[:, 250:], max(floor, (-10 + 4) / 4))


def test_windows_are_floored_by_the_loudest_moment_of_the_whole_recording() -> None:
    quiet, loud = tone(440, 40, loudness=1e-4), tone(440, 10, loudness=0.9)
    alone = LogMel(Array(quiet), n_mels=80)
    followed = LogMel(Array(np.concatenate([quiet, loud])), n_mels=80)

    assert followed.window(0, N_FRAMES).min() > alone.window(0, N_FRAMES).min()
    assert followed.window(0, N_FRAMES).min() == pytest.approx((followed.peak() - 8 + 4) / 4)


def test_a_recording_is_never_read_whole() -> None:
    samples = Array(np.zeros(SAMPLE_RATE * 600, np.float32))

    LogMel(samples, n_mels=80).peak()

    assert samples.largest_read < SAMPLE_RATE * 31


def test_a_spectrogram_takes_little_more_memory_than_its_power() -> None:
    waveform = np.zeros(30 * SAMPLE_RATE, np.float32)
    log10_mel(waveform, 80, HOP_LENGTH)  # so that what is kept for all is there

    tracemalloc.start()
    log10_mel(waveform, 80, HOP_LENGTH)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    # 201 powers of each of 3000 frames are 2.4 MB; the frames and spectra of all would be 24.
    assert peak_bytes < 10e6


def test_a_longer_hop_fits_more_audio_into_a_window_at_the_same_pitch() -> None:
    log_mel = LogMel(Array(np.concatenate([tone(440, 36), tone(3000, 1.5)])), n_mels=80)

    fast = log_mel.window(0, N_FRAMES, hop_length=200)

    assert fast[:, 1000].argmax() == log_mel.window(0, N_FRAMES)[:, 1000].argmax()
    assert fast[:, -50].argmax() > fast[:, 1000].argmax()


@pytest.mark.parametrize("num_samples", [0, 1, 159, 160, 399])
def test_the_shortest_recordings_have_windows_too(num_samples: int) -> None:
    log_mel = LogMel(Array(np.full(num_samples, 0.1, np.float32)), n_mels=80)

    assert np.isfinite(log_mel.opening()).all()
    assert log_mel.content_frames == num_samples // 160


@pytest.mark.parametrize(
    ("samples", "expected"),
    [
        (np.zeros(5 * SAMPLE_RATE, np.float32), True),
        (dither(5, steps=1), True),
        (dither(5, steps=8), False),
        (tone(440, 5, loudness=0.001), False),
    ],
    ids=["zeros", "dither", "hiss at -72 dB", "a tone at -60 dB"],
)
def test_silence_is_what_holds_nothing_but_dither(
    samples: NDArray[np.float32], expected: bool
) -> None:
    assert LogMel(Array(samples), 80).is_silent(0, 500) is expected


def test_beside_loud_sound_silence_is_what_whispers_floor_hides() -> None:
    hiss, loud = dither(5, steps=8), tone(440, 5)

    assert not LogMel(Array(hiss), 80).is_silent(0, 400)
    assert LogMel(Array(np.concatenate([hiss, loud * 1.9])), 80).is_silent(0, 400)


def test_a_stretch_is_silent_only_if_all_of_it_is() -> None:
    log_mel = LogMel(
        Array(np.concatenate([np.zeros(SAMPLE_RATE * 40, np.float32), tone(99, 1)])), 80
    )

    assert log_mel.is_silent(0, 3000)
    assert not log_mel.is_silent(3000, 1100)
