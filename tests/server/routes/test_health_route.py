"""GET /health and its two probes: without a key, and true at every moment of the model's life."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest
from fastapi import FastAPI

from simple_asr.server.app import create_app
from simple_asr.service.fake import FakeTranscriber
from simple_asr.service.keys import KeyStore
from simple_asr.service.transcriber import ModelState
from simple_asr.settings import Settings

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


@pytest.mark.parametrize("folder", ["spool_dir", "jobs_dir"])
async def test_without_room_for_uploads_or_jobs_it_is_not_ready_until_there_is_room_again(
    make_settings: Callable[..., Settings],
    make_key_store: Callable[[Settings], KeyStore],
    monkeypatch: pytest.MonkeyPatch,
    folder: str,
) -> None:
    settings = make_settings(min_free_bytes=4096)
    settings.spool_dir.mkdir()
    app = create_app(settings, FakeTranscriber(), make_key_store(settings))
    blocks_free = iter([4, 3, 4])

    def statvfs(path: Path) -> SimpleNamespace:
        is_filling_up = path == getattr(settings, folder)
        return SimpleNamespace(f_bavail=next(blocks_free) if is_filling_up else 4, f_frsize=1024)

    monkeypatch.setattr(os, "statvfs", statvfs)

    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://asr") as stranger:
        answers = [await stranger.get("/health/ready") for _ in range(3)]

    assert [answer.status_code for answer in answers] == [200, 503, 200]
    assert answers[1].json() == {"status": "storage_low"}
    assert "retry-after" in answers[1].headers


async def test_a_server_that_was_told_to_stop_is_not_ready(
    stranger: httpx.AsyncClient, app: FastAPI
) -> None:
    app.state.services.is_stopping.set()

    answer = await stranger.get("/health/ready")

    assert answer.status_code == 503
    assert answer.json() == {"status": "stopping"}


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
