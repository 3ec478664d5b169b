"""Jobs from submission to result, with a transcriber that recognises nothing."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import threading
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import pytest

from simple_asr.engine.window import Priority
from simple_asr.errors import (
    EngineFailed,
    IdempotencyMismatch,
    JobNotFound,
    Overloaded,
    Unavailable,
    UnreadableMedia,
)
from simple_asr.service.addresses import AddressRules, read_networks
from simple_asr.service.database import DATABASE_FILE
from simple_asr.service.downloads import Downloads
from simple_asr.service.fake import PROCESSING, TRANSCRIPT, FakeTranscriber
from simple_asr.service.job_files import ABANDONED_AFTER_SECONDS, FolderFiles
from simple_asr.service.job_store import JobStore
from simple_asr.service.job_workers import JobLimits, Jobs
from simple_asr.service.jobs import Job, Lease
from simple_asr.service.outgoing import DownloadLimits, Outgoing
from simple_asr.service.parameters import TranscribeParameters, read_parameters
from simple_asr.service.usage import Used
from simple_asr.service.webhook_sender import WebhookSender
from simple_asr.transcript.events import Event
from tests.listener import Listener, listening, ok, status
from tests.support import NO_DOWNLOADS, NO_WEBHOOKS, WAIT, database_in

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def transcriber() -> FakeTranscriber:
    return FakeTranscriber()


@pytest.fixture
def charged() -> list[tuple[str, Used]]:
    """What was used for whom, in order."""
    return []


@pytest.fixture
def make_jobs(
    tmp_path: Path, transcriber: FakeTranscriber, charged: list[tuple[str, Used]]
) -> Callable[..., Jobs]:
    """As often as asked for: a server that starts again."""

    def make(
        downloads: Downloads = NO_DOWNLOADS,
        webhooks: WebhookSender = NO_WEBHOOKS,
        **limits: float,
    ) -> Jobs:
        allowed = JobLimits(**limits)  # type: ignore[arg-type]  # int and float by name
        return Jobs(
            transcriber,
            tmp_path,
            database_in(tmp_path),
            allowed,
            downloads=downloads,
            webhooks=webhooks,
            on_work=lambda *work: charged.append(work),
        )

    return make


@pytest.fixture
def jobs(make_jobs: Callable[..., Jobs]) -> Jobs:
    return make_jobs()


def parameters(query: bytes = b"language=ru") -> TranscribeParameters:
    return read_parameters(query)


def upload(jobs: Jobs, content: bytes = b"RIFF") -> Path:
    path = jobs.folder / "an.upload"
    path.write_bytes(content)
    return path


async def submit(jobs: Jobs, content: bytes = b"RIFF", key: str | None = None) -> Job:
    return await jobs.submit(upload(jobs, content), parameters(), "alice", key)


async def state_of(jobs: Jobs, job: Job) -> str:
    return (await jobs.ask(lambda store: store.get(job.id, "alice"))).state


async def until(jobs: Jobs, job: Job, state: str) -> Job:
    """Waits for the job to be in this state."""
    for _ in range(WAIT * 100):
        found = await jobs.ask(lambda store: store.get(job.id, "alice"))
        if found.state == state:
            return found
        await asyncio.sleep(0.01)
    raise AssertionError(f"the job is {found.state}, not {state}")


async def until_said(jobs: Jobs, job: Job) -> None:
    """Waits for the job's first segment."""
    for _ in range(WAIT * 100):
        if await jobs.ask(lambda store: store.segments(job.id)):
            return
        await asyncio.sleep(0.01)
    raise AssertionError("nothing is said")


def media_of(jobs: Jobs) -> list[str]:
    return sorted(path.name for path in jobs.folder.glob("*.media"))


async def test_a_job_is_done_while_nobody_waits(jobs: Jobs, transcriber: FakeTranscriber) -> None:
    async with jobs.working():
        job = await submit(jobs)
        await until(jobs, job, "done")

        transcript = await jobs.ask(lambda store: store.transcript(job.id))

    assert transcript.segments == TRANSCRIPT.segments
    assert transcript.text == TRANSCRIPT.text
    assert [(asked.content, asked.options.language) for asked in transcriber.asked] == [
        (b"RIFF", "ru")
    ]
    assert media_of(jobs) == []


async def test_a_job_is_taken_in_while_nobody_can_tell_whether_there_is_its_model(
    jobs: Jobs, transcriber: FakeTranscriber, monkeypatch: pytest.MonkeyPatch
) -> None:
    def find(_: str) -> NoReturn:
        raise Unavailable("No replica answers.")

    monkeypatch.setattr(transcriber, "find", find)

    job = await jobs.submit(upload(jobs), parameters(b"model=fake"), "alice")

    assert await state_of(jobs, job) == "queued"


