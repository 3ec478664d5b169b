"""Takes jobs in and works on them, so that whoever sent one need not stay.

What becomes of a job is decided in `jobs.py`, what is kept of it in `job_store.py`.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from simple_asr.engine.window import Priority
from simple_asr.errors import AsrError, StorageFull, Unavailable
from simple_asr.service.archives import ArchiveLimits, opened
from simple_asr.service.batches import Batch
from simple_asr.service.downloads import Downloads
from simple_asr.service.job_files import FolderFiles, JobFiles, digest
from simple_asr.service.job_store import JobStore
from simple_asr.service.jobs import (
    Failure,
    Job,
    Lease,
    LeaseLost,
    NewJob,
    TryAgain,
    after_error,
    begins_anew,
    document_of,
    parameters_of,
)
from simple_asr.service.models import Models
from simple_asr.service.parameters import TranscribeParameters
from simple_asr.service.spool import SpoolFile
from simple_asr.service.usage import Used
from simple_asr.service.webhook_sender import WebhookSender
from simple_asr.transcript.events import Done, Progress, SegmentDone
from simple_asr.transcript.model import Segment

logger = logging.getLogger(__name__)

Answer = TypeVar("Answer")
OnWork = Callable[[str, Used], None]
"""Told, on the event loop, what was used for the owner of a job."""

# How often a worker without a job looks for one that another server took in or gave up.
POLL_SECONDS = 1.0
HOUSEKEEPING_SECONDS = 60.0
NUM_FILE_THREADS = 8
STORE_FAILS = (StorageFull, Unavailable)
GIVEN_BACK = TryAgain(0.0, is_counted=False)


@dataclass(frozen=True, slots=True)
class JobLimits:
    """`num_workers` jobs run at a time here; seconds for the rest, see settings."""

    num_workers: int = 2
    lease_seconds: float = 30.0
    retention_seconds: float = 604_800.0
    max_waiting: int = 1000
    archives: ArchiveLimits = field(default_factory=ArchiveLimits)


class Jobs:
    """The jobs of this server. Owned by one event loop; its store is opened when it is needed."""

    def __init__(
        self,
        transcriber: Models,
        folder: Path,
        database_url: str,
        limits: JobLimits,
        *,
        downloads: Downloads,
        webhooks: WebhookSender,
        on_work: OnWork = lambda *_: None,
        open_files: Callable[[Path], JobFiles] = FolderFiles,
    ) -> None:
        """`folder` is for uploads, and keeps the media of jobs unless `open_files` has another
        place for them. `downloads` fetch what was not sent; `on_work` is told of each part that is
        done.
        """
        self.folder = folder
        self._open_files = open_files
        self._transcriber = transcriber
        self._downloads = downloads
        self._webhooks = webhooks
        self._database_url = database_url
        self._on_work = on_work
        self._limits = limits
        self._files: JobFiles | None = None
        self._store: JobStore | None = None
        self._opening = threading.Lock()
        # Of their own: a store of files that hangs is to hold up no upload of others.
        self._threads = ThreadPoolExecutor(NUM_FILE_THREADS, thread_name_prefix="asr-job-files")
        self._at_work: dict[str, asyncio.Task[None]] = {}
        self._arrival = asyncio.Event()

    # Callers -------------------------------------------------------------------------------------

    async def submit(
        self,
        source: Path | str,
        parameters: TranscribeParameters,
        owner: str,
        idempotency_key: str | None = None,
        answer_shape: str | None = None,
    ) -> Job:
        """Takes over a file, or an address; the job is on disk when this returns.

        Raises ModelNotFound, IdempotencyMismatch, Overloaded, StorageFull, Unavailable; and where
        it names a webhook, InvalidParameter and AddressRefused.
        """
        await self._check_model(parameters)
        document = document_of(parameters)
        asked = "\0".join(filter(None, (document, parameters.webhook_url, answer_shape)))
        webhook_url = self._webhooks.url_for(parameters.webhook_url)

        def keep(store: JobStore, files: JobFiles) -> Job:
            new = NewJob(
                id=secrets.token_hex(16),
                owner=owner,
                parameters=document,
                idempotency_key=idempotency_key,
                digest=digest(source, asked) if idempotency_key else "",
                audio_url=source if isinstance(source, str) else None,
                webhook_url=webhook_url,
                answer_shape=answer_shape,
            )
            if isinstance(source, Path):
                files.adopt(source, new.id)
            is_kept = False
            try:
                job = store.add(new, time.time())
                is_kept = job.id == new.id
            finally:
                if not is_kept:
                    files.remove([new.id])
            return job

        job = await self._in_thread(keep)
        self._arrival.set()
        return job

    async def _check_model(self, parameters: TranscribeParameters) -> None:
        """Raises ModelNotFound, which nobody should learn when the job's turn has come.

        A job is taken in also while nobody can tell.
        """
        if parameters.options.model is not None:
            with suppress(Unavailable):
                await asyncio.to_thread(self._transcriber.find, parameters.options.model)

    async def submit_batch(
        self,
        archive: Path | None,
        audio_urls: Sequence[str],
        parameters: TranscribeParameters,
        owner: str,
        idempotency_key: str | None = None,
    ) -> Batch:
        """A job for each recording of a zip, then for each address; all are on disk, or none.

        Raises as `submit`, and InvalidArchive, PayloadTooLarge.
        """
        await self._check_model(parameters)
        webhook_url = self._webhooks.url_for(parameters.webhook_url)
        document = document_of(parameters)

        def keep(store: JobStore, files: JobFiles) -> Batch:
            template = NewJob(
                id="",
                owner=owner,
                parameters=document,
                webhook_url=webhook_url,
                batch_id=secrets.token_hex(16),
            )
            new: list[NewJob] = []
            limits = self._limits.archives
            limits = replace(limits, max_members=limits.max_members - len(audio_urls))

            def begin(**fields: str) -> NewJob:
                job_id = secrets.token_hex(16)
                new.append(replace(template, id=job_id, batch_number=len(new), **fields))
                return new[-1]

            kept: list[Job] = []
            try:
                if archive is not None:
                    with opened(archive, limits) as packed:
                        for number, name in enumerate(packed.names):
                            files.keep(packed.chunks(number), begin(name=name).id)
                for url in audio_urls:
                    begin(audio_url=url)
                if idempotency_key is not None:
                    asked = "\0".join((document, parameters.webhook_url or "", *audio_urls))
                    once = digest(archive or "", asked)
                    new[0] = replace(new[0], idempotency_key=idempotency_key, digest=once)
                kept = store.add_batch(new, time.time())
            finally:
                files.remove({job.id for job in new} - {job.id for job in kept})
            assert kept[0].batch_id is not None, "a batch has an id"
            return Batch(kept[0].batch_id, tuple(kept))

        batch = await self._in_thread(keep)
        self._arrival.set()
        return batch

    def open(self) -> None:
        """Opens the store, so that a fault of it is told before there is anybody to wait; blocks.

        Raises ConfigurationError, and Unavailable where another try may do.
        """
        self._open()

    async def ask(self, question: Callable[[JobStore], Answer]) -> Answer:
        """What the store answers; it blocks, so it is asked in a thread."""
        return await asyncio.to_thread(lambda: question(self._open()[0]))

    async def cancel(self, job_id: str, owner: str) -> Job:
        """The job has ended when this returns, and its file is gone. Raises JobNotFound."""

        def end(store: JobStore, files: JobFiles) -> Job:
            job = store.cancel(job_id, owner, time.time())
            files.remove([job_id])
            return job

        job = await self._in_thread(end)
        if job_id in self._at_work:
            self._at_work[job_id].cancel()
        return job

    async def cancel_batch(self, batch_id: str, owner: str) -> Batch:
        """Each of its jobs has ended when this returns, and their files are gone.

        Raises JobNotFound.
        """

        def end(store: JobStore, files: JobFiles) -> Batch:
            batch = store.cancel_batch(batch_id, owner, time.time())
            files.remove([job.id for job in batch.jobs])
            return batch

        batch = await self._in_thread(end)
        for job in batch.jobs:
            if job.id in self._at_work:
                self._at_work[job.id].cancel()
        return batch

    async def _in_thread(self, work: Callable[[JobStore, JobFiles], Answer]) -> Answer:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, lambda: work(*self._open()))

    def _open(self) -> tuple[JobStore, JobFiles]:
        """Raises as `open`."""
        with self._opening:
            if self._store is None or self._files is None:
                self._files = self._open_files(self.folder)
                self._store = JobStore(
                    self._database_url,
                    lease_seconds=self._limits.lease_seconds,
                    max_waiting=self._limits.max_waiting,
                )
            return self._store, self._files

    # Workers -------------------------------------------------------------------------------------

    @asynccontextmanager
    async def working(self) -> AsyncIterator[None]:
        """Jobs are worked on for as long as the context lasts; then those begun are given back.

        Raises as `open`.
        """
        await asyncio.to_thread(self._open)
        tasks = [
            asyncio.create_task(self._keep_house()),
            asyncio.create_task(self._webhooks.run(self.ask)),
        ]
        tasks += [asyncio.create_task(self._work()) for _ in range(self._limits.num_workers)]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            store, _ = self._open()
            await asyncio.to_thread(store.close)

    async def _work(self) -> None:
        while True:
            try:
                lease = await self._claim()
                if lease is not None:
                    await self._run(lease)
                    continue
            except Exception:  # A worker outlives any failure; the lease, if any, runs out.
                logger.exception("A worker of jobs failed")
            await self._wait_for_arrival()

    async def _claim(self) -> Lease | None:
        if self._transcriber.model_state.status != "ready":
            return None
        claiming = asyncio.ensure_future(self.ask(lambda store: store.claim(time.time())))
        try:
            return await asyncio.shield(claiming)
        except STORE_FAILS:  # The store has logged why.
            return None
        except asyncio.CancelledError:
            with suppress(Exception):  # Nothing was claimed, and a stop is a stop.
                lease = await claiming
                if lease is not None:
                    await self._give_up(lease, GIVEN_BACK)
            raise

    async def _wait_for_arrival(self) -> None:
        waiting = asyncio.ensure_future(self._arrival.wait())
        try:
            await asyncio.wait({waiting}, timeout=POLL_SECONDS)
        finally:
            waiting.cancel()
        self._arrival.clear()

    async def _run(self, lease: Lease) -> None:
        """Works on the job until it has ended, in whatever way, or is another's."""
        working = asyncio.create_task(self._transcribe(lease))
        renewing = asyncio.create_task(self._renew(lease, working))
        self._at_work[lease.job.id] = working
        try:
            await asyncio.wait({working})
        except asyncio.CancelledError:
            working.cancel()
            await asyncio.gather(working, return_exceptions=True)
            await self._give_up(lease, GIVEN_BACK)
            raise
        finally:
            renewing.cancel()
            # Where the lease ran out meanwhile, another worker here may be at this very job.
            if self._at_work.get(lease.job.id) is working:
                del self._at_work[lease.job.id]
        if not working.cancelled() and working.exception() is not None:
            await self._heed(lease, working.exception())

    async def _transcribe(self, lease: Lease) -> None:
        """From the last checkpoint on, where the transcriber can; else from the beginning."""
        async with self._media(lease.job) as media:
            await self._recognise(lease, media)

    async def _recognise(self, lease: Lease, media: Path) -> None:
        owner, options = lease.job.owner, parameters_of(lease.job.parameters).options
        checkpoint = lease.checkpoint
        reached = lease.job.seconds_done
        new: list[Segment] = []
        running = self._transcriber.events(media, options, lease.checkpoint, Priority.BACKGROUND)
        async with aclosing(running) as events:
            async for event in events:
                if checkpoint is not None and begins_anew(event, checkpoint):
                    await self.ask(lambda store: store.restart(lease))
                    checkpoint = None
                if isinstance(event, SegmentDone):
                    new.append(event.segment)
                elif isinstance(event, Progress):
                    # First, since a stop may come while it is saved; what is begun anew is free.
                    self._on_work(owner, Used.by_work(max(0.0, event.seconds_done - reached)))
                    reached = max(reached, event.seconds_done)
                    await self._save(lease, new, event)
                    new = []
                else:
                    rest = max(0.0, event.transcript.duration - reached)
                    self._on_work(owner, Used.by_work(rest, event.transcript.processing))
                    await self._finish(lease, new, event)

    @asynccontextmanager
    async def _media(self, job: Job) -> AsyncIterator[Path]:
        """The job's file, on this machine for as long as the context lasts; downloaded where no
        earlier attempt has done so. Raises AsrError.
        """
        url = job.audio_url
        if url is not None and not await self._in_thread(lambda _, files: files.has(job.id)):
            async with self._downloads.fetched(url, self.folder) as fetched:
                await self._in_thread(lambda _, files: files.adopt(fetched, job.id))
        path = await self._in_thread(lambda _, files: files.path(job.id))
        if path is not None:
            yield path
            return
        copy = SpoolFile(self.folder)
        try:
            await self._in_thread(lambda _, files: files.fetch(job.id, copy.path))
            yield copy.path
        finally:
            # In the thread's queue at once, and shielded: as for an upload.
            removing = asyncio.get_running_loop().run_in_executor(None, copy.remove)
            await asyncio.shield(removing)

    async def _save(self, lease: Lease, new: list[Segment], progress: Progress) -> None:
        await self.ask(lambda store: store.save(lease, new, progress, time.time()))

    async def _finish(self, lease: Lease, new: list[Segment], done: Done) -> None:
        def keep(store: JobStore, files: JobFiles) -> None:
            store.finish(lease, new, done.transcript, time.time())
            files.remove([lease.job.id])

        await self._in_thread(keep)
        logger.info("Job %s is done, %.1f s of audio", lease.job.id, done.transcript.duration)

    async def _renew(self, lease: Lease, working: asyncio.Task[None]) -> None:
        """Says that this worker lives, until the job is another's."""
        while True:
            await asyncio.sleep(self._limits.lease_seconds / 3)
            try:
                await self.ask(lambda store: store.renew(lease, time.time()))
            except LeaseLost:
                working.cancel()
                return
            except STORE_FAILS:
                continue

    async def _heed(self, lease: Lease, error: BaseException | None) -> None:
        if isinstance(error, LeaseLost):
            return
        assert isinstance(error, Exception), "what ends a task is an exception"
        verdict = after_error(error, lease.job.attempts)
        outcome = (
            f"is tried again in {verdict.delay:.0f} s"
            if isinstance(verdict, TryAgain)
            else f"failed: {verdict.code}"
        )
        # An error of ours says all there is to say, and is nobody's mistake in the code.
        if isinstance(error, AsrError):
            logger.warning("Job %s %s. %s", lease.job.id, outcome, error.detail)
        else:
            logger.warning("Job %s %s", lease.job.id, outcome, exc_info=error)
        await self._give_up(lease, verdict)

    async def _give_up(self, lease: Lease, verdict: Failure | TryAgain) -> None:
        def end(store: JobStore, files: JobFiles) -> None:
            store.give_up(lease, verdict, time.time())
            if isinstance(verdict, Failure):
                files.remove([lease.job.id])

        # Cancelled meanwhile; or the lease runs out, and the job comes back by itself.
        with suppress(LeaseLost, *STORE_FAILS):
            await self._in_thread(end)

    async def _keep_house(self) -> None:
        """Results whose time is over go, and files that no job needs."""

        def tidy(store: JobStore, files: JobFiles) -> None:
            files.remove(store.expire(time.time() - self._limits.retention_seconds))
            files.sweep(store.without_work)

        while True:
            try:
                await self._in_thread(tidy)
            except Exception:  # The next round may succeed.
                logger.exception("Old jobs could not be tidied away")
            await asyncio.sleep(min(HOUSEKEEPING_SECONDS, self._limits.retention_seconds))
