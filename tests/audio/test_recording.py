"""Samples on disk come back as they went in, whatever stretch is asked for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from simple_asr.audio import SAMPLE_RATE
from simple_asr.audio.recording import Recording


@pytest.fixture
def recording(tmp_path: Path) -> Iterator[Recording]:
    """Five samples: silence, a half, almost one, minus one, the smallest step."""
    samples = np.array([0, 16_384, 32_767, -32_768, 1], dtype=np.int16)
    with Recording.from_samples(samples, tmp_path) as recording:
        yield recording


def test_samples_are_int16_over_32768_as_in_openai_whisper(recording: Recording) -> None:
    waveform = recording.read(0, 5)

    assert waveform.dtype == np.float32
    assert waveform.tolist() == [0.0, 0.5, 32_767 / 32_768, -1.0, 1 / 32_768]


@pytest.mark.parametrize(
    ("start", "stop", "expected"),
    [
        (1, 3, [0.5, 32_767 / 32_768]),
        (-2, 2, [0.0, 0.0, 0.0, 0.5]),
        (3, 7, [-1.0, 1 / 32_768, 0.0, 0.0]),
        (-1, 6, [0.0, 0.0, 0.5, 32_767 / 32_768, -1.0, 1 / 32_768, 0.0]),
        (9, 12, [0.0, 0.0, 0.0]),
        (-4, -2, [0.0, 0.0]),
        (2, 2, []),
        (4, 1, []),
    ],
)
def test_outside_the_audio_there_is_silence(
    recording: Recording, start: int, stop: int, expected: list[float]
) -> None:
    assert recording.read(start, stop).tolist() == expected


def test_length_is_counted_in_samples() -> None:
    with Recording.from_samples(np.zeros(SAMPLE_RATE * 3 // 2, dtype=np.int16)) as recording:
        assert recording.num_samples == 24_000
        assert recording.duration == 1.5


def test_no_sound_at_all_is_a_recording_too() -> None:
    with Recording.from_samples(np.zeros(0, dtype=np.int16)) as recording:
        assert recording.num_samples == 0
        assert recording.duration == 0.0
        assert recording.read(0, 2).tolist() == [0.0, 0.0]


def test_float_samples_are_rounded_and_clipped_to_int16() -> None:
    samples = np.array([0.5, 1.0, 7.0, -1.0, -7.0, 1.4 / 32_768, 1.6 / 32_768], dtype=np.float32)

    with Recording.from_samples(samples) as recording:
        scaled = recording.read(0, 7) * 32_768
        assert scaled.tolist() == [16_384, 32_767, 32_767, -32_768, -32_768, 1, 2]


def test_its_file_has_no_name(tmp_path: Path) -> None:
    with Recording.from_samples(np.zeros(1000, dtype=np.int16), tmp_path):
        assert list(tmp_path.iterdir()) == []


def test_a_closed_recording_is_not_read(recording: Recording) -> None:
    recording.close()
    recording.close()

    with pytest.raises(ValueError, match="closed"):
        recording.read(0, 1)


def test_a_file_cut_short_under_it_is_an_error_not_silence(tmp_path: Path) -> None:
    path = tmp_path / "samples"
    path.write_bytes(bytes(2000))
    with path.open("rb") as file:
        recording = Recording(file)
        path.write_bytes(bytes(1000))

        with pytest.raises(OSError, match="cut short"):
            recording.read(0, 1000)


def test_channels_are_read_one_by_one(tmp_path: Path) -> None:
    left, right = np.arange(100, dtype=np.int16), -np.arange(100, dtype=np.int16)
    path = tmp_path / "samples"
    path.write_bytes(np.stack([left, right], axis=1).tobytes())

    with path.open("rb") as file, Recording(file, num_channels=2) as recording:
        first, second = recording.channels

        assert (first.num_samples, recording.duration) == (100, 100 / 16_000)
        assert np.array_equal(first.read(0, 100) * 32_768, left)
        assert np.array_equal(second.read(-5, 50)[5:] * 32_768, right[:50])
