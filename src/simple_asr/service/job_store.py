"""Keeps jobs in a database, SQLite or PostgreSQL, so that no kill and no power cut loses one.

Every method is one transaction, which blocks: keep it off the event loop. What the states mean is
`jobs.py`'s business. The tables are made, and brought up to date, by `migrations/`.
"""

from __future__ import annotations

import json
import logging
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any, TypeVar

import sqlalchemy as sa
from pydantic import TypeAdapter, ValidationError
from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from simple_asr.errors import (
    IdempotencyMismatch,
    JobNotFound,
    Overloaded,
    StorageFull,
    Unavailable,
)
from simple_asr.service.batches import Batch
from simple_asr.service.database import is_disk_full, migrate, open_database, reason_of, unusable
from simple_asr.service.jobs import (
    ENDED,
    MAX_ATTEMPTS,
    Failure,
    Job,
    Lease,
    LeaseLost,
    NewJob,
    TryAgain,
    set_aside,
)
from simple_asr.service.webhooks import Delivery
from simple_asr.transcript.events import Checkpoint, Progress
from simple_asr.transcript.model import Segment, Transcript

logger = logging.getLogger(__name__)

metadata = sa.MetaData()
jobs = sa.Table(
    "jobs",
    metadata,
    sa.Column("id", sa.String(32), primary_key=True),
    sa.Column("owner", sa.String(64), nullable=False),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("created", sa.Double, nullable=False),
    sa.Column("parameters", sa.Text, nullable=False),
    sa.Column("idempotency_key", sa.String(255)),
    sa.Column("digest", sa.String(64), nullable=False),
    sa.Column("audio_url", sa.Text),
    sa.Column("webhook_url", sa.Text),
    sa.Column("webhook_due", sa.Double),
    sa.Column("webhook_attempts", sa.Integer, nullable=False, default=0),
    sa.Column("webhook_failure", sa.Text),
    sa.Column("batch_id", sa.String(32)),
    sa.Column("batch_number", sa.Integer),
    sa.Column("name", sa.Text),
    sa.Column("answer_shape", sa.Text),
    sa.Column("attempts", sa.Integer, nullable=False, default=0),
    sa.Column("not_before", sa.Double, nullable=False, default=0.0),
    sa.Column("lease", sa.String(32)),
    sa.Column("lease_until", sa.Double),
    sa.Column("lease_seconds", sa.Double),
    sa.Column("num_segments", sa.Integer, nullable=False, default=0),
    sa.Column("seconds_done", sa.Double, nullable=False, default=0.0),
    sa.Column("seconds_before", sa.Double, nullable=False, default=0.0),
    # Where the segments end; `seconds_done` is the furthest that any work got.
    sa.Column("resume_at", sa.Double, nullable=False, default=0.0),
    sa.Column("duration", sa.Double),
    sa.Column("language", sa.String(16)),
    sa.Column("model", sa.Text),
    sa.Column("started", sa.Double),
    sa.Column("ended", sa.Double),
    sa.Column("failure", sa.Text),
    sa.Column("transcript", sa.Text),
    sa.UniqueConstraint("owner", "idempotency_key"),
    sa.Index("jobs_by_owner", "owner", "created"),
    sa.Index("jobs_by_state", "state", "created"),
    sa.Index("jobs_by_webhook", "webhook_due"),
    sa.Index("jobs_by_batch", "batch_id", "batch_number"),
)
segments = sa.Table(
    "segments",
    metadata,
    sa.Column(
        "job_id", sa.String(32), sa.ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True
    ),
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("segment", sa.Text, nullable=False),
)

Record = TypeVar("Record")

_SEGMENT = TypeAdapter(Segment)
_TRANSCRIPT = TypeAdapter(Transcript)


