"""An error's form is its path's: problem documents, and OpenAI's under /v1."""

from __future__ import annotations

import httpx
import pytest

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    ("path", "media_type"),
    [
        ("/nothing", "application/problem+json"),
        ("/v1", "application/problem+json"),
        ("/v1/nothing", "application/json"),
    ],
)
async def test_the_form_follows_the_path(
    stranger: httpx.AsyncClient, path: str, media_type: str
) -> None:
    answer = await stranger.get(path)

    assert answer.headers["content-type"] == media_type


async def test_under_v1_even_the_outermost_refusal_has_openais_form(
    stranger: httpx.AsyncClient,
) -> None:
    answer = await stranger.get("/v1/models", headers={"X-Long": "x" * 20_000})

    assert answer.status_code == 431
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
    assert answer.json()["error"]["code"] == "headers_too_large"


async def test_under_v1_a_wrong_method_says_what_is_allowed(stranger: httpx.AsyncClient) -> None:
    answer = await stranger.delete("/v1/models")

    assert answer.status_code == 405
    assert answer.headers["allow"] == "GET"
