"""POST /jobs/batch and what follows: many recordings sent together, each a job of its own."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Header, Request
from starlette.responses import JSONResponse, Response

from simple_asr.errors import InvalidParameter
from simple_asr.server.dependencies import MAY_TRANSCRIBE, Services, TheServices
from simple_asr.server.event_stream import message, open_event_stream
from simple_asr.server.intake import receive_body
from simple_asr.server.openapi_jobs import (
    BATCH_EVENTS_RESPONSES,
    BATCH_OPERATION,
    BATCH_RESPONSES,
    CANCEL_BATCH_RESPONSES,
)
from simple_asr.server.record import record_of
from simple_asr.server.routes.jobs import LOOK_SECONDS, TheCaller, check_idempotency_key
from simple_asr.server.transcript_messages import error_message
from simple_asr.service.batches import (
    Batch,
    batch_fields,
    read_numbers,
    unknown_ends,
    with_jobs,
    written_numbers,
)
from simple_asr.service.job_store import JobStore
from simple_asr.service.jobs import job_fields
from simple_asr.service.parameters import read_parameters

router = APIRouter(prefix="/jobs/batch", default_response_class=JSONResponse)

ALSO = ("audio_urls", "webhook_url")


@router.post(
    "",
    summary="Transcribe many files later",
    status_code=202,
    dependencies=[MAY_TRANSCRIBE],
    openapi_extra=BATCH_OPERATION,
)
async def submit(
    request: Request,
    services: TheServices,
    caller: TheCaller,
    idempotency_key: Annotated[str | None, Header()] = None,
) -> JSONResponse:
    """Takes a zip of recordings as the file, their addresses as `audio_urls`, or both.

    The parameters are those of `POST /transcribe`, for all of them. Either every job is safely on
    disk when it is answered, or none.
    """
    check_idempotency_key(idempotency_key)
    jobs = services.jobs
    async with receive_body(request, jobs.folder, services.limits, needs_file=False) as body:
        parameters = read_parameters(
            request.scope["query_string"], body.fields, body.documents, also=ALSO
        )
        urls = parameters.audio_urls
        _check_number(services.settings.max_batch_jobs, len(urls), has_archive=bool(body.file))
        for url in urls:
            services.downloads.check(url, field="audio_urls")
        record_of(request.scope).model = parameters.options.model
        batch = await jobs.submit_batch(body.file, urls, parameters, caller.id, idempotency_key)
    answer = _fields(batch, services)
    location = services.address(f"/jobs/batch/{batch.id}")
    return JSONResponse(answer, 202, headers={"Location": location})


@router.get("/{batch_id}", summary="A batch as it is now", responses=BATCH_RESPONSES)
async def batch(batch_id: str, services: TheServices, caller: TheCaller) -> JSONResponse:
    """With each of its jobs."""
    found = await services.jobs.ask(lambda store: store.batch(batch_id, caller.id))
    return JSONResponse(_fields(found, services))


@router.get(
    "/{batch_id}/events",
    summary="A batch as it goes on, as a stream of events",
    response_class=Response,
    responses=BATCH_EVENTS_RESPONSES,
)
async def events(
    batch_id: str,
    request: Request,
    services: TheServices,
    caller: TheCaller,
    last_event_id: Annotated[str | None, Header()] = None,
) -> Response:
    """`job` for each that has ended, `progress`, and `done` when all of them have.

    The id of a `job` says whose ends are told; with `Last-Event-ID` those are not told again.
    """
    found = await services.jobs.ask(lambda store: store.batch(batch_id, caller.id))
    messages = _messages(services, found, caller.id, read_numbers(last_event_id))
    async with AsyncExitStack() as resources:
        return await open_event_stream(request, messages, error_message, resources)


@router.delete("/{batch_id}", summary="Cancel or remove a batch", responses=CANCEL_BATCH_RESPONSES)
async def cancel(batch_id: str, services: TheServices, caller: TheCaller) -> Response:
    """Jobs that have not ended are cancelled; a batch whose jobs have all ended is removed."""
    found = await services.jobs.ask(lambda store: store.batch(batch_id, caller.id))
    if found.has_ended:
        await services.jobs.ask(lambda store: store.remove_batch(batch_id, caller.id))
        return Response(status_code=204)
    cancelled = await services.jobs.cancel_batch(batch_id, caller.id)
    return JSONResponse(_fields(cancelled, services))


async def _messages(
    services: Services, batch: Batch, owner: str, told: set[int]
) -> AsyncGenerator[bytes, None]:
    """What is not told yet, as it comes; the store is asked again and again, since the workers may
    be another server's.
    """
    root_path = services.settings.root_path
    progress_told = None
    while True:
        batch = await services.jobs.ask(partial(JobStore.batch, batch_id=batch.id, owner=owner))
        for job in unknown_ends(batch.jobs, told):
            told |= {job.batch_number or 0}
            fields = job_fields(job, root_path, time.time())
            yield message(fields, "job", event_id=written_numbers(told))
        if batch.progress != progress_told:
            progress_told = batch.progress
            yield message({"fraction": round(batch.progress, 4)}, "progress")
        if batch.has_ended:
            yield message(batch_fields(batch, root_path), "done")
            return
        await asyncio.sleep(LOOK_SECONDS)


def _check_number(limit: int, num_urls: int, *, has_archive: bool) -> None:
    if num_urls == 0 and not has_archive:
        raise InvalidParameter(
            "The batch is empty. Send a zip of recordings as the field audio_file of a form, or "
            "their addresses as audio_urls.",
            field="audio_urls",
        )
    if num_urls > limit:
        raise InvalidParameter(
            f"audio_urls has {num_urls} addresses; this server takes at most {limit} in a batch "
            "(MAX_BATCH_JOBS). Send several.",
            field="audio_urls",
        )


def _fields(batch: Batch, services: Services) -> dict[str, object]:
    return with_jobs(batch, services.settings.root_path, time.time())