class JobStore:
    """The jobs of one server, or of several that share a PostgreSQL database.

    `lease_seconds` is how long a worker may be silent before its job goes to another.
    """

    def __init__(self, url: str, *, lease_seconds: float = 30.0, max_waiting: int = 1000) -> None:
        """Opens the database and brings its tables up to date.

        Raises ConfigurationError, and Unavailable where another try may do.
        """
        self._engine = open_database(url)
        self._lease_seconds = lease_seconds
        self._max_waiting = max_waiting
        try:
            migrate(self._engine)
        except SQLAlchemyError as error:
            raise unusable(url, error) from error

    def close(self) -> None:
        self._engine.dispose()

    # Callers -------------------------------------------------------------------------------------

    def add(self, new: NewJob, now: float) -> Job:
        """The job on disk; the one that is there already under the same `idempotency_key`.

        Raises IdempotencyMismatch where that one is for another request, Overloaded, StorageFull,
        Unavailable.
        """
        return self.add_batch([new], now)[0]

    def add_batch(self, new: Sequence[NewJob], now: float) -> list[Job]:
        """All of them on disk, or none; the first has the `idempotency_key`. Raises as `add`."""
        try:
            with self._writing() as connection:
                return _earlier(connection, new[0]) or self._insert(connection, new, now)
        except IntegrityError:  # Sent twice at once, and the other was first.
            with self._reading() as connection:
                earlier = _earlier(connection, new[0])
            if not earlier:
                raise
            return earlier

    def batch(self, batch_id: str, owner: str) -> Batch:
        """Raises JobNotFound, also for a batch of another owner."""
        with self._reading() as connection:
            return _batch(connection, batch_id, owner)

    def cancel_batch(self, batch_id: str, owner: str, now: float) -> Batch:
        """As `cancel`, for each of its jobs. Raises JobNotFound."""
        with self._writing() as connection:
            is_its = (jobs.c.batch_id == batch_id) & (jobs.c.owner == owner)
            is_open = jobs.c.state.not_in(ENDED)
            change = {"state": "cancelled", **_ended(now)}
            connection.execute(jobs.update().where(is_its, is_open).values(**change))
            return _batch(connection, batch_id, owner)

    def remove_batch(self, batch_id: str, owner: str) -> None:
        """As `remove`, for each of its jobs."""
        with self._writing() as connection:
            is_its = (jobs.c.batch_id == batch_id) & (jobs.c.owner == owner)
            connection.execute(jobs.delete().where(is_its))

    def get(self, job_id: str, owner: str) -> Job:
        """Raises JobNotFound, also for a job of another owner."""
        with self._reading() as connection:
            return _one(connection, jobs.c.id == job_id, jobs.c.owner == owner)

    def page(
        self,
        owner: str,
        limit: int,
        before: str | None = None,
        *,
        idempotency_key: str | None = None,
        only_dead_webhooks: bool = False,
    ) -> list[Job]:
        """Up to `limit` jobs, the newest first; those older than the job `before`, and the one of
        that key."""
        wanted = sa.select(jobs).where(jobs.c.owner == owner)
        if idempotency_key is not None:
            wanted = wanted.where(jobs.c.idempotency_key == idempotency_key)
        if only_dead_webhooks:
            is_given_up = jobs.c.webhook_due.is_(None) & jobs.c.webhook_failure.is_not(None)
            wanted = wanted.where(is_given_up)
        with self._reading() as connection:
            if before is not None:
                last = _one(connection, jobs.c.id == before, jobs.c.owner == owner)
                place = sa.tuple_(jobs.c.created, jobs.c.id)
                wanted = wanted.where(place < sa.tuple_(last.created, last.id))
            newest_first = wanted.order_by(jobs.c.created.desc(), jobs.c.id.desc())
            return [_job(row) for row in connection.execute(newest_first.limit(limit))]

    def segments(self, job_id: str, since: int = 0) -> list[Segment]:
        """Those known so far, from the number `since` on."""
        with self._reading() as connection:
            return _segments(connection, job_id, since)

    def transcript(self, job_id: str) -> Transcript:
        """What was recognised: all of it when the job is done, what there is before.

        Raises JobNotFound.
        """
        with self._reading() as connection:
            row = _row(connection, jobs.c.id == job_id)
            known = tuple(_segments(connection, job_id))
        if row.transcript is None:
            text = "".join(segment.text for segment in known)
            return Transcript(text, known, row.language or "en", row.duration or 0.0, model="")
        written = _read(_TRANSCRIPT, row.transcript)
        return Transcript(**{**_fields(written), "segments": known})

    def cancel(self, job_id: str, owner: str, now: float) -> Job:
        """A job that has not ended ends here; one that has stays as it is. Raises JobNotFound."""
        with self._writing() as connection:
            _one(connection, jobs.c.id == job_id, jobs.c.owner == owner)
            is_open = jobs.c.state.not_in(ENDED)
            end = {"state": "cancelled", **_ended(now)}
            connection.execute(jobs.update().where(jobs.c.id == job_id, is_open).values(**end))
            return _one(connection, jobs.c.id == job_id)

    def remove(self, job_id: str, owner: str) -> None:
        """Nothing is left of it, and nothing is said where there was nothing."""
        with self._writing() as connection:
            connection.execute(jobs.delete().where(jobs.c.id == job_id, jobs.c.owner == owner))

    # Workers -------------------------------------------------------------------------------------

    def claim(self, now: float) -> Lease | None:
        """The job that waited longest, of the owner with the fewest at work; None: there is none.

        Before that, jobs whose workers died MAX_ATTEMPTS times in a row are set aside.
        """
        with self._writing() as connection:
            self._set_aside(connection, now)
            others = jobs.alias()
            num_at_work = (
                sa.select(sa.func.count())
                .where(others.c.owner == jobs.c.owner, others.c.state == "running")
                .scalar_subquery()
            )
            may_start = (jobs.c.state == "queued") & (jobs.c.not_before <= now)
            job_id = connection.scalar(
                sa.select(jobs.c.id)
                .where(may_start | self._is_abandoned(now))
                .order_by(num_at_work, jobs.c.created)
                .limit(1)
                .with_for_update(skip_locked=True, of=jobs)
            )
            return None if job_id is None else self._lease(connection, job_id, now)

    def renew(self, lease: Lease, now: float) -> None:
        """The worker is alive. Raises LeaseLost."""
        with self._writing() as connection:
            _update(connection, lease, lease_until=now + self._lease_seconds)

    def restart(self, lease: Lease) -> None:
        """The work begins anew: what was said goes, what was reached stays. Raises LeaseLost."""
        with self._writing() as connection:
            _update(connection, lease, num_segments=0, resume_at=0.0)
            _forget_segments(connection, lease.job.id)

    def save(self, lease: Lease, new: Sequence[Segment], progress: Progress, now: float) -> None:
        """A window is finished: what it said and how far that goes. Raises LeaseLost.

        Attempts are counted anew only where the work gets further than ever before.
        """
        reached = progress.seconds_done
        is_further = jobs.c.seconds_done < reached
        with self._writing() as connection:
            _append(connection, lease, new)
            _update(
                connection,
                lease,
                attempts=sa.case((is_further, 1), else_=jobs.c.attempts),
                seconds_done=sa.case((is_further, reached), else_=jobs.c.seconds_done),
                resume_at=reached,
                duration=progress.seconds_total,
                language=progress.language,
                model=progress.model,
                lease_until=now + self._lease_seconds,
            )

    def finish(
        self, lease: Lease, new: Sequence[Segment], transcript: Transcript, now: float
    ) -> None:
        """The job is done; `new` are the segments not saved yet. Raises LeaseLost."""
        kept = Transcript(**{**_fields(transcript), "segments": ()})
        with self._writing() as connection:
            _append(connection, lease, new)
            _update(
                connection,
                lease,
                state="done",
                **_ended(now),
                seconds_done=transcript.duration,
                duration=transcript.duration,
                language=transcript.language,
                transcript=_TRANSCRIPT.dump_json(kept).decode(),
            )

    def give_up(self, lease: Lease, verdict: Failure | TryAgain, now: float) -> None:
        """The work ended without a result. Raises LeaseLost."""
        if isinstance(verdict, Failure):
            change = _failed(verdict, now)
        else:
            is_blamed = verdict.is_counted
            change = {
                "state": "queued",
                "lease": None,
                "not_before": now + verdict.delay,
                "attempts": jobs.c.attempts if is_blamed else jobs.c.attempts - 1,
            }
        with self._writing() as connection:
            _update(connection, lease, **change)

    # Webhooks ------------------------------------------------------------------------------------

    def claim_delivery(self, now: float, seconds: float) -> Delivery | None:
        """The webhook that is due longest; nobody else has it for so many seconds."""
        is_due = jobs.c.webhook_due <= now
        wanted = sa.select(jobs.c.id).where(is_due).order_by(jobs.c.webhook_due).limit(1)
        with self._reading() as connection:  # Asked all the time, and seldom with an answer.
            if connection.scalar(wanted) is None:
                return None
        with self._writing() as connection:
            job_id = connection.scalar(wanted.with_for_update(skip_locked=True))
            if job_id is None:
                return None
            claimed = {
                "webhook_due": now + seconds,
                "webhook_attempts": jobs.c.webhook_attempts + 1,
            }
            connection.execute(jobs.update().where(jobs.c.id == job_id).values(**claimed))
            return Delivery(_one(connection, jobs.c.id == job_id))

    def delivered(self, delivery: Delivery) -> None:
        """The receiver has it."""
        self._note_delivery(delivery, webhook_due=None, webhook_failure=None)

    def not_delivered(self, delivery: Delivery, reason: str, due: float | None) -> None:
        """The next attempt is due then; None gives the webhook up."""
        self._note_delivery(delivery, webhook_due=due, webhook_failure=reason)

    def _note_delivery(self, delivery: Delivery, **change: object) -> None:
        """Unless another attempt has begun since, or the job is gone."""
        job = delivery.job
        is_latest = (jobs.c.id == job.id) & (jobs.c.webhook_attempts == job.webhook_attempts)
        with self._writing() as connection:
            connection.execute(jobs.update().where(is_latest).values(**change))

    # Housekeeping --------------------------------------------------------------------------------

    def expire(self, ended_before: float) -> list[str]:
        """Removes jobs that ended before then, wholly; their ids."""
        with self._writing() as connection:
            is_old = jobs.c.state.in_(ENDED) & (jobs.c.ended < ended_before)
            return list(connection.scalars(jobs.delete().where(is_old).returning(jobs.c.id)))

    def without_work(self, job_ids: Sequence[str]) -> set[str]:
        """Those of them that have ended, or are not known."""
        with self._reading() as connection:
            is_open = jobs.c.state.not_in(ENDED)
            needed = sa.select(jobs.c.id).where(jobs.c.id.in_(job_ids), is_open)
            return set(job_ids) - set(connection.scalars(needed))

    # Inside --------------------------------------------------------------------------------------

    @contextmanager
    def _reading(self) -> Iterator[sa.Connection]:
        with _unavailable_when_it_fails(), self._engine.begin() as connection:
            yield connection

    @contextmanager
    def _writing(self) -> Iterator[sa.Connection]:
        writing = self._engine.execution_options(is_writing=True)
        with _unavailable_when_it_fails(), writing.begin() as connection:
            yield connection

    def _insert(self, connection: sa.Connection, new: Sequence[NewJob], now: float) -> list[Job]:
        self._check_room(connection, new[0].owner, len(new))
        connection.execute(
            jobs.insert(), [{**asdict(one), "state": "queued", "created": now} for one in new]
        )
        return _together(connection, _one(connection, jobs.c.id == new[0].id))

    def _check_room(self, connection: sa.Connection, owner: str, num_new: int) -> None:
        """A caller's own jobs count alone: nobody fills the queue for others."""
        is_open = (jobs.c.owner == owner) & jobs.c.state.not_in(ENDED)
        num_waiting = connection.scalar(sa.select(sa.func.count()).where(is_open)) or 0
        if num_waiting + num_new > self._max_waiting:
            raise Overloaded(
                f"{num_waiting} of your jobs wait, and {num_new} came; this server lets "
                f"{self._max_waiting} of each key wait (MAX_WAITING_JOBS). Try again later.",
                retry_after=60,
            )

    def _is_abandoned(self, now: float) -> sa.ColumnElement[bool]:
        """A lease that has run out, or that a clock since set back has put into the far future."""
        # By the lease's own length: another server may give longer ones.
        furthest = now + 2 * jobs.c.lease_seconds
        is_over = (jobs.c.lease_until < now) | (jobs.c.lease_until > furthest)
        return (jobs.c.state == "running") & is_over

    def _set_aside(self, connection: sa.Connection, now: float) -> None:
        is_poison = self._is_abandoned(now) & (jobs.c.attempts >= MAX_ATTEMPTS)
        change = _failed(set_aside(MAX_ATTEMPTS), now)
        connection.execute(jobs.update().where(is_poison).values(**change))

    def _lease(self, connection: sa.Connection, job_id: str, now: float) -> Lease:
        token = secrets.token_hex(16)
        change = {
            "state": "running",
            "attempts": jobs.c.attempts + 1,
            "lease": token,
            "lease_until": now + self._lease_seconds,
            "lease_seconds": self._lease_seconds,
            "started": now,
            "seconds_before": jobs.c.seconds_done,
        }
        connection.execute(jobs.update().where(jobs.c.id == job_id).values(**change))
        row = _row(connection, jobs.c.id == job_id)
        job = _job(row)
        try:
            known = tuple(_segments(connection, job_id))
        except Unavailable:  # It is done anew, and holds up nobody else's.
            begun_anew = jobs.update().where(jobs.c.id == job_id)
            connection.execute(begun_anew.values(num_segments=0, resume_at=0.0))
            _forget_segments(connection, job_id)
            return Lease(job, token, checkpoint=None)
        if job.duration is None:
            return Lease(job, token, checkpoint=None)
        progress = Progress(row.resume_at, job.duration, job.language, job.model or "")
        return Lease(job, token, Checkpoint(known, progress))


