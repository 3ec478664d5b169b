"""GET / and GET /docs: pages for browsers, and a first answer for programs."""

from __future__ import annotations

import httpx
import pytest

from simple_asr import __version__
from simple_asr.settings import Settings

pytestmark = pytest.mark.anyio

BROWSER = {"Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}


async def test_the_index_names_the_server_and_its_links_lead_somewhere(
    stranger: httpx.AsyncClient,
) -> None:
    index = (await stranger.get("/")).json()
    answers = {name: await stranger.get(path) for name, path in index["links"].items()}

    assert index["name"] == "Simple ASR"
    assert index["version"] == __version__
    assert {name: answer.status_code for name, answer in answers.items()} == {
        "transcribe": 405,
        "health": 200,
        "docs": 200,
        "openapi": 200,
    }


async def test_the_index_tells_the_limits(stranger: httpx.AsyncClient, settings: Settings) -> None:
    limits = (await stranger.get("/")).json()["limits"]

    assert limits == {
        "max_upload_bytes": settings.max_upload_bytes,
        "max_audio_seconds": settings.max_audio_seconds,
    }


async def test_a_browser_gets_the_page(stranger: httpx.AsyncClient) -> None:
    answer = await stranger.get("/", headers=BROWSER)

    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.headers["vary"] == "Accept"


@pytest.mark.parametrize("accept", ["*/*", "application/json", ""])
async def test_whoever_does_not_ask_for_html_gets_json(
    stranger: httpx.AsyncClient, accept: str
) -> None:
    answer = await stranger.get("/", headers={"Accept": accept})

    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["vary"] == "Accept"
