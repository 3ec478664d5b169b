"""Transcripts as OpenAI's audio API answers them: documents, and the events of a stream."""

from __future__ import annotations

import json
import math
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from dataclasses import replace
from typing import Any

from simple_asr.errors import AsrError
from simple_asr.server.event_stream import comment, message, message_of_json
from simple_asr.server.openai_errors import openai_error
from simple_asr.server.openai_fields import AudioRequest
from simple_asr.server.record import RequestRecord
from simple_asr.server.warning_header import shown_warnings
from simple_asr.service.parameters import TranscribeParameters
from simple_asr.transcript.events import Done, Event, Progress
from simple_asr.transcript.formats import WritingOptions, receipt, verbose_result
from simple_asr.transcript.model import Segment, Transcript

# Of a word whose probability was rounded to nothing; JSON has no minus infinity.
_LEAST_PROBABILITY = 1e-6


def write_answer(transcript: Transcript, asked: AudioRequest) -> str:
    """The body of an answer that is not streamed."""
    return answering(asked).write(transcript)


def answering(asked: AudioRequest) -> TranscribeParameters:
    """The parameters of the request, in whose JSON formats there is what OpenAI's answer has."""
    ours = asked.parameters

    def write(transcript: Transcript, options: WritingOptions) -> str:
        beside = receipt(transcript) if options.receipt else {}
        document = _result(transcript, asked) | beside
        return json.dumps(document, ensure_ascii=False, allow_nan=False)

    return replace(ours, format=replace(ours.format, writer=write)) if ours.format.is_json else ours


def _document(transcript: Transcript, asked: AudioRequest) -> dict[str, Any]:
    """The last event of a JSON format, and the receipt where it is asked for."""
    return _result(transcript, asked) | asked.parameters.receipt(transcript)


def _result(transcript: Transcript, asked: AudioRequest) -> dict[str, Any]:
    if asked.response_format == "verbose_json":
        return verbose_result(
            transcript, has_segments=asked.has_segments, has_words=asked.has_words
        )
    return {"text": transcript.text.strip(), **_beside_text(transcript, asked)}


def _beside_text(transcript: Transcript, asked: AudioRequest) -> dict[str, Any]:
    """What stands beside the text of `json`. A translation is its text alone."""
    if asked.parameters.options.task == "translate":
        return {}
    document: dict[str, Any] = {
        "usage": {"type": "duration", "seconds": math.ceil(transcript.duration)}
    }
    if asked.parameters.options.languages:
        document["languages"] = [{"code": transcript.language}]
    if asked.has_logprobs:
        document["logprobs"] = _logprobs(transcript.segments)
    return document


def _logprobs(segments: Iterable[Segment]) -> list[dict[str, Any]]:
    """Of each word; alignment tells the probability of words, not of tokens."""
    return [
        {
            "token": word.word,
            "logprob": math.log(max(word.probability, _LEAST_PROBABILITY)),
            "bytes": list(word.word.encode()),
        }
        for segment in segments
        for word in segment.words or ()
    ]


# Streams -----------------------------------------------------------------------------------------


async def stream_messages(
    events: AsyncGenerator[Event, None], asked: AudioRequest, record: RequestRecord
) -> AsyncGenerator[bytes, None]:
    """The events as OpenAI's, and no others: its SDK takes an unknown one for the first it knows.

    The deltas join to the text of the last event. Progress is told in comments. Ends `events`.
    """
    deltas = Deltas()
    async with aclosing(events):
        async for event in events:
            if isinstance(event, Progress):
                record.audio_seconds = event.seconds_total
                yield comment(f"progress {event.fraction:.4f}")
            elif isinstance(event, Done):
                record.note(event.transcript)
                yield message(_done(event.transcript, deltas.text, asked))
                yield message_of_json("[DONE]")
            elif delta := deltas.next(event.segment.text):
                logprobs = {"logprobs": _logprobs([event.segment])} if asked.has_logprobs else {}
                yield message({"type": "transcript.text.delta", "delta": delta, **logprobs})


def _done(transcript: Transcript, text: str, asked: AudioRequest) -> dict[str, Any]:
    """What the answer would be without a stream, and in it the warnings: there is no header yet."""
    is_text = asked.response_format == "text"
    document = _result(transcript, asked) if is_text else _document(transcript, asked)
    if warnings := shown_warnings([*transcript.warnings, *asked.warnings]):
        document["warnings"] = warnings
    return {**document, "type": "transcript.text.done", "text": text}


class Deltas:
    """Texts of segments as they are to be told: joined, they neither begin nor end with a blank."""

    def __init__(self) -> None:
        self.text = ""
        self._held_back = ""

    def next(self, text: str) -> str:
        """What to tell of the next segment's text."""
        text = self._held_back + text if self.text else text.lstrip()
        delta = text.rstrip()
        self._held_back = text[len(delta) :]
        if not delta:
            return ""
        self.text += delta
        return delta


def error_message(error: AsrError, _request_id: str) -> bytes:
    """The last message of a stream that failed."""
    return message(openai_error(error))
