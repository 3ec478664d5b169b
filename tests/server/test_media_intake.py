"""Hostile media and callers, over HTTP, against the real server in a process of its own.

What is short here can be had at length: ASR_TEST_MUTANTS=20000, of another ASR_TEST_SEED,
ASR_TEST_KILLS=100, and, with the real model, ASR_TEST_WORDS=1.
"""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.mutants import KINDS, Kind, mutant, valid_file
from tests.running_server import KEY, RunningServer, running_server
from tests.support import WAIT

if sys.platform != "linux":
    pytest.skip("these tests look at processes through /proc", allow_module_level=True)

NUM_MUTANTS = int(os.environ.get("ASR_TEST_MUTANTS", "200"))
SEED = os.environ.get("ASR_TEST_SEED", "1")
NUM_KILLS = int(os.environ.get("ASR_TEST_KILLS", "10"))
TESTS_WORDS = "ASR_TEST_WORDS" in os.environ
NUM_CALLERS = 4
MIB = 1024**2

HOSTILE = Path(__file__).parents[3] / "shared" / "hostile"
EXPECTED: dict[str, Any] = (
    json.loads((HOSTILE / "expected.json").read_text()) if HOSTILE.exists() else {"files": {}}
)
FILES: dict[str, dict[str, Any]] = EXPECTED["files"]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, base_model: Path) -> Iterator[RunningServer]:
    """One for all tests here: none may spoil it for the next."""
    home = tmp_path_factory.mktemp("server")
    with running_server(
        home, base_model, max_audio_seconds=3600, max_upload_bytes=25 * MIB
    ) as server:
        with server.client() as client:
            assert transcribe(client, valid_file(KINDS[0])).status_code == 200
        yield server
        assert "Traceback" not in server.log


@pytest.fixture(scope="module")
def client(server: RunningServer) -> Iterator[httpx.Client]:
    with server.client() as client:
        yield client


@pytest.fixture(autouse=True)
def leaves_nothing_behind(server: RunningServer) -> Iterator[None]:
    """Files and descriptors are gone when the last answer is read, or soon after."""
    before = server.descriptors
    yield
    server.until(lambda: server.spooled == [], "the spool folder is empty")
    server.until_closed(before)


def transcribe(client: httpx.Client, media: bytes, **parameters: str) -> httpx.Response:
    return client.post(
        "/transcribe", params=parameters, files={"audio_file": ("clip", media, "audio/wav")}
    )


# The collection of hostile files -----------------------------------------------------------------


@pytest.mark.skipif(not FILES, reason="the folder `shared` is not beside this checkout")
@pytest.mark.parametrize("name", FILES)
def test_a_hostile_file_ends_as_expected_and_the_server_lives(
    server: RunningServer,
    client: httpx.Client,
    listener: socket.socket,
    canary: Path,
    name: str,
) -> None:
    row = FILES[name]
    server.forget_peak()
    cpu_before = server.cpu_seconds

    answer = transcribe(client, (HOSTILE / "files" / name).read_bytes(), format="verbose_json")

    assert outcome(answer) == row["expect"], answer.text
    document = json.loads(answer.content, parse_constant=pytest.fail)
    if "dur_s" in row:
        assert document["duration"] == pytest.approx(row["dur_s"], abs=row.get("dur_tol", 0.3))
    assert server.peak_mib < row.get("max_rss_mib", 600)
    # Its own time: that of the clock would be longer on a busy machine.
    assert server.cpu_seconds - cpu_before < row.get("max_wall_s", 15)
    with pytest.raises(BlockingIOError):
        listener.accept()
    assert {path.stat().st_atime for path in canary.iterdir()} == {0.0}
    assert client.get("/health").status_code == 200


def outcome(answer: httpx.Response) -> str:
    """As the list has it. An error must be a problem document."""
    if answer.status_code == 200:
        return "ok"
    assert answer.headers["content-type"] == "application/problem+json"
    assert len(answer.content) <= 4096
    return f"{answer.status_code // 100}xx"


@pytest.fixture(scope="module")
def listening_server(
    tmp_path_factory: pytest.TempPathFactory, models_root: Path
) -> Iterator[RunningServer]:
    """One that understands what is said."""
    home = tmp_path_factory.mktemp("listening_server")
    with running_server(
        home,
        None,
        model_download_root=models_root,
        default_model="base",
        model_device="cpu",
        hf_hub_offline=True,
    ) as server:
        yield server


