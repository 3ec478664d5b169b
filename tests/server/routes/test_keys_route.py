"""POST /keys/reload: an edit of the key file takes effect, and a script sees when it does not."""

from __future__ import annotations

import httpx
import pytest

from simple_asr.settings import Settings

pytestmark = pytest.mark.anyio

NEW_KEY = "fedcba9876543210" * 4


async def test_a_reload_counts_the_keys_and_takes_a_new_one(
    client: httpx.AsyncClient, settings: Settings, key: str
) -> None:
    settings.keys_file.write_text(f"{key}\n{NEW_KEY}\n")

    answer = await client.post("/keys/reload")
    with_new_key = await client.post("/keys/reload", headers={"X-API-Key": NEW_KEY})

    assert answer.status_code == 200
    assert answer.json() == {
        "status": "ok",
        "count": 2,
        "message": "2 API keys in force; they changed.",
    }
    assert with_new_key.status_code == 200


async def test_a_removed_key_is_refused_after_the_reload(
    client: httpx.AsyncClient, settings: Settings, key: str
) -> None:
    settings.keys_file.write_text(f"{NEW_KEY}\n")
    await client.post("/keys/reload")

    answer = await client.post("/keys/reload")

    assert answer.status_code == 403


async def test_a_broken_file_is_a_409_and_the_keys_before_stay_in_force(
    client: httpx.AsyncClient, settings: Settings
) -> None:
    settings.keys_file.write_bytes(b"\xff\xfe not text")

    answer = await client.post("/keys/reload")
    still_known = await client.post("/keys/reload")

    assert answer.status_code == 409
    assert answer.json()["code"] == "invalid_key_file"
    assert "(1) stay in force" in answer.json()["detail"]
    assert str(settings.keys_file.parent) not in answer.text
    assert still_known.status_code == 409


async def test_strangers_may_not_reload(stranger: httpx.AsyncClient) -> None:
    absent = await stranger.post("/keys/reload")
    wrong = await stranger.post("/keys/reload", headers={"X-API-Key": "wrong"})

    assert (absent.status_code, wrong.status_code) == (401, 403)
