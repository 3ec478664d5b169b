"""GET /health and its two probes: without a key, and true at every moment of the model's life."""

from __future__ import annotations

import httpx
import pytest

from simple_asr.service.fake import FakeTranscriber
from simple_asr.service.transcriber import ModelState

pytestmark = pytest.mark.anyio

LOADING = ModelState("loading", requested="turbo", served="turbo", reason="Downloading.")
FAILED = ModelState("failed", requested="turbo", served="turbo", reason="Checksum mismatch.")
DEGRADED = ModelState("ready", requested="turbo", served="base", reason="No hub.")


async def test_health_is_what_the_specification_prints(stranger: httpx.AsyncClient) -> None:
    answer = await stranger.get("/health")

    assert answer.status_code == 200
    assert answer.json() == {"status": "healthy", "model_loaded": True, "model_name": "turbo"}


@pytest.mark.parametrize("state", [LOADING, FAILED])
async def test_health_is_503_until_the_model_works(
    stranger: httpx.AsyncClient, transcriber: FakeTranscriber, state: ModelState
) -> None:
    transcriber.state = state

    answer = await stranger.get("/health")

    assert answer.status_code == 503
    assert answer.json() == {
        "status": state.status,
        "model_loaded": False,
        "model_name": "turbo",
    }


async def test_health_names_both_models_when_another_is_served(
    stranger: httpx.AsyncClient, transcriber: FakeTranscriber
) -> None:
    transcriber.state = DEGRADED

    answer = await stranger.get("/health")

    assert answer.status_code == 200
    assert answer.json() == {
        "status": "degraded",
        "model_loaded": True,
        "model_name": "base",
        "requested_model": "turbo",
    }


@pytest.mark.parametrize(("state", "status"), [(LOADING, 503), (FAILED, 503), (DEGRADED, 200)])
async def test_ready_follows_the_model(
    stranger: httpx.AsyncClient, transcriber: FakeTranscriber, state: ModelState, status: int
) -> None:
    transcriber.state = state

    answer = await stranger.get("/health/ready")

    assert answer.status_code == status


async def test_live_does_not_ask_the_model(
    stranger: httpx.AsyncClient, transcriber: FakeTranscriber
) -> None:
    transcriber.state = FAILED

    answer = await stranger.get("/health/live")

    assert answer.status_code == 200


@pytest.mark.parametrize("path", ["/health", "/health/live", "/health/ready", "/"])
async def test_probes_may_ask_by_head(stranger: httpx.AsyncClient, path: str) -> None:
    answer = await stranger.head(path)

    assert answer.status_code == 200
    assert answer.content == b""
