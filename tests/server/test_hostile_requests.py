"""The shared list of hostile requests, byte by byte over a socket: each ends as it expects."""

from __future__ import annotations

import http.client
import json
import select
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any

import pytest

from simple_asr.server.app import create_app
from simple_asr.server.intake import BodyLimits
from simple_asr.service.fake import FakeTranscriber
from simple_asr.service.keys import KeyStore
from simple_asr.settings import Settings

EXPECTED = Path(__file__).parents[3] / "shared" / "hostile" / "expected.json"
if not EXPECTED.exists():
    pytest.skip("the folder `shared` is not beside the repository", allow_module_level=True)

LIST = json.loads(EXPECTED.read_text(encoding="utf-8"))
LIMIT: int = LIST["assumes"]["max_upload_bytes"]
# A sender is given up after this many seconds here; the list's slowest sends a byte a second.
PATIENCE = 1.5
Case = dict[str, Any]


@pytest.fixture(scope="module")
def server_settings(make_settings: Callable[..., Settings]) -> Settings:
    return make_settings(max_upload_bytes=LIMIT)


@pytest.fixture(scope="module")
def port(
    server_settings: Settings,
    make_key_store: Callable[[Settings], KeyStore],
    live: Callable[..., AbstractContextManager[int]],
) -> Iterator[int]:
    limits = BodyLimits(max_bytes=LIMIT, idle_seconds=PATIENCE)
    app = create_app(
        server_settings, FakeTranscriber(), make_key_store(server_settings), limits=limits
    )
    with live(app) as port:
        yield port


@pytest.mark.parametrize("case", LIST["requests"], ids=lambda case: case["id"])
def test_a_hostile_request_ends_as_expected(
    case: Case, port: int, server_settings: Settings, key: str
) -> None:
    began = time.monotonic()
    answer = exchange(port, wire(case, key))
    seconds = time.monotonic() - began
    healthy = exchange(port, [b"GET /health HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"])

    assert answer.outcome in case["expect"].split("|")
    if answer.status >= 400:
        assert answer.media_type == "application/problem+json"
        assert set(answer.problem) >= {"type", "title", "status", "detail", "code", "request_id"}
        assert len(answer.body) <= 4096
    assert healthy.status == 200
    assert seconds < 10
    assert list(server_settings.spool_dir.iterdir()) == []


def test_the_list_is_read_whole() -> None:
    known = {key for case in LIST["requests"] for key in case} - {"id", "expect", "why"}

    assert known == UNDERSTOOD


# What the server answers --------------------------------------------------------------------------


class Answer:
    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.status = response.status
        self.media_type = response.headers.get_content_type()
        self.body = response.read()

    @property
    def outcome(self) -> str:
        if self.status == 408:
            return "timeout"
        return "ok" if self.status < 300 else f"{self.status // 100}xx"

    @property
    def problem(self) -> dict[str, object]:
        document: dict[str, object] = json.loads(self.body)
        return document


def exchange(port: int, pieces: Iterable[bytes]) -> Answer:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        with suppress(BrokenPipeError, ConnectionResetError):
            for piece in pieces:
                connection.sendall(piece)
                if select.select([connection], [], [], 0)[0]:
                    break  # A server that has answered need not hear the rest.
        response = http.client.HTTPResponse(connection)
        response.begin()
        return Answer(response)


# What the list's cases are on the wire ------------------------------------------------------------

UNDERSTOOD = {
    "filename", "filename_repeat", "fields", "field_repeat", "raw_field_hex", "part_header_bytes",
    "content_type", "boundary_bytes", "preamble_bytes", "truncated_multipart", "files", "headers",
    "cl_delta", "chunked_bytes", "slow_bps", "json_int_digits", "json_text", "header_repeat",
    "headers_twice",
}  # fmt: skip


