"""Reads back the document that `format=json` writes, and openai-whisper with it."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, FailFast, ValidationError, field_validator

from simple_asr.errors import InvalidTranscript
from simple_asr.fields import MAX_SECONDS
from simple_asr.transcript.languages import language_code
from simple_asr.transcript.model import Segment, Transcript


class _Document(BaseModel):
    model_config = ConfigDict(allow_inf_nan=False, hide_input_in_errors=True)

    text: str
    # One fault is told, and a list of all of them would take seconds and hundreds of megabytes.
    segments: Annotated[tuple[Segment, ...], FailFast()]
    language: str

    @field_validator("language")
    @classmethod
    def _known_language(cls, value: str) -> str:
        code = language_code(value)
        if code is None:
            raise ValueError("is not a language Whisper knows")
        return code

    @field_validator("segments")
    @classmethod
    def _times_in_order(cls, value: tuple[Segment, ...]) -> tuple[Segment, ...]:
        for index, segment in enumerate(value):
            spans = [(part.start, part.end) for part in (segment.words or ())]
            spans.append((segment.start, segment.end))
            if any(not 0 <= start <= end for start, end in spans):
                raise ValueError(f"segment {index} has a part that ends before it begins")
            if any(end > MAX_SECONDS for _, end in spans):
                raise ValueError(f"segment {index} has a part that ends after {MAX_SECONDS} s")
        return value


def read_transcript(document: str | bytes, *, model: str = "") -> Transcript:
    """The transcript of a JSON document. It has no duration: the end of its last segment is taken.

    Raises InvalidTranscript.
    """
    try:
        read = _Document.model_validate_json(document)
    except ValidationError as error:
        fault = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, fault["loc"])) or "the document"
        raise InvalidTranscript(
            f"The transcript cannot be read: {place}: {fault['msg']}. Send the JSON document that "
            "format=json answers with."
        ) from None
    return Transcript(
        text=read.text,
        segments=read.segments,
        language=read.language,
        duration=max((segment.end for segment in read.segments), default=0.0),
        model=model,
    )
