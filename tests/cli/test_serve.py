"""`simple-asr serve` as a process: its start, its first key, its signals, and how it ends."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import PIPE

import httpx
import pytest
from typer.testing import Result

from simple_asr.cli import serve, serving
from simple_asr.engine.fake_hub import FakeHub
from simple_asr.server import run as runner
from simple_asr.service.keys import parse_keys
from simple_asr.service.models import ModelPool
from simple_asr.service.transcriber import ModelState
from simple_asr.settings import Settings
from tests.support import WAIT, Clip, free_port

Run = Callable[..., Result]

MODEL = "someone/whisper-ct2"
FILES = {
    "config.json": b"{}",
    "model.bin": b"weights",
    "tokenizer.json": b"{}",
    "vocabulary.json": b"[]",
}


@dataclass
class Server:
    """A running server, and what it has logged so far."""

    process: subprocess.Popen[str]
    port: int
    log: list[str] = field(default_factory=list)

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def wait_for(self, text: str) -> None:
        """Reads the log up to the line that has this text."""
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.log.append(line)
            if text in line:
                return
        raise AssertionError(f"{text!r} was never logged:\n{''.join(self.log)}")

    def end(self, signal_number: signal.Signals = signal.SIGTERM) -> str:
        """What was written to standard output, once the server has ended."""
        self.process.send_signal(signal_number)
        output, errors = self.process.communicate(timeout=WAIT)
        self.log.append(errors)
        return output or ""


@contextmanager
def started(stdout: int = PIPE, **variables: str) -> Iterator[Server]:
    """A server in the current folder that listens."""
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "simple_asr", "serve", "--host", "127.0.0.1", "--port", str(port)],
        env={**os.environ, "MODEL_DEVICE": "cpu", **variables},
        stdout=stdout,
        stderr=PIPE,
        text=True,
    )
    with process:
        try:
            server = Server(process, port)
            server.wait_for("Application startup complete")
            yield server
        finally:
            process.kill()


@pytest.fixture
def slow_hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """A hub that does not let a model go, so that the server loads for ever."""
    with FakeHub() as hub:
        hub.publish(MODEL, FILES)
        hub.gate.clear()
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        monkeypatch.setenv("HF_HUB_OFFLINE", "false")
        monkeypatch.setenv("DEFAULT_MODEL", MODEL)
        yield hub


@pytest.fixture
def run_here(run: Run, monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    """As `run`; what the server does to its process is undone in this one."""
    monkeypatch.setattr(serve, "configure_logging", lambda *_: None)
    monkeypatch.setenv("SUPERVISE", "false")
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    yield run
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[Settings]:
    """The settings of each server that would have run."""
    served: list[Settings] = []
    monkeypatch.setattr(runner, "serve", lambda _, settings, __: served.append(settings))
    monkeypatch.setattr(serving, "build_transcriber", lambda *_: Idle())
    return served


class Idle:
    """Stands for a transcriber where none is needed."""

    model_state = ModelState("ready", requested="turbo", served="turbo")

    def start(self, on_failure: Callable[[], None], on_loss: Callable[[], None]) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


def the_key() -> str:
    [line] = parse_keys(Path("data/keys.txt").read_bytes())
    return line.key


# The start --------------------------------------------------------------------------------------


def test_it_answers_while_the_model_is_on_its_way(slow_hub: FakeHub) -> None:
    with started() as server:
        assert slow_hub.is_asked_for_weights.wait(WAIT)
        answer = httpx.get(f"{server.address}/health")

    assert (answer.status_code, answer.json()["model_loaded"]) == (503, False)


@pytest.mark.usefixtures("slow_hub")
def test_the_first_start_shows_its_key_on_a_terminal_and_logs_it_nowhere() -> None:
    terminal, theirs = os.openpty()
    with started(stdout=theirs) as server:
        os.close(theirs)
        server.end()
    shown = os.read(terminal, 10_000).decode()
    os.close(terminal)

    assert shown.count(f"  {the_key()}\r\n") == 1
    assert (
        f'curl -H "X-API-Key: {the_key()}" -F audio_file=@clip.wav '
        f"{server.address}/transcribe\r\n" in shown
    )
    assert the_key() not in "".join(server.log)


@pytest.mark.usefixtures("slow_hub")
def test_the_first_start_shows_its_key_on_standard_output_whatever_that_is() -> None:
    with started() as server:
        output = server.end()

    assert output.count(f"  {the_key()}\n") == 1
    assert the_key() not in "".join(server.log)


def test_without_model_and_fallback_it_refuses_to_start() -> None:
    refused = subprocess.run(
        [sys.executable, "-m", "simple_asr", "serve", "--port", str(free_port())],
        env={**os.environ, "FALLBACK_MODEL": "", "HF_HUB_OFFLINE": "true"},
        stderr=PIPE,
        text=True,
        check=False,
        timeout=WAIT,
    )

    assert refused.returncode == 78
    assert refused.stderr.rstrip().splitlines()[-1].startswith("The model 'turbo' is not under")


@pytest.mark.usefixtures("slow_hub")
def test_a_later_start_shows_and_changes_no_key() -> None:
    path = Path("data/keys.txt")
    path.parent.mkdir()
    path.write_text("a1" * 32)

    with started() as server:
        output = server.end()

    assert output == ""
    assert path.read_text() == "a1" * 32


@pytest.mark.usefixtures("slow_hub")
def test_its_keys_are_in_force_from_the_first_request() -> None:
    with started() as server:
        headers = {"X-API-Key": the_key()}
        answer = httpx.post(f"{server.address}/keys/reload", headers=headers)

    assert answer.json()["count"] == 1


@pytest.mark.parametrize(
    ("host", "shown"),
    [
        ("0.0.0.0", "http://127.0.0.1:80/"),  # noqa: S104  (nothing is bound)
        ("::", "http://[::1]:80/"),
        ("::1", "http://[::1]:80/"),
        ("asr.example", "http://asr.example:80/"),
    ],
)
def test_the_command_that_is_shown_names_an_address_that_can_be_reached(
    run_here: Run, served: list[Settings], host: str, shown: str
) -> None:
    assert shown in run_here("serve", "--host", host, "--port", "80").stdout


# What it is told --------------------------------------------------------------------------------


def test_the_command_line_wins_over_the_settings(
    run_here: Run, served: list[Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOST", "192.0.2.1")
    monkeypatch.setenv("PORT", "1")

    run_here("serve", "--host", "127.0.0.1")
    run_here("serve", "--port", "2")

    assert [(one.host, one.port) for one in served] == [("127.0.0.1", 1), ("192.0.2.1", 2)]


@pytest.mark.parametrize(("line", "told"), [("=11.0.0", "11.0.0"), ("=", None)])
def test_rocm_is_told_its_gpu_before_the_model_is_loaded(
    run_here: Run,
    served: list[Settings],
    monkeypatch: pytest.MonkeyPatch,
    line: str,
    told: str | None,
) -> None:
    at_load: list[str | None] = []

    class Loading(Idle):
        def start(self, on_failure: Callable[[], None], on_loss: Callable[[], None]) -> None:
            at_load.append(os.environ.get("HSA_OVERRIDE_GFX_VERSION"))

    Path(".env").write_text(f"HSA_OVERRIDE_GFX_VERSION{line}\n")
    # Has monkeypatch take away what the command leaves in this process.
    monkeypatch.setenv("HSA_OVERRIDE_GFX_VERSION", "")
    monkeypatch.delenv("HSA_OVERRIDE_GFX_VERSION")
    monkeypatch.setattr(serving, "build_transcriber", lambda *_: Loading())

    run_here("serve")

    assert at_load == [told]


# The end ----------------------------------------------------------------------------------------


def test_a_termination_is_a_success_even_while_the_model_is_loaded(slow_hub: FakeHub) -> None:
    with started() as server:
        assert slow_hub.is_asked_for_weights.wait(WAIT)
        server.end(signal.SIGTERM)

    assert server.process.returncode == 0
    assert "Traceback" not in "".join(server.log)


@pytest.mark.usefixtures("slow_hub")
def test_an_interrupt_ends_it_as_interrupts_do() -> None:
    with started() as server:
        server.end(signal.SIGINT)

    assert server.process.returncode == 130
    assert "Traceback" not in "".join(server.log)


@pytest.mark.usefixtures("slow_hub")
def test_a_hangup_reloads_the_keys_and_ends_nothing() -> None:
    with started() as server:
        server.process.send_signal(signal.SIGHUP)

        server.wait_for("Key file read again as asked")
        assert httpx.get(f"{server.address}/health/live").status_code == 200


@pytest.mark.usefixtures("slow_hub")
def test_a_port_in_use_is_a_sentence_and_no_traceback(run_here: Run) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]

        result = run_here("serve", "--host", "127.0.0.1", "--port", port)

    assert result.exit_code == 78
    assert f"Cannot listen on 127.0.0.1, port {port}" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_key_file_that_cannot_be_made_is_a_sentence_and_no_traceback(run_here: Run) -> None:
    Path("data").touch()

    result = run_here("serve")

    assert result.exit_code == 78
    assert "folder of the key file cannot be made" in result.stderr


@pytest.fixture
def no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """The real pool of models, of which none is to be loaded."""

    def start(*_: object, **__: object) -> None:
        raise AssertionError("A model is loaded in vain.")

    monkeypatch.setattr(ModelPool, "start", start)


@pytest.mark.usefixtures("no_model")
@pytest.mark.parametrize(
    ("address", "told", "code"),
    [
        (
            "postgresql://asr:hush@127.0.0.1:{closed_port}/asr",
            "The database postgresql://127.0.0.1:{closed_port}/asr cannot be used: it cannot be ",
            1,
        ),
        (
            "postgresql://asr:hush@127.0.0.1/asr?sslmode=require",
            "DATABASE_URL has options that are not known: sslmode. ",
            78,
        ),
        ("postgresql://127.0.0.1/asr", "DATABASE_URL names no user of the database. ", 78),
    ],
    ids=["down", "wrong", "nobody's"],
)
def test_without_its_database_it_ends_with_a_sentence_and_loads_no_model(
    address: str, told: str, code: int, run_here: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = free_port()
    monkeypatch.setenv("DATABASE_URL", address.format(closed_port=port))

    result = run_here("serve")

    assert result.exit_code == code
    assert result.stderr.startswith(told.format(closed_port=port))
    assert "hush" not in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.usefixtures("no_model")
def test_a_database_that_keeps_silent_does_not_hold_up_the_start_for_ever(
    run_here: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving, "SILENT_SECONDS", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        monkeypatch.setenv("DATABASE_URL", f"postgresql://asr:hush@127.0.0.1:{port}/asr")

        result = run_here("serve")

    assert result.exit_code == 1
    assert "cannot be used: it cannot be reached (timed out)" in result.stderr


def test_a_start_that_fails_is_no_success(
    run_here: Run, served: list[Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "serve", lambda *_: sys.exit(3))  # as uvicorn does

    assert run_here("serve").exit_code == 3


@pytest.mark.usefixtures("slow_hub")
def test_a_socket_file_is_listened_on_and_gone_at_the_end() -> None:
    with started(UNIX_SOCKET="asr.sock") as server:
        with httpx.Client(transport=httpx.HTTPTransport(uds="asr.sock")) as client:
            answer = client.get("http://localhost/health/live")
        with pytest.raises(httpx.ConnectError):
            httpx.get(server.address)
        output = server.end()

    assert answer.status_code == 200
    assert not Path("asr.sock").exists()
    assert "--unix-socket asr.sock http://localhost/transcribe" in output


# With real weights ------------------------------------------------------------------------------


@pytest.mark.weights
@pytest.mark.usefixtures("base_model")
@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_the_command_that_is_shown_transcribes_a_file(
    models_root: Path, speech: list[Clip], home: Path
) -> None:
    [clip] = [clip for clip in speech if clip.path.stem == "hello_world"]
    shutil.copy(clip.path, home / "clip.wav")

    with started(MODEL_DOWNLOAD_ROOT=str(models_root), DEFAULT_MODEL="base") as server:
        server.wait_for("Model base is ready")
        assert server.process.stdout is not None
        command = next(line for line in server.process.stdout if "curl" in line)
        answer = subprocess.check_output(["sh", "-c", f"{command.strip()} --silent"], text=True)

    assert f'"text": " {clip.text}"' in answer


# A cluster ----------------------------------------------------------------------------------------


def test_a_cluster_without_ray_says_what_to_install(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delitem(sys.modules, "simple_asr.cluster", raising=False)
    monkeypatch.delattr("simple_asr.cluster", raising=False)

    result = run("serve", "--cluster")

    assert result.exit_code == 78
    assert "--cluster needs Ray, and ray is not installed" in result.output
    assert "./start_server.sh --cluster" in result.output
