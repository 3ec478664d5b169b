"""Files of jobs in a store that speaks S3: a real protocol, of a server in memory (moto).

Skipped where s3fs or moto is not installed: requirements/s3.txt, and `pip install 'moto[server]'`
anywhere, its program named in MOTO_SERVER.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from simple_asr.errors import ConfigurationError, StorageFull, Unavailable
from simple_asr.service.fake import TRANSCRIPT, FakeTranscriber
from simple_asr.service.job_store import JobStore
from simple_asr.service.job_workers import JobLimits, Jobs
from simple_asr.service.jobs import Job
from simple_asr.service.parameters import read_parameters
from tests.support import NO_DOWNLOADS, NO_WEBHOOKS, WAIT, database_in, free_port

s3fs = pytest.importorskip("s3fs", reason="s3fs is not installed (requirements/s3.txt)")
s3_files = pytest.importorskip("simple_asr.service.s3_files")
MOTO = os.environ.get("MOTO_SERVER") or shutil.which("moto_server")

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(MOTO is None, reason="no S3 server: pip install 'moto[server]'"),
]

BUCKET = "talks"


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits long for a store that hangs."""
    monkeypatch.setattr(s3_files, "CALL_SECONDS", 2.0)


@pytest.fixture(scope="module")
def moto() -> Iterator[tuple[subprocess.Popen[bytes], Any]]:
    """The process of a store, and the place in it."""
    port = free_port()
    with subprocess.Popen(
        [str(MOTO), "-p", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        try:
            wait_for(port)
            place = place_at(port)
            store = s3fs.S3FileSystem(key="id", secret="secret", endpoint_url=place.endpoint)
            store.mkdir(BUCKET)
            yield process, place
        finally:
            process.kill()


@pytest.fixture
def place(moto: tuple[subprocess.Popen[bytes], Any], tmp_path: Path) -> Any:
    """A folder of the test's own."""
    return replace(moto[1], url=f"s3://{BUCKET}/{tmp_path.name}")


@pytest.fixture
def files(place: Any, tmp_path: Path) -> Any:
    return s3_files.S3Files(place, tmp_path)


@contextmanager
def hanging(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """The store takes connections and answers nothing."""
    process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        process.send_signal(signal.SIGCONT)


def place_at(port: int) -> Any:
    return s3_files.S3Place(
        f"s3://{BUCKET}", f"http://127.0.0.1:{port}", access_key="id", secret_key="secret"
    )


def wait_for(port: int) -> None:
    deadline = time.monotonic() + WAIT
    with socket.socket() as connection:
        while connection.connect_ex(("127.0.0.1", port)):
            assert time.monotonic() < deadline, "no S3 server"
            time.sleep(0.05)


def upload(folder: Path, content: bytes = b"RIFF") -> Path:
    media = folder / "an.upload"
    media.write_bytes(content)
    return media


def content_of(files: Any, job_id: str, folder: Path) -> bytes:
    files.fetch(job_id, folder / "fetched")
    return (folder / "fetched").read_bytes()


# Files -------------------------------------------------------------------------------------------


def test_a_file_is_kept_until_it_is_removed(files: Any, tmp_path: Path) -> None:
    files.adopt(upload(tmp_path), "a")
    assert files.has("a")
    assert content_of(files, "a", tmp_path) == b"RIFF"

    files.remove(["a", "never there"])

    assert not files.has("a")
    with pytest.raises(FileNotFoundError):
        files.fetch("a", tmp_path / "fetched")


def test_a_large_file_is_sent_in_parts_and_is_whole(files: Any, tmp_path: Path) -> None:
    content = os.urandom(2 * s3_files.PART_BYTES + 1)

    files.adopt(upload(tmp_path, content), "a")

    assert content_of(files, "a", tmp_path) == content


def test_what_is_in_no_file_leaves_none_here(files: Any, tmp_path: Path) -> None:
    files.keep(iter([b"RI", b"FF"]), "a")

    assert list(tmp_path.iterdir()) == []
    assert content_of(files, "a", tmp_path) == b"RIFF"


def test_only_old_files_without_work_are_swept(
    files: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("needed", "ended"):
        files.adopt(upload(tmp_path), name)

    files.sweep(set)
    assert files.has("ended"), "it is young"
    monkeypatch.setattr(s3_files, "ABANDONED_AFTER_SECONDS", -60)
    files.sweep(lambda ids: set(ids) - {"needed"})

    assert (files.has("needed"), files.has("ended")) == (True, False)


# A store that fails ------------------------------------------------------------------------------


@pytest.fixture
def failing() -> Iterator[Callable[[int, str], Any]]:
    """Places in stores that list what they have, and answer all else with an error."""
    servers: list[ThreadingHTTPServer] = []

    def start(status: int, code: str) -> Any:
        server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Failing, status, code))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return place_at(server.server_port)

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


class _Failing(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def __init__(self, status: int, code: str, *connection: Any) -> None:
        self._failure = status, f"<Error><Code>{code}</Code><Message>No.</Message></Error>"
        super().__init__(*connection)

    def do_GET(self) -> None:
        self._answer(200, "<ListBucketResult></ListBucketResult>")

    def do_PUT(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self._answer(*self._failure)

    def do_DELETE(self) -> None:
        self._answer(*self._failure)

    def _answer(self, status: int, document: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(document)))
        self.end_headers()
        self.wfile.write(document.encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [
        (507, "XMinioStorageFull", StorageFull),
        (403, "QuotaExceeded", StorageFull),
        (403, "AccessDenied", Unavailable),
        (500, "InternalError", Unavailable),
        (503, "SlowDown", Unavailable),
    ],
)
def test_a_file_the_store_does_not_take_is_refused_for_that_reason(
    failing: Callable[[int, str], Any],
    tmp_path: Path,
    status: int,
    code: str,
    expected: type[Exception],
) -> None:
    files = s3_files.S3Files(failing(status, code), tmp_path)

    with pytest.raises(expected):
        files.adopt(upload(tmp_path), "a")


def test_what_cannot_be_removed_now_is_no_failure(
    failing: Callable[[int, str], Any], tmp_path: Path
) -> None:
    s3_files.S3Files(failing(500, "InternalError"), tmp_path).remove(["a"])


def test_a_store_that_is_not_there_yet_is_waited_for(tmp_path: Path) -> None:
    files = s3_files.S3Files(place_at(free_port()), tmp_path)

    with pytest.raises(Unavailable):
        files.adopt(upload(tmp_path), "a")


def test_a_bucket_that_is_not_there_is_told_at_the_start(place: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"s3://no-such-bucket, refuses.*JOB_FILES_URL"):
        s3_files.S3Files(replace(place, url="s3://no-such-bucket"), tmp_path)


def test_secrets_are_not_shown() -> None:
    place = s3_files.S3Place(
        "s3://talks", access_key="id", secret_key="quiet", session_token="hush"
    )

    assert not {"quiet", "hush"} & set(repr(place).replace("'", " ").split())


# Jobs --------------------------------------------------------------------------------------------


@pytest.fixture
def transcriber() -> FakeTranscriber:
    return FakeTranscriber()


@pytest.fixture
def jobs(place: Any, transcriber: FakeTranscriber, tmp_path: Path) -> Jobs:
    return Jobs(
        transcriber,
        tmp_path / "jobs",
        database_in(tmp_path),
        JobLimits(),
        downloads=NO_DOWNLOADS,
        webhooks=NO_WEBHOOKS,
        open_files=partial(s3_files.S3Files, place),
    )


async def submit(jobs: Jobs, folder: Path) -> Job:
    return await jobs.submit(upload(folder), read_parameters(b""), "alice")


async def until(jobs: Jobs, job: Job, state: str) -> None:
    for _ in range(WAIT * 20):
        found = await jobs.ask(lambda store: store.get(job.id, "alice"))
        if found.state == state:
            return
        await asyncio.sleep(0.05)
    raise AssertionError(f"the job is {found.state}, not {state}")


def left_in(jobs: Jobs) -> list[str]:
    return [path.name for path in jobs.folder.iterdir() if "sqlite" not in path.name]


async def test_a_job_is_done_and_its_file_is_gone_from_the_store(
    jobs: Jobs, transcriber: FakeTranscriber, files: Any, tmp_path: Path
) -> None:
    job = await submit(jobs, tmp_path)
    assert files.has(job.id)

    async with jobs.working():
        await until(jobs, job, "done")
        transcript = await jobs.ask(lambda store: store.transcript(job.id))

    assert transcript.text == TRANSCRIPT.text
    assert transcriber.asked[0].content == b"RIFF"
    assert not files.has(job.id)
    assert left_in(jobs) == []


async def test_a_job_is_refused_while_the_store_hangs_and_taken_when_it_answers(
    jobs: Jobs, moto: tuple[subprocess.Popen[bytes], Any], tmp_path: Path
) -> None:
    async with jobs.working():
        with hanging(moto[0]), pytest.raises(Unavailable):
            await submit(jobs, tmp_path)
        assert await jobs.ask(lambda store: store.page("alice", 10)) == []

        await until(jobs, await submit(jobs, tmp_path), "done")


async def test_a_job_outlasts_a_store_that_hangs(
    jobs: Jobs,
    moto: tuple[subprocess.Popen[bytes], Any],
    transcriber: FakeTranscriber,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setattr("simple_asr.service.jobs.RETRY_SECONDS", 0.0)
    given_back = asyncio.Event()
    loop, give_up = asyncio.get_running_loop(), JobStore.give_up

    def giving_up(*arguments: Any) -> None:
        give_up(*arguments)
        loop.call_soon_threadsafe(given_back.set)

    monkeypatch.setattr(JobStore, "give_up", giving_up)
    job = await submit(jobs, tmp_path)

    with hanging(moto[0]):
        async with jobs.working():
            await asyncio.wait_for(given_back.wait(), WAIT)
            assert transcriber.asked == []
            moto[0].send_signal(signal.SIGCONT)
            await until(jobs, job, "done")

    assert [asked.content for asked in transcriber.asked] == [b"RIFF"]
