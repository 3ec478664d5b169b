"""/asr, /detect-language and /inference: what clients of two neighbouring servers ask for.

They are whisper-asr-webservice and whisper.cpp's server. Errors are problem documents.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from simple_asr.engine.options import TranscribeOptions
from simple_asr.server.cancellation import unless_caller_leaves
from simple_asr.server.dependencies import (
    MAY_TRANSCRIBE,
    NEEDS_KEY,
    NEEDS_ROOM,
    Services,
    TheServices,
)
from simple_asr.server.dialects import (
    DETECTION,
    WEBSERVICE,
    WEBSERVICE_DEFAULTS,
    DialectRequest,
    read_dialect,
    read_inference,
)
from simple_asr.server.intake import receive_body
from simple_asr.server.openapi import ASR_OPERATION, DETECT_OPERATION, INFERENCE_OPERATION
from simple_asr.server.record import record_of
from simple_asr.server.warning_header import warning_header
from simple_asr.transcript.languages import LANGUAGES
from simple_asr.transcript.model import Transcript

router = APIRouter(dependencies=[NEEDS_KEY])


@router.post(
    "/asr",
    summary="whisper-asr-webservice's transcription",
    response_class=Response,
    openapi_extra=ASR_OPERATION,
    dependencies=[NEEDS_ROOM, MAY_TRANSCRIBE],
)
async def asr(request: Request, services: TheServices) -> Response:
    """`audio_file` in a form; `output`, `task`, `language` and the rest in the query."""
    query = request.scope["query_string"]
    async with receive_body(request, services.settings.spool_dir, services.limits) as body:
        asked = read_dialect(WEBSERVICE, query, body.fields, body.documents, WEBSERVICE_DEFAULTS)
        transcript = await _transcript(request, services, body.media, asked.parameters.options)
    return await _answer(transcript, asked)


@router.post(
    "/detect-language",
    summary="whisper-asr-webservice's language detection",
    openapi_extra=DETECT_OPERATION,
    dependencies=[NEEDS_ROOM, MAY_TRANSCRIBE],
)
async def detect_language(request: Request, services: TheServices) -> JSONResponse:
    """The language of the first 30 seconds, and the probability of it."""
    query = request.scope["query_string"]
    async with receive_body(request, services.settings.spool_dir, services.limits) as body:
        asked = read_dialect(WEBSERVICE, query, body.fields, body.documents, DETECTION)
        transcript = await _transcript(request, services, body.media, asked.parameters.options)
    return JSONResponse(
        {
            "detected_language": LANGUAGES[transcript.language],
            "language_code": transcript.language,
            "confidence": transcript.language_probability,
        }
    )


@router.post(
    "/inference",
    summary="whisper.cpp's transcription",
    response_class=Response,
    openapi_extra=INFERENCE_OPERATION,
    dependencies=[NEEDS_ROOM, MAY_TRANSCRIBE],
)
async def inference(request: Request, services: TheServices) -> Response:
    """`file` in a form, beside it `response_format`, `temperature`, `language` and the rest."""
    query = request.scope["query_string"]
    async with receive_body(request, services.settings.spool_dir, services.limits) as body:
        asked = read_inference(query, body.fields, body.documents)
        transcript = await _transcript(request, services, body.media, asked.parameters.options)
    return await _answer(transcript, asked)


async def _transcript(
    request: Request, services: Services, media: Path, options: TranscribeOptions
) -> Transcript:
    transcript = await unless_caller_leaves(
        request, services.transcriber.transcribe(media, options)
    )
    record_of(request.scope).note(transcript)
    return transcript


async def _answer(transcript: Transcript, asked: DialectRequest) -> Response:
    return Response(
        # In a thread: hours of words take a second to write.
        await asyncio.to_thread(asked.write, transcript),
        media_type=asked.parameters.format.media_type,
        headers=warning_header([*transcript.warnings, *asked.warnings]),
    )
