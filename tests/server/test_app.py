"""The app as a whole: unknown paths and methods, its lifespan, and that importing does nothing."""

from __future__ import annotations

import subprocess
import sys

import httpx
import pytest
from fastapi import FastAPI

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
        ("POST", "/health", "GET"),
    ],
)
async def test_a_wrong_method_is_a_405_problem_that_says_what_is_allowed(
    stranger: httpx.AsyncClient, method: str, path: str, allowed: str
) -> None:
    answer = await stranger.request(method, path)

    assert answer.status_code == 405
    assert answer.json()["code"] == "method_not_allowed"
    assert allowed in answer.headers["allow"]


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
