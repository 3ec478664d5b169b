"""GET /: a first answer for whoever opens the address."""

from __future__ import annotations

import httpx
import pytest

from simple_asr import __version__

pytestmark = pytest.mark.anyio


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
        "openapi": 200,
    }
