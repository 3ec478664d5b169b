"""The events of our own streams: what POST /transcribe and a job's stream tell of a transcript."""

from __future__ import annotations

import json

from simple_asr.errors import AsrError
from simple_asr.server.event_stream import message, message_of_json
from simple_asr.server.problems import problem_json
from simple_asr.server.warning_header import shown_warnings
from simple_asr.service.parameters import TranscribeParameters
from simple_asr.transcript.events import Progress
from simple_asr.transcript.formats import segment_fields
from simple_asr.transcript.model import Segment, Transcript


def progress_message(progress: Progress, eta_seconds: float | None) -> bytes:
    data = {
        "fraction": round(progress.fraction, 4),
        "seconds_done": round(progress.seconds_done, 2),
        "duration": round(progress.seconds_total, 2),
        "eta_seconds": None if eta_seconds is None else round(eta_seconds, 1),
    }
    return message(data, "progress")


def segment_message(segment: Segment, event_id: int | None = None) -> bytes:
    return message(segment_fields(segment), "segment", event_id)


def done_message(transcript: Transcript, parameters: TranscribeParameters) -> bytes:
    """The last event: what the answer would be without a stream."""
    content = parameters.write(transcript)
    done = {
        "format": parameters.format.name,
        "content": json.loads(content) if parameters.format.is_json else content,
        "warnings": shown_warnings(all_warnings(transcript, parameters)),
    }
    return message(done, "done")


def error_message(error: AsrError, request_id: str) -> bytes:
    """The last event of a stream that fails: the problem document."""
    return message_of_json(problem_json(error, request_id), "error")


def all_warnings(transcript: Transcript, parameters: TranscribeParameters) -> list[str]:
    return [*transcript.warnings, *parameters.without_effect()]
