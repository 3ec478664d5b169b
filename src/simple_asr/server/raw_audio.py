"""What a Content-Type says of raw samples, as the parameters of the same meaning."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from python_multipart.multipart import parse_options_header


@dataclass(frozen=True, slots=True)
class RawType:
    """A media type of raw samples; `rate` where its standard has a default."""

    sample_format: str
    rate: int | None = None


# The network's byte order: RFC 2586 (L16), RFC 3190 (L24), RFC 3551 (L8, PCMU, PCMA).
RAW_TYPES = {
    "audio/pcm": RawType("s16le"),
    "audio/l8": RawType("u8"),
    "audio/l16": RawType("s16be"),
    "audio/l24": RawType("s24be"),
    "audio/pcmu": RawType("mulaw", 8000),
    "audio/pcma": RawType("alaw", 8000),
}

_SAID_BY = {b"format": "pcm_format", b"rate": "pcm_rate", b"channels": "pcm_channels"}


def raw_audio_fields(
    content_type: str | None, given: Mapping[str, object]
) -> Iterator[tuple[str, str]]:
    """Parameters that the header of a body stands for; none for other types.

    What the type implies gives way to parameters in `given`; what it says, such as `;rate=8000`,
    is compared with them later as with any that come twice.
    """
    value, options = parse_options_header(content_type)
    raw = RAW_TYPES.get(value.decode("latin-1").lower())
    if raw is None:
        return
    said = {
        name: options[key].decode("latin-1") for key, name in _SAID_BY.items() if key in options
    }
    yield from said.items()
    implied = {"pcm_format": raw.sample_format, "pcm_rate": raw.rate}
    for name, default in implied.items():
        if default is not None and name not in said and name not in given:
            yield name, str(default)
