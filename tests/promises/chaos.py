"""All that goes wrong for a server, at once: what its good callers are promised holds all the same.

python -m tests.promises.chaos 300
"""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from tests.mutants import KINDS, mutant, valid_file
from tests.promises.callers import PCM, Crowd, counts, crowd, metric, pitch_of, tone
from tests.promises.disconnects import call, hang_up
from tests.promises.figures import Figures, arguments
from tests.promises.hearing_server import hearing_server
from tests.promises.key_file import ALWAYS, EVEN, ODD, write
from tests.promises.overload import Probe, probe
from tests.promises.soak import be_odd
from tests.running_server import RunningServer
from tests.server.slow_clients import MOST_SECONDS, SLOW_BODY, SLOW_HEAD, hold
from tests.server.slow_clients import SETTINGS as IMPATIENT

SECONDS_PER_WINDOW = 0.02
NUM_GOOD, NUM_HOSTILE, NUM_SLOW = 4, 2, 20
SECONDS_BETWEEN_KILLS = 1.0
SECONDS_BETWEEN_KEY_FILES = 0.1
SECONDS_BETWEEN_SIGNALS = 0.5
# Of those who ask once more when they are told to.
SHARE_UNSERVED = 0.005
MOST_HEALTH_SECONDS = 1.0
# Files that were made to break decoders; without them there are those of `mutants.py`.
HOSTILE = Path(__file__).parents[3] / "shared" / "hostile" / "files"


def main(seconds: float, figures: Figures) -> None:
    with (
        tempfile.TemporaryDirectory() as name,
        hearing_server(
            Path(name), SECONDS_PER_WINDOW, log_level="warning", max_audio_seconds=3600, **IMPATIENT
        ) as server,
    ):
        asyncio.run(chaos(server, Path(name), seconds, figures))
        figures.no_traceback(server.log)
    figures.end()


@dataclass
class Scene:
    """Where trouble is made until the clock is at `until`, and what is seen of it."""

    callers: Crowd
    key_file: Path
    until: float
    troubles: Counter[str] = field(default_factory=Counter)
    hostile: Counter[int] = field(default_factory=Counter)
    jobs: Counter[str] = field(default_factory=Counter)
    # Good callers who were told something else twice.
    unserved: int = 0
    longest_held: float = 0.0

    @property
    def server(self) -> RunningServer:
        return self.callers.server

    @property
    def is_over(self) -> bool:
        return time.monotonic() >= self.until


async def chaos(server: RunningServer, home: Path, seconds: float, figures: Figures) -> None:
    callers = await crowd(server)
    callers.answers.clear()
    descriptors, num_decoders = server.descriptors, len(server.decoders)
    scene = Scene(callers, home / "keys.txt", time.monotonic() + seconds)
    with ProcessPoolExecutor(1) as prober:
        health = prober.submit(probe, f"{server.url}/health", seconds)
        odd = asyncio.ensure_future(be_odd(callers))
        await asyncio.gather(*(trouble(scene) for trouble in TROUBLES))
        assert not odd.done(), odd.exception()
        odd.cancel()
        report(figures, scene, await asyncio.wrap_future(health))
    await report_rest(figures, scene)
    await asyncio.to_thread(server.until_closed, descriptors)
    figures.equal("files left in the spool folder", len(server.spooled), 0)
    figures.equal("decoders", len(server.decoders), num_decoders)


def report(figures: Figures, scene: Scene, probes: list[Probe]) -> None:
    answers = scene.callers.answers
    told = counts(answers)
    figures.note(f"Troubles: {dict(scene.troubles)}")
    figures.note(f"Good callers were told {told}, senders of hostile files {dict(scene.hostile)}")
    figures.equal("good callers told anything but 200 or 503", len(told.keys() - {"200", "503"}), 0)
    figures.equal("503 without Retry-After", sum(a.has_no_retry_after for a in answers), 0)
    most_unserved = max(1.0, SHARE_UNSERVED * told.get("200", 0))
    figures.at_most("good callers not served at the second try", scene.unserved, most_unserved)
    figures.equal(
        "hostile files told 5xx but 503", sum(map(is_failure, scene.hostile.elements())), 0
    )
    figures.equal("jobs", dict(scene.jobs), {"right": scene.jobs.total()})
    figures.within("a slow client held on for, most", scene.longest_held, MOST_SECONDS)
    answered = [probe.seconds for probe in probes if probe.seconds is not None]
    figures.equal(f"/health, {len(probes)} times: failures", len(probes) - len(answered), 0)
    figures.within("/health, slowest", max(answered), MOST_HEALTH_SECONDS)


def is_failure(status: int) -> bool:
    """Of the server, and none that it has promised."""
    return status >= 500 and status != 503


