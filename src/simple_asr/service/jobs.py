"""A job: a transcription that outlives the request that asked for it. Records and decisions alone.

Where jobs are kept is `job_store.py`'s business, who works on them is `job_workers.py`'s.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from typing import Literal

from simple_asr.errors import (
    AsrError,
    DecoderUnavailable,
    EngineLost,
    MediaError,
    ModelFailed,
    RequestError,
    StorageFull,
    Unavailable,
)
from simple_asr.service.parameters import TranscribeParameters, read_parameters
from simple_asr.transcript.events import Checkpoint, Event, Progress, SegmentDone

State = Literal["queued", "running", "done", "failed", "cancelled"]
WebhookState = Literal["waiting", "delivered", "dead"]
ENDED: tuple[State, ...] = ("done", "failed", "cancelled")

# Starts without a window finished in between, after which a job is given up: its file may be what
# brings the server down. Source: the usual three of job queues.
MAX_ATTEMPTS = 3
RETRY_SECONDS = 5.0


class LeaseLost(Exception):
    """The job was cancelled or given to another worker: what this one did counts no more."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a job failed, as `AsrError` has it."""

    code: str
    title: str
    detail: str

    @classmethod
    def of(cls, error: AsrError) -> Failure:
        return cls(error.code, error.title, error.detail)


@dataclass(frozen=True, slots=True)
class NewJob:
    """What is asked for. `owner` is the caller's `id`, `parameters` a document for `parameters_of`.

    `audio_url` is where the recording is to be had, where no file came, `webhook_url` who is told
    of the end; `digest` tells one request
    from another under the same `idempotency_key`. `name` is what a file was called in its batch.
    `answer_shape` is the door's own note on how the result is written, where `parameters` do not
    say all of it.
    """

    id: str
    owner: str
    parameters: str
    idempotency_key: str | None = None
    digest: str = ""
    audio_url: str | None = None
    webhook_url: str | None = None
    batch_id: str | None = None
    batch_number: int | None = None
    name: str | None = None
    answer_shape: str | None = None


@dataclass(frozen=True, slots=True)
class Job:
    """One job as it is now. Times are seconds since 1970.

    `attempts` counts starts since the last finished window. `seconds_done` of `duration` audio
    seconds are recognised; the work going on began at `started` with `seconds_before` of them.
    `audio_url` is forgotten at the end. The webhook's next attempt is due at `webhook_due`, None
    where there is none; `webhook_failure` says why the last one failed.
    """

    id: str
    owner: str
    state: State
    created: float
    parameters: str
    digest: str
    audio_url: str | None
    attempts: int
    seconds_done: float
    seconds_before: float
    duration: float | None
    language: str | None
    model: str | None
    started: float | None
    ended: float | None
    failure: Failure | None
    webhook_url: str | None = None
    webhook_due: float | None = None
    webhook_attempts: int = 0
    webhook_failure: str | None = None
    batch_id: str | None = None
    batch_number: int | None = None
    name: str | None = None
    answer_shape: str | None = None

    @property
    def has_ended(self) -> bool:
        return self.state in ENDED

    @property
    def progress(self) -> float:
        """From 0 to 1; 1 only when it is done."""
        if self.state == "done":
            return 1.0
        if not self.duration:
            return 0.0
        return Progress(self.seconds_done, self.duration).fraction

    @property
    def webhook_state(self) -> WebhookState | None:
        """None where nobody is told."""
        if self.webhook_url is None:
            return None
        if not self.has_ended or self.webhook_due is not None:
            return "waiting"
        return "delivered" if self.webhook_failure is None else "dead"

    def eta_seconds(self, now: float) -> float | None:
        """Seconds until it is done, as it went so far; None while there is nothing to tell from."""
        if self.state != "running" or self.started is None or not self.duration:
            return None
        todo = Progress(
            self.seconds_done - self.seconds_before, self.duration - self.seconds_before
        )
        return todo.eta_seconds(max(0.0, now - self.started))


