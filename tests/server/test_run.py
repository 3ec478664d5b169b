"""The server as a process: its address, its signals, its log, its end."""

from __future__ import annotations

import gc
import json
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import httpx
import pytest
import trustme
import uvicorn
from fastapi import FastAPI

from simple_asr.errors import ConfigurationError
from simple_asr.server.listener import listen
from simple_asr.server.run import build_server, serve
from simple_asr.service.fake import FakeTranscriber
from simple_asr.settings import Settings
from tests.support import free_port

PROGRAM = """
import json
import signal
import sys
import threading
from pathlib import Path
from simple_asr.server.app import create_app
from simple_asr.server.log import configure_logging
from simple_asr.server.run import serve
from simple_asr.service.fake import FakeTranscriber
from simple_asr.service.keys import KeyStore
from simple_asr.settings import Settings

home = Path(sys.argv[1])
settings = Settings(
    _env_file=None,
    host="127.0.0.1", port=sys.argv[2], keys_file=home / "keys.txt", spool_dir=home / "spool",
    jobs_dir=home / "jobs", **json.loads(sys.argv[3]),
)
configure_logging(settings.log_level)
keys = KeyStore(settings.keys_file)
keys.reload()
keys.changed_on_disk = lambda: False  # So that only the signal can have read the file again.
transcriber = FakeTranscriber()
transcriber.is_stuck = True

def tell_of_the_first():
    transcriber.started.wait()
    print("A transcription has begun", file=sys.stderr, flush=True)

threading.Thread(target=tell_of_the_first, daemon=True).start()
if sys.argv[4] != "stuck":
    serve(create_app(settings, transcriber, keys), settings)
else:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    try:
        serve(create_app(settings, transcriber, keys), settings)
    finally:
        threading.Event().wait()  # As whoever waits for a model call that never ends.
"""