# Rows --------------------------------------------------------------------------------------------


def _one(connection: sa.Connection, *conditions: sa.ColumnElement[bool]) -> Job:
    return _job(_row(connection, *conditions))


def _row(connection: sa.Connection, *conditions: sa.ColumnElement[bool]) -> sa.Row[Any]:
    row = connection.execute(sa.select(jobs).where(*conditions)).one_or_none()
    if row is None:
        raise JobNotFound(
            "There is no such job of this API key: its id is wrong, it belongs to another key, or "
            "its time is over. GET /jobs lists yours."
        )
    return row


def _earlier(connection: sa.Connection, new: NewJob) -> list[Job]:
    """What was sent before under the same key. Raises IdempotencyMismatch."""
    is_same_key = jobs.c.idempotency_key == new.idempotency_key
    wanted = sa.select(jobs).where(jobs.c.owner == new.owner, is_same_key)
    row = None if new.idempotency_key is None else connection.execute(wanted).one_or_none()
    if row is not None and row.digest != new.digest:
        raise IdempotencyMismatch(
            "This Idempotency-Key belongs to a job with another file or other parameters. Send "
            "a new key with each new job."
        )
    return [] if row is None else _together(connection, _job(row))


def _together(connection: sa.Connection, job: Job) -> list[Job]:
    """The job with those that were sent with it, by their numbers."""
    if job.batch_id is None:
        return [job]
    return list(_batch(connection, job.batch_id, job.owner).jobs)


