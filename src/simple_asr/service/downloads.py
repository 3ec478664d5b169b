"""Fetches the recordings that callers name by their address, each into a file of ours."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from simple_asr.errors import EmptyMedia, InvalidParameter
from simple_asr.service.addresses import about
from simple_asr.service.outgoing import DownloadLimits, Outgoing
from simple_asr.service.spool import SpoolFile

FIELD = "audio_url"


class Downloads:
    """What `audio_url` names. `is_enabled` says whether callers may name anything."""

    def __init__(self, outgoing: Outgoing, limits: DownloadLimits, *, is_enabled: bool) -> None:
        self._outgoing = outgoing
        self._limits = limits
        self._is_enabled = is_enabled

    def check(self, url: str, field: str = FIELD) -> None:
        """Before anything is connected to. Raises InvalidParameter, AddressRefused."""
        if not self._is_enabled:
            raise InvalidParameter(
                f"This server takes no {field}, unless its operator allows it (AUDIO_URLS). Send "
                "the file itself.",
                field=field,
            )
        with about(field):
            self._outgoing.rules.checked_url(url)

    @asynccontextmanager
    async def fetched(self, url: str, folder: Path) -> AsyncIterator[Path]:
        """The recording as a file of `folder`, for as long as the context lasts.

        Raises AddressRefused, DownloadFailed, PayloadTooLarge, EmptyMedia, StorageFull,
        Unavailable.
        """
        file = SpoolFile(folder)

        async def write(data: bytes) -> None:
            await asyncio.to_thread(file.write, data)

        try:
            with about(FIELD):
                checked = self._outgoing.rules.checked_url(url)
                await self._outgoing.download(checked, write, self._limits)
                if file.size == 0:
                    raise EmptyMedia("The file at this address is empty (0 bytes).")
            yield file.path
        finally:
            # In the thread's queue at once, and shielded: as for an upload.
            removing = asyncio.get_running_loop().run_in_executor(None, file.remove)
            await asyncio.shield(removing)
