"""`audio_url`: the address of a recording instead of a file, at POST /transcribe and POST /jobs."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from simple_asr.server.app import create_app
from simple_asr.service.fake import TRANSCRIPT, FakeTranscriber
from simple_asr.service.keys import KeyStore
from simple_asr.settings import Settings
from tests.listener import Listener, listening, ok, redirect, status
from tests.server.conftest import KEY
from tests.support import WAIT

pytestmark = pytest.mark.anyio


@pytest.fixture
async def internet() -> AsyncIterator[Listener]:
    async with listening() as listener:
        listener.answers["/a.wav"] = ok(b"RIFF")
        yield listener


@pytest.fixture
def settings(make_settings: Callable[..., Settings], internet: Listener) -> Settings:
    return make_settings(
        audio_urls=True,
        allowed_addresses=f"{internet.address}/32",
        allowed_ports=str(internet.port),
        max_upload_bytes=1000,
    )


@pytest.fixture
def url(internet: Listener) -> str:
    return f"http://{internet.address}:{internet.port}/a.wav?signature=secret"


@pytest.mark.parametrize("place", ["query", "form", "params", "json"])
async def test_a_recording_is_fetched_wherever_its_address_stands(
    client: httpx.AsyncClient,
    transcriber: FakeTranscriber,
    url: str,
    place: str,
    spooled: Callable[[], list[Path]],
) -> None:
    given: dict[str, dict[str, Any]] = {
        "query": {"params": {"audio_url": url, "language": "ru"}},
        "form": {"files": {"audio_url": (None, url), "language": (None, "ru")}},
        "params": {"files": {"params": (None, f'{{"audio_url": "{url}", "language": "ru"}}')}},
        "json": {"json": {"audio_url": url, "language": "ru"}},
    }

    answer = await client.post("/transcribe", **given[place])

    assert (answer.status_code, answer.json()["text"]) == (200, TRANSCRIPT.text)
    assert [(asked.content, asked.options.language) for asked in transcriber.asked] == [
        (b"RIFF", "ru")
    ]
    assert spooled() == []


async def test_a_job_is_taken_before_its_recording_is_fetched(
    client: httpx.AsyncClient, internet: Listener, url: str
) -> None:
    headers = {"Idempotency-Key": "once"}

    first = await client.post("/jobs", json={"audio_url": url}, headers=headers)
    again = await client.post("/jobs", json={"audio_url": url}, headers=headers)
    other = await client.post("/jobs", json={"audio_url": f"{url}2"}, headers=headers)

    assert (first.status_code, first.json()["state"]) == (202, "queued")
    assert again.json() == first.json()
    assert (other.status_code, other.json()["code"]) == (409, "idempotency_mismatch")
    assert internet.num_connections == 0
    assert "secret" not in first.text


@pytest.mark.parametrize("path", ["/transcribe", "/jobs"])
@pytest.mark.parametrize("wanted", ["file:///etc/passwd", "http://127.0.0.1:1/a", "http://0x7f.1/"])
async def test_an_address_that_breaks_the_rules_is_refused(
    client: httpx.AsyncClient, path: str, wanted: str
) -> None:
    answer = await client.post(path, json={"audio_url": wanted})

    assert (answer.status_code, answer.json()["code"]) == (422, "address_refused")
    assert answer.json()["field"] == "audio_url"


async def test_an_address_of_our_own_network_is_not_connected_to(
    client: httpx.AsyncClient, internet: Listener
) -> None:
    async with listening("127.0.0.1", internet.port) as canary:
        internet.answers["/b.wav"] = redirect(f"http://127.0.0.1:{internet.port}/a.wav")

        answers = [
            await client.post(
                "/transcribe", json={"audio_url": f"http://{host}:{internet.port}{path}"}
            )
            for host, path in (("127.0.0.1", "/"), ("localhost", "/"), ("127.0.0.2", "/b.wav"))
        ]

    assert [answer.json()["code"] for answer in answers] == 3 * ["address_refused"]
    assert canary.num_connections == 0


@pytest.mark.parametrize("path", ["/transcribe", "/jobs"])
async def test_a_file_and_an_address_are_one_too_many(
    client: httpx.AsyncClient, path: str, url: str, spooled: Callable[[], list[Path]]
) -> None:
    answer = await client.post(path, files={"audio_file": b"RIFF"}, data={"audio_url": url})

    assert (answer.status_code, answer.json()["code"]) == (400, "two_recordings")
    assert spooled() == []


@pytest.mark.parametrize("path", ["/transcribe", "/jobs"])
@pytest.mark.parametrize(
    "given", [{}, {"json": {"language": "ru"}}, {"files": {"language": (None, "ru")}}]
)
async def test_neither_a_file_nor_an_address_is_told(
    client: httpx.AsyncClient, path: str, given: dict[str, Any]
) -> None:
    answer = await client.post(path, **given)

    assert (answer.status_code, answer.json()["code"]) == (422, "missing_file")


@pytest.mark.parametrize("wanted", [5, ["http://example.com/a"], True])
async def test_an_address_is_text(client: httpx.AsyncClient, wanted: object) -> None:
    answer = await client.post("/transcribe", json={"audio_url": wanted})

    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_parameter")


@pytest.mark.parametrize(
    "case",
    [
        (status("404 Not Found"), "download_failed"),
        (ok(bytes(1001)), "payload_too_large"),
        (ok(b""), "empty_file"),
    ],
)
async def test_what_cannot_be_had_is_told_and_nothing_of_its_address_is_logged(
    client: httpx.AsyncClient,
    internet: Listener,
    case: tuple[bytes, str],
    spooled: Callable[[], list[Path]],
    caplog: pytest.LogCaptureFixture,
) -> None:
    internet.answers["/a.wav"], code = case
    url = f"http://{internet.address}:{internet.port}/a.wav?signature=secret"

    with caplog.at_level(logging.INFO):
        answer = await client.post("/transcribe", json={"audio_url": url})

    assert (answer.json()["code"], answer.json()["field"]) == (code, "audio_url")
    assert "secret" not in answer.text + caplog.text
    assert spooled() == []


@pytest.mark.parametrize("path", ["/transcribe", "/jobs"])
async def test_no_address_is_taken_unless_the_operator_wants_it(
    make_settings: Callable[..., Settings],
    make_key_store: Callable[[Settings], KeyStore],
    internet: Listener,
    url: str,
    path: str,
) -> None:
    settings = make_settings(allowed_addresses="127.0.0.0/8", allowed_ports=str(internet.port))
    app = create_app(settings, FakeTranscriber(), make_key_store(settings))
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://asr") as client:
        answer = await client.post(path, json={"audio_url": url}, headers={"X-API-Key": KEY})

    assert (answer.status_code, answer.json()["field"]) == (422, "audio_url")
    assert "AUDIO_URLS" in answer.json()["detail"]
    assert internet.num_connections == 0


@pytest.mark.parametrize("path", ["/v1/audio/transcriptions", "/asr", "/inference"])
async def test_a_path_without_addresses_does_not_drop_one_silently(
    client: httpx.AsyncClient, path: str, url: str
) -> None:
    file = "audio_file" if path == "/asr" else "file"
    data = {"audio_url": url, "model": "whisper-1"}

    answer = await client.post(path, files={file: b"RIFF"}, data=data)

    assert 400 <= answer.status_code < 500
    assert "audio_url" in answer.text


async def test_a_caller_who_leaves_ends_the_download(
    app: FastAPI,
    live: Callable[[FastAPI], AbstractContextManager[int]],
    internet: Listener,
    url: str,
    spooled: Callable[[], list[Path]],
) -> None:
    asked, has_ended = asyncio.Event(), asyncio.Event()

    async def drip(writer: asyncio.StreamWriter) -> None:
        """A body that is never silent for long, nor too large before WAIT is over."""
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        asked.set()
        try:
            while True:
                writer.write(b"a")
                await writer.drain()
                await asyncio.sleep(0.2)
        finally:
            has_ended.set()

    internet.answers["/a.wav"] = drip
    with live(app) as port:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
            asking = asyncio.ensure_future(
                client.post("/transcribe", json={"audio_url": url}, headers={"X-API-Key": KEY})
            )
            await asyncio.wait_for(asked.wait(), WAIT)
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)
        await asyncio.wait_for(has_ended.wait(), WAIT)

    # The server has stopped, and so has the request.
    assert spooled() == []
