"""POST /transcribe: one file in, its transcript out."""

from __future__ import annotations

import asyncio
import json

from fastapi import APIRouter, Request
from starlette.responses import Response

from simple_asr.server.cancellation import unless_caller_leaves
from simple_asr.server.dependencies import NEEDS_KEY, TheServices
from simple_asr.server.intake import receive_body
from simple_asr.server.labels import label
from simple_asr.server.openapi import TRANSCRIBE_OPERATION
from simple_asr.server.parameters import read_parameters
from simple_asr.server.record import record_of

router = APIRouter()

MAX_WARNINGS = 10
MAX_WARNING_CHARACTERS = 300


@router.post(
    "/transcribe",
    summary="Transcribe or translate a file",
    response_class=Response,
    dependencies=[NEEDS_KEY],
    openapi_extra=TRANSCRIBE_OPERATION,
)
async def transcribe(request: Request, services: TheServices) -> Response:
    """Send a file as the form field `audio_file`, or as the body itself.

    Parameters may stand in the query, in the form, and in a JSON document in the form field
    `params`; each may be given once.
    """
    async with receive_body(request, services.settings.spool_dir, services.limits) as body:
        parameters = read_parameters(request.scope["query_string"], body.fields, body.documents)
        transcript = await unless_caller_leaves(
            request, services.transcriber.transcribe(body.media, parameters.options)
        )
    record_of(request.scope).audio_seconds = transcript.duration
    # In a thread: hours of words take a second to write.
    content = await asyncio.to_thread(parameters.format.write, transcript)
    warnings = [*transcript.warnings, *parameters.options.without_effect()]
    return Response(
        content, media_type=parameters.format.media_type, headers=_warning_header(warnings)
    )


def _warning_header(warnings: list[str]) -> dict[str, str]:
    """A JSON list in ASCII; no header without warnings. The body stays openai-whisper's."""
    if not warnings:
        return {}
    # The engine may repeat what the options say of themselves.
    unique = list(dict.fromkeys(label(warning, MAX_WARNING_CHARACTERS) for warning in warnings))
    return {"X-ASR-Warnings": json.dumps(unique[:MAX_WARNINGS])}
