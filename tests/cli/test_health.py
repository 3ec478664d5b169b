"""`simple-asr health`: the server of these settings, by whichever way it listens."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
import trustme
from typer.testing import Result

from simple_asr.client import AsyncClient, Client
from simple_asr.server.app import create_app
from simple_asr.server.listener import listening
from simple_asr.server.run import build_server
from simple_asr.service.fake import FakeTranscriber
from simple_asr.service.keys import KeyStore
from simple_asr.service.transcriber import ModelState
from simple_asr.settings import Settings, load_settings
from tests.support import free_port

Run = Callable[..., Result]
Serve = Callable[..., AbstractContextManager[Settings]]


@pytest.fixture
def transcriber() -> FakeTranscriber:
    return FakeTranscriber()


@pytest.fixture
def serve(home: Path, transcriber: FakeTranscriber, monkeypatch: pytest.MonkeyPatch) -> Serve:
    """A server as this environment sets it up."""

    @contextmanager
    def serving(**variables: object) -> Iterator[Settings]:
        for name, value in {"HOST": "127.0.0.1", "PORT": free_port(), **variables}.items():
            monkeypatch.setenv(name, str(value))
        settings = load_settings()
        server = build_server(create_app(settings, transcriber, KeyStore(settings.keys_file)))
        with listening(settings) as listener:
            thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
            thread.start()
            try:
                yield settings
            finally:
                server.should_exit = True
                thread.join()

    return serving


@pytest.fixture
def certificate(home: Path) -> Path:
    """With its key, for a name that is not this machine's."""
    path = home / "server.pem"
    trustme.CA().issue_cert("asr.example.org").private_key_and_cert_chain_pem.write_to_path(path)
    return path


WAYS = pytest.mark.parametrize(
    "variables",
    [
        {},
        {"HOST": "0.0.0.0"},  # noqa: S104  (for the time of a test)
        {"TLS_CERTIFICATE": "server.pem"},
        {"UNIX_SOCKET": "asr.sock"},
    ],
    ids=["tcp", "every address", "tls", "socket file"],
)


@WAYS
@pytest.mark.usefixtures("certificate")
def test_a_server_that_is_well_is_a_success(
    run: Run, serve: Serve, variables: dict[str, str]
) -> None:
    with serve(**variables):
        result = run("health")

    assert (result.exit_code, json.loads(result.stdout)["status"]) == (0, "healthy")


def test_a_server_that_is_not_well_says_so_and_is_a_failure(
    run: Run, serve: Serve, transcriber: FakeTranscriber
) -> None:
    transcriber.state = ModelState("failed", requested="turbo", served="turbo")
    with serve():
        results = [run("health"), run("health", "--ready")]

    assert [result.exit_code for result in results] == [1, 1]
    assert json.loads(results[1].stdout) == {"status": "failed"}


@pytest.mark.parametrize("variables", [{"PORT": free_port()}, {"UNIX_SOCKET": "none.sock"}])
def test_without_a_server_it_is_a_sentence_and_a_failure(
    run: Run, monkeypatch: pytest.MonkeyPatch, variables: dict[str, object]
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, str(value))

    result = run("health")

    assert result.exit_code == 1
    assert result.stderr.startswith("The server gives no answer: ")


@pytest.mark.parametrize("seconds", ["0", "3601", "1e300", "inf", "nan"])
def test_a_time_that_nobody_waits_is_a_fault_of_usage(run: Run, seconds: str) -> None:
    result = run("health", "--timeout", seconds)

    assert result.exit_code == 2
    assert "--timeout" in result.stderr


def test_the_client_speaks_to_a_socket_file(serve: Serve) -> None:
    with serve(UNIX_SOCKET="asr.sock"), Client("unix:asr.sock") as client:
        assert client.health().status == "healthy"


async def health_of(address: str) -> str:
    async with AsyncClient(address) as client:
        return (await client.health()).status


@pytest.mark.anyio
async def test_so_does_the_one_for_asyncio(serve: Serve) -> None:
    with serve(UNIX_SOCKET="asr.sock"):
        assert await health_of("unix:asr.sock") == "healthy"
