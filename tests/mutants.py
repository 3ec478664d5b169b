"""Valid files of many kinds, made by libav, and what becomes of them in a hostile world."""

from __future__ import annotations

import io
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import av
import numpy as np

RATE = 16_000


@dataclass(frozen=True)
class Kind:
    """A container, and a codec PyAV's builds can encode."""

    container: str
    codec: str
    rate: int = RATE
    layout: str = "mono"


KINDS = (
    Kind("wav", "pcm_s16le"),
    Kind("wav", "pcm_u8"),
    Kind("wav", "pcm_s24le", layout="stereo"),
    Kind("wav", "pcm_f32le"),
    Kind("wav", "pcm_alaw"),
    Kind("wav", "adpcm_ima_wav"),
    Kind("w64", "pcm_s16le"),
    Kind("aiff", "pcm_s16be"),
    Kind("au", "pcm_s16be"),
    Kind("caf", "pcm_s16be"),
    Kind("voc", "pcm_u8"),
    Kind("flac", "flac", layout="stereo"),
    Kind("mp3", "libmp3lame"),
    Kind("mp2", "mp2"),
    Kind("ogg", "libopus", 48_000),
    Kind("webm", "libopus", 48_000),
    Kind("matroska", "aac"),
    Kind("mp4", "aac"),
    Kind("mov", "alac"),
    Kind("avi", "libmp3lame"),
    Kind("adts", "aac"),
    Kind("mpegts", "aac"),
    Kind("flv", "aac", 44_100),
    Kind("ac3", "ac3", 48_000, "5.1"),
    Kind("amr", "libopencore_amrnb", 8_000),
    Kind("tta", "tta"),
)


def valid_file(kind: Kind, seconds: float = 1.0) -> bytes:
    """A tone that rises, `seconds` long."""
    content = io.BytesIO()
    with av.open(content, "w", format=kind.container) as container:
        stream = container.add_stream(kind.codec, rate=kind.rate, layout=kind.layout)
        container.mux(stream.encode(_tone(kind, seconds)))
        container.mux(stream.encode(None))
    return content.getvalue()


def _tone(kind: Kind, seconds: float) -> av.AudioFrame:
    times = np.arange(int(seconds * kind.rate)) / kind.rate
    samples = 8000 * np.sin(2 * np.pi * (200 + 400 * times) * times)
    frame = av.AudioFrame.from_ndarray(
        samples.astype(np.int16)[np.newaxis], format="s16", layout="mono"
    )
    frame.sample_rate = kind.rate
    return frame


# What may befall a file: bytes in, bytes out -----------------------------------------------------

Mutation = Callable[[bytearray, random.Random], None]


def _flip_bits(data: bytearray, chance: random.Random) -> None:
    for _ in range(chance.randint(1, 40)):
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)


def _replace_bytes(data: bytearray, chance: random.Random) -> None:
    for _ in range(chance.randint(1, 40)):
        data[chance.randrange(len(data))] = chance.randrange(256)


def _spoil_header(data: bytearray, chance: random.Random) -> None:
    for _ in range(chance.randint(1, 8)):
        data[chance.randrange(min(200, len(data)))] = chance.choice((0, 1, 0x7F, 0x80, 0xFF))


def _lie_about_a_length(data: bytearray, chance: random.Random) -> None:
    lie = chance.choice((0, 1, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFF, chance.getrandbits(32)))
    start = chance.randrange(min(400, len(data)))
    data[start : start + 4] = lie.to_bytes(4, chance.choice(("little", "big")))


def _truncate(data: bytearray, chance: random.Random) -> None:
    del data[chance.randrange(len(data)) :]


def _drop(data: bytearray, chance: random.Random) -> None:
    start, stop = _stretch(data, chance)
    del data[start:stop]


def _repeat(data: bytearray, chance: random.Random) -> None:
    start, stop = _stretch(data, chance)
    data[start:start] = data[start:stop]


def _swap_halves(data: bytearray, chance: random.Random) -> None:
    start, stop = _stretch(data, chance)
    middle = (start + stop) // 2
    data[start:stop] = data[middle:stop] + data[start:middle]


def _insert_noise(data: bytearray, chance: random.Random) -> None:
    start = chance.randrange(len(data))
    data[start:start] = chance.randbytes(chance.randint(1, 2000))


def _blank(data: bytearray, chance: random.Random) -> None:
    start, stop = _stretch(data, chance)
    data[start:stop] = bytes([chance.choice((0, 0xFF))]) * (stop - start)


def _stretch(data: bytearray, chance: random.Random) -> tuple[int, int]:
    start = chance.randrange(len(data))
    return start, min(len(data), start + chance.randint(1, 2000))


MUTATIONS: tuple[Mutation, ...] = (
    _flip_bits,
    _replace_bytes,
    _spoil_header,
    _lie_about_a_length,
    _truncate,
    _drop,
    _repeat,
    _swap_halves,
    _insert_noise,
    _blank,
)


def mutant(files: Sequence[bytes], seed: str) -> bytes:
    """One of `files` after one to three mishaps; the same for the same seed."""
    chance = random.Random(seed)  # noqa: S311  (to be repeated, not to be secret)
    data = bytearray(chance.choice(files))
    for _ in range(chance.randint(1, 3)):
        if data:
            chance.choice(MUTATIONS)(data, chance)
    return bytes(data)
