"""Writes a transcript in the format a caller asked for. To add a format, add a row to FORMATS."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass

from simple_asr.transcript.model import Segment, Transcript


@dataclass(frozen=True, slots=True)
class Format:
    """A way to write a transcript, the media type it is served under, and its files' ending."""

    name: str
    media_type: str
    extension: str
    meaning: str
    write: Callable[[Transcript], str]


def whisper_result(transcript: Transcript) -> dict[str, object]:
    """The dictionary `whisper.transcribe()` returns: `text`, `segments`, `language`.

    `words` stands in a segment only when word times were asked for, as in openai-whisper.
    """
    return {
        "text": transcript.text,
        "segments": [segment_fields(segment) for segment in transcript.segments],
        "language": transcript.language,
    }


def segment_fields(segment: Segment) -> dict[str, object]:
    """One segment of `whisper_result`."""
    fields = asdict(segment)
    if segment.words is None:
        del fields["words"]
    return fields


def _json(document: dict[str, object]) -> str:
    return json.dumps(document, ensure_ascii=False, allow_nan=False)


FORMATS: dict[str, Format] = {
    format_.name: format_
    for format_ in (
        Format(
            "json",
            "application/json",
            "json",
            "openai-whisper's full result",
            lambda transcript: _json(whisper_result(transcript)),
        ),
        Format(
            "simple",
            "application/json",
            "json",
            'only the text: `{"text": …}`',
            lambda transcript: _json({"text": transcript.text.strip()}),
        ),
        Format(
            "text",
            "text/plain; charset=utf-8",
            "txt",
            "only the text, as plain text",
            lambda transcript: transcript.text.strip() + "\n",
        ),
    )
}