@pytest.mark.weights
@pytest.mark.skipif(not TESTS_WORDS, reason="takes minutes: set ASR_TEST_WORDS=1")
@pytest.mark.parametrize(
    "name", [name for name in FILES if {"text_has", "text_is"} & {*FILES[name]}]
)
def test_what_is_said_in_an_odd_or_damaged_file_is_understood(
    listening_server: RunningServer, name: str
) -> None:
    row = FILES[name]
    with listening_server.client() as client:
        answer = transcribe(client, (HOSTILE / "files" / name).read_bytes(), language="en")

    text = answer.json()["text"]
    # The list has null where nobody knows what is said.
    assert (row.get("text_has") or "") in text.lower()
    assert text.strip() == row.get("text_is", text.strip())


# What memory costs -------------------------------------------------------------------------------


def test_memory_does_not_grow_with_the_length_of_the_audio(
    server: RunningServer, client: httpx.Client
) -> None:
    minute = valid_file(Kind("mp3", "libmp3lame"), seconds=60)

    def peak_of(num_minutes: int) -> float:
        server.forget_peak()
        answer = transcribe(client, minute * num_minutes, format="verbose_json")
        assert answer.json()["duration"] == pytest.approx(60 * num_minutes, rel=0.01)
        return server.peak_mib

    two_minutes, twelve_minutes = peak_of(2), peak_of(12)

    # The samples alone, kept in memory, would be 18 MiB more as integers, and 37 MiB as floats.
    assert twelve_minutes - two_minutes < 15


# Mutants of valid files --------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: f"{kind.container}-{kind.codec}")
def test_every_kind_of_file_is_read_while_it_is_whole(client: httpx.Client, kind: Kind) -> None:
    answer = transcribe(client, valid_file(kind), format="verbose_json")

    assert answer.status_code == 200
    assert answer.json()["duration"] == pytest.approx(1.0, abs=0.1)


def test_a_mutant_of_a_valid_file_costs_nobody_but_its_sender(
    server: RunningServer, client: httpx.Client
) -> None:
    files = [valid_file(kind) for kind in KINDS]

    def send(number: int) -> tuple[int, float]:
        began = time.monotonic()
        status = transcribe(client, mutant(files, f"{SEED}:{number}")).status_code
        return status, time.monotonic() - began

    with ThreadPoolExecutor(NUM_CALLERS) as callers:
        answers = list(callers.map(send, range(NUM_MUTANTS)))

    statuses = Counter(status for status, _ in answers)
    slowest = max(seconds for _, seconds in answers)
    print(f"{NUM_MUTANTS} mutants of seed {SEED}: {dict(statuses)}, slowest {slowest:.1f} s")  # noqa: T201
    assert all(status == 200 or 400 <= status < 500 for status in statuses), statuses
    assert slowest < WAIT
    assert client.get("/health").status_code == 200


# Decoders that die -------------------------------------------------------------------------------


def test_a_decoder_killed_under_load_costs_one_request_and_nobody_else_anything(
    server: RunningServer, client: httpx.Client
) -> None:
    clip = valid_file(KINDS[0], seconds=20)
    is_over = threading.Event()

    statuses: list[int] = []

    def send_until_over(_: int) -> None:
        while not is_over.is_set():
            statuses.append(transcribe(client, clip).status_code)

    with ThreadPoolExecutor(NUM_CALLERS) as callers:
        senders = [callers.submit(send_until_over, number) for number in range(NUM_CALLERS)]
        try:
            kill_decoders(server, NUM_KILLS, statuses)
        finally:
            is_over.set()
        for sender in senders:
            sender.result()

    counts = Counter(statuses)
    print(f"{NUM_KILLS} kills: {dict(counts)}")  # noqa: T201
    assert set(counts) <= {200, 422, 503}
    assert counts[422] + counts[503] <= NUM_KILLS
    assert counts[200] >= NUM_KILLS
    assert transcribe(client, clip).status_code == 200


