"""Kills servers at work with SIGKILL at random instants, and counts what became of their jobs.

python -m tests.service.kill_cycles 500
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import random
import signal
import sqlite3
import sys
import tempfile
import time
from collections.abc import AsyncGenerator
from dataclasses import replace
from functools import partial
from pathlib import Path
from unittest.mock import patch

from simple_asr.engine.options import TranscribeOptions
from simple_asr.engine.window import Priority
from simple_asr.service import job_store
from simple_asr.service.database import sqlite_url
from simple_asr.service.fake import TRANSCRIPT, FakeTranscriber
from simple_asr.service.job_files import FolderFiles
from simple_asr.service.job_store import JobStore
from simple_asr.service.job_workers import JobLimits, Jobs
from simple_asr.service.jobs import Job
from simple_asr.service.parameters import read_parameters
from simple_asr.transcript.events import Checkpoint, Done, Event, Progress, SegmentDone
from simple_asr.transcript.model import Segment
from tests.support import NO_DOWNLOADS, NO_WEBHOOKS, database_in

OWNER = "alice"
NUM_SEGMENTS = 5
LEASE_SECONDS = 0.2
LONGEST_LIFE_SECONDS = 0.2
UP = "up"
processes = multiprocessing.get_context("fork")


class SlowTranscriber(FakeTranscriber):
    """Says what is written in the file, in NUM_SEGMENTS segments."""

    async def events(
        self,
        media: Path,
        options: TranscribeOptions,
        checkpoint: Checkpoint | None = None,
        priority: Priority = Priority.INTERACTIVE,
    ) -> AsyncGenerator[Event, None]:
        segments = said_in(await asyncio.to_thread(media.read_text))
        for segment in segments[len(checkpoint.segments) if checkpoint else 0 :]:
            await asyncio.sleep(0.005)
            yield SegmentDone(segment)
            yield Progress(segment.end, float(NUM_SEGMENTS))
        text = "".join(segment.text for segment in segments)
        yield Done(replace(TRANSCRIPT, text=text, segments=segments, duration=NUM_SEGMENTS))


def said_in(content: str) -> tuple[Segment, ...]:
    return tuple(
        replace(TRANSCRIPT.segments[0], id=n, start=n, end=n + 1, text=f" {content}-{n}")
        for n in range(NUM_SEGMENTS)
    )


def jobs_in(folder: Path) -> Jobs:
    # The busier the machine, the more jobs wait.
    limits = JobLimits(lease_seconds=LEASE_SECONDS, max_waiting=1_000_000)
    return Jobs(
        SlowTranscriber(),
        folder,
        database_in(folder),
        limits,
        downloads=NO_DOWNLOADS,
        webhooks=NO_WEBHOOKS,
    )


def serve(folder: Path, first: int, acknowledged: int) -> None:
    """A server that is sent one job after another, and tells by a pipe which it has taken."""

    async def run() -> None:
        jobs = jobs_in(folder)
        async with jobs.working():
            os.write(acknowledged, f"{UP}\n".encode())
            number = first
            while True:
                media = folder / f"{os.getpid()}-{number}.upload"
                media.write_text(str(number))
                job = await jobs.submit(media, read_parameters(b""), OWNER, f"key-{number}")
                os.write(acknowledged, f"{number} {job.id}\n".encode())
                number += 1

    asyncio.run(run())


def live_and_die(folder: Path, first: int) -> dict[int, str]:
    """One server's life; the jobs it has acknowledged, by number."""
    reading, writing = os.pipe()
    server = processes.Process(target=serve, args=(folder, first, writing))
    server.start()
    os.close(writing)
    with os.fdopen(reading) as pipe:
        # One in five is killed while it starts.
        if random.random() < 0.8:  # noqa: S311 - no secret
            assert pipe.readline() == f"{UP}\n"
        time.sleep(random.uniform(0, LONGEST_LIFE_SECONDS))  # noqa: S311 - no secret
        assert server.pid is not None
        os.kill(server.pid, signal.SIGKILL)
        told = [line for line in pipe if line.endswith("\n") and line != f"{UP}\n"]
    server.join()
    return {int(number): job_id for number, job_id in (line.split() for line in told)}


async def finish(folder: Path) -> None:
    """A server that is left alone until every job has ended."""
    jobs = jobs_in(folder)
    async with jobs.working():
        for job in await jobs.ask(lambda store: store.page(OWNER, 1_000_000)):
            await end_of(jobs, job)


async def end_of(jobs: Jobs, job: Job) -> None:
    while not job.has_ended:
        await asyncio.sleep(0.05)
        job = await jobs.ask(partial(JobStore.get, job_id=job.id, owner=OWNER))


def main(num_cycles: int) -> None:
    """Raises AssertionError when a job was lost, doubled or damaged."""
    # So many kills in a row would have any server give up a job, and rightly.
    patience = patch.object(job_store, "MAX_ATTEMPTS", 1_000_000)
    with patience, tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        acknowledged: dict[int, str] = {}
        for _ in range(num_cycles):
            taken = live_and_die(folder, first=len(acknowledged))
            assert not acknowledged.keys() & taken.keys()
            acknowledged.update(taken)
        asyncio.run(finish(folder))
        check(folder, acknowledged)
    print(f"{num_cycles} kills, {len(acknowledged)} jobs acknowledged, none lost")  # noqa: T201


def check(folder: Path, acknowledged: dict[int, str]) -> None:
    with sqlite3.connect(folder / "jobs.sqlite3") as connection:
        [[verdict]] = connection.execute("PRAGMA integrity_check")
        num_by_key = dict(
            connection.execute("SELECT idempotency_key, count(*) FROM jobs GROUP BY 1")
        )
    assert verdict == "ok"
    assert set(num_by_key.values()) <= {1}, "one key is one job"
    store = JobStore(sqlite_url(folder / "jobs.sqlite3"))
    for number, job_id in acknowledged.items():
        job = store.get(job_id, OWNER)
        assert job.state == "done", job
        assert store.transcript(job_id).segments == said_in(str(number))
    for path in folder.glob("*.media"):
        os.utime(path, (0, 0))
    FolderFiles(folder).sweep(store.without_work)
    assert not list(folder.glob("*.media")), "what a kill leaves is swept when it is old"
    store.close()


if __name__ == "__main__":
    main(int(sys.argv[1]))
