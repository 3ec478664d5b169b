"""Who is refused before the upload is read: 429 for the key's own limits, 503 for the server's."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    asynccontextmanager,
)

import httpx
import pytest
from fastapi import FastAPI

from simple_asr.server import dependencies
from simple_asr.server.app import create_app
from simple_asr.service.fake import FakeTranscriber
from simple_asr.service.keys import KeyStore
from simple_asr.settings import Settings
from tests.service import postgresql
from tests.support import WAIT

pytestmark = pytest.mark.anyio

CLIP = {"audio_file": ("clip.wav", b"RIFF", "audio/wav")}

Open = Callable[[str], AbstractAsyncContextManager[httpx.AsyncClient]]


@pytest.fixture
def limited(
    make_settings: Callable[..., Settings],
    make_key_store: Callable[[Settings], KeyStore],
    transcriber: FakeTranscriber,
    key: str,
) -> Open:
    """A client with alice's key, of a server with this file of limits."""

    @asynccontextmanager
    async def open_client(limits: str) -> AsyncIterator[httpx.AsyncClient]:
        settings = make_settings()
        file = settings.keys_file.with_name("limits.ini")
        file.write_text(limits)
        settings = settings.model_copy(update={"limits_file": file})
        app = create_app(settings, transcriber, make_key_store(settings))
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(
            transport=transport, base_url="http://asr", headers={"X-API-Key": key}
        ) as client:
            yield client

    return open_client


@pytest.mark.parametrize("path", ["/transcribe", "/v1/audio/transcriptions", "/asr", "/inference"])
async def test_a_key_beyond_its_rate_is_429_at_every_door(limited: Open, path: str) -> None:
    async with limited("[alice]\nrequests_per_minute = 1\n") as client:
        await client.post("/transcribe", files=CLIP)
        refused = await client.post(path, files={"file": CLIP["audio_file"]})
        others = await client.get("/v1/models")

    assert refused.status_code == 429
    assert 1 <= int(refused.headers["retry-after"]) <= 60
    assert "requests_per_minute of 1" in refused.text
    assert others.status_code == 200


async def test_audio_is_charged_by_its_length(limited: Open) -> None:
    async with limited("[*]\naudio_seconds_per_day = 3\n") as client:
        statuses = [(await client.post("/transcribe", files=CLIP)).status_code for _ in range(3)]

    # Of 2.5 s each: the second begins with half a second left.
    assert statuses == [200, 200, 429]


async def test_audio_of_jobs_counts_and_a_restart_forgives_nothing(
    make_settings: Callable[..., Settings],
    make_key_store: Callable[[Settings], KeyStore],
    transcriber: FakeTranscriber,
    key: str,
) -> None:
    limits = make_settings().keys_file.with_name("limits.ini")
    limits.write_text("[*]\naudio_seconds_per_day = 2\n")
    settings = make_settings(limits_file=limits)

    @asynccontextmanager
    async def started() -> AsyncIterator[httpx.AsyncClient]:
        app = create_app(settings, transcriber, make_key_store(settings))
        transport, headers = httpx.ASGITransport(app), {"X-API-Key": key}
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(
                transport=transport, base_url="http://asr", headers=headers
            ) as client,
        ):
            yield client

    async with started() as client:
        job = (await client.post("/jobs", files=CLIP)).json()
        await client.get(f"/jobs/{job['id']}/events")  # Ends with the job.
        before = await client.post("/transcribe", files=CLIP)
    async with started() as client:
        after = await client.post("/transcribe", files=CLIP)

    assert before.status_code == 429
    assert after.status_code == 429
    assert "audio_seconds_per_day" in after.text


async def test_servers_with_one_database_share_a_keys_rate(
    make_settings: Callable[..., Settings],
    make_key_store: Callable[[Settings], KeyStore],
    transcriber: FakeTranscriber,
    key: str,
) -> None:
    with postgresql.running() as database, database.fresh() as url:
        limits = make_settings().keys_file.with_name("limits.ini")
        limits.write_text("[*]\nrequests_per_minute = 3\nrequests_per_day = 100\n")
        settings = make_settings(limits_file=limits, database_url=url)
        apps = [create_app(settings, transcriber, make_key_store(settings)) for _ in range(2)]
        first, second = (
            httpx.AsyncClient(
                transport=httpx.ASGITransport(app),
                base_url="http://asr",
                headers={"X-API-Key": key},
            )
            for app in apps
        )
        contexts = [app.router.lifespan_context(app) for app in apps]

        async with contexts[0], contexts[1], first, second:
            taken = [(await first.post("/transcribe", files=CLIP)).status_code for _ in range(3)]
            for app in apps:
                await app.state.services.charges.settle()  # As each does every few seconds.
            refused = await second.post("/transcribe", files=CLIP)

    assert taken == [200, 200, 200]
    assert refused.status_code == 429
    assert "requests_per_minute of 3" in refused.text


