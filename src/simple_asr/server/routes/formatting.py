"""POST /format: a transcript in, the same in another format out. Nothing is recognised anew."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter, Request
from starlette.responses import Response

from simple_asr.errors import InvalidParameter
from simple_asr.server.dependencies import NEEDS_KEY, TheServices
from simple_asr.server.intake import receive_document
from simple_asr.server.openapi import FORMAT_OPERATION
from simple_asr.server.warning_header import warning_header
from simple_asr.service.parameters import TranscribeParameters, read_parameters
from simple_asr.transcript.document import read_transcript
from simple_asr.transcript.model import Transcript

router = APIRouter()


@router.post(
    "/format",
    summary="Write a transcript in another format",
    response_class=Response,
    dependencies=[NEEDS_KEY],
    openapi_extra=FORMAT_OPERATION,
)
async def write(request: Request, services: TheServices) -> Response:
    """Send the document that `format=json` answered with, edited or not, as `application/json`.

    `format` and the options of subtitles stand in the query.
    """
    document = await receive_document(request, services.limits)
    model = services.transcriber.model_state.served
    async with services.rewriting:
        # In threads: hours of words take a second to read, and to write.
        transcript = await asyncio.to_thread(read_transcript, document, model=model)
        parameters = _parameters(request.scope["query_string"], transcript)
        content = await asyncio.to_thread(parameters.write, transcript)
    return Response(
        content,
        media_type=parameters.format.media_type,
        headers=warning_header(parameters.without_effect()),
    )


def _parameters(query: bytes, transcript: Transcript) -> TranscribeParameters:
    """Raises RequestError; also for options of recognition, which is over."""
    has_words = any(segment.words is not None for segment in transcript.segments)
    words = ("word_timestamps", "true" if has_words else "false")
    parameters = read_parameters(query, [words], fields_place="the transcript")
    too_late = parameters.options.model_fields_set - {"word_timestamps"}
    if too_late:
        name = min(too_late)
        raise InvalidParameter(
            f"{name} acts while speech is recognised, and this transcript is finished. Leave it "
            "out, or send the audio to POST /transcribe.",
            field=name,
        )
    return parameters
