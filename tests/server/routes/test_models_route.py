"""Which models there are, and loading and unloading them."""

from __future__ import annotations

from collections.abc import Callable

import httpx
import pytest

from simple_asr.server.app import create_app
from simple_asr.service.fake import FakeTranscriber
from simple_asr.service.keys import KeyStore
from simple_asr.settings import Settings

pytestmark = pytest.mark.anyio

CLIP = {"audio_file": ("clip.wav", b"RIFF", "audio/wav")}


async def test_models_are_listed_with_the_default_one_first(client: httpx.AsyncClient) -> None:
    answer = await client.get("/models")

    assert answer.status_code == 200
    assert [(model["name"], model["state"]) for model in answer.json()["models"]] == [
        ("turbo", "loaded"),
        ("tiny", "local"),
        ("small", "known"),
    ]
    assert answer.json()["models"][0]["default"] is True


async def test_a_model_is_loaded_and_unloaded(client: httpx.AsyncClient) -> None:
    loaded = await client.post("/models/tiny/load")
    unloaded = await client.post("/models/tiny/unload")

    assert (loaded.status_code, loaded.json()["state"]) == (202, "loading")
    assert (unloaded.status_code, unloaded.json()["state"]) == (200, "local")


async def test_a_model_that_is_loaded_already_is_200(client: httpx.AsyncClient) -> None:
    assert (await client.post("/models/turbo/load")).status_code == 200


async def test_the_default_model_is_not_unloaded(client: httpx.AsyncClient) -> None:
    answer = await client.post("/models/turbo/unload")

    assert (answer.status_code, answer.json()["code"]) == (409, "model_in_use")


@pytest.mark.parametrize("path", ["/models/huge/load", "/models/owner/name/unload"])
async def test_a_model_that_does_not_exist_is_404(client: httpx.AsyncClient, path: str) -> None:
    answer = await client.post(path)

    assert (answer.status_code, answer.json()["code"]) == (404, "model_not_found")


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/models"), ("POST", "/models/tiny/load"), ("POST", "/models/tiny/unload")],
)
async def test_a_stranger_learns_nothing_of_models(
    stranger: httpx.AsyncClient, method: str, path: str
) -> None:
    assert (await stranger.request(method, path)).status_code == 401


@pytest.mark.parametrize(("admins", "status"), [("alice, bob", 202), ("bob", 403)])
async def test_where_administrators_are_named_only_they_load_models(
    make_settings: Callable[..., Settings],
    make_key_store: Callable[[Settings], KeyStore],
    key: str,
    admins: str,
    status: int,
) -> None:
    settings = make_settings(admin_keys=admins)
    transport = httpx.ASGITransport(
        create_app(settings, FakeTranscriber(), make_key_store(settings))
    )

    async with httpx.AsyncClient(transport=transport, base_url="http://asr") as client:
        client.headers["X-API-Key"] = key
        loaded = await client.post("/models/tiny/load")
        listed = await client.get("/models")

    assert (loaded.status_code, listed.status_code) == (status, 200)


async def test_a_request_names_its_model(
    client: httpx.AsyncClient, transcriber: FakeTranscriber
) -> None:
    answer = await client.post("/transcribe", files=CLIP, data={"model": "tiny"})

    assert answer.status_code == 200
    assert transcriber.asked[0].options.model == "tiny"


async def test_a_stream_tells_the_model_that_was_named(client: httpx.AsyncClient) -> None:
    answer = await client.post(
        "/transcribe", files=CLIP, data={"model": "tiny"}, headers={"Accept": "text/event-stream"}
    )

    assert answer.headers["x-asr-model"] == "tiny"


async def test_a_request_for_an_unknown_model_is_404(client: httpx.AsyncClient) -> None:
    answer = await client.post("/transcribe", files=CLIP, data={"model": "huge"})

    assert (answer.status_code, answer.json()["field"]) == (404, "model")