async def test_a_place_is_free_again_when_its_caller_has_left(
    limited: Open, transcriber: FakeTranscriber
) -> None:
    async with limited("[*]\nconcurrent = 1\n") as client:
        transcriber.is_stuck = True
        running = asyncio.create_task(client.post("/transcribe", files=CLIP))
        await asyncio.to_thread(transcriber.started.wait, 10)
        refused = await client.post("/transcribe", files=CLIP)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        transcriber.is_stuck = False
        taken = await client.post("/transcribe", files=CLIP)

    assert (refused.status_code, taken.status_code) == (429, 200)


async def test_a_server_short_of_memory_begins_nothing_new(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dependencies, "available_memory", lambda: 1_000_000)

    refused = await client.post("/transcribe", files=CLIP)
    health = await client.get("/health")

    assert (refused.status_code, refused.json()["code"]) == (503, "overloaded")
    assert "retry-after" in refused.headers
    assert health.status_code == 200


@pytest.mark.parametrize("path", ["/transcribe", "/asr", "/detect-language", "/inference"])
def test_a_full_server_refuses_before_the_upload(
    app: FastAPI,
    live: Callable[[FastAPI], AbstractContextManager[int]],
    transcriber: FakeTranscriber,
    key: str,
    path: str,
) -> None:
    transcriber.is_full = True
    head = f"POST {path} HTTP/1.1\r\nHost: a\r\nX-API-Key: {key}\r\nContent-Length: 9\r\n\r\n"

    with live(app) as port, socket.create_connection(("127.0.0.1", port), WAIT) as caller:
        caller.sendall(head.encode())  # and no byte of the body
        told = caller.recv(65536).decode()

    assert told.startswith("HTTP/1.1 503 ")
    assert "retry-after: 5" in told.lower()
    assert app.state.services.quotas.admission(key)


async def test_a_request_that_finds_no_room_is_not_charged(
    limited: Open, transcriber: FakeTranscriber
) -> None:
    async with limited("[alice]\nrequests_per_minute = 1\n") as client:
        transcriber.is_full = True
        refused = await client.post("/transcribe", files=CLIP)
        transcriber.is_full = False
        taken = await client.post("/transcribe", files=CLIP)

    assert (refused.status_code, taken.status_code) == (503, 200)


async def test_who_has_no_key_is_not_told_that_the_server_is_full(
    stranger: httpx.AsyncClient, transcriber: FakeTranscriber
) -> None:
    transcriber.is_full = True

    assert (await stranger.post("/transcribe")).status_code == 401


Guess = Callable[..., Awaitable[int]]


@pytest.fixture
def guess(
    make_settings: Callable[..., Settings],
    make_key_store: Callable[[Settings], KeyStore],
    transcriber: FakeTranscriber,
) -> Guess:
    """The status of a request with a key, of a server that takes two wrong ones a minute."""
    settings = make_settings(max_wrong_keys_per_minute=2, trusted_proxies="10.0.0.0/8")
    app = create_app(settings, transcriber, make_key_store(settings))

    async def status(address: str, presented: str, *, forwarded_for: str = "") -> int:
        headers = {"X-API-Key": presented}
        if forwarded_for:
            headers["X-Forwarded-For"] = forwarded_for
        transport = httpx.ASGITransport(app, client=(address, 1))
        async with httpx.AsyncClient(transport=transport, base_url="http://asr") as client:
            return (await client.post("/transcribe", headers=headers)).status_code

    return status


async def test_an_address_that_guesses_keys_is_not_listened_to(guess: Guess, key: str) -> None:
    guesses = [await guess("192.0.2.1", "wrong") for _ in range(3)]

    assert guesses == [403, 403, 429]
    assert await guess("192.0.2.1", key) == 429
    assert await guess("192.0.2.2", key) not in (403, 429)


async def test_behind_a_proxy_the_address_that_guesses_is_the_callers(
    guess: Guess, key: str
) -> None:
    for _ in range(2):
        await guess("10.0.0.1", "wrong", forwarded_for="192.0.2.1")

    assert await guess("10.0.0.1", key, forwarded_for="192.0.2.1") == 429
    assert await guess("10.0.0.2", key, forwarded_for="192.0.2.1, 10.0.0.1") == 429
    assert await guess("10.0.0.1", key, forwarded_for="192.0.2.2") not in (403, 429)
    assert await guess("10.0.0.1", key) not in (403, 429)


async def test_who_guesses_cannot_take_anothers_name(guess: Guess, key: str) -> None:
    direct = [await guess("192.0.2.1", "wrong", forwarded_for=f"192.0.2.{i}") for i in (5, 6, 7)]
    # What the caller itself wrote stands before what the proxy added.
    through = [
        await guess("10.0.0.1", "wrong", forwarded_for=f"192.0.2.{i}, 192.0.2.3") for i in (5, 6, 7)
    ]

    assert direct == through == [403, 403, 429]
    assert await guess("10.0.0.1", key, forwarded_for="192.0.2.5") not in (403, 429)


async def test_addresses_of_one_ipv6_network_guess_together(guess: Guess) -> None:
    guesses = [await guess(f"2001:db8::{i}", "wrong") for i in (1, 2, 3)]

    assert guesses == [403, 403, 429]
    assert await guess("2001:db8:0:1::1", "wrong") == 403