class Process:
    """A server in a process of its own, and its log as it comes."""

    def __init__(self, home: Path, settings: dict[str, object], end: str) -> None:
        self.port = free_port()
        arguments = [str(home), str(self.port), json.dumps(settings), end]
        self._process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, *arguments],
            stderr=subprocess.PIPE,
            text=True,
            cwd=home,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
        self.log: list[str] = []

    def until_logged(self, pattern: str) -> str:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self.log.append(line)
            if re.search(pattern, line):
                return line
        raise AssertionError(f"The server ended without logging {pattern}:\n{''.join(self.log)}")

    def send(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def ended(self) -> int:
        return self._process.wait(timeout=20)

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        if self._process.stderr is not None:
            self._process.stderr.close()


@contextmanager
def served(home: Path, end: str = "", **settings: object) -> Iterator[Process]:
    process = Process(home, settings, end)
    try:
        process.until_logged("startup complete")
        yield process
    finally:
        process.close()


def test_sighup_reloads_the_keys_and_sigterm_ends_the_server(tmp_path: Path, key: str) -> None:
    (tmp_path / "keys.txt").write_text(f"{key}\n")
    with served(tmp_path) as process:
        (tmp_path / "keys.txt").write_text(f"{key}\n{'b' * 64}\n")
        process.send(signal.SIGHUP)
        line = process.until_logged("Key file read again")
        answer = httpx.get(f"http://127.0.0.1:{process.port}/health")
        process.send(signal.SIGTERM)
        status = process.ended()

    assert "2 API keys in force" in line
    assert answer.status_code == 200
    assert "server" not in answer.headers
    # uvicorn ends by the very signal it was told to end by; systemd and Docker take that for clean.
    assert status in (0, -signal.SIGTERM)


def test_a_hangup_takes_up_the_log_level(tmp_path: Path, key: str) -> None:
    (tmp_path / "keys.txt").write_text(f"{key}\n")
    with served(tmp_path) as process:
        (tmp_path / ".env").write_text("LOG_LEVEL=debug\n")
        process.send(signal.SIGHUP)
        process.until_logged("Log level debug")
        httpx.get(f"http://127.0.0.1:{process.port}/health")

        assert process.until_logged("DEBUG .*path=/health status=200")


def test_a_hangup_with_a_wrong_setting_changes_nothing(tmp_path: Path, key: str) -> None:
    (tmp_path / "keys.txt").write_text(f"{key}\n")
    with served(tmp_path) as process:
        (tmp_path / ".env").write_text("LOG_LEVEL=loud\n")
        process.send(signal.SIGHUP)
        process.until_logged("The log level stays as it is")

        assert httpx.get(f"http://127.0.0.1:{process.port}/health").status_code == 200


def test_a_hangup_takes_up_the_limits_of_keys(tmp_path: Path, key: str) -> None:
    (tmp_path / "keys.txt").write_text(f"{key}\n")
    limits = tmp_path / "limits.ini"
    with served(tmp_path, limits_file=str(limits)) as process:
        limits.write_text("[*]\nrequests_per_day = 0\n")
        process.send(signal.SIGHUP)
        process.until_logged("Limits read again from .*limits.ini, 1 section")
        answer = httpx.post(
            f"http://127.0.0.1:{process.port}/transcribe", headers={"X-API-Key": key}
        )

    assert answer.status_code == 429


def test_a_hangup_with_broken_limits_keeps_those_in_force(tmp_path: Path, key: str) -> None:
    (tmp_path / "keys.txt").write_text(f"{key}\n")
    limits = tmp_path / "limits.ini"
    limits.write_text("[*]\nrequests_per_day = 0\n")
    with served(tmp_path, limits_file=str(limits)) as process:
        limits.write_text("[*]\nrequests_per_day = many\n")
        process.send(signal.SIGHUP)
        line = process.until_logged("limits of keys stay as they are")
        answer = httpx.post(
            f"http://127.0.0.1:{process.port}/transcribe", headers={"X-API-Key": key}
        )

    assert "requests_per_day is 'many'" in line
    assert answer.status_code == 429


def test_https_is_spoken_and_a_hangup_takes_up_another_certificate(
    tmp_path: Path, key: str
) -> None:
    (tmp_path / "keys.txt").write_text(f"{key}\n")
    certificate = tmp_path / "server.pem"
    trusting = [issue(certificate)]
    with served(tmp_path, tls_certificate=str(certificate)) as process:
        address = f"https://localhost:{process.port}/health"
        first = httpx.get(address, verify=trusting[0])
        trusting.append(issue(certificate))
        process.send(signal.SIGHUP)
        process.until_logged("Certificate read again")
        second = httpx.get(address, verify=trusting[1])
        certificate.write_text("broken")
        process.send(signal.SIGHUP)
        process.until_logged("The certificate stays as it is")
        third = httpx.get(address, verify=trusting[1])

    assert [answer.status_code for answer in (first, second, third)] == [200] * 3
    assert any(f"Listening on https://127.0.0.1:{process.port}" in line for line in process.log)


def issue(file: Path) -> ssl.SSLContext:
    """Writes a new certificate with its key; the result trusts it."""
    authority = trustme.CA()
    pair = authority.issue_cert("localhost").private_key_and_cert_chain_pem
    pair.write_to_path(file)
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    return trusting


def test_it_is_not_ready_from_the_signal_on_and_takes_requests_while_it_drains(
    tmp_path: Path, key: str
) -> None:
    (tmp_path / "keys.txt").write_text(f"{key}\n")
    with served(tmp_path, drain_seconds=60, grace_seconds=0) as process:
        before = httpx.get(f"http://127.0.0.1:{process.port}/health/ready")
        process.send(signal.SIGTERM)
        after = before
        while after.status_code == 200:
            after = httpx.get(f"http://127.0.0.1:{process.port}/health/ready")
        process.send(signal.SIGTERM)
        status = process.ended()

    assert before.json() == {"status": "ready"}
    assert after.json() == {"status": "stopping"}
    assert status == 128 + signal.SIGTERM


def test_whatever_is_stuck_the_process_ends_two_seconds_after_the_grace(
    tmp_path: Path, key: str
) -> None:
    (tmp_path / "keys.txt").write_text(f"{key}\n")
    with (
        served(tmp_path, end="stuck", grace_seconds=1) as process,
        waiting_caller(process.port, key) as caller,
    ):
        process.until_logged("A transcription has begun")
        process.send(signal.SIGTERM)
        began = time.monotonic()
        answer = caller.makefile("rb").read()
        status = process.ended()
        seconds = time.monotonic() - began

    assert b'"code": "shutting_down"' in answer
    assert status == 0
    assert seconds <= 3 + 2  # Two for a busy machine.


def test_every_line_of_the_log_has_time_level_and_origin(tmp_path: Path, key: str) -> None:
    (tmp_path / "keys.txt").write_text(f"{key}\n")
    with served(tmp_path) as process:
        httpx.get(f"http://127.0.0.1:{process.port}/nothing")
        process.until_logged("path=/nothing status=404")

    assert all(
        re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} (INFO|WARNING) +[\w.]+: ", line)
        for line in process.log
    )
    assert any(f"Listening on http://127.0.0.1:{process.port}" in line for line in process.log)