def _batch(connection: sa.Connection, batch_id: str, owner: str) -> Batch:
    is_its = (jobs.c.batch_id == batch_id) & (jobs.c.owner == owner)
    found = connection.execute(sa.select(jobs).where(is_its).order_by(jobs.c.batch_number))
    its_jobs = tuple(map(_job, found))
    if not its_jobs:
        raise JobNotFound(
            "There is no such batch of this API key: its id is wrong, it belongs to another key, "
            "or its time is over. GET /jobs lists your jobs."
        )
    return Batch(batch_id, its_jobs)


def _job(row: sa.Row[Any]) -> Job:
    values = {name: getattr(row, name) for name in Job.__dataclass_fields__}
    failure = values["failure"]
    return Job(**{**values, "failure": failure and Failure(**json.loads(failure))})


def _segments(connection: sa.Connection, job_id: str, since: int = 0) -> list[Segment]:
    wanted = sa.select(segments.c.segment).where(
        segments.c.job_id == job_id, segments.c.number >= since
    )
    rows = connection.scalars(wanted.order_by(segments.c.number))
    return [_read(_SEGMENT, segment) for segment in rows]


def _forget_segments(connection: sa.Connection, job_id: str) -> None:
    connection.execute(segments.delete().where(segments.c.job_id == job_id))