def kill_decoders(server: RunningServer, times: int, statuses: Sequence[int]) -> None:
    """By SIGKILL and SIGSEGV in turn, a process that is new, after another request succeeded."""
    killed: set[int] = set()

    def alive() -> list[int]:
        return [process_id for process_id in server.decoders if process_id not in killed]

    for number in range(times):
        server.until(lambda: len(alive()) > 0, "there is a new decoder")
        server.until(lambda: statuses.count(200) > number, "a request succeeds")  # noqa: B023
        victim = random.Random(number).choice(alive())  # noqa: S311
        killed.add(victim)
        with suppress(ProcessLookupError):
            os.kill(victim, signal.SIGSEGV if number % 2 else signal.SIGKILL)


# Callers that leave ------------------------------------------------------------------------------


def test_a_hundred_uploads_broken_off_leave_nothing(
    server: RunningServer, client: httpx.Client
) -> None:
    media = valid_file(KINDS[0], seconds=10)

    for number in range(100):
        break_off(server, media, share=number / 100, with_reset=number % 2 == 0)

    server.until(lambda: server.spooled == [], "the spool folder is empty")
    assert transcribe(client, media).status_code == 200


def break_off(server: RunningServer, media: bytes, share: float, with_reset: bool) -> None:
    """Sends a share of an upload, and ends the connection politely or not."""
    head = (
        f"POST /transcribe HTTP/1.1\r\nHost: a\r\nX-API-Key: {KEY}\r\n"
        f"Content-Type: audio/wav\r\nContent-Length: {len(media)}\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", server.port), timeout=WAIT) as connection:
        if with_reset:
            no_linger = struct.pack("ii", 1, 0)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, no_linger)
        connection.sendall(head.encode() + media[: int(share * len(media))])


# A disk that is full -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def small_disk(
    tmp_path_factory: pytest.TempPathFactory, base_model: Path
) -> Iterator[RunningServer]:
    """A server whose spool folder is a file system of 8 MiB, which it alone sees."""
    mount = 'mount -t tmpfs -o size=8m tmpfs "$SPOOL_DIR" && exec "$@"'
    wrapper = ("unshare", "--mount", "--map-root-user", "sh", "-c", mount, "sh")
    probe = subprocess.run([*wrapper[:3], "true"], capture_output=True, check=False)
    if probe.returncode:
        pytest.skip(f"this system lets nobody mount: {probe.stderr.decode().strip()}")
    home = tmp_path_factory.mktemp("small_disk")
    with running_server(home, base_model, wrapper=wrapper, min_free_bytes=2 * MIB) as server:
        yield server


class Ballast:
    """A file that leaves so much of a server's spool folder free, while a with block lasts."""

    def __init__(self, server: RunningServer, free: int) -> None:
        self._path = Path(f"/proc/{server.process_id}/root{server.spool}/ballast")
        self._size = 8 * MIB - free

    def __enter__(self) -> None:
        self._path.write_bytes(bytes(self._size))

    def __exit__(self, *_: object) -> None:
        self._path.unlink()


def test_on_a_full_disk_an_upload_is_a_507_until_there_is_room_again(
    small_disk: RunningServer,
) -> None:
    media = valid_file(KINDS[0], seconds=60)

    with small_disk.client() as client:
        with Ballast(small_disk, free=MIB):
            full = transcribe(client, media)
            ready_while_full = client.get("/health/ready")
        later = transcribe(client, media)
        ready_later = client.get("/health/ready")

    assert (full.status_code, full.json()["code"]) == (507, "storage_full")
    assert ready_while_full.status_code == 503
    assert ready_while_full.json() == {"status": "storage_low"}
    assert (later.status_code, ready_later.status_code) == (200, 200)
    assert small_disk.spooled == []


def test_a_disk_that_fills_up_while_decoding_is_a_507_too(small_disk: RunningServer) -> None:
    small_file_of_two_minutes = valid_file(Kind("mp3", "libmp3lame"), seconds=120)
    assert len(small_file_of_two_minutes) < MIB < 120 * 32_000

    with small_disk.client() as client:
        with Ballast(small_disk, free=2 * MIB):
            full = transcribe(client, small_file_of_two_minutes)
        later = transcribe(client, small_file_of_two_minutes)

    assert (full.status_code, full.json()["code"]) == (507, "storage_full")
    assert later.status_code == 200
    assert small_disk.spooled == []
