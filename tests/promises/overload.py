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

from tests.promises.callers import Answer, Crowd, counts, crowd, metric
from tests.promises.figures import Figures, arguments, p99
from tests.promises.hearing_server import hearing_server, lags
from tests.promises.processes import Usage
from tests.running_server import RunningServer

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
    with ProcessPoolExecutor(1) as prober:
        health = prober.submit(probe, f"{server.url}/health", seconds)
        together = await served_per_second(callers, NUM_CALLERS, seconds)
        await asyncio.wrap_future(health)
    peak = Usage.of(server.process_id).memory
    report(figures, callers.answers, alone, together, seconds)
    told = counts(callers.answers)["200"]
    figures.equal("served, as the server counts", num_served(server) - before, float(told))
    figures.at_most("memory more than before, MiB", peak - memory, 200)
    report_promptness(figures, health.result(), lags(home)[num_lags:])


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
    figures.within("refused after, p99", p99([answer.seconds for answer in refused]), 0.1)
    # A place's worth of windows before one's own, and the time of upload and decoding.
    figures.within("served after, p99", p99(served), NUM_PLACES * SECONDS_PER_WINDOW + 0.5)


def report_promptness(figures: Figures, probes: list[Probe], late: list[float]) -> None:
    """A busy machine holds up a process that only sleeps, too: that much is not the server's."""
    asleep = [probe.overslept for probe in probes]
    figures.note(f"A process that only sleeps: late by {p99(asleep):.4f} s (p99) here")
    answered = [probe.seconds for probe in probes if probe.seconds is not None]
    figures.equal("/health at 10 Hz: failures", len(probes) - len(answered), 0)
    figures.within(f"/health, p99 of {len(answered)}", p99(answered), 0.05 + p99(asleep))
    figures.within("event loop late, p99", p99(late), 0.02 + p99(asleep))
    figures.within("event loop late, most", max(late), 0.1 + max(asleep))


async def served_per_second(callers: Crowd, num_callers: int, seconds: float) -> float:
    """While all of them call, which is for so many seconds."""
    end, before = time.monotonic() + seconds, len(callers.answers)
    await callers.keep_asking(num_callers, seconds, PAUSE)
    return sum(a.told == "200" and a.ended <= end for a in callers.answers[before:]) / seconds


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