def _read(kind: TypeAdapter[Record], text: str) -> Record:
    """What a row holds. A disk may lose a part of it where the database does not notice.

    Raises Unavailable.
    """
    try:
        return kind.validate_json(text)
    except ValidationError:  # Whose own words repeat what was said.
        logger.error("A row of the store of jobs is damaged; restore it from a backup")
        raise Unavailable(
            "What this job has said is damaged on the server's disk. Send the file again as a new "
            "job."
        ) from None


def _fields(transcript: Transcript) -> dict[str, Any]:
    """Its fields as they are: `asdict` would take its parts apart too."""
    return {name: getattr(transcript, name) for name in Transcript.__dataclass_fields__}


def _append(connection: sa.Connection, lease: Lease, new: Sequence[Segment]) -> None:
    if not new:
        return
    rows = [
        {
            "job_id": lease.job.id,
            "number": segment.id,
            "segment": _SEGMENT.dump_json(segment).decode(),
        }
        for segment in new
    ]
    _update(connection, lease, num_segments=new[-1].id + 1)
    connection.execute(segments.insert(), rows)


def _failed(failure: Failure, now: float) -> dict[str, object]:
    return {"state": "failed", **_ended(now), "failure": json.dumps(asdict(failure))}


def _ended(now: float) -> dict[str, object]:
    """Nobody works on it any more, and who wants to know of that is to be told.

    The recording's address may hold secrets, and is not needed any more.
    """
    due = sa.case((jobs.c.webhook_url.is_not(None), sa.literal(now, sa.Double)))
    return {"ended": now, "lease": None, "audio_url": None, "webhook_due": due}


def _update(connection: sa.Connection, mine: Lease, **change: object) -> None:
    """Changes the leased job, unless it is this worker's no more: then nothing, and LeaseLost."""
    is_mine = (jobs.c.id == mine.job.id) & (jobs.c.lease == mine.token)
    if connection.execute(jobs.update().where(is_mine).values(**change)).rowcount != 1:
        raise LeaseLost


# Failures ----------------------------------------------------------------------------------------


@contextmanager
def _unavailable_when_it_fails() -> Iterator[None]:
    """Turns the database's errors into StorageFull and Unavailable."""
    try:
        yield
    except IntegrityError:
        raise
    except SQLAlchemyError as error:
        logger.error("The database of jobs failed: %s", reason_of(error))
        if is_disk_full(error):
            raise StorageFull(
                "The disk of the server's store of jobs is full. Try again later, or tell the "
                "operator."
            ) from error
        raise Unavailable(
            "The server's store of jobs cannot be used at the moment; its log says why. Try again "
            "later."
        ) from error
