"""Connections that never become a request are answered and ended, over a real socket."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager

import pytest
from fastapi import FastAPI

from simple_asr.server.app import create_app
from simple_asr.server.listener import listen
from simple_asr.server.run import build_server
from simple_asr.service.fake import FakeTranscriber
from simple_asr.service.keys import KeyStore
from simple_asr.settings import Settings
from tests.support import WAIT


@pytest.fixture
def port(app: FastAPI, live: Callable[[FastAPI], AbstractContextManager[int]]) -> Iterator[int]:
    with live(app) as port:
        yield port


PATIENCE = 0.05


@pytest.fixture
def impatient_port(
    make_settings: Callable[..., Settings],
    transcriber: FakeTranscriber,
    make_key_store: Callable[[Settings], KeyStore],
    live: Callable[[FastAPI], AbstractContextManager[int]],
) -> Iterator[int]:
    """Of a server that gives a head PATIENCE seconds."""
    settings = make_settings(header_timeout_seconds=PATIENCE)
    with live(create_app(settings, transcriber, make_key_store(settings))) as port:
        yield port


Serve = Callable[..., AbstractContextManager[int]]


@pytest.fixture
def serve(
    make_settings: Callable[..., Settings],
    transcriber: FakeTranscriber,
    make_key_store: Callable[[Settings], KeyStore],
    live: Callable[[FastAPI], AbstractContextManager[int]],
) -> Serve:
    """A server with these settings; its port."""

    def open_server(**values: object) -> AbstractContextManager[int]:
        settings = make_settings(**values)
        return live(create_app(settings, transcriber, make_key_store(settings)))

    return open_server


def talk(port: int, *data: bytes) -> bytes:
    """Sends, then reads until the server ends the connection."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        for piece in data:
            connection.sendall(piece)
        answer = b""
        while piece := connection.recv(65536):
            answer += piece
        return answer


def problem(answer: bytes) -> dict[str, object]:
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"content-type: application/problem+json" in head.lower()
    assert b"x-request-id: " in head.lower()
    document: dict[str, object] = json.loads(body)
    return document


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"nonsense\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nBad Header: x\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500),
    ],
)
def test_what_is_not_http_is_a_400_problem(port: int, request_bytes: bytes) -> None:
    answer = talk(port, request_bytes)

    assert answer.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert problem(answer)["code"] == "malformed_request"


def test_a_head_without_end_is_cut_off(port: int) -> None:
    answer = talk(port, b"GET / HTTP/1.1\r\n", *[b"X-Long: " + b"a" * 8000 + b"\r\n"] * 20)

    assert answer.startswith(b"HTTP/1.1 431 ")
    assert problem(answer)["code"] == "headers_too_large"


def test_a_head_that_does_not_come_is_a_408(impatient_port: int) -> None:
    answer = talk(impatient_port, b"GET / HTTP/1.1\r\nHost: a\r\n")

    assert answer.startswith(b"HTTP/1.1 408 ")
    assert problem(answer)["code"] == "request_timeout"


def test_a_connection_that_says_nothing_is_closed(impatient_port: int) -> None:
    assert talk(impatient_port) == b""


def test_a_connection_may_be_used_again_after_the_first_head_was_in_time(
    impatient_port: int,
) -> None:
    one = b"GET /health/live HTTP/1.1\r\nHost: a\r\n\r\n"
    last = b"GET /health/live HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"

    answer = talk(impatient_port, one, one, last)

    assert answer.count(b"HTTP/1.1 200 OK") == 3


def test_a_late_head_does_not_cost_the_request_before_it(
    impatient_port: int, transcriber: FakeTranscriber, key: str
) -> None:
    transcriber.is_stuck = True
    request = (
        f"POST /transcribe HTTP/1.1\r\nHost: a\r\nX-API-Key: {key}\r\nContent-Type: audio/wav\r\n"
        "Content-Length: 4\r\n\r\nRIFF"
    )
    with socket.create_connection(("127.0.0.1", impatient_port), timeout=10) as connection:
        connection.sendall(request.encode())
        has_started = transcriber.started.wait(timeout=10)
        connection.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n")
        was_ended = transcriber.ended.wait(timeout=6 * PATIENCE)

    assert has_started
    assert not was_ended


# Connections of an address ------------------------------------------------------------------------

ASK = b"GET /health/live HTTP/1.1\r\nHost: a\r\n\r\n"


@contextmanager
def connections(port: int, number: int) -> Iterator[list[socket.socket]]:
    """So many, each of which has been answered and stays open."""
    with ExitStack() as open_ones:
        made = [
            open_ones.enter_context(socket.create_connection(("127.0.0.1", port), timeout=10))
            for _ in range(number)
        ]
        for connection in made:
            connection.sendall(ASK)
            assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")
        yield made


def test_one_connection_more_than_an_address_may_have_is_a_429(serve: Serve) -> None:
    with (
        serve(max_connections_per_address=3, trusted_proxies="") as port,
        connections(port, 3),
    ):
        answer = talk(port, ASK)

    assert answer.startswith(b"HTTP/1.1 429 ")
    assert b"\r\nretry-after: 1\r\n" in answer.lower()
    assert "MAX_CONNECTIONS_PER_ADDRESS" in str(problem(answer)["detail"])


def test_a_connection_that_ends_makes_room_for_another(serve: Serve) -> None:
    with serve(max_connections_per_address=1, trusted_proxies="") as port:
        last = ASK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
        answers = [talk(port, last) for _ in range(5)]
        with connections(port, 1):
            refused = talk(port, ASK)

    assert all(answer.startswith(b"HTTP/1.1 200 ") for answer in answers)
    assert refused.startswith(b"HTTP/1.1 429 ")


@pytest.mark.parametrize(
    "values", [{"trusted_proxies": "127.0.0.0/8"}, {"max_connections_per_address": 0}]
)
def test_a_proxy_may_have_any_number_of_connections(
    serve: Serve, values: dict[str, object]
) -> None:
    with (
        serve(**{"max_connections_per_address": 1, "trusted_proxies": "", **values}) as port,
        connections(port, 20) as made,
    ):
        assert len(made) == 20


# The end ----------------------------------------------------------------------------------------


def test_a_caller_who_has_connected_as_the_server_stops_may_still_ask(app: FastAPI) -> None:
    listener = listen("127.0.0.1", 0)
    server = build_server(app)
    serving = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    serving.start()

    with socket.create_connection(listener.getsockname(), timeout=10) as caller:
        until(lambda: len(server.server_state.connections) == 1)
        server.should_exit = True
        until(lambda: not any(one.is_serving() for one in server.servers))
        caller.sendall(b"GET /health/live HTTP/1.1\r\nHost: a\r\n\r\n")
        answer = caller.makefile("rb").read()
        serving.join(timeout=10)

    assert answer.startswith(b"HTTP/1.1 200 ")
    assert not serving.is_alive()


def until(holds: Callable[[], bool]) -> None:
    """Waits for what uvicorn tells nobody."""
    deadline = time.monotonic() + WAIT
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)