def wire(case: Case, key: str) -> Iterator[bytes]:
    boundary = b"b" * case.get("boundary_bytes", 20)
    body = form(case, boundary)
    content_type = case.get("content_type", f"multipart/form-data; boundary={boundary.decode()}")
    headers = [("Host", "a"), ("Connection", "close"), ("Content-Type", content_type)]
    headers += key_headers(case, key)
    chosen = {name: value.replace("limit+1", str(LIMIT + 1)) for name, value in own_headers(case)}
    if "chunked_bytes" in case:
        chosen["Transfer-Encoding"] = "chunked"
    else:
        chosen.setdefault("Content-Length", str(len(body) + case.get("cl_delta", 0)))
    lines = [f"{name}: {value}" for name, value in [*headers, *chosen.items()]]
    yield "\r\n".join(["POST /transcribe HTTP/1.1", *lines, "", ""]).encode()
    if "chunked_bytes" in case:
        yield from chunked(body, LIMIT + 1)
    elif "slow_bps" in case:
        yield from slowly(body, case["slow_bps"])
    elif "Expect" not in chosen:
        yield body


def own_headers(case: Case) -> Iterable[tuple[str, str]]:
    return [pair for pair in case.get("headers", {}).items() if pair[0] != "Authorization"]


def key_headers(case: Case, key: str) -> list[tuple[str, str]]:
    if "header_repeat" in case:
        name, prefix, repeated, times = case["header_repeat"]
        return [(name, prefix + repeated * times)]
    if "headers_twice" in case:
        return [(case["headers_twice"], f"Bearer {key}")] * 2
    if "Authorization" in case.get("headers", {}):
        return [("Authorization", case["headers"]["Authorization"])]
    return [("X-API-Key", key)]


def form(case: Case, boundary: bytes) -> bytes:
    cut = b"--" + boundary
    parts = [b"x" * case.get("preamble_bytes", 0)]
    parts += [cut + b"\r\n" + field for field in fields(case)]
    for _ in range(case.get("files", 1)):
        extra = (
            b"X-Long: " + b"a" * case["part_header_bytes"] + b"\r\n"
            if ("part_header_bytes" in case)
            else b""
        )
        parts.append(
            cut + b'\r\nContent-Disposition: form-data; name="audio_file"; filename="'
            + filename(case) + b'"\r\n' + extra + b"Content-Type: audio/wav\r\n\r\nRIFF....\r\n"
        )  # fmt: skip
    if not case.get("truncated_multipart"):
        parts.append(cut + b"--\r\n")
    return b"".join(parts)


def filename(case: Case) -> bytes:
    if "filename_repeat" in case:
        before, times, after = case["filename_repeat"]
        return str(before * times + after).encode()
    return str(case.get("filename", "clip.wav")).encode()


def fields(case: Case) -> Iterator[bytes]:
    given = {name: value.encode() for name, value in case.get("fields", {}).items()}
    if "field_repeat" in case:
        name, text, times = case["field_repeat"]
        given[name] = text.encode() * times
    if "raw_field_hex" in case:
        name, digits = case["raw_field_hex"]
        given[name] = bytes.fromhex(digits)
    if "json_text" in case:
        given["params"] = case["json_text"].encode()
    if "json_int_digits" in case:
        given["params"] = b'{"beam_size": ' + b"1" * case["json_int_digits"] + b"}"
    for name, value in given.items():
        head = f'Content-Disposition: form-data; name="{name}"\r\n\r\n'
        yield head.encode() + value + b"\r\n"


def chunked(body: bytes, size: int) -> Iterator[bytes]:
    yield b"%x\r\n%b\r\n" % (len(body), body)
    block = b"x" * 65536
    for _ in range(size // len(block) + 1):
        yield b"%x\r\n%b\r\n" % (len(block), block)
    yield b"0\r\n\r\n"


def slowly(body: bytes, bytes_per_second: int) -> Iterator[bytes]:
    for at in range(len(body)):
        yield body[at : at + 1]
        time.sleep(1 / bytes_per_second)