async def test_the_audio_of_a_job_is_charged_to_its_owner(
    jobs: Jobs, charged: list[tuple[str, Used]]
) -> None:
    async with jobs.working():
        job = await submit(jobs)
        await until(jobs, job, "done")

    assert {owner for owner, _ in charged} == {"alice"}
    assert sum((used for _, used in charged), Used()) == Used.by_work(2.5, PROCESSING)


async def test_audio_of_a_job_that_goes_on_is_charged_once(
    make_jobs: Callable[..., Jobs], transcriber: FakeTranscriber, charged: list[tuple[str, Used]]
) -> None:
    first = make_jobs()
    transcriber.is_stuck_late = True
    async with first.working():
        job = await submit(first)
        await until_said(first, job)
    transcriber.is_stuck_late = False

    again = make_jobs()
    async with again.working():
        await until(again, job, "done")

    assert sum(used.audio_seconds for _, used in charged) == 2.5


async def test_audio_of_a_job_that_is_begun_anew_after_a_stop_is_charged_once(
    tmp_path: Path,
    make_jobs: Callable[..., Jobs],
    transcriber: FakeTranscriber,
    charged: list[tuple[str, Used]],
) -> None:
    first = make_jobs()
    transcriber.is_stuck_late = True
    async with first.working():
        job = await submit(first)
        await until_said(first, job)
    transcriber.is_stuck_late = False

    with sqlite3.connect(tmp_path / DATABASE_FILE) as connection:
        connection.execute("UPDATE jobs SET resume_at = 0, num_segments = 0")
        connection.execute("DELETE FROM segments")

    again = make_jobs()
    async with again.working():
        await until(again, job, "done")

    assert sum(used.audio_seconds for _, used in charged) == 2.5


async def test_a_job_gives_way_to_those_who_wait(jobs: Jobs, transcriber: FakeTranscriber) -> None:
    async with jobs.working():
        job = await submit(jobs)
        await until(jobs, job, "done")

    assert transcriber.priorities == [Priority.BACKGROUND]


async def test_a_job_taken_in_before_a_stop_is_done_after_the_start(
    make_jobs: Callable[..., Jobs],
) -> None:
    job = await submit(make_jobs())

    again = make_jobs()
    async with again.working():
        await until(again, job, "done")


async def test_a_job_in_work_when_the_server_stops_is_done_after_the_start(
    make_jobs: Callable[..., Jobs], transcriber: FakeTranscriber
) -> None:
    first = make_jobs()
    transcriber.is_stuck_late = True
    async with first.working():
        job = await submit(first)
        await until(first, job, "running")
    transcriber.is_stuck_late = False

    again = make_jobs()
    assert await state_of(again, job) == "queued"
    async with again.working():
        done = await until(again, job, "done")

    assert done.attempts == 1, "an orderly stop is not held against it"


async def test_a_job_goes_on_from_its_last_finished_window(
    make_jobs: Callable[..., Jobs], transcriber: FakeTranscriber
) -> None:
    second = replace(TRANSCRIPT.segments[0], id=1, start=2.5, end=5.0)
    transcriber.transcript = replace(TRANSCRIPT, segments=(*TRANSCRIPT.segments, second))
    first = make_jobs()
    transcriber.is_stuck_late = True
    async with first.working():
        job = await submit(first)
        await until_said(first, job)
    transcriber.is_stuck_late = False

    again = make_jobs()
    async with again.working():
        await until(again, job, "done")

    transcript = await again.ask(lambda store: store.transcript(job.id))
    checkpoint = transcriber.checkpoints[1]
    assert checkpoint is not None
    assert checkpoint.segments == TRANSCRIPT.segments
    assert transcript.segments == transcriber.transcript.segments


async def test_a_job_that_cannot_go_on_begins_anew(
    make_jobs: Callable[..., Jobs], transcriber: FakeTranscriber
) -> None:
    first = make_jobs()
    transcriber.is_stuck_late = True
    async with first.working():
        job = await submit(first)
        await until_said(first, job)
    transcriber.is_stuck_late = False
    transcriber.can_go_on = False

    again = make_jobs()
    async with again.working():
        await until(again, job, "done")

    transcript = await again.ask(lambda store: store.transcript(job.id))
    assert transcript.segments == TRANSCRIPT.segments


