"""Takes the key file up again: when asked, and by itself when the file has changed."""

from __future__ import annotations

import asyncio
import logging

from simple_asr.service.keys import KeyStore, ReloadResult

logger = logging.getLogger(__name__)

# A look is one `stat`. A file that is written all the time takes the store another second.
WATCH_SECONDS = 0.5


async def reload_keys(keys: KeyStore) -> ReloadResult:
    """Reads the file because somebody asked, and says in the log that it did.

    The store itself logs what is wrong with the file.
    """
    result = await asyncio.to_thread(keys.reload)
    outcome = "not taken" if result.problem else "read again"
    logger.info("Key file %s as asked, %d API keys in force", outcome, result.count)
    return result


async def watch_keys(keys: KeyStore, interval: float = WATCH_SECONDS) -> None:
    """Reads the file after every change, for ever. Looks every `interval` seconds."""
    while True:
        await asyncio.sleep(interval)
        try:
            if await asyncio.to_thread(keys.changed_on_disk):
                await asyncio.to_thread(keys.reload)
        except Exception:  # The watch outlives any failure: the next look may succeed.
            logger.exception("The key file could not be watched")
