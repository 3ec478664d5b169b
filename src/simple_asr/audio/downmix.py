"""Mono of many channels without loss: their mix, or one of them where they cancel each other out.

A microphone wired the wrong way round, or a "karaoke" effect, leaves two channels in antiphase:
each is clear speech, and their mix is silence. Pure arithmetic on samples; memory is one second's.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from simple_asr.audio import SAMPLE_RATE

BLOCK = SAMPLE_RATE
"""Samples that are judged together, a second: long enough that speech outweighs its noise."""

CANCELLED = 0.1
"""Share of the energy that a channel alone would leave in an even mix, below which they cancel.

For two channels that is 16 dB below the louder one: a correlation of -0.95 where both are equally
loud. Unrelated channels leave 3 dB less than one of them, and a lone channel 6 dB less.
"""

QUIET = 8.0
"""Root mean square, of 32,768, below which rounding decides what a mix holds (-72 dB)."""


class Downmix:
    """Takes samples as they come, and gives out the mix, unaltered where nothing cancels out.

    The rule, second by second, for N channels: where the strongest has energy E and the mix less
    than 0.1 × E / N², that channel stands in for the mix. Of two like channels the one that stood
    in before goes on, so that polarity does not flip in mid-word.
    """

    def __init__(self, num_channels: int, candidates: Sequence[int]) -> None:
        """`candidates` are the channels that may stand in for the mix."""
        self._num_channels = num_channels
        self._candidates = list(candidates)
        self._stand_in: int | None = None
        self._mix = bytearray()
        self._channels = bytearray()

    def add(self, mix: bytes, channels: bytes) -> Iterator[bytes]:
        """Both are int16, `channels` interleaved; neither need keep step. Yields whole seconds."""
        self._mix += mix
        self._channels += channels
        while len(self._mix) >= BLOCK * 2 and len(self._channels) >= BLOCK * 2 * self._num_channels:
            yield self._next(BLOCK)

    def flush(self) -> Iterator[bytes]:
        """The rest, which is less than a second."""
        whole = min(len(self._mix) // 2, len(self._channels) // (2 * self._num_channels))
        yield self._next(whole)
        yield bytes(self._mix)
        self._mix.clear()
        self._channels.clear()

    def _next(self, num_samples: int) -> bytes:
        mix = bytes(self._mix[: num_samples * 2])
        interleaved = bytes(self._channels[: num_samples * 2 * self._num_channels])
        del self._mix[: len(mix)], self._channels[: len(interleaved)]
        channels = np.frombuffer(interleaved, np.int16).reshape(-1, self._num_channels)
        chosen = self._chosen(np.frombuffer(mix, np.int16), channels)
        return mix if chosen is None else channels[:, chosen].tobytes()

    def _chosen(self, mix: NDArray[np.int16], channels: NDArray[np.int16]) -> int | None:
        """The channel to take for this second; None for the mix."""
        if not len(mix) or not self._candidates:
            return None
        energies = _energies(channels)
        strongest = max(self._candidates, key=energies.__getitem__)
        energy = energies[strongest]
        if energy < QUIET**2 * len(mix):
            return None
        if _energies(mix[:, None])[0] * self._num_channels**2 >= CANCELLED * energy:
            return None
        if self._stand_in is None or energies[self._stand_in] < energy / 4:
            self._stand_in = strongest
        return self._stand_in


def _energies(channels: NDArray[np.int16]) -> NDArray[np.float64]:
    """The sum of squares of each column."""
    energies: NDArray[np.float64] = np.square(channels.astype(np.float64)).sum(axis=0)
    return energies
