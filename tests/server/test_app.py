"""The app as a whole: unknown paths and methods, its lifespan, and that importing does nothing."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Awaitable, Callable

import httpx
import pytest
from fastapi import FastAPI

from simple_asr.server.app import create_app
from simple_asr.service.fake import FakeTranscriber
from simple_asr.service.keys import KeyStore
from simple_asr.settings import Settings

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("path", ["/nothing", "/transcribe/", "/redoc", "/%00", "/../x"])
async def test_an_unknown_path_is_a_404_problem(stranger: httpx.AsyncClient, path: str) -> None:
    answer = await stranger.get(path)

    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["code"] == "not_found"


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/transcribe", "POST"),
        ("DELETE", "/keys/reload", "POST"),
        ("POST", "/health", "GET, HEAD"),
        ("POST", "/web/app.js", "GET, HEAD"),
        ("PUT", "/jobs", "GET, POST"),
        ("PATCH", "/jobs/5e0c7b0a4d9f4b5c8f1d2a3b4c5d6e7f", "DELETE, GET"),
    ],
)
async def test_a_wrong_method_is_a_405_problem_that_says_what_is_allowed(
    stranger: httpx.AsyncClient, method: str, path: str, allowed: str
) -> None:
    answer = await stranger.request(method, path)

    assert answer.status_code == 405
    assert answer.json()["code"] == "method_not_allowed"
    assert answer.headers["allow"] == allowed
    assert f"it takes {allowed}." in answer.json()["detail"]


async def test_only_these_paths_answer_a_stranger(
    app: FastAPI, stranger: httpx.AsyncClient
) -> None:
    document = app.openapi()
    open_paths = set()
    for path, operations in document["paths"].items():
        for method in operations:
            if (await stranger.request(method, path)).status_code not in (401, 403):
                open_paths.add(path)

    # For nobody, unless it is set up, and then for its own token: see its tests.
    open_paths -= {"/metrics"}
    assert open_paths == {"/", "/health", "/health/live", "/health/ready"}


PROTECTION = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
}


@pytest.mark.parametrize("headers", [{}, {"Accept": "text/html"}, {"X-Long": "a" * 17_000}])
async def test_every_route_and_its_errors_carry_the_headers_that_protect(
    app: FastAPI, client: httpx.AsyncClient, headers: dict[str, str]
) -> None:
    operations = [
        (method.upper(), path)
        for path, operations in app.openapi()["paths"].items()
        for method in operations
    ]
    files = [("GET", "/docs"), ("GET", "/web/app.js"), ("GET", "/web/none"), ("GET", "/none")]

    for method, path in [*operations, *files, *[("OPTIONS", path) for _, path in operations]]:
        answer = await client.request(method, path, headers=headers)

        assert PROTECTION.items() <= dict(answer.headers).items(), (method, path)
        assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
        assert answer.headers["cache-control"] in ("no-store", "no-cache")
        assert "server" not in answer.headers


# Pages of other origins ---------------------------------------------------------------------------

ORIGIN = "https://example.org"
Caller = Callable[..., httpx.AsyncClient]


@pytest.fixture
def page_of(
    make_settings: Callable[..., Settings], make_key_store: Callable[[Settings], KeyStore]
) -> Caller:
    """What a browser sends for a page of ORIGIN, to a server with these settings."""

    def open_client(transcriber: FakeTranscriber, **values: object) -> httpx.AsyncClient:
        settings = make_settings(**values)
        app = create_app(settings, transcriber, make_key_store(settings))
        transport = httpx.ASGITransport(app)
        headers = {"Origin": ORIGIN}
        return httpx.AsyncClient(transport=transport, base_url="http://asr", headers=headers)

    return open_client


def preflight(client: httpx.AsyncClient) -> Awaitable[httpx.Response]:
    asked = {
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "x-api-key,x-stainless-os",
    }
    return client.options("/transcribe", headers=asked)


async def test_without_the_setting_no_other_page_is_let_in(
    page_of: Caller, transcriber: FakeTranscriber
) -> None:
    async with page_of(transcriber) as client:
        answers = [await client.get("/health"), await preflight(client)]

    assert [answer.status_code for answer in answers] == [200, 405]
    for answer in answers:
        assert not [name for name in answer.headers if name.startswith("access-control")]


@pytest.mark.parametrize(
    ("origins", "allowed"), [("https://a.example, https://example.org", ORIGIN), ("*", "*")]
)
async def test_a_page_that_is_named_may_call_and_read_what_it_needs(
    page_of: Caller, transcriber: FakeTranscriber, origins: str, allowed: str
) -> None:
    async with page_of(transcriber, cors_origins=origins) as client:
        before = await preflight(client)
        answer = await client.get("/health")

    assert before.status_code == 200
    assert before.headers["access-control-allow-headers"] == "x-api-key,x-stainless-os"
    assert "POST" in before.headers["access-control-allow-methods"]
    assert len(before.headers["x-request-id"]) == 32
    exposed = answer.headers["access-control-expose-headers"]
    assert {"X-Request-Id", "Retry-After"} <= set(exposed.split(", "))
    for one in (before, answer):
        assert one.headers["access-control-allow-origin"] == allowed
        assert "access-control-allow-credentials" not in one.headers


async def test_a_page_that_is_not_named_is_not_let_in(
    page_of: Caller, transcriber: FakeTranscriber
) -> None:
    async with page_of(transcriber, cors_origins="https://a.example") as client:
        answers = [await preflight(client), await client.get("/health")]

    assert answers[0].status_code == 400
    for answer in answers:
        assert "access-control-allow-origin" not in answer.headers


async def test_errors_can_be_read_by_a_page_too(
    page_of: Caller, transcriber: FakeTranscriber, key: str
) -> None:
    transcriber.error = RuntimeError("the inside")
    form = {"audio_file": ("clip.wav", b"RIFF", "audio/wav")}
    async with page_of(transcriber, cors_origins=ORIGIN) as client:
        answers = [
            await client.post("/transcribe"),
            await client.get("/nothing"),
            await client.get("/health", headers={"X-Long": "a" * 17_000}),
            await client.post("/transcribe", files=form, headers={"X-API-Key": key}),
        ]

    assert [answer.status_code for answer in answers] == [401, 404, 431, 500]
    for answer in answers:
        assert answer.headers["access-control-allow-origin"] == ORIGIN


async def test_the_lifespan_sweeps_the_spool_folder(app: FastAPI, settings: Settings) -> None:
    settings.spool_dir.mkdir()
    left = settings.spool_dir / "0123.upload"
    left.touch()

    async with app.router.lifespan_context(app):
        is_there = left.exists()

    assert not is_there


def test_importing_the_server_starts_nothing() -> None:
    program = (
        "import logging, threading, simple_asr.server.run, simple_asr.server.app\n"
        "assert threading.active_count() == 1\n"
        "assert not logging.getLogger().handlers\n"
    )

    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
