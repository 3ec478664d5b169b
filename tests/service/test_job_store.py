"""The same rules on SQLite and, where it is installed, on PostgreSQL."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import alembic.command
import alembic.config
import pytest
import sqlalchemy as sa

from simple_asr.errors import (
    ConfigurationError,
    IdempotencyMismatch,
    InvalidParameter,
    JobNotFound,
    Overloaded,
    StorageFull,
    Unavailable,
)
from simple_asr.service.database import sqlite_url
from simple_asr.service.fake import TRANSCRIPT
from simple_asr.service.job_store import JobStore
from simple_asr.service.jobs import MAX_ATTEMPTS, Failure, LeaseLost, NewJob, TryAgain
from simple_asr.transcript.events import Checkpoint, Progress
from tests.service.postgresql import Database, running

SEGMENT = TRANSCRIPT.segments[0]
SECOND = replace(SEGMENT, id=1, start=2.5, end=5.0)
PROGRESS = Progress(2.5, 10.0, "ru", "turbo")


@pytest.fixture(scope="module")
def postgresql() -> Iterator[Database]:
    with running() as database:
        yield database


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "sqlite":
        yield sqlite_url(tmp_path / "jobs.sqlite3")
        return
    database: Database = request.getfixturevalue("postgresql")
    with database.fresh() as address:
        yield address


@pytest.fixture
def make_store(url: str) -> Iterator[Callable[..., JobStore]]:
    stores: list[JobStore] = []

    def make(**limits: float) -> JobStore:
        stores.append(JobStore(url, **limits))  # type: ignore[arg-type]  # int and float by name
        return stores[-1]

    yield make
    for store in stores:
        store.close()


@pytest.fixture
def store(make_store: Callable[..., JobStore]) -> JobStore:
    return make_store(lease_seconds=30)


def new(name: str = "a", owner: str = "alice", **more: Any) -> NewJob:
    return NewJob(id=name, owner=owner, parameters="{}", **more)


def claimed_id(store: JobStore, now: float) -> str | None:
    lease = store.claim(now)
    return None if lease is None else lease.job.id


# Callers -----------------------------------------------------------------------------------------


def test_a_new_job_waits(store: JobStore) -> None:
    store.add(new(), now=1000)

    job = store.get("a", "alice")

    assert (job.state, job.created, job.progress) == ("queued", 1000, 0.0)


def test_a_job_is_there_after_a_restart(make_store: Callable[..., JobStore]) -> None:
    make_store().add(new(), now=1000)

    assert make_store().get("a", "alice").state == "queued"


def test_a_job_of_another_key_is_not_to_be_found(store: JobStore) -> None:
    store.add(new(), now=1000)

    with pytest.raises(JobNotFound):
        store.get("a", "bob")
    with pytest.raises(JobNotFound):
        store.cancel("a", "bob", now=1001)
    with pytest.raises(JobNotFound):
        store.page("bob", 10, before="a")


def test_pages_list_the_newest_first(store: JobStore) -> None:
    for number in range(5):
        store.add(new(str(number)), now=1000 + number // 2)
    store.add(new("other", "bob"), now=1000)

    first = [job.id for job in store.page("alice", 2)]
    second = [job.id for job in store.page("alice", 2, before=first[-1])]
    third = [job.id for job in store.page("alice", 2, before=second[-1])]

    assert [first, second, third] == [["4", "3"], ["2", "1"], ["0"]]


def test_fifty_equal_submissions_with_one_key_are_one_job(store: JobStore) -> None:
    begin = threading.Barrier(50)

    def submit(number: int) -> str:
        begin.wait()
        asked = new(f"job-{number}", idempotency_key="once", digest="same")
        return store.add(asked, now=1000).id

    with ThreadPoolExecutor(50) as threads:
        ids = set(threads.map(submit, range(50)))

    assert len(ids) == 1
    assert [job.id for job in store.page("alice", 50)] == list(ids)


def test_one_key_for_two_requests_is_refused(store: JobStore) -> None:
    store.add(new("a", idempotency_key="once", digest="this"), now=1000)

    with pytest.raises(IdempotencyMismatch):
        store.add(new("b", idempotency_key="once", digest="that"), now=1000)


def test_two_callers_may_choose_the_same_key(store: JobStore) -> None:
    store.add(new("a", "alice", idempotency_key="1"), now=1000)

    assert store.add(new("b", "bob", idempotency_key="1"), now=1000).id == "b"


def test_more_jobs_than_may_wait_are_refused(make_store: Callable[..., JobStore]) -> None:
    store = make_store(max_waiting=1)
    store.add(new("a"), now=1000)

    with pytest.raises(Overloaded, match="1 of your jobs wait"):
        store.add(new("b"), now=1000)


def test_the_jobs_of_one_key_leave_others_their_room(make_store: Callable[..., JobStore]) -> None:
    store = make_store(max_waiting=1)
    store.add(new("a", "alice"), now=1000)

    assert store.add(new("b", "bob"), now=1000).state == "queued"


def test_a_job_that_is_there_is_found_by_its_key_where_no_more_may_wait(
    make_store: Callable[..., JobStore],
) -> None:
    store = make_store(max_waiting=1)
    store.add(new("a", idempotency_key="once", digest="same"), now=1000)

    assert store.add(new("b", idempotency_key="once", digest="same"), now=1000).id == "a"


# Webhooks ----------------------------------------------------------------------------------------


def ended_with_webhook(store: JobStore, name: str = "a", now: float = 1000) -> None:
    store.add(new(name, webhook_url="https://example.com/"), now)
    store.cancel(name, "alice", now)


def test_a_webhook_is_due_when_its_job_ends_and_not_before(store: JobStore) -> None:
    store.add(new(webhook_url="https://example.com/"), now=1000)
    before = store.claim_delivery(2000, seconds=60)
    lease = store.claim(now=2000)
    assert lease is not None

    store.finish(lease, [], TRANSCRIPT, now=2001)
    after = store.claim_delivery(2001, seconds=60)

    assert before is None
    assert after is not None
    assert (after.job.id, after.job.state, after.job.webhook_attempts) == ("a", "done", 1)


def test_a_job_set_aside_is_told_of_too(store: JobStore) -> None:
    store.add(new(webhook_url="https://example.com/"), now=1000)
    for attempt in range(MAX_ATTEMPTS):
        assert claimed_id(store, now=2000 + 100 * attempt) == "a"
    assert claimed_id(store, now=3000) is None

    delivery = store.claim_delivery(3000, seconds=60)

    assert delivery is not None
    assert delivery.job.failure is not None


def test_a_job_without_a_webhook_has_nothing_due(store: JobStore) -> None:
    store.add(new(), now=1000)
    store.cancel("a", "alice", now=1000)

    assert store.claim_delivery(2000, seconds=60) is None


def test_a_webhook_has_one_attempt_at_a_time_and_another_when_its_server_died(
    store: JobStore,
) -> None:
    ended_with_webhook(store)

    claims = [store.claim_delivery(now, seconds=60) for now in (1000, 1059, 1061)]

    attempts = [claim and claim.job.webhook_attempts for claim in claims]
    assert attempts == [1, None, 2]


def test_what_an_attempt_that_was_overtaken_tells_is_not_kept(store: JobStore) -> None:
    ended_with_webhook(store)
    first = store.claim_delivery(1000, seconds=60)
    second = store.claim_delivery(1061, seconds=60)
    assert first is not None
    assert second is not None

    store.delivered(second)
    store.not_delivered(first, "It hung up.", due=1070)

    assert store.get("a", "alice").webhook_state == "delivered"


def test_workers_that_send_at_once_send_different_webhooks(store: JobStore) -> None:
    for number in range(10):
        ended_with_webhook(store, str(number))
    begin = threading.Barrier(10)

    def claim(_: int) -> str | None:
        begin.wait()
        delivery = store.claim_delivery(1000, seconds=60)
        return None if delivery is None else delivery.job.id

    with ThreadPoolExecutor(10) as threads:
        claimed = [job_id for job_id in threads.map(claim, range(10)) if job_id is not None]

    assert len(claimed) == len(set(claimed))


def test_the_webhook_of_a_job_that_was_removed_is_not_missed(store: JobStore) -> None:
    ended_with_webhook(store)
    delivery = store.claim_delivery(1000, seconds=60)
    assert delivery is not None

    store.remove("a", "alice")
    store.delivered(delivery)

    assert store.page("alice", 9) == []


# Workers -----------------------------------------------------------------------------------------


def test_the_job_that_waited_longest_is_claimed_once(store: JobStore) -> None:
    store.add(new("second"), now=1001)
    store.add(new("first"), now=1000)

    claimed = [claimed_id(store, now=1002) for _ in range(3)]

    assert claimed == ["first", "second", None]


def test_a_key_with_many_jobs_does_not_keep_others_waiting(store: JobStore) -> None:
    for number in range(3):
        store.add(new(str(number), "alice"), now=1000 + number)
    store.add(new("bobs", "bob"), now=2000)

    claimed = [claimed_id(store, now=2001) for _ in range(2)]

    assert claimed == ["0", "bobs"]


def test_workers_that_claim_at_once_get_different_jobs(store: JobStore) -> None:
    for number in range(20):
        store.add(new(str(number)), now=1000)
    begin = threading.Barrier(10)

    def claim_two(_: int) -> list[str | None]:
        begin.wait()
        return [claimed_id(store, now=1001) for _ in range(2)]

    with ThreadPoolExecutor(10) as threads:
        claimed = [job_id for two in threads.map(claim_two, range(10)) for job_id in two]

    # A PostgreSQL that skips what another is claiming may have nothing to give for a moment.
    given = [job_id for job_id in claimed if job_id is not None]
    assert len(set(given)) == len(given) >= 10


def test_a_job_whose_worker_is_silent_comes_back_where_it_was(store: JobStore) -> None:
    store.add(new(), now=1000)
    lost = store.claim(now=1000)
    assert lost is not None
    store.save(lost, [SEGMENT], PROGRESS, now=1010)

    assert store.claim(now=1039) is None
    found = store.claim(now=1041)

    assert found is not None
    assert found.checkpoint == Checkpoint((SEGMENT,), PROGRESS)
    with pytest.raises(LeaseLost):
        store.save(lost, [SECOND], PROGRESS, now=1042)
    with pytest.raises(LeaseLost):
        store.finish(lost, [], TRANSCRIPT, now=1042)
    assert store.segments("a") == [SEGMENT]


def test_a_worker_that_says_it_lives_keeps_its_job(store: JobStore) -> None:
    store.add(new(), now=1000)
    lease = store.claim(now=1000)
    assert lease is not None

    store.renew(lease, now=1025)

    assert store.claim(now=1050) is None


def test_a_server_with_short_leases_leaves_long_ones_alone(
    make_store: Callable[..., JobStore],
) -> None:
    patient, hasty = make_store(lease_seconds=60), make_store(lease_seconds=10)
    patient.add(new(), now=1000)
    assert patient.claim(now=1000) is not None

    assert hasty.claim(now=1001) is None


def test_a_clock_set_back_leaves_no_job_stuck(store: JobStore) -> None:
    store.add(new(), now=100_000)
    assert store.claim(now=100_000) is not None

    assert store.claim(now=10_000) is not None


def test_a_job_that_kills_its_workers_is_set_aside(store: JobStore) -> None:
    store.add(new("poison"), now=1000)
    store.add(new("good", "bob"), now=1001)
    for attempt in range(MAX_ATTEMPTS):
        lease = store.claim(now=2000 + attempt * 100)
        assert lease is not None
        if lease.job.id == "good":
            store.give_up(lease, TryAgain(0, is_counted=False), now=2000)

    for attempt in range(MAX_ATTEMPTS + 1):
        store.claim(now=3000 + attempt * 100)

    poison = store.get("poison", "alice")
    assert poison.state == "failed"
    assert poison.failure is not None
    assert poison.failure.code == "job_set_aside"


def test_a_job_that_gets_on_is_not_blamed_for_kills(store: JobStore) -> None:
    store.add(new(), now=1000)
    for attempt in range(3 * MAX_ATTEMPTS):
        lease = store.claim(now=2000 + attempt * 100)
        assert lease is not None, "it is given out again after every kill"
        further = Progress(attempt + 1, 100.0)
        store.save(lease, [replace(SEGMENT, id=attempt)], further, now=2000 + attempt * 100)

    assert store.get("a", "alice").state == "running"


def test_work_done_again_is_no_progress(store: JobStore) -> None:
    store.add(new(), now=1000)
    for attempt in range(MAX_ATTEMPTS):
        lease = store.claim(now=2000 + attempt * 100)
        assert lease is not None
        store.restart(lease)
        store.save(lease, [SEGMENT], PROGRESS, now=2000 + attempt * 100)

    # The first attempt got further, the two after it did not: one more is due.
    assert store.claim(now=3000) is None
    assert store.get("a", "alice").state == "failed"


def test_work_begun_anew_goes_on_from_its_own_place(store: JobStore) -> None:
    store.add(new(), now=1000)
    stopped = store.claim(now=1000)
    assert stopped is not None
    store.save(stopped, [SEGMENT, SECOND], Progress(600.0, 900.0, "ru", "turbo"), now=1000)
    anew = store.claim(now=2000)
    assert anew is not None
    begun = Progress(30.0, 900.0, "ru", "base")

    store.restart(anew)
    store.save(anew, [SEGMENT], begun, now=2000)

    again = store.claim(now=3000)
    assert again is not None
    assert again.checkpoint == Checkpoint((SEGMENT,), begun)
    assert again.job.seconds_done == 600.0, "progress does not go back"


def test_a_failure_is_kept(store: JobStore) -> None:
    store.add(new(), now=1000)
    lease = store.claim(now=1000)
    assert lease is not None
    failure = Failure.of(InvalidParameter("No such thing."))

    store.give_up(lease, failure, now=1001)

    job = store.get("a", "alice")
    assert (job.state, job.failure, job.ended) == ("failed", failure, 1001)


@pytest.mark.parametrize(("is_counted", "attempts"), [(True, 2), (False, 1)])
def test_a_job_given_back_waits_its_time(store: JobStore, is_counted: bool, attempts: int) -> None:
    store.add(new(), now=1000)
    lease = store.claim(now=1000)
    assert lease is not None

    store.give_up(lease, TryAgain(10, is_counted), now=1000)

    assert store.claim(now=1009) is None
    again = store.claim(now=1011)
    assert again is not None
    assert again.job.attempts == attempts


def test_a_finished_job_has_its_transcript(store: JobStore) -> None:
    store.add(new(), now=1000)
    lease = store.claim(now=1000)
    assert lease is not None
    store.save(lease, [SEGMENT], PROGRESS, now=1001)

    partial = store.transcript("a")
    store.finish(lease, [SECOND], TRANSCRIPT, now=1002)

    assert (partial.text, partial.segments) == (SEGMENT.text, (SEGMENT,))
    assert store.transcript("a") == replace(TRANSCRIPT, segments=(SEGMENT, SECOND))
    assert store.segments("a", since=1) == [SECOND]
    assert store.get("a", "alice").progress == 1.0
    assert store.claim(now=5000) is None


def test_a_cancelled_job_takes_nothing_from_its_worker(store: JobStore) -> None:
    store.add(new(), now=1000)
    lease = store.claim(now=1000)
    assert lease is not None

    cancelled = store.cancel("a", "alice", now=1001)

    assert cancelled.state == "cancelled"
    with pytest.raises(LeaseLost):
        store.finish(lease, [SEGMENT], TRANSCRIPT, now=1002)
    assert store.get("a", "alice").state == "cancelled"


def test_a_cancel_that_comes_late_changes_nothing(store: JobStore) -> None:
    store.add(new(), now=1000)
    lease = store.claim(now=1000)
    assert lease is not None
    store.finish(lease, [SEGMENT], TRANSCRIPT, now=1001)

    assert store.cancel("a", "alice", now=1002).state == "done"


def test_expired_jobs_vanish_wholly(store: JobStore) -> None:
    store.add(new("old"), now=1000)
    store.add(new("waiting"), now=1000)
    lease = store.claim(now=1000)
    assert lease is not None
    store.finish(lease, [SEGMENT], TRANSCRIPT, now=1001)
    ended = lease.job.id
    kept = {"old", "waiting"} - {ended}

    assert store.expire(ended_before=1001) == []
    assert store.expire(ended_before=1002) == [ended]

    assert store.segments(ended) == []
    assert store.without_work(["old", "waiting", "unknown"]) == {ended, "unknown"}
    assert {job.id for job in store.page("alice", 10)} == kept


def test_odd_text_is_kept_as_it_is(store: JobStore) -> None:
    odd = replace(SEGMENT, text=" \0 \ufffd 😀 '\"\\")
    store.add(new(), now=1000)
    lease = store.claim(now=1000)
    assert lease is not None

    store.save(lease, [odd], PROGRESS, now=1001)

    assert store.segments("a") == [odd]


# The database ------------------------------------------------------------------------------------


def test_sqlite_waits_for_the_disk_before_it_promises(tmp_path: Path) -> None:
    store = JobStore(sqlite_url(tmp_path / "jobs.sqlite3"))

    with store._engine.connect() as connection:
        synchronous = connection.exec_driver_sql("PRAGMA synchronous").scalar()
        journal = connection.exec_driver_sql("PRAGMA journal_mode").scalar()
    store.close()

    assert (synchronous, journal) == (2, "wal")  # 2 is FULL


def test_a_full_disk_is_told_as_such(tmp_path: Path) -> None:
    store = JobStore(sqlite_url(tmp_path / "jobs.sqlite3"))
    with store._engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA max_page_count = 1")  # No page more than there are.

    with pytest.raises(StorageFull):
        store.add(NewJob("a", "alice", parameters=100_000 * "x"), now=1000)
    store.close()


def test_what_has_expired_is_not_in_the_file_any_more(tmp_path: Path) -> None:
    file = tmp_path / "jobs.sqlite3"
    store = JobStore(sqlite_url(file))
    store.add(NewJob("a", "alice", parameters='{"initial_prompt": "Xanthippe"}'), now=1000)
    store.cancel("a", "alice", now=1000)

    store.expire(ended_before=1001)
    store.close()
    with sqlite3.connect(file) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    assert b"Xanthippe" not in file.read_bytes()


def test_jobs_of_the_first_version_go_on_where_they_were(tmp_path: Path) -> None:
    file = tmp_path / "jobs.sqlite3"
    config = alembic.config.Config()
    config.set_main_option("script_location", "simple_asr.service:migrations")
    with sa.create_engine(sqlite_url(file)).begin() as connection:
        config.attributes["connection"] = connection
        alembic.command.upgrade(config, "0001")
        connection.exec_driver_sql(
            "INSERT INTO jobs (id, owner, state, created, parameters, digest, attempts, not_before,"
            " num_segments, seconds_done, seconds_before, duration, model)"
            " VALUES ('a', 'alice', 'queued', 1000, '{}', '', 0, 0, 0, 60, 0, 90, 'turbo')"
        )

    store = JobStore(sqlite_url(file))
    lease = store.claim(now=2000)
    store.close()

    assert lease is not None
    assert lease.checkpoint == Checkpoint((), Progress(60.0, 90.0, None, "turbo"))


def test_text_that_the_disk_has_lost_is_told_as_such_and_not_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "jobs.sqlite3"
    store = JobStore(sqlite_url(file))
    store.add(new(), now=1000)
    lease = store.claim(now=1000)
    assert lease is not None
    store.finish(lease, [replace(SEGMENT, text="Xanthippe")], TRANSCRIPT, now=1001)
    with sqlite3.connect(file) as connection:
        connection.execute("UPDATE segments SET segment = substr(segment, 1, 100)")

    with pytest.raises(Unavailable, match="damaged"):
        store.transcript("a")
    store.close()

    assert "Xanthippe" not in caplog.text


def test_a_job_whose_text_the_disk_has_lost_is_done_anew_and_holds_up_no_other(
    tmp_path: Path,
) -> None:
    file = tmp_path / "jobs.sqlite3"
    store = JobStore(sqlite_url(file))
    store.add(new(), now=1000)
    lease = store.claim(now=1000)
    assert lease is not None
    store.save(lease, [SEGMENT], Progress(30.0, 90.0, "en", "turbo"), now=1001)
    store.give_up(lease, TryAgain(0, is_counted=False), now=1002)
    with sqlite3.connect(file) as connection:
        connection.execute("UPDATE segments SET segment = substr(segment, 1, 20)")

    again = store.claim(now=1003)

    assert again is not None
    assert again.checkpoint is None
    store.finish(again, [SEGMENT], TRANSCRIPT, now=1004)
    assert store.transcript("a").segments == (SEGMENT,)
    store.close()


def test_a_database_of_a_newer_version_is_refused_in_a_sentence(tmp_path: Path) -> None:
    file = tmp_path / "jobs.sqlite3"
    JobStore(sqlite_url(file)).close()
    with sqlite3.connect(file) as connection:
        connection.execute("DELETE FROM alembic_version")
        connection.execute("INSERT INTO alembic_version VALUES ('of the future')")

    with pytest.raises(ConfigurationError, match="newer version"):
        JobStore(sqlite_url(file))


def test_a_damaged_database_is_refused_and_kept(tmp_path: Path) -> None:
    file = tmp_path / "jobs.sqlite3"
    file.write_bytes(b"no database at all" * 1000)

    with pytest.raises(ConfigurationError, match=r"jobs\.sqlite3"):
        JobStore(sqlite_url(file))

    assert file.read_bytes().startswith(b"no database at all")