async def test_a_job_begun_anew_that_hears_nothing_keeps_nothing_of_before(
    make_jobs: Callable[..., Jobs], transcriber: FakeTranscriber
) -> None:
    first = make_jobs()
    transcriber.is_stuck_late = True
    async with first.working():
        job = await submit(first)
        await until_said(first, job)
    transcriber.is_stuck_late = False
    transcriber.can_go_on = False
    transcriber.transcript = replace(TRANSCRIPT, text="", segments=())

    again = make_jobs()
    async with again.working():
        await until(again, job, "done")

    transcript = await again.ask(lambda store: store.transcript(job.id))
    assert transcript.segments == ()


async def test_the_same_request_with_the_same_key_is_one_job(jobs: Jobs) -> None:
    first = await submit(jobs, key="once")
    second = await submit(jobs, key="once")

    assert second.id == first.id
    assert media_of(jobs) == [f"{first.id}.media"]
    with pytest.raises(IdempotencyMismatch):
        await submit(jobs, b"another file", key="once")
    assert media_of(jobs) == [f"{first.id}.media"]


async def test_a_job_too_many_leaves_no_file(make_jobs: Callable[..., Jobs]) -> None:
    jobs = make_jobs(max_waiting=1)
    await submit(jobs)

    with pytest.raises(Overloaded):
        await submit(jobs)

    assert len(list(jobs.folder.glob("*.media"))) == 1


async def test_cancelling_ends_the_work_and_frees_the_file(
    jobs: Jobs, transcriber: FakeTranscriber
) -> None:
    transcriber.is_stuck_late = True
    async with jobs.working():
        job = await submit(jobs)
        await until(jobs, job, "running")
        await asyncio.to_thread(transcriber.started.wait, WAIT)

        cancelled = await jobs.cancel(job.id, "alice")

        assert cancelled.state == "cancelled"
        assert await asyncio.to_thread(transcriber.ended.wait, WAIT)
        assert media_of(jobs) == []
        assert await state_of(jobs, job) == "cancelled"


async def test_a_file_nobody_can_read_fails_at_once(
    jobs: Jobs, transcriber: FakeTranscriber
) -> None:
    transcriber.error = UnreadableMedia("This is no audio.")
    async with jobs.working():
        failed = await until(jobs, await submit(jobs), "failed")

    assert failed.failure is not None
    assert (failed.failure.code, failed.attempts) == ("unreadable_media", 1)
    assert media_of(jobs) == []


