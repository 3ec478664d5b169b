"""Tells a client that gave up waiting, and will ask again, from one that left for good."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable
from pathlib import Path

from starlette.requests import Request

# How long the work of a client that gave up waiting goes on. OpenAI's SDK pauses at most 8 s, and
# then sends the file again.
SECONDS_KEPT = 60.0
# How OpenAI's SDKs announce after how many seconds they give up: for Python, for JavaScript.
TIMEOUT_HEADERS = ("x-stainless-read-timeout", "x-stainless-timeout")
# The client's clock began before ours.
NEARLY = 0.9


def seconds_kept_for(request: Request) -> Callable[[], float]:
    """For how long to go on, as asked when the caller has left. The clock begins now.

    Only a client that says when it gives up, and left then, can be expected back.
    """
    began = time.monotonic()
    timeout = announced_timeout(request)

    def seconds_kept() -> float:
        gave_up = timeout is not None and time.monotonic() - began >= NEARLY * timeout
        return SECONDS_KEPT if gave_up else 0.0

    return seconds_kept


def announced_timeout(request: Request) -> float | None:
    """Seconds after which the client says it gives up."""
    announced = (request.headers.get(header) for header in TIMEOUT_HEADERS)
    try:
        return float(next((text for text in announced if text is not None), ""))
    except ValueError:
        return None


async def sha256_of(file: Path) -> bytes:
    """The digest of a file, read in a thread."""
    return await asyncio.to_thread(_sha256, file)


def _sha256(file: Path) -> bytes:
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while block := stream.read(1024 * 1024):
            digest.update(block)
    return digest.digest()
