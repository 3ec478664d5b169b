"""Waits for recordings to arrive in a folder. What is done with them is `batch.py`'s business."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

from simple_asr.cli.files import Source, media_in

# Seconds between two looks, and so what a file must stay unchanged to count as complete.
PAUSE = 2.0

Look = Mapping[Source, tuple[int, float]]
"""What lies in a folder: size in bytes and time of change of each."""


class Arrivals:
    """Decides which files are new and complete. Pure bookkeeping: no clock, no disk."""

    def __init__(self) -> None:
        self._before: Look = {}
        self._given: dict[Source, tuple[int, float]] = {}

    def complete(self, look: Look) -> list[Source]:
        """Those that have not changed since the last look, each once as long as it stays so."""
        settled = [
            source
            for source, state in look.items()
            if state[0] > 0 and self._before.get(source) == state != self._given.get(source)
        ]
        self._before = look
        self._given |= {source: look[source] for source in settled}
        return settled


async def arrivals(folder: Path, pause: float = PAUSE) -> AsyncIterator[list[Source]]:
    """Complete recordings of a folder as they arrive, for ever; those that lie there at first."""
    bookkeeping = Arrivals()
    while True:
        if complete := bookkeeping.complete(await asyncio.to_thread(look_into, folder)):
            yield complete
        await asyncio.sleep(pause)


def look_into(folder: Path) -> Look:
    """What lies there now. A file that goes away meanwhile is left out."""
    look = {}
    for source in media_in(folder):
        try:
            state = source.media.stat()
        except FileNotFoundError:
            continue
        look[source] = (state.st_size, state.st_mtime)
    return look
