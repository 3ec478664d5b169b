"""POST /transcribe: one file in, its transcript out, at once or as it becomes known."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, aclosing

from fastapi import APIRouter, Request
from starlette.responses import Response

from simple_asr.server.audio_source import choose_source
from simple_asr.server.cancellation import unless_caller_leaves
from simple_asr.server.dependencies import MAY_TRANSCRIBE, NEEDS_ROOM, TheServices
from simple_asr.server.event_stream import open_event_stream, wants_event_stream
from simple_asr.server.intake import receive_body
from simple_asr.server.openapi import TRANSCRIBE_OPERATION
from simple_asr.server.record import RequestRecord, record_of
from simple_asr.server.transcript_messages import (
    all_warnings,
    done_message,
    error_message,
    progress_message,
    segment_message,
)
from simple_asr.server.warning_header import warning_header
from simple_asr.service.parameters import TranscribeParameters, read_parameters
from simple_asr.transcript.events import Event, Progress, SegmentDone

router = APIRouter()


@router.post(
    "/transcribe",
    summary="Transcribe or translate a file",
    response_class=Response,
    dependencies=[NEEDS_ROOM, MAY_TRANSCRIBE],
    openapi_extra=TRANSCRIBE_OPERATION,
)
async def transcribe(request: Request, services: TheServices) -> Response:
    """Send a file as the form field `audio_file`, or as the body itself.

    Or name its address as `audio_url`, where the server takes any.
    Parameters may stand in the query, in the form, and in a JSON document in the form field
    `params`; each may be given once. With `Accept: text/event-stream` the answer is a stream of
    the events `progress`, `segment`, and at the end `done` or `error`.
    """
    spool_dir = services.settings.spool_dir
    async with AsyncExitStack() as resources:
        body = await resources.enter_async_context(
            receive_body(request, spool_dir, services.limits, needs_file=False)
        )
        parameters = read_parameters(
            request.scope["query_string"], body.fields, body.documents, also=["audio_url"]
        )
        source = choose_source(body.file, parameters.audio_url, services.downloads)
        if isinstance(source, str):
            fetching = resources.enter_async_context(services.downloads.fetched(source, spool_dir))
            source = await unless_caller_leaves(request, fetching)
        record = record_of(request.scope)
        record.model = parameters.options.model
        if wants_event_stream(request):
            events = services.transcriber.events(source, parameters.options)
            messages = _messages(events, parameters, record)
            return await open_event_stream(request, messages, error_message, resources)
        transcript = await unless_caller_leaves(
            request, services.transcriber.transcribe(source, parameters.options)
        )
    record.note(transcript)
    # In a thread: hours of words take a second to write.
    content = await asyncio.to_thread(parameters.write, transcript)
    return Response(
        content,
        media_type=parameters.format.media_type,
        headers=warning_header(all_warnings(transcript, parameters)),
    )


async def _messages(
    events: AsyncGenerator[Event, None], parameters: TranscribeParameters, record: RequestRecord
) -> AsyncGenerator[bytes, None]:
    """The events as they come, each one message. Ends `events`."""
    began = None
    async with aclosing(events):
        async for event in events:
            if isinstance(event, Progress):
                record.audio_seconds = event.seconds_total
                began = began or time.monotonic()
                yield progress_message(event, event.eta_seconds(time.monotonic() - began))
            elif isinstance(event, SegmentDone):
                yield segment_message(event.segment)
            else:
                record.note(event.transcript)
                yield await asyncio.to_thread(done_message, event.transcript, parameters)
