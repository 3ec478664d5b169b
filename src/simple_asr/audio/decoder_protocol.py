"""What the server and its decoder processes say to each other: one JSON line per message.

Known to both sides, so neither PyAV nor numpy is imported here. The server asks with a
DecodeRequest and two file descriptors: the media to read, and the file to write samples to (16 kHz,
int16, native byte order; channels interleaved). The process answers Ready once at its start, then
for each request any number of Progress and one Done or Failed.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Literal

from simple_asr.audio import SAMPLE_RATE

BYTES_PER_SAMPLE = 2

MAX_LINE_BYTES = 16_384

# Between the slowest telephone codec and the fastest converter, with room.
MIN_RATE, MAX_RATE = 2_000, 768_000
MAX_CHANNELS = 64

MAX_SPLIT_CHANNELS = 8
"""More than a surround recording has; each is as much work as a recording of its own."""

SampleFormat = Literal[
    "s16le",
    "s16be",
    "s8",
    "u8",
    "s24le",
    "s24be",
    "s32le",
    "s32be",
    "f32le",
    "f32be",
    "f64le",
    "f64be",
    "mulaw",
    "alaw",
]
"""Of raw samples, by FFmpeg's names."""


@dataclass(frozen=True, slots=True)
class PcmFormat:
    """What raw samples are, which nothing in them says. `rate` is in hertz."""

    sample_format: SampleFormat
    rate: int
    num_channels: int


@dataclass(frozen=True, slots=True)
class DecodeRequest:
    """What is wanted of one file: its mix, or every channel; `pcm` where it is raw samples."""

    splits_channels: bool = False
    pcm: PcmFormat | None = None

    def to_line(self) -> bytes:
        """On the wire."""
        return json.dumps(asdict(self)).encode() + b"\n"

    @classmethod
    def from_line(cls, line: bytes) -> DecodeRequest:
        """The reverse of `to_line`."""
        fields = json.loads(line)
        pcm = fields.pop("pcm")
        return cls(**fields, pcm=None if pcm is None else PcmFormat(**pcm))


MIX = DecodeRequest()
"""A file as it mostly comes and is wanted."""


@dataclass(frozen=True, slots=True)
class DecodeLimits:
    """How much one file may cost.

    `max_seconds` of audio, counted in samples that came out, of all channels together where they
    are split, never read from a header. `timeout` is
    seconds of wall clock. `max_raw_bytes` is decoded audio before it becomes 16 kHz mono: its
    default lets four hours of 7.1 sound pass (48 kHz, float: 22 GB) and bounds the work of a forged
    rate. `memory_bytes` of address space is a backstop; ordinary files need under 200 MB of it.
    """

    max_seconds: float = 14_400
    timeout: float = 300
    max_raw_bytes: int = 32 * 1024**3
    memory_bytes: int = 1024**3

    @property
    def max_samples(self) -> int:
        """`max_seconds` in samples of the output."""
        return int(self.max_seconds * SAMPLE_RATE)

    def to_json(self) -> str:
        """For the process's command line."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> DecodeLimits:
        """The reverse of `to_json`."""
        return cls(**json.loads(text))


@dataclass(frozen=True, slots=True)
class Ready:
    """The process has started; `unhardened` names protections this system did not grant."""

    unhardened: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Progress:
    """So many samples are written so far."""

    num_samples: int


@dataclass(frozen=True, slots=True)
class Done:
    """The file is decoded, to so many channels; `warnings` are sentences for the caller."""

    warnings: tuple[str, ...]
    num_channels: int = 1


@dataclass(frozen=True, slots=True)
class Failed:
    """The file cannot be decoded: `code` and `detail` of the error to raise."""

    code: str
    detail: str


Answer = Ready | Progress | Done | Failed


def to_line(answer: Answer) -> bytes:
    """The answer on the wire."""
    match answer:
        case Ready(unhardened):
            fields: dict[str, object] = {"ready": unhardened}
        case Progress(num_samples):
            fields = {"samples": num_samples}
        case Done(warnings, num_channels):
            fields = {"done": warnings, "channels": num_channels}
        case Failed(code, detail):
            fields = {"error": code, "detail": detail}
    return json.dumps(fields).encode() + b"\n"


def from_line(line: bytes) -> Answer:
    """The answer in a line. Raises ValueError for anything else.

    The process works on files of strangers and may have fallen into their hands: its words are
    checked, not trusted.
    """
    try:
        fields = json.loads(line)
    except RecursionError:
        raise ValueError("not an answer of a decoder process") from None
    match fields:
        case {"ready": list(unhardened)}:
            return Ready(tuple(map(str, unhardened)))
        case {"samples": int(num_samples)} if 0 <= num_samples < 2**48:
            return Progress(num_samples)
        case {"done": list(warnings), "channels": int(num_channels)} if (
            1 <= num_channels <= MAX_SPLIT_CHANNELS
        ):
            return Done(tuple(map(str, warnings)), num_channels)
        case {"error": str(code), "detail": str(detail)}:
            return Failed(code, detail)
    raise ValueError("not an answer of a decoder process")
