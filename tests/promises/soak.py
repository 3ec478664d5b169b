"""Leaves a server alone with all sorts of callers, and sees whether anything of it grows.

python -m tests.promises.soak 1800
"""

from __future__ import annotations

import asyncio
import itertools
import random
import tempfile
import time
from dataclasses import astuple, fields
from pathlib import Path

import httpx
import numpy as np

from tests.promises.callers import PCM, PITCHES, Crowd, counts, crowd, pitch_of, tone
from tests.promises.disconnects import call, hang_up
from tests.promises.figures import Figures, arguments, theil_sen
from tests.promises.hearing_server import hearing_server
from tests.promises.processes import Usage
from tests.running_server import RunningServer

SECONDS_PER_WINDOW = 0.02
NUM_CALLERS = 4
SECONDS_BETWEEN_LOOKS = 1.0
# Until then caches fill and threads start.
WARM_UP = 0.2
# Of the whole time: how many requests there are depends on the machine.
MOST_MIB_PER_HOUR = 5.0
# Decoders are replaced from time to time, and one more descriptor may be open at any look.
MOST_PER_HOUR = 1.0


def main(seconds: float, figures: Figures) -> None:
    with (
        tempfile.TemporaryDirectory() as name,
        hearing_server(Path(name), SECONDS_PER_WINDOW, log_level="warning") as server,
    ):
        asyncio.run(soak(server, seconds, figures))
        figures.no_traceback(server.log)
        server.until(lambda: server.spooled == [], "the spool folder is empty")
    figures.end()


async def soak(server: RunningServer, seconds: float, figures: Figures) -> None:
    callers = await crowd(server)
    callers.answers.clear()
    odd = asyncio.ensure_future(be_odd(callers))
    looking = asyncio.ensure_future(look(server))
    await callers.keep_asking(NUM_CALLERS, seconds, pause=1)
    assert not odd.done(), odd.exception()
    odd.cancel()
    looking.cancel()
    looks: list[tuple[float, Usage]] = (await asyncio.gather(looking, return_exceptions=True))[0]  # type: ignore[assignment]  # it ends by itself
    kept = looks[int(WARM_UP * len(looks)) :]
    figures.note(f"{seconds:.0f} s, callers were told {counts(callers.answers)}, {kept[-1][1]}")
    figures.equal("told anything but 200", len(callers.answers) - counts(callers.answers)["200"], 0)
    hours = [at / 3600 for at, _ in kept]
    for number, field in enumerate(fields(Usage)):
        slope = theil_sen(hours, [astuple(usage)[number] for _, usage in kept])
        unit, most = (
            ("MiB", MOST_MIB_PER_HOUR) if field.name == "memory" else ("more", MOST_PER_HOUR)
        )
        figures.at_most(f"{field.name}, {unit} an hour", slope, most)
    tenth = len(callers.answers) // 10
    first, last = (
        float(np.percentile([answer.seconds for answer in answers], 95))
        for answers in (callers.answers[:tenth], callers.answers[-tenth:])
    )
    figures.note(f"Slowest of twenty: {first:.3f} s in the first tenth, {last:.3f} s in the last")


async def look(server: RunningServer) -> list[tuple[float, Usage]]:
    """When, and what the server and its decoders held, until it is cancelled."""
    looks = []
    try:
        while True:
            looks.append((time.monotonic(), await asyncio.to_thread(Usage.of, server.process_id)))
            await asyncio.sleep(SECONDS_BETWEEN_LOOKS)
    except asyncio.CancelledError:
        return looks


async def be_odd(callers: Crowd) -> None:
    """One after the other: what servers are sent besides good requests."""
    media = tone(PITCHES[0], 60)
    async with callers.client() as client:
        for number in itertools.count():
            noise = random.Random(number).randbytes(20_000)  # noqa: S311 - no secret
            await client.post("/transcribe", content=noise, headers={"Content-Type": "audio/mpeg"})
            await client.post("/transcribe", content=b"", headers={"X-API-Key": "wrong"})
            await client.post("/transcribe?temperature=NaN", content=b"", headers=PCM)
            await client.get(f"/nothing/{number}")
            await client.get("/metrics")
            stream = {**PCM, "Accept": "text/event-stream"}
            await client.post(
                "/transcribe?language=en", content=tone(pitch_of(number)), headers=stream
            )
            await finish_job(client, number)
            leaver = await asyncio.to_thread(call, callers.server, media)
            await asyncio.sleep(0.2)
            hang_up(leaver, with_reset=number % 2 == 0)


async def finish_job(client: httpx.AsyncClient, number: int) -> None:
    job = await client.post("/jobs?language=en", content=tone(pitch_of(number)), headers=PCM)
    events = {"Accept": "text/event-stream"}
    await client.get(f"{job.headers['Location']}/events", headers=events)  # until its end
    await client.delete(job.headers["Location"])


if __name__ == "__main__":
    main(*arguments())
