"""What is heard of several channels: their mix, bit for bit, unless it is silence."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from simple_asr.audio.downmix import BLOCK, Downmix

SECONDS = 3


def noise(seed: int, loudness: float = 3000) -> NDArray[np.float64]:
    """Three seconds of it, as loud as speech."""
    return np.random.default_rng(seed).normal(0, loudness, SECONDS * BLOCK)


def downmixed(
    channels: Sequence[NDArray[np.float64]], candidates: Sequence[int] = (0, 1)
) -> tuple[NDArray[np.int16], NDArray[np.int16], NDArray[np.int16]]:
    """What comes out, the even mix, and the channels as columns."""
    columns = np.stack(channels, axis=1).round().astype(np.int16)
    mix = np.mean(columns, axis=1).round().astype(np.int16)
    downmix = Downmix(columns.shape[1], candidates)
    pieces = [*downmix.add(mix.tobytes(), columns.tobytes()), *downmix.flush()]
    return np.frombuffer(b"".join(pieces), np.int16), mix, columns


@pytest.mark.parametrize(
    "channels",
    [
        (noise(1), noise(1)),
        (noise(1), noise(2)),
        (noise(1), 0 * noise(1)),
        (noise(1), -0.5 * noise(1)),
        (noise(1), noise(1) + noise(2, 300)),
    ],
    ids=["equal", "unrelated", "one silent", "partly in antiphase", "nearly equal"],
)
def test_what_does_not_cancel_is_the_mix_bit_for_bit(
    channels: tuple[NDArray[np.float64], ...],
) -> None:
    heard, mix, _ = downmixed(channels)

    assert np.array_equal(heard, mix)


@pytest.mark.parametrize("share", [0.95, 0.9, 0.8])
def test_antiphase_is_heard_by_the_louder_channel(share: float) -> None:
    heard, _, columns = downmixed([noise(1) * share, -noise(1)])

    assert np.array_equal(heard, columns[:, 1])


def test_only_the_seconds_that_cancel_are_taken_from_a_channel() -> None:
    left, right = noise(1), noise(1)
    right[BLOCK : 2 * BLOCK] *= -1

    heard, mix, columns = downmixed([left, right])

    expected = mix.copy()
    expected[BLOCK : 2 * BLOCK] = columns[BLOCK : 2 * BLOCK, 0]
    assert np.array_equal(heard, expected)


def test_polarity_does_not_flip_where_the_other_channel_becomes_a_little_louder() -> None:
    louder_later = np.repeat([0.9, 1.1, 1.1], BLOCK)

    heard, _, columns = downmixed([noise(1), -noise(1) * louder_later])

    assert np.array_equal(heard, columns[:, 0])


def test_a_channel_that_falls_silent_hands_over_to_the_strongest() -> None:
    once_then_never = np.repeat([1.0, 0.0, 0.0], BLOCK)
    left, right = noise(1) * once_then_never, -noise(1)
    third = noise(1) * np.repeat([0.0, 0.9, 0.9], BLOCK)

    heard, _, columns = downmixed([left, right * 0.95, third], candidates=(0, 1, 2))

    assert np.array_equal(heard[:BLOCK], columns[:BLOCK, 0])
    assert np.array_equal(heard[BLOCK:], columns[BLOCK:, 1])


def test_a_channel_that_is_no_candidate_never_stands_in() -> None:
    heard, mix, _ = downmixed([noise(1), -noise(1)], candidates=())

    assert np.array_equal(heard, mix)


def test_rounding_of_near_silence_is_no_cancellation() -> None:
    heard, mix, _ = downmixed([noise(1, 1.0), -noise(1, 1.0)])

    assert np.array_equal(heard, mix)


def test_samples_may_come_in_pieces_and_out_of_step() -> None:
    columns = np.stack([noise(1), -noise(1)], axis=1).round().astype(np.int16)
    mix = bytes(2 * len(columns))
    downmix = Downmix(2, (0, 1))

    pieces = list(downmix.add(mix, b""))
    for first in range(0, len(columns), 777):
        pieces += downmix.add(b"", columns[first : first + 777].tobytes())
    pieces += downmix.flush()

    assert b"".join(pieces) == columns[:, 0].tobytes()