def test_pythons_collector_passes_over_what_is_loaded_before_serving(
    app: FastAPI, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    passed_over: list[int] = []
    monkeypatch.setattr(
        uvicorn.Server, "run", lambda *_, **__: passed_over.append(gc.get_freeze_count())
    )

    try:
        serve(app, settings.model_copy(update={"host": "127.0.0.1", "port": free_port()}))
    finally:
        gc.unfreeze()

    assert len(passed_over) == 1
    assert passed_over[0] > 10_000  # FastAPI alone is more objects than that.


def test_an_address_in_use_is_a_clear_error() -> None:
    with listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]

        with pytest.raises(ConfigurationError, match=f"port {port}: .*HOST and PORT"):
            listen("127.0.0.1", port)


@pytest.mark.parametrize("host", ["256.1.1.1", "no such host"])
def test_an_address_that_is_none_is_a_clear_error(host: str) -> None:
    with pytest.raises(ConfigurationError, match="HOST"):
        listen(host, 0)


def test_ipv6_is_listened_on() -> None:
    if not socket.has_ipv6:
        pytest.skip("this Python has no IPv6")
    try:
        listener = listen("::1", 0)
    except ConfigurationError:
        pytest.skip("this machine has no IPv6")
    with listener:
        assert listener.family is socket.AF_INET6


# With a transcription that never ends ----------------------------------------------------------


@contextmanager
def waiting_caller(port: int, key: str) -> Iterator[socket.socket]:
    """A caller whose request has arrived."""
    head = (
        f"POST /transcribe HTTP/1.1\r\nHost: a\r\nX-API-Key: {key}\r\nContent-Type: audio/wav\r\n"
        "Content-Length: 4\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(head.encode() + b"RIFF")
        yield connection


def test_a_caller_who_leaves_frees_the_work_and_the_file(
    app: FastAPI,
    transcriber: FakeTranscriber,
    live: Callable[[FastAPI], AbstractContextManager[int]],
    spooled: Callable[[], list[Path]],
    key: str,
) -> None:
    transcriber.is_stuck = True
    with live(app) as port:
        with waiting_caller(port, key):
            has_started = transcriber.started.wait(timeout=10)
        has_ended = transcriber.ended.wait(timeout=10)

    assert has_started
    assert has_ended
    assert spooled() == []


def test_health_answers_while_a_transcription_runs(
    app: FastAPI,
    transcriber: FakeTranscriber,
    live: Callable[[FastAPI], AbstractContextManager[int]],
    key: str,
) -> None:
    transcriber.is_stuck = True
    with live(app) as port, waiting_caller(port, key):
        has_started = transcriber.started.wait(timeout=10)
        answer = httpx.get(f"http://127.0.0.1:{port}/health")

    assert has_started
    assert answer.status_code == 200


def test_a_request_that_outlasts_the_grace_is_told_that_the_server_stops(
    app: FastAPI,
    transcriber: FakeTranscriber,
    key: str,
    spooled: Callable[[], list[Path]],
    caplog: pytest.LogCaptureFixture,
) -> None:
    transcriber.is_stuck = True
    listener = listen("127.0.0.1", 0)
    server = build_server(app)
    server.config.timeout_graceful_shutdown = 0
    serving = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    serving.start()

    with waiting_caller(listener.getsockname()[1], key) as caller:
        transcriber.started.wait(timeout=10)
        server.should_exit = True
        answer = caller.makefile("rb").read()
        serving.join(timeout=10)

    assert answer.startswith(b"HTTP/1.1 503 ")
    assert b'"code": "shutting_down"' in answer
    assert not serving.is_alive()
    assert spooled() == []
    assert not [record for record in caplog.records if record.exc_info]
