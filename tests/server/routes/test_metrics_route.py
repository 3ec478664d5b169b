"""GET /metrics: for whoever has the token or sits on the machine, and for nobody else."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import httpx
import pytest

from simple_asr.server.app import create_app
from simple_asr.service.fake import FakeTranscriber
from simple_asr.service.keys import KeyStore
from simple_asr.settings import Settings

pytestmark = pytest.mark.anyio

CLIP = {"audio_file": ("clip.wav", b"RIFF", "audio/wav")}
TOKEN = "a token of its own"

Open = Callable[..., AbstractAsyncContextManager[httpx.AsyncClient]]


@pytest.fixture
def caller(
    make_settings: Callable[..., Settings], make_key_store: Callable[[Settings], KeyStore]
) -> Open:
    """A client at this address, of a server with these settings."""

    @asynccontextmanager
    async def open_client(
        address: str = "192.0.2.7", **values: object
    ) -> AsyncIterator[httpx.AsyncClient]:
        settings = make_settings(**values)
        app = create_app(settings, FakeTranscriber(), make_key_store(settings))
        transport = httpx.ASGITransport(app, client=(address, 1234))
        async with httpx.AsyncClient(transport=transport, base_url="http://asr") as client:
            yield client

    return open_client


async def status(client: httpx.AsyncClient, **headers: str) -> int:
    octets = {name.encode(): value.encode() for name, value in headers.items()}
    return (await client.get("/metrics", headers=octets)).status_code


async def test_unless_it_is_set_up_nobody_reads_it(caller: Open, key: str) -> None:
    async with caller("127.0.0.1") as client:
        assert await status(client) == 404
        assert await status(client, Authorization=f"Bearer {key}") == 404
        assert await status(client, Authorization="Bearer ") == 404


async def test_the_token_and_no_api_key_opens_it(caller: Open, key: str) -> None:
    async with caller(metrics_token=TOKEN) as client:
        assert await status(client, Authorization=f"Bearer {TOKEN}") == 200
        assert await status(client, Authorization=f"Bearer {TOKEN}x") == 404
        assert await status(client, Authorization="Bearer é") == 404
        assert await status(client, **{"X-API-Key": key}) == 404
        assert await status(client) == 404


@pytest.mark.parametrize(
    ("address", "headers", "expected"),
    [
        ("127.0.0.1", {}, 200),
        ("::1", {}, 200),
        ("unix", {}, 200),
        ("192.0.2.7", {}, 404),
        ("127.0.0.1", {"X-Forwarded-For": "192.0.2.7"}, 404),
        ("127.0.0.1", {"Forwarded": "for=192.0.2.7"}, 404),
        ("unix", {"X-Forwarded-For": "192.0.2.7"}, 404),
        ("unix", {"Forwarded": "for=192.0.2.7"}, 404),
    ],
)
async def test_programs_on_the_machine_read_it_where_that_is_allowed(
    caller: Open, address: str, headers: dict[str, str], expected: int
) -> None:
    async with caller(address, metrics_on_loopback=True) as client:
        assert await status(client, **headers) == expected


async def test_it_shows_what_was_served_by_name_of_the_key_and_never_the_key(
    caller: Open, key: str
) -> None:
    async with caller("127.0.0.1", metrics_on_loopback=True) as client:
        await client.post("/transcribe", files=CLIP, headers={"X-API-Key": key})
        await client.get("/no/such/path")
        answer = await client.get("/metrics")

    assert answer.headers["content-type"].startswith("text/plain; version=")
    assert 'asr_requests_total{route="/transcribe",status="200"} 1.0' in answer.text
    assert 'asr_requests_total{route="other",status="404"} 1.0' in answer.text
    assert 'asr_key_audio_seconds_total{key="alice"} 2.5' in answer.text
    assert key not in answer.text
