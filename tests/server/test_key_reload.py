"""The watch over the key file: an edit takes effect without a call, and nothing ends the watch."""

from __future__ import annotations

import asyncio
import logging

import pytest

from simple_asr.server.key_reload import reload_keys, watch_keys
from simple_asr.service.keys import KeyStore, ReloadResult
from simple_asr.settings import Settings

pytestmark = pytest.mark.anyio


TWO_KEYS = "a" * 64 + "\n" + "b" * 64 + "\n"


@pytest.fixture
async def reloaded(key_store: KeyStore, monkeypatch: pytest.MonkeyPatch) -> asyncio.Event:
    """Set once the store has read its file again."""
    loop, event, reload = asyncio.get_running_loop(), asyncio.Event(), key_store.reload

    def telling() -> ReloadResult:
        result = reload()
        loop.call_soon_threadsafe(event.set)
        return result

    monkeypatch.setattr(key_store, "reload", telling)
    return event


async def test_an_edit_takes_effect_without_a_call(
    settings: Settings, key_store: KeyStore, reloaded: asyncio.Event
) -> None:
    watching = asyncio.create_task(watch_keys(key_store, interval=0.005))
    settings.keys_file.write_text(TWO_KEYS)

    await asyncio.wait_for(reloaded.wait(), timeout=10)
    watching.cancel()

    assert key_store.count == 2


async def test_the_watch_outlives_a_failure(
    settings: Settings,
    key_store: KeyStore,
    reloaded: asyncio.Event,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    failures = iter([OSError("stale file handle"), OSError("stale file handle")])

    def look() -> bool:
        if failure := next(failures, None):
            raise failure
        return not reloaded.is_set()

    monkeypatch.setattr(key_store, "changed_on_disk", look)
    settings.keys_file.write_text(TWO_KEYS)

    watching = asyncio.create_task(watch_keys(key_store, interval=0.005))
    await asyncio.wait_for(reloaded.wait(), timeout=10)
    watching.cancel()

    assert key_store.count == 2


async def test_a_reload_that_was_asked_for_is_logged_either_way(
    settings: Settings, key_store: KeyStore, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="simple_asr.server.key_reload")

    await reload_keys(key_store)
    settings.keys_file.unlink()
    await reload_keys(key_store)

    assert [
        record.getMessage()
        for record in caplog.records
        if record.name == "simple_asr.server.key_reload"
    ] == [
        "Key file read again as asked, 1 API keys in force",
        "Key file not taken as asked, 1 API keys in force",
    ]
