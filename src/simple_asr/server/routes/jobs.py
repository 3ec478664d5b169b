"""POST /jobs and what follows: transcriptions that nobody needs to wait for."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack
from functools import partial
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Header, Query, Request
from pydantic import TypeAdapter
from starlette.responses import JSONResponse, Response

from simple_asr.errors import InvalidParameter, JobNotDone
from simple_asr.server.audio_source import choose_source
from simple_asr.server.dependencies import MAY_TRANSCRIBE, Services, TheServices, known_caller
from simple_asr.server.event_stream import open_event_stream
from simple_asr.server.intake import receive_body
from simple_asr.server.openai_answers import answering
from simple_asr.server.openai_fields import AudioRequest
from simple_asr.server.openapi_jobs import (
    CANCEL_RESPONSES,
    EVENTS_RESPONSES,
    JOB_OPERATION,
    JOB_RESPONSES,
    JOBS_RESPONSES,
    RESULT_OPERATION,
)
from simple_asr.server.record import record_of
from simple_asr.server.transcript_messages import (
    all_warnings,
    done_message,
    error_message,
    progress_message,
    segment_message,
)
from simple_asr.server.warning_header import warning_header
from simple_asr.service.job_store import JobStore
from simple_asr.service.job_workers import Jobs
from simple_asr.service.jobs import Job, job_fields, parameters_of
from simple_asr.service.keys import Caller
from simple_asr.service.labels import label
from simple_asr.service.parameters import (
    TranscribeParameters,
    query_pairs,
    read_parameters,
)
from simple_asr.transcript.events import Progress
from simple_asr.transcript.formats import WritingOptions

router = APIRouter(default_response_class=JSONResponse)

TheCaller = Annotated[Caller, Depends(known_caller)]
IdempotencyKey = Annotated[str | None, Header()]

MAX_PAGE = 100
# How often a stream looks for news: a window takes longer than that.
LOOK_SECONDS = 0.5
ALSO = ("audio_url", "webhook_url")
WRITING = frozenset({"format", *WritingOptions.model_fields})
_BOOLEAN = TypeAdapter(bool)
_IDEMPOTENCY_KEY = re.compile(r"[!-~]{1,255}")


@router.post(
    "/jobs",
    summary="Transcribe a file later",
    status_code=202,
    dependencies=[MAY_TRANSCRIBE],
    openapi_extra=JOB_OPERATION,
)
async def submit(
    request: Request,
    services: TheServices,
    caller: TheCaller,
    idempotency_key: IdempotencyKey = None,
) -> JSONResponse:
    """Takes what `POST /transcribe` takes, and answers once file and job are safely on disk.

    Sent again with the same `Idempotency-Key`, the same request is the same job.
    """
    check_idempotency_key(idempotency_key)
    jobs = services.jobs
    receiving = receive_body(request, jobs.folder, services.limits, needs_file=False)
    async with receiving as body:
        parameters = read_parameters(
            request.scope["query_string"],
            body.fields,
            body.documents,
            also=ALSO,
        )
        source = choose_source(body.file, parameters.audio_url, services.downloads)
        record_of(request.scope).model = parameters.options.model
        job = await jobs.submit(source, parameters, caller.id, idempotency_key)
    return accepted(job, services)


def accepted(job: Job, services: Services) -> JSONResponse:
    """The answer to whoever sent it: it is on disk."""
    location = services.address(f"/jobs/{job.id}")
    return JSONResponse(_fields(job, services), 202, headers={"Location": location})


@router.get("/jobs", summary="Your jobs, the newest first", responses=JOBS_RESPONSES)
async def page(
    services: TheServices,
    caller: TheCaller,
    *,
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = 20,
    before: Annotated[str | None, Query(max_length=32, description="Id of a job.")] = None,
    webhook: Annotated[
        Literal["dead"] | None, Query(description="Those whose webhook was given up.")
    ] = None,
    idempotency_key: Annotated[
        str | None, Query(max_length=255, description="The one that was sent with it.")
    ] = None,
) -> JSONResponse:
    """`next` is the address of the page after this one, or null."""
    only_dead = webhook == "dead"
    listed = await services.jobs.ask(
        lambda store: store.page(
            caller.id,
            limit + 1,
            before,
            idempotency_key=idempotency_key,
            only_dead_webhooks=only_dead,
        )
    )
    shown = listed[:limit]
    following = None
    if len(listed) > limit:
        only = "&webhook=dead" if only_dead else ""
        following = services.address(f"/jobs?limit={limit}&before={shown[-1].id}{only}")
    return JSONResponse({"jobs": [_fields(job, services) for job in shown], "next": following})


@router.get("/jobs/{job_id}", summary="A job as it is now", responses=JOB_RESPONSES)
async def job(job_id: str, services: TheServices, caller: TheCaller) -> JSONResponse:
    """With `text`, all that is recognised so far."""
    found = await services.jobs.ask(lambda store: store.get(job_id, caller.id))
    transcript = await services.jobs.ask(lambda store: store.transcript(job_id))
    return JSONResponse({**_fields(found, services), "text": transcript.text.strip()})


@router.get(
    "/jobs/{job_id}/result",
    summary="The transcript of a job",
    response_class=Response,
    openapi_extra=RESULT_OPERATION,
)
async def result(
    job_id: str, request: Request, services: TheServices, caller: TheCaller
) -> Response:
    """In the format that the job was sent with, or that the query names; 409 before it is done.

    `partial=true` gives what is recognised so far.
    """
    found = await services.jobs.ask(lambda store: store.get(job_id, caller.id))
    is_partial, parameters = _writing_parameters(request.scope["query_string"], found)
    if found.state != "done" and not is_partial:
        raise _not_done(found)
    transcript = await services.jobs.ask(lambda store: store.transcript(job_id))
    content = await asyncio.to_thread(parameters.write, transcript)
    return Response(
        content,
        media_type=parameters.format.media_type,
        headers=warning_header(all_warnings(transcript, parameters)),
    )


@router.get(
    "/jobs/{job_id}/events",
    summary="A job as it goes on, as a stream of events",
    response_class=Response,
    responses=EVENTS_RESPONSES,
)
async def events(
    job_id: str,
    request: Request,
    services: TheServices,
    caller: TheCaller,
    last_event_id: Annotated[str | None, Header()] = None,
) -> Response:
    """The events of `POST /transcribe`, whenever one comes: first what is known already.

    The id of a `segment` is how many there were; with `Last-Event-ID` those are not told again.
    """
    found = await services.jobs.ask(lambda store: store.get(job_id, caller.id))
    messages = _messages(services.jobs, found, _num_told(last_event_id))
    async with AsyncExitStack() as resources:
        return await open_event_stream(request, messages, error_message, resources)


async def _messages(jobs: Jobs, job: Job, num_told: int) -> AsyncGenerator[bytes, None]:
    """What is not told yet, as it comes; the store is asked again and again, since the worker may
    be another server's.
    """
    parameters = _answering(job, parameters_of(job.parameters))
    seconds_told = None
    while True:
        # Before the segments: of a job that has ended, all of them are there.
        job = await jobs.ask(partial(JobStore.get, job_id=job.id, owner=job.owner))
        for segment in await jobs.ask(partial(JobStore.segments, job_id=job.id, since=num_told)):
            num_told = segment.id + 1
            yield segment_message(segment, num_told)
        if job.duration is not None and job.seconds_done != seconds_told:
            seconds_told = job.seconds_done
            progress = Progress(job.seconds_done, job.duration)
            yield progress_message(progress, job.eta_seconds(time.time()))
        if job.state == "done":
            transcript = await jobs.ask(partial(JobStore.transcript, job_id=job.id))
            yield await asyncio.to_thread(done_message, transcript, parameters)
            return
        if job.has_ended:
            raise _ended_without_result(job)
        await asyncio.sleep(LOOK_SECONDS)


def _num_told(last_event_id: str | None) -> int:
    """An id that we have not given is taken for none, as the standard has it."""
    is_ours = last_event_id is not None and re.fullmatch(r"\d{1,9}", last_event_id, re.ASCII)
    return int(last_event_id or 0) if is_ours else 0


@router.delete("/jobs/{job_id}", summary="Cancel or remove a job", responses=CANCEL_RESPONSES)
async def cancel(job_id: str, services: TheServices, caller: TheCaller) -> Response:
    """A job that has not ended is cancelled; one that has is removed, with its result."""
    found = await services.jobs.ask(lambda store: store.get(job_id, caller.id))
    if found.has_ended:
        await services.jobs.ask(lambda store: store.remove(job_id, caller.id))
        return Response(status_code=204)
    return JSONResponse(_fields(await services.jobs.cancel(job_id, caller.id), services))


def check_idempotency_key(key: str | None) -> None:
    """Raises InvalidParameter."""
    if key is not None and not _IDEMPOTENCY_KEY.fullmatch(key):
        raise InvalidParameter(
            "Idempotency-Key should be 1 to 255 visible ASCII characters, such as a UUID.",
            field="Idempotency-Key",
        )


def _writing_parameters(query: bytes, job: Job) -> tuple[bool, TranscribeParameters]:
    """Whether a partial result will do, and the job's parameters with the query's in their place.

    Raises RequestError; also for options of recognition, which are the job's.
    """
    pairs = query_pairs(query)
    given = [(name, value) for name, value in pairs if name != "partial"]
    for name, _ in given:
        if name not in WRITING:
            raise InvalidParameter(
                f"{name} acts while speech is recognised, or is not known. Of a result, only its "
                f"writing can be chosen: {', '.join(sorted(WRITING))}.",
                field=name,
            )
    names = {name for name, _ in given}
    asked = json.loads(job.parameters)
    is_as_sent = "format" not in names
    if not is_as_sent:
        # Options for another format than the one asked for now would only have no effect.
        names |= WRITING
    kept = {name: value for name, value in asked.items() if name not in names}
    parameters = read_parameters(b"", given, [json.dumps(kept)], fields_place="the query")
    if is_as_sent:
        parameters = _answering(job, parameters)
    return _is_partial([value for name, value in pairs if name == "partial"]), parameters


def _is_partial(values: Sequence[str]) -> bool:
    if not values:
        return False
    try:
        (is_partial,) = {_BOOLEAN.validate_python(value) for value in values}
    except ValueError:
        raise InvalidParameter(
            f"partial is {', '.join(map(label, values))}; give it once, as true or false.",
            field="partial",
        ) from None
    return is_partial


def _answering(job: Job, parameters: TranscribeParameters) -> TranscribeParameters:
    """The parameters, which write as the door that the job came by would have answered."""
    if job.answer_shape is None:
        return parameters
    return answering(AudioRequest.of_job(parameters, job.answer_shape))


def _not_done(job: Job) -> JobNotDone:
    if job.has_ended:
        return _ended_without_result(job)
    return JobNotDone(
        f"The job is {job.state}, so there is no whole result. partial=true gives what is "
        "recognised so far."
    )


def _ended_without_result(job: Job) -> JobNotDone:
    if job.failure is not None:
        return JobNotDone(f"The job failed ({job.failure.code}): {job.failure.detail}")
    return JobNotDone(f"The job is {job.state}, so there is no whole result.")


def _fields(job: Job, services: Services) -> dict[str, object]:
    return job_fields(job, services.settings.root_path, time.time())
