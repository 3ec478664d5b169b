"""Holds connections open with heads and bodies that hardly come, and asks meanwhile as others do.

python -m tests.server.slow_clients 200     200 slow heads, and as many slow bodies; real weights
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import httpx

from tests.conftest import REPOSITORY
from tests.running_server import KEY, RunningServer, running_server
from tests.server.start_stop import speech
from tests.support import WAIT

TIMEOUT = 3.0
"""Seconds the server gives a head, and a body that lags behind."""
# A sender that is refused is heard out for 2 s, and this machine may be busy.
MOST_SECONDS = TIMEOUT + 2 + 5
# The longest of some dozens, while the model has every core and hundreds connect.
MOST_HEALTH_SECONDS = 3.0

SLOW_HEAD = b"GET /health HTTP/1.1\r\nHost: a\r\nX-Slow: "
SLOW_BODY = (
    f"POST /transcribe HTTP/1.1\r\nHost: a\r\nX-API-Key: {KEY}\r\nContent-Type: audio/wav\r\n"
    "Content-Length: 1000000\r\n\r\nRIFF"
).encode()


@dataclass
class Seen:
    """Seconds: the longest that a slow client held on, each answer of /health, the transcript."""

    held: float
    health: list[float]
    transcript: float


def main(num_each: int) -> None:
    """Raises AssertionError where somebody held on for longer, or somebody else was held up."""
    with (
        tempfile.TemporaryDirectory() as name,
        running_server(
            Path(name),
            None,
            default_model="base",
            model_device="cpu",
            model_download_root=REPOSITORY / ".cache" / "models",
            **SETTINGS,
        ) as server,
    ):
        seen = besiege(server, num_each, speech())
    print(  # noqa: T201
        f"{2 * num_each} slow clients, the last gone after {seen.held:.1f} s; /health answered "
        f"{len(seen.health)} times meanwhile, in {median(seen.health) * 1000:.0f} ms at the median "
        f"and {max(seen.health) * 1000:.0f} ms at most; a "
        f"transcription in {seen.transcript:.2f} s"
    )


SETTINGS: dict[str, Any] = {"header_timeout_seconds": TIMEOUT, "body_timeout_seconds": TIMEOUT}


def besiege(server: RunningServer, num_each: int, clip: bytes) -> Seen:
    """What is seen of a server with SETTINGS. Raises AssertionError."""
    seen = asyncio.run(_besiege(server, num_each, clip))
    assert seen.held <= MOST_SECONDS, f"a slow client held on for {seen.held:.1f} s"
    assert max(seen.health) <= MOST_HEALTH_SECONDS, f"/health took {max(seen.health):.2f} s"
    assert server.spooled == [], "uploads that never came left nothing"
    return seen


async def _besiege(server: RunningServer, num_each: int, clip: bytes) -> Seen:
    port = httpx.URL(server.url).port
    assert port is not None
    connected = asyncio.Semaphore(0)
    slow = [
        asyncio.create_task(hold(port, beginning, connected))
        for beginning in [SLOW_HEAD] * num_each + [SLOW_BODY] * num_each
    ]
    for _ in slow:
        await connected.acquire()
    headers = {"X-API-Key": KEY}
    async with httpx.AsyncClient(base_url=server.url, headers=headers, timeout=WAIT) as client:
        transcribing = asyncio.create_task(_transcribe(client, clip))
        health = []
        while not all(task.done() for task in slow):
            health.append(await _ask_health(client))
            await asyncio.sleep(0.1)
        return Seen(max([await task for task in slow]), health, await transcribing)


async def hold(port: int, beginning: bytes, connected: asyncio.Semaphore) -> float:
    """Sends a byte now and then until the server ends it. Seconds that took."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    began = time.monotonic()
    writer.write(beginning)
    connected.release()
    reading = asyncio.create_task(_read_to_end(reader))
    while not reading.done():
        writer.write(b"a")
        await asyncio.wait({reading}, timeout=0.5)
    writer.close()
    return time.monotonic() - began


async def _read_to_end(reader: asyncio.StreamReader) -> None:
    try:
        while await reader.read(65536):
            pass
    except ConnectionError:  # Ended while a byte was on its way.
        pass


async def _ask_health(client: httpx.AsyncClient) -> float:
    began = time.monotonic()
    answer = await client.get("/health")
    assert answer.status_code == 200, answer.text
    return time.monotonic() - began


async def _transcribe(client: httpx.AsyncClient, clip: bytes) -> float:
    began = time.monotonic()
    answer = await client.post("/transcribe", files={"audio_file": clip})
    assert answer.status_code == 200, answer.text
    assert answer.json()["text"].strip()
    return time.monotonic() - began


if __name__ == "__main__":
    main(int(sys.argv[1]))