@pytest.mark.parametrize("error", [EngineFailed("The model failed."), RuntimeError("a bug")])
async def test_a_file_the_server_fails_on_disturbs_nobody(
    jobs: Jobs, transcriber: FakeTranscriber, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("simple_asr.service.jobs.RETRY_SECONDS", 0.0)
    transcriber.error = error
    async with jobs.working():
        failed = await until(jobs, await submit(jobs), "failed")
        transcriber.error = None
        await until(jobs, await submit(jobs), "done")

    assert failed.attempts == 3


async def test_the_log_has_the_words_of_an_error_and_code_of_mistakes_in_it_alone(
    jobs: Jobs,
    transcriber: FakeTranscriber,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("simple_asr.service.jobs.RETRY_SECONDS", 0.0)
    async with jobs.working():
        transcriber.error = UnreadableMedia("This is no audio.")
        await until(jobs, await submit(jobs), "failed")
        of_the_file = caplog.text
        transcriber.error = RuntimeError("a bug")
        await until(jobs, await submit(jobs), "failed")

    assert "This is no audio." in of_the_file
    assert "Traceback" not in of_the_file
    assert "Traceback" in caplog.text


async def test_what_the_server_lacks_for_a_moment_is_not_held_against_a_job(
    jobs: Jobs, transcriber: FakeTranscriber, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("simple_asr.service.jobs.RETRY_SECONDS", 0.0)
    transcriber.error = Unavailable("Not now.")
    async with jobs.working():
        job = await submit(jobs)
        for _ in range(5):
            await asyncio.to_thread(transcriber.ended.wait, WAIT)
            transcriber.ended.clear()
        transcriber.error = None

        await until(jobs, job, "done")


async def test_a_worker_outlives_any_failure(
    make_jobs: Callable[..., Jobs], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("simple_asr.service.job_workers.POLL_SECONDS", 0.01)
    has_failed = threading.Event()
    claim = JobStore.claim

    def fail_once(store: JobStore, now: float) -> Lease | None:
        if has_failed.is_set():
            return claim(store, now)
        has_failed.set()
        raise RuntimeError("a bug")

    monkeypatch.setattr(JobStore, "claim", fail_once)
    jobs = make_jobs(num_workers=1)
    async with jobs.working():
        await asyncio.to_thread(has_failed.wait, WAIT)

        await until(jobs, await submit(jobs), "done")


async def test_a_stop_is_one_also_while_the_store_fails(
    make_jobs: Callable[..., Jobs], monkeypatch: pytest.MonkeyPatch
) -> None:
    is_asked, may_fail = threading.Event(), threading.Event()

    def fail(*_: object) -> None:
        is_asked.set()
        may_fail.wait(WAIT)
        raise Unavailable("Not now.")

    monkeypatch.setattr(JobStore, "claim", fail)

    async def serve() -> None:
        async with make_jobs(num_workers=1).working():
            await asyncio.to_thread(is_asked.wait, WAIT)
            # After the stop, which is told at once.
            asyncio.get_running_loop().call_later(0.1, may_fail.set)

    await asyncio.wait_for(serve(), WAIT)


async def test_nothing_is_begun_before_the_model_is_ready(
    jobs: Jobs, transcriber: FakeTranscriber, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("simple_asr.service.job_workers.POLL_SECONDS", 0.01)
    ready = transcriber.state
    transcriber.state = type(ready)("loading", "turbo", "turbo")
    async with jobs.working():
        job = await submit(jobs)
        await asyncio.sleep(0.1)
        assert (await state_of(jobs, job), transcriber.asked) == ("queued", [])
        transcriber.state = ready

        await until(jobs, job, "done")


async def test_results_go_when_their_time_is_over(
    make_jobs: Callable[..., Jobs],
) -> None:
    jobs = make_jobs(retention_seconds=0.2)
    async with jobs.working():
        job = await submit(jobs)
        with pytest.raises(JobNotFound):
            await until(jobs, job, "expired")


def test_only_old_files_without_work_are_swept(tmp_path: Path) -> None:
    files = FolderFiles(tmp_path)
    for name in ("needed", "ended", "fresh"):
        files.path(name).write_bytes(b"RIFF")
    old = time.time() - ABANDONED_AFTER_SECONDS - 1
    for name in ("needed", "ended"):
        _touch(files.path(name), old)

    files.sweep(lambda ids: set(ids) - {"needed"})

    assert sorted(path.stem for path in tmp_path.iterdir()) == ["fresh", "needed"]


def _touch(path: Path, seconds: float) -> None:
    os.utime(path, (seconds, seconds))


async def test_a_worker_that_lost_its_job_does_not_disturb_the_one_that_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both in one server, which was too slow to renew the first one's lease."""
    monkeypatch.setattr(JobStore, "renew", lambda *_: None)
    gave_up = threading.Event()
    give_up = JobStore.give_up

    def giving_up(*arguments: Any) -> None:
        try:
            give_up(*arguments)
        finally:
            gave_up.set()

    monkeypatch.setattr(JobStore, "give_up", giving_up)
    second_began = asyncio.Event()

    class Overtaken(FakeTranscriber):
        num_calls = 0

        async def events(self, *_: Any, **__: Any) -> AsyncGenerator[Event, None]:
            self.num_calls += 1
            if self.num_calls == 1:
                await second_began.wait()
            else:
                second_began.set()
                await asyncio.to_thread(gave_up.wait, WAIT)
            raise UnreadableMedia("No audio.")
            yield

    transcriber = Overtaken()
    limits = JobLimits(num_workers=2, lease_seconds=1)
    jobs = Jobs(
        transcriber,
        tmp_path,
        database_in(tmp_path),
        limits,
        downloads=NO_DOWNLOADS,
        webhooks=NO_WEBHOOKS,
    )
    async with jobs.working():
        job = await submit(jobs)
        await until(jobs, job, "failed")

    assert transcriber.num_calls == 2


async def test_a_job_whose_file_is_lost_fails_and_disturbs_nobody(
    jobs: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("simple_asr.service.jobs.RETRY_SECONDS", 0.0)
    lost = await submit(jobs)
    (jobs.folder / f"{lost.id}.media").unlink()
    sound = await submit(jobs)

    async with jobs.working():
        await until(jobs, sound, "done")
        failed = await until(jobs, lost, "failed")

    assert failed.failure is not None
    assert failed.failure.code == "job_set_aside"


async def test_a_store_of_files_that_hangs_holds_up_nobody_else(
    transcriber: FakeTranscriber, tmp_path: Path
) -> None:
    is_over = threading.Event()

    class HangingFiles(FolderFiles):
        def adopt(self, media: Path, job_id: str) -> None:
            is_over.wait(WAIT)
            super().adopt(media, job_id)

    jobs = Jobs(
        transcriber,
        tmp_path,
        database_in(tmp_path),
        JobLimits(),
        downloads=NO_DOWNLOADS,
        webhooks=NO_WEBHOOKS,
        open_files=HangingFiles,
    )
    # More than the event loop has threads.
    media = [tmp_path / f"{number}.upload" for number in range(64)]
    for path in media:
        path.write_bytes(b"RIFF")
    sending = [asyncio.create_task(jobs.submit(path, parameters(), "alice")) for path in media]
    await asyncio.sleep(0)

    listed = await asyncio.wait_for(jobs.ask(lambda store: store.page("alice", 10)), WAIT / 2)

    assert listed == []
    is_over.set()
    assert len(await asyncio.gather(*sending)) == 64


# Recordings that are fetched ---------------------------------------------------------------------


@pytest.fixture
async def internet() -> AsyncIterator[Listener]:
    async with listening() as listener:
        yield listener


def downloads_from(internet: Listener) -> Downloads:
    rules = AddressRules(frozenset({internet.port}), read_networks(f"{internet.address}/32"))
    return Downloads(Outgoing(rules), DownloadLimits(1000, idle_seconds=WAIT), is_enabled=True)


async def submit_url(jobs: Jobs, url: str) -> Job:
    return await jobs.submit(url, parameters(), "alice")


async def test_a_recording_is_fetched_when_its_turn_comes(
    make_jobs: Callable[..., Jobs], transcriber: FakeTranscriber, internet: Listener
) -> None:
    internet.answers["/a.wav"] = ok(b"RIFF from afar")
    jobs = make_jobs(downloads_from(internet))
    job = await submit_url(jobs, f"http://127.0.0.2:{internet.port}/a.wav?signature=secret")
    num_before = internet.num_connections

    async with jobs.working():
        done = await until(jobs, job, "done")

    assert num_before == 0
    assert [asked.content for asked in transcriber.asked] == [b"RIFF from afar"]
    assert done.audio_url is None
    assert [path.name for path in jobs.folder.iterdir() if "jobs.sqlite3" not in path.name] == []


async def test_a_recording_is_fetched_once_however_often_its_job_is_begun(
    make_jobs: Callable[..., Jobs], transcriber: FakeTranscriber, internet: Listener
) -> None:
    internet.answers["/a.wav"] = ok(b"RIFF")
    transcriber.is_stuck_late = True
    first = make_jobs(downloads_from(internet))
    async with first.working():
        job = await submit_url(first, f"http://127.0.0.2:{internet.port}/a.wav")
        await until_said(first, job)
    transcriber.is_stuck_late = False

    second = make_jobs(downloads_from(internet))
    async with second.working():
        await until(second, job, "done")

    assert internet.num_connections == 1


async def test_a_recording_that_cannot_be_had_is_asked_for_three_times(
    make_jobs: Callable[..., Jobs], internet: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("simple_asr.service.jobs.RETRY_SECONDS", 0.0)
    internet.answers["/a.wav"] = status("503 Later")
    jobs = make_jobs(downloads_from(internet))

    async with jobs.working():
        job = await submit_url(jobs, f"http://127.0.0.2:{internet.port}/a.wav?signature=secret")
        failed = await until(jobs, job, "failed")

    assert internet.num_connections == 3
    assert failed.failure is not None
    assert failed.failure.code == "download_failed"
    assert "secret" not in failed.failure.detail


async def test_an_address_of_ours_fails_its_job_at_once(
    make_jobs: Callable[..., Jobs], internet: Listener
) -> None:
    jobs = make_jobs(downloads_from(internet))

    async with jobs.working():
        job = await submit_url(jobs, f"http://127.0.0.1:{internet.port}/a.wav")
        failed = await until(jobs, job, "failed")

    assert failed.failure is not None
    assert (failed.failure.code, failed.attempts) == ("address_refused", 1)


async def test_a_job_that_is_cancelled_ends_its_download(
    make_jobs: Callable[..., Jobs], internet: Listener
) -> None:
    asked = asyncio.Event()

    async def hang(_: asyncio.StreamWriter) -> None:
        asked.set()
        await asyncio.Event().wait()

    internet.answers["/a.wav"] = hang
    jobs = make_jobs(downloads_from(internet))
    async with jobs.working():
        job = await submit_url(jobs, f"http://127.0.0.2:{internet.port}/a.wav")
        await asyncio.wait_for(asked.wait(), WAIT)

        cancelled = await jobs.cancel(job.id, "alice")

    assert (cancelled.state, cancelled.audio_url) == ("cancelled", None)
    assert list(jobs.folder.glob("*.upload")) == []
