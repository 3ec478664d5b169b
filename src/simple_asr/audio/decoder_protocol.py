"""What the server and its decoder processes say to each other: one JSON line per message.

Known to both sides, so neither PyAV nor numpy is imported here. The server asks with one byte,
REQUEST, and two file descriptors: the media to read, and the file to write samples to (16 kHz mono,
int16, native byte order). The process answers Ready once at its start, then for each request any
number of Progress and one Done or Failed.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from simple_asr.audio import SAMPLE_RATE

BYTES_PER_SAMPLE = 2

REQUEST = b"\n"
"""One byte, so that it arrives whole, and its two descriptors with it."""

MAX_LINE_BYTES = 16_384


@dataclass(frozen=True, slots=True)
class DecodeLimits:
    """How much one file may cost.

    `max_seconds` of audio, counted in samples that came out, never read from a header. `timeout` is
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
    """The file is decoded; `warnings` are sentences for the caller."""

    warnings: tuple[str, ...]


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
        case Done(warnings):
            fields = {"done": warnings}
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
        case {"done": list(warnings)}:
            return Done(tuple(map(str, warnings)))
        case {"error": str(code), "detail": str(detail)}:
            return Failed(code, detail)
    raise ValueError("not an answer of a decoder process")
