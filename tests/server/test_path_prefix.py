"""The server under a path of a proxy's, which takes the prefix off or leaves it on."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import httpx
import pytest
from fastapi import FastAPI

from simple_asr.errors import ConfigurationError
from simple_asr.server.app import create_app
from simple_asr.server.path_prefix import without_prefix
from simple_asr.service.fake import FakeTranscriber
from simple_asr.service.keys import KeyStore
from simple_asr.settings import Settings

pytestmark = pytest.mark.anyio

PREFIX = "/speech/asr"
FORM = {"audio_file": ("clip.wav", b"RIFF", "audio/wav")}
BROWSER = {"Accept": "text/html"}

BOTH = pytest.mark.parametrize("seen", [PREFIX, ""], ids=["left on", "taken off"])


@pytest.fixture
async def client(
    make_settings: Callable[..., Settings],
    make_key_store: Callable[[Settings], KeyStore],
    key: str,
) -> AsyncIterator[httpx.AsyncClient]:
    """Of a server that is shown under PREFIX, and works on jobs."""
    settings = make_settings(root_path=PREFIX)
    app: FastAPI = create_app(settings, FakeTranscriber(), make_key_store(settings))
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(
            transport=transport, base_url="http://asr", headers={"X-API-Key": key}
        ) as client,
    ):
        yield client


@pytest.mark.parametrize(
    ("path", "inside"),
    [
        ("/asr/jobs", "/jobs"),
        ("/asr/", "/"),
        ("/jobs", "/jobs"),
        ("/asrx", "/asrx"),
        ("/asr/asr/x", "/asr/x"),
    ],
)
def test_the_prefix_comes_off_once_and_as_a_whole(path: str, inside: str) -> None:
    assert without_prefix(path, "/asr") == inside


@BOTH
async def test_routes_and_files_are_found(client: httpx.AsyncClient, seen: str) -> None:
    answers = {
        path: (await client.get(f"{seen}{path}", headers=BROWSER)).status_code
        for path in ("/", "/docs", "/web/app.js", "/openapi.json", "/health", "/nothing")
    }
    transcript = await client.post(f"{seen}/transcribe", files=FORM)

    assert transcript.status_code == 200
    assert answers.pop("/nothing") == 404
    assert set(answers.values()) == {200}


@BOTH
async def test_what_is_told_of_a_job_leads_back_to_it_from_outside(
    client: httpx.AsyncClient, seen: str
) -> None:
    submitted = await client.post(f"{seen}/jobs", files=FORM)
    await client.post(f"{seen}/jobs", files=FORM)
    page = (await client.get(f"{seen}/jobs", params={"limit": 1})).json()

    place = f"{PREFIX}/jobs/{submitted.json()['id']}"
    assert submitted.headers["location"] == place
    assert submitted.json()["links"] == {
        "self": place,
        "events": f"{place}/events",
        "result": f"{place}/result",
    }
    assert page["next"].startswith(f"{PREFIX}/jobs?")
    assert (await client.get(page["next"])).status_code == 200
    assert (await client.get(place)).status_code == 200


@BOTH
async def test_errors_keep_the_form_of_their_dialect(client: httpx.AsyncClient, seen: str) -> None:
    answer = await client.post(f"{seen}/v1/audio/transcriptions")

    assert "error" in answer.json()


@BOTH
async def test_the_document_of_the_api_names_the_path(client: httpx.AsyncClient, seen: str) -> None:
    document = (await client.get(f"{seen}/openapi.json")).json()
    index = (await client.get(f"{seen}/")).json()

    assert document["servers"] == [{"url": PREFIX}]
    assert "/transcribe" in document["paths"]
    assert index["links"]["openapi"] == f"{PREFIX}/openapi.json"


async def test_the_page_without_its_last_slash_leads_to_the_page(client: httpx.AsyncClient) -> None:
    answer = await client.get(PREFIX, headers=BROWSER)

    assert (answer.status_code, answer.headers["location"]) == (308, f"{PREFIX}/")


@pytest.mark.parametrize("prefix", ["/v1", "/jobs", "/web", "/health/", "/asr"])
def test_a_prefix_that_is_a_path_of_ours_is_refused(
    make_settings: Callable[..., Settings], key_store: KeyStore, prefix: str
) -> None:
    with pytest.raises(ConfigurationError, match="ROOT_PATH="):
        create_app(make_settings(root_path=prefix), FakeTranscriber(), key_store)