@dataclass(frozen=True, slots=True)
class Lease:
    """A worker's right to a job, for as long as it renews it. `token` is new with each claim."""

    job: Job
    token: str
    checkpoint: Checkpoint | None


# Decisions ---------------------------------------------------------------------------------------


def begins_anew(event: Event, checkpoint: Checkpoint) -> bool:
    """Whether this tells that the work did not go on from the checkpoint.

    Silence at the beginning has no segment to tell it by: its progress does.
    """
    if isinstance(event, SegmentDone):
        return event.segment.id < len(checkpoint.segments)
    if isinstance(event, Progress):
        reached = checkpoint.progress
        # Another version may decode the file some frames longer, and round the place by that.
        is_behind = event.fraction < 0.99 * reached.fraction
        return event.model != reached.model or is_behind
    return False


@dataclass(frozen=True, slots=True)
class TryAgain:
    """After `delay` seconds; `is_counted` where the job may be to blame."""

    delay: float
    is_counted: bool


def after_error(error: Exception, attempts: int) -> TryAgain | Failure:
    """What becomes of a job whose work ended with `error`, the `attempts`th time.

    What the file or the parameters are to blame for never goes away; what the server lacks does,
    unless it is this file that kills decoders or the engine, or a model that can never be loaded.
    """
    may_stay = isinstance(error, (DecoderUnavailable, EngineLost, ModelFailed))
    if isinstance(error, (Unavailable, StorageFull)) and not may_stay:
        return TryAgain(error.retry_after or RETRY_SECONDS, is_counted=False)
    if isinstance(error, (RequestError, MediaError)):
        return Failure.of(error)
    if attempts < MAX_ATTEMPTS:
        return TryAgain(RETRY_SECONDS * 2 ** (attempts - 1), is_counted=True)
    return Failure.of(error) if isinstance(error, AsrError) else set_aside(attempts)


def set_aside(attempts: int) -> Failure:
    """What is told of a job whose workers died, or failed without a word."""
    return Failure(
        "job_set_aside",
        "Job set aside",
        f"The server failed on this job {attempts} times in a row, so it is not tried again. Check "
        "the file; to try once more, send it as a new job.",
    )


# What is told of it ------------------------------------------------------------------------------


def job_fields(job: Job, root_path: str, now: float) -> dict[str, object]:
    """A job as callers see it. It has no text of theirs, and no address that they sent."""
    eta = job.eta_seconds(now)
    address = f"{root_path}/jobs/{job.id}"
    return {
        "id": job.id,
        "state": job.state,
        "progress": round(job.progress, 4),
        "eta_seconds": None if eta is None else round(eta, 1),
        "duration": job.duration,
        "created": _timestamp(job.created),
        "started": _timestamp(job.started),
        "ended": _timestamp(job.ended),
        "error": None if job.failure is None else asdict(job.failure),
        "webhook": _webhook_fields(job),
        "batch": _batch_fields(job),
        "links": {"self": address, "events": f"{address}/events", "result": f"{address}/result"},
    }


def _webhook_fields(job: Job) -> dict[str, object] | None:
    if job.webhook_state is None:
        return None
    return {
        "state": job.webhook_state,
        "attempts": job.webhook_attempts,
        "error": job.webhook_failure,
    }


def _batch_fields(job: Job) -> dict[str, object] | None:
    if job.batch_id is None:
        return None
    return {"id": job.batch_id, "number": job.batch_number, "name": job.name}


def _timestamp(seconds: float | None) -> str | None:
    """RFC 3339, in UTC."""
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="milliseconds")


# Parameters --------------------------------------------------------------------------------------


def document_of(parameters: TranscribeParameters) -> str:
    """What was asked for as JSON, equal for equal parameters."""
    given = {
        "format": parameters.format.name,
        **parameters.options.model_dump(mode="json", exclude_unset=True),
        **parameters.writing.model_dump(mode="json", exclude_unset=True),
    }
    return json.dumps(given, sort_keys=True)


def parameters_of(document: str) -> TranscribeParameters:
    """The parameters again. Raises RequestError where a newer server takes them no more."""
    return read_parameters(b"", documents=[document])
