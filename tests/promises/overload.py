"""Offers a server ten times what it can do: who is taken is answered, who is not is told at once.

python -m tests.promises.overload 300
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import httpx

from tests.promises.callers import (
    HANG_SECONDS,
    PCM,
    PITCHES,
    Answer,
    Crowd,
    counts,
    crowd,
    metric,
    tone,
)
from tests.promises.figures import Figures, arguments, p99
from tests.promises.hearing_server import hearing_server, lags
from tests.promises.processes import Usage
from tests.running_server import KEY, RunningServer

SECONDS_PER_WINDOW = 0.05  # so that 20 clips a second are all it can do
NUM_PLACES = 16
NUM_CALLERS = 10 * NUM_PLACES
# Those who found no place come again after so long, and offer ten times the capacity.
PAUSE = (NUM_CALLERS - NUM_PLACES) * SECONDS_PER_WINDOW / 10
PROBE_SECONDS = 0.1


def main(seconds: float, figures: Figures) -> None:
    with (
        tempfile.TemporaryDirectory() as name,
        hearing_server(
            Path(name), SECONDS_PER_WINDOW, max_waiting_requests=NUM_PLACES, log_level="warning"
        ) as server,
    ):
        asyncio.run(overload(server, Path(name), seconds, figures))
    figures.end()


async def overload(server: RunningServer, home: Path, seconds: float, figures: Figures) -> None:
    callers = await crowd(server)
    alone = await served_per_second(callers, NUM_PLACES, max(3.0, seconds / 10))
    memory, num_lags = Usage.of(server.process_id).memory, len(lags(home))
    callers.answers.clear()
    before = num_served(server)
    with ProcessPoolExecutor(2) as probers:
        health = probers.submit(probe, f"{server.url}/health", seconds)
        one_more = probers.submit(told_to_one_more, server.url, seconds)
        together = await served_per_second(callers, NUM_CALLERS, seconds)
        await asyncio.wrap_future(health)
        await asyncio.wrap_future(one_more)
    peak = Usage.of(server.process_id).memory
    report(figures, callers.answers, alone, together, seconds)
    told = counts(callers.answers)["200"] + sum(is_taken for is_taken, _ in one_more.result())
    figures.equal("served, as the server counts", num_served(server) - before, float(told))
    figures.at_most("memory more than before, MiB", peak - memory, 200)
    refused = [seconds for is_taken, seconds in one_more.result() if not is_taken]
    report_promptness(figures, health.result(), lags(home)[num_lags:], refused)


def num_served(server: RunningServer) -> float:
    return metric(server, "asr_requests_total", 'route="/transcribe"', 'status="200"')


def report(
    figures: Figures, answers: list[Answer], alone: float, together: float, seconds: float
) -> None:
    served = [answer.seconds for answer in answers if answer.told == "200"]
    refused = [answer for answer in answers if answer.told == "503"]
    figures.note(
        f"{seconds:.0f} s, {len(answers) / seconds:.0f} requests offered a second, "
        f"{alone:.1f} served a second alone: {counts(answers)}"
    )
    figures.at_least("offered, in capacities", len(answers) / seconds / alone, 7)
    figures.at_least("served under overload, of what is served alone", together / alone, 0.95)
    figures.equal("told anything else", len(answers) - len(served) - len(refused), 0)
    figures.equal("refused without Retry-After", sum(a.retry_after is None for a in refused), 0)
    figures.note(
        f"Refused after {p99([answer.seconds for answer in refused]):.4f} s (p99), as "
        f"{NUM_CALLERS} callers in one process have it, which wait for each other as well"
    )
    # A place's worth of windows before one's own, and the time of upload and decoding.
    figures.within("served after, p99", p99(served), NUM_PLACES * SECONDS_PER_WINDOW + 0.5)


def report_promptness(
    figures: Figures, probes: list[Probe], late: list[float], refused: list[float]
) -> None:
    """A busy machine holds up a process that only sleeps, too: that much is not the server's."""
    asleep = [probe.overslept for probe in probes]
    figures.note(f"A process that only sleeps: late by {p99(asleep):.4f} s (p99) here")
    answered = [probe.seconds for probe in probes if probe.seconds is not None]
    figures.equal("/health at 10 Hz: failures", len(probes) - len(answered), 0)
    figures.within(
        f"refused after, p99 of {len(refused)}, by itself", p99(refused), 0.1 + p99(asleep)
    )
    figures.within(f"/health, p99 of {len(answered)}", p99(answered), 0.05 + p99(asleep))
    figures.within("event loop late, p99", p99(late), 0.02 + p99(asleep))
    figures.within("event loop late, most", max(late), 0.1 + max(asleep))


async def served_per_second(callers: Crowd, num_callers: int, seconds: float) -> float:
    """While all of them call, which is for so many seconds."""
    end, before = time.monotonic() + seconds, len(callers.answers)
    await callers.keep_asking(num_callers, seconds, PAUSE)
    return sum(a.told == "200" and a.ended <= end for a in callers.answers[before:]) / seconds


def told_to_one_more(url: str, seconds: float) -> list[tuple[bool, float]]:
    """Whether a caller in a process of its own was taken each time, and after how long it knew."""
    found = []
    clip, until = tone(PITCHES[0]), time.monotonic() + seconds
    with httpx.Client(headers={"X-API-Key": KEY, **PCM}, timeout=HANG_SECONDS) as client:
        while (began := time.monotonic()) < until:
            answer = client.post(f"{url}/transcribe?language=en", content=clip)
            assert answer.status_code in {200, 503}, answer.text
            found.append((answer.status_code == 200, time.monotonic() - began))
            time.sleep(PROBE_SECONDS)
    return found


@dataclass(frozen=True)
class Probe:
    """What a request took, None where it failed; and how much longer than asked the pause was."""

    seconds: float | None
    overslept: float


def probe(url: str, seconds: float) -> list[Probe]:
    """Ten requests a second."""
    probes = []
    until = time.monotonic() + seconds
    with httpx.Client() as client:
        while (began := time.monotonic()) < until:
            try:
                is_healthy = client.get(url).status_code == 200
            except httpx.TransportError:
                is_healthy = False
            answered = time.monotonic()
            pause = max(0.0, PROBE_SECONDS - (answered - began))
            time.sleep(pause)
            overslept = time.monotonic() - answered - pause
            probes.append(Probe(answered - began if is_healthy else None, overslept))
    return probes


if __name__ == "__main__":
    main(*arguments())
