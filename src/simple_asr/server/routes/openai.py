"""/v1: OpenAI's audio API, for clients that speak it, and the models it can name."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from simple_asr.errors import PayloadTooLarge
from simple_asr.server.cancellation import unless_caller_leaves
from simple_asr.server.dependencies import MAY_TRANSCRIBE, NEEDS_KEY, Services, TheServices, WorkKey
from simple_asr.server.event_stream import open_event_stream
from simple_asr.server.intake import ReceivedBody, receive_body
from simple_asr.server.model_names import read_aliases
from simple_asr.server.openai_answers import error_message, stream_messages, write_answer
from simple_asr.server.openai_fields import (
    SPEAKER_FIELDS,
    Task,
    read_audio_request,
    speakers_unknown,
)
from simple_asr.server.openapi_v1 import (
    MODEL_RESPONSES,
    MODELS_RESPONSES,
    TRANSCRIPTIONS_OPERATION,
    TRANSLATIONS_OPERATION,
)
from simple_asr.server.record import record_of
from simple_asr.server.retries import seconds_kept_for, sha256_of
from simple_asr.server.routes.jobs import (
    IdempotencyKey,
    TheCaller,
    accepted,
    check_idempotency_key,
)
from simple_asr.server.warning_header import warning_header
from simple_asr.service.keys import Caller
from simple_asr.transcript.model import Transcript

router = APIRouter(prefix="/v1", dependencies=[NEEDS_KEY])

# OpenAI's schema wants a date, and no model here has one: that of Whisper's first release.
WHISPER_RELEASED = 1_663_718_400


@router.post(
    "/audio/transcriptions",
    summary="OpenAI's transcriptions",
    response_class=Response,
    openapi_extra=TRANSCRIPTIONS_OPERATION,
    dependencies=[MAY_TRANSCRIBE],
)
async def transcriptions(
    request: Request,
    services: TheServices,
    caller: TheCaller,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """What OpenAI's endpoint of this path takes and answers; see docs/api.md for what differs.

    With `background` it is a job. `Idempotency-Key` is for those.
    """
    return await _answer(request, services, "transcribe", caller, idempotency_key)


@router.post(
    "/audio/translations",
    summary="OpenAI's translations",
    response_class=Response,
    openapi_extra=TRANSLATIONS_OPERATION,
    dependencies=[MAY_TRANSCRIBE],
)
async def translations(
    request: Request,
    services: TheServices,
    caller: TheCaller,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """The same, in English whatever is spoken."""
    return await _answer(request, services, "translate", caller, idempotency_key)


async def _answer(
    request: Request, services: Services, task: Task, caller: Caller, idempotency_key: str | None
) -> Response:
    record = record_of(request.scope)
    async with AsyncExitStack() as resources:
        body = await resources.enter_async_context(_received(request, services))
        asked = read_audio_request(request.scope["query_string"], body.fields, body.documents, task)
        transcriber = services.transcriber
        options = asked.parameters.options.model_copy(
            update={"model": services.model_of(asked.model)}
        )
        record.model = options.model
        if asked.is_background:
            check_idempotency_key(idempotency_key)
            parameters = replace(asked.parameters, options=options)
            job = await services.jobs.submit(
                body.media, parameters, caller.id, idempotency_key, asked.shape
            )
            return accepted(job, services)
        if asked.is_stream:
            messages = stream_messages(transcriber.events(body.media, options), asked, record)
            return await open_event_stream(request, messages, error_message, resources)
        key = WorkKey.of(record.key_name, await sha256_of(body.media), options)

        async def work(resources: AsyncExitStack) -> Transcript:
            async with resources:
                return await transcriber.transcribe(body.media, options)

        # The upload goes with the work, which may outlive this request.
        joining = services.running.join(
            key, lambda: work(resources.pop_all()), seconds_kept_for(request)
        )
        transcript = await unless_caller_leaves(request, joining)
    record.note(transcript)
    return Response(
        # In a thread: hours of words take a second to write.
        await asyncio.to_thread(write_answer, transcript, asked),
        media_type=asked.parameters.format.media_type,
        headers=warning_header([*transcript.warnings, *asked.warnings]),
    )


@asynccontextmanager
async def _received(request: Request, services: Services) -> AsyncIterator[ReceivedBody]:
    """The body. A speaker's sample is larger than any field that is taken."""
    try:
        async with receive_body(request, services.settings.spool_dir, services.limits) as body:
            yield body
    except PayloadTooLarge as error:
        if error.field and error.field.removesuffix("[]") in SPEAKER_FIELDS:
            raise speakers_unknown(error.field.removesuffix("[]")) from None
        raise


@router.get("/models", summary="The models that can be named", responses=MODELS_RESPONSES)
async def models(services: TheServices) -> JSONResponse:
    """The models on this machine, the default one first, and every other name they go by."""
    listed = await asyncio.to_thread(services.transcriber.models)
    here = [model.name for model in listed if model.is_here]
    aliases = read_aliases(services.settings.model_aliases)
    names = [*here, *(alias for alias, model in aliases.items() if model in ("", *here))]
    return JSONResponse({"object": "list", "data": [_model(name) for name in names]})


@router.get("/models/{model:path}", summary="One of them", responses=MODEL_RESPONSES)
async def model(model: str, services: TheServices) -> JSONResponse:
    """404 for a model that does not exist."""
    named = services.model_of(model)
    if named is not None:
        await asyncio.to_thread(services.transcriber.find, named)
    return JSONResponse(_model(model))


def _model(name: str) -> dict[str, object]:
    return {
        "id": name,
        "object": "model",
        "created": WHISPER_RELEASED,
        "owned_by": "simple-asr",
    }