async def report_rest(figures: Figures, scene: Scene) -> None:
    """What is left when it is over."""
    server = scene.server
    await asyncio.to_thread(server.until, lambda: server.spooled == [], "the spool folder is empty")
    failures = metric(server, "asr_requests_total", 'status="5')
    promised = metric(server, "asr_requests_total", 'status="503"')
    figures.equal("5xx but 503, as the server counts", failures - promised, 0.0)
    scene.callers.answers.clear()
    async with scene.callers.client() as client:
        for number in range(NUM_GOOD):
            await scene.callers.ask(client, pitch_of(number))
    figures.equal("the next callers were told", counts(scene.callers.answers), {"200": NUM_GOOD})


# Who is there ------------------------------------------------------------------------------------


async def be_good(scene: Scene) -> None:
    """Ask one after the other, and once more when told to."""

    async def caller(number: int) -> None:
        async with scene.callers.client() as client:
            while not scene.is_over:
                for _ in range(2):
                    if (await scene.callers.ask(client, pitch_of(number))).told == "200":
                        break
                else:
                    scene.unserved += 1

    await asyncio.gather(*map(caller, range(NUM_GOOD)))


async def have_jobs_done(scene: Scene) -> None:
    """Jobs that nobody removes half way; what became of each."""
    async with scene.callers.client() as client:
        for number in itertools.count():
            if scene.is_over:
                return
            pitch = pitch_of(number)
            job = await client.post("/jobs?language=en", content=tone(pitch), headers=PCM)
            place = job.headers["Location"]
            await client.get(f"{place}/events", headers={"Accept": "text/event-stream"})
            result = await client.get(f"{place}/result")
            is_right = result.is_success and result.json()["text"] == scene.callers.texts[pitch]
            scene.jobs["right" if is_right else f"{result.status_code}: {result.text}"] += 1


async def send_hostile_files(scene: Scene) -> None:
    """Files that were made to break decoders, and good ones that something befell."""
    made = sorted(HOSTILE.iterdir()) if HOSTILE.exists() else []
    random.Random(1).shuffle(made)  # noqa: S311 - no secret
    valid = [valid_file(kind) for kind in KINDS]
    numbers = itertools.count()

    async def sender() -> None:
        async with scene.callers.client() as client:
            while not scene.is_over:
                number = next(numbers)
                media = mutant(valid, str(number))
                if made and number % 2:
                    media = made[number // 2 % len(made)].read_bytes()
                answer = await client.post("/transcribe", files={"audio_file": media})
                scene.hostile[answer.status_code] += 1
                scene.troubles["hostile files"] += 1

    await asyncio.gather(*(sender() for _ in range(NUM_HOSTILE)))


async def leave(scene: Scene) -> None:
    """Callers who are gone before they are answered."""
    media = tone(pitch_of(0), 60)
    while not scene.is_over:
        leaver = await asyncio.to_thread(call, scene.server, media)
        await asyncio.sleep(random.uniform(0, 0.5))  # noqa: S311 - no secret
        hang_up(leaver, with_reset=random.random() < 0.5)  # noqa: S311 - no secret
        scene.troubles["callers who left"] += 1


async def be_slow(scene: Scene) -> None:
    """Heads and bodies that hardly come."""
    beginnings = [SLOW_HEAD, SLOW_BODY] * (NUM_SLOW // 2)
    while not scene.is_over:
        held = [
            hold(scene.server.port, beginning, asyncio.Semaphore(0)) for beginning in beginnings
        ]
        scene.longest_held = max(scene.longest_held, *await asyncio.gather(*held))
        scene.troubles["slow clients"] += len(held)


async def kill_decoders(scene: Scene) -> None:
    while not scene.is_over:
        await asyncio.sleep(SECONDS_BETWEEN_KILLS)
        if decoders := scene.server.decoders:
            with suppress(ProcessLookupError):
                os.kill(random.choice(decoders), signal.SIGKILL)  # noqa: S311 - no secret
                scene.troubles["decoders killed"] += 1


async def rewrite_keys(scene: Scene) -> None:
    """The key of the callers is in every version."""
    for number in itertools.count():
        if scene.is_over:
            return
        content = f"{ALWAYS}  # always\n{(EVEN, ODD)[number % 2]}  # sometimes\n"
        await asyncio.to_thread(write, scene.key_file, content, by_rename=number // 2 % 2 == 0)
        scene.troubles["key files"] += 1
        await asyncio.sleep(SECONDS_BETWEEN_KEY_FILES)


async def have_all_read_again(scene: Scene) -> None:
    """By SIGHUP: keys, their limits, the level of the log."""
    while not scene.is_over:
        os.kill(scene.server.process_id, signal.SIGHUP)
        scene.troubles["SIGHUP"] += 1
        await asyncio.sleep(SECONDS_BETWEEN_SIGNALS)


TROUBLES: tuple[Callable[[Scene], Awaitable[None]], ...] = (
    be_good,
    have_jobs_done,
    send_hostile_files,
    leave,
    be_slow,
    kill_decoders,
    rewrite_keys,
    have_all_read_again,
)


if __name__ == "__main__":
    main(*arguments())
