"""Callers by the dozen, each with a tone of its own, and what each was told."""

from __future__ import annotations

import asyncio
import random
import time
import uuid
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

import httpx
import numpy as np

from tests.running_server import KEY, RunningServer

# Hertz, far enough apart that no two are the loudest in the same of 80 bands.
PITCHES = tuple(300.0 * 1.25**step for step in range(13))
PCM = {"Content-Type": "audio/pcm;rate=16000"}
# Whoever waits longer hangs.
HANG_SECONDS = 60.0


@dataclass(frozen=True)
class Answer:
    """`told` is a status, or how the connection ended, or `wrong` where 200 had another's text.

    It took `seconds`, until the clock was at `ended`.
    """

    told: str
    seconds: float
    ended: float
    request_id: str
    retry_after: float | None = None

    @property
    def has_no_retry_after(self) -> bool:
        """Though it tells its caller to come again."""
        return self.told == "503" and self.retry_after is None


def tone(pitch: float, seconds: float = 1.0, rate: int = 16_000) -> bytes:
    """As 16-bit samples, so many a second."""
    times = np.arange(int(seconds * rate)) / rate
    return (8000 * np.sin(2 * np.pi * pitch * times)).astype("<i2").tobytes()


@dataclass
class Crowd:
    """Callers of one server. `texts` are what each pitch is told by a server with time for it."""

    server: RunningServer
    texts: dict[float, str] = field(default_factory=dict)
    answers: list[Answer] = field(default_factory=list)
    _clips: dict[float, bytes] = field(
        default_factory=lambda: {pitch: tone(pitch) for pitch in PITCHES}
    )

    async def learn(self) -> None:
        """What each pitch is told, one after the other."""
        async with self.client() as client:
            for pitch in PITCHES:
                self.texts[pitch] = (await self._post(client, pitch, "")).json()["text"]
        assert len(set(self.texts.values())) == len(PITCHES), self.texts

    def client(self) -> httpx.AsyncClient:
        """One a caller: many connections in one pool would be the bottleneck."""
        return httpx.AsyncClient(
            base_url=self.server.url,
            headers={"X-API-Key": KEY},
            timeout=HANG_SECONDS,
            verify=False,  # noqa: S501 - there is nothing to verify, and to prepare it takes long
        )

    async def ask(self, client: httpx.AsyncClient, pitch: float) -> Answer:
        """One request, noted in `answers`."""
        began, request_id = time.monotonic(), uuid.uuid4().hex
        told, retry_after = "", None
        try:
            answer = await self._post(client, pitch, request_id)
        except httpx.TimeoutException:
            told = "hung"
        except httpx.ConnectError:
            told = "refused"
        except httpx.TransportError:
            told = "cut off"
        else:
            told = str(answer.status_code)
            if told == "200" and answer.json()["text"] != self.texts[pitch]:
                told = "wrong"
            if "Retry-After" in answer.headers:
                retry_after = float(answer.headers["Retry-After"])
        ended = time.monotonic()
        done = Answer(told, ended - began, ended, request_id, retry_after)
        self.answers.append(done)
        return done

    async def keep_asking(self, num_callers: int, seconds: float, pause: float) -> None:
        """A closed loop of callers; who is not served comes again after about `pause` seconds."""
        until = time.monotonic() + seconds

        async def caller(pitch: float) -> None:
            async with self.client() as client:
                while time.monotonic() < until:
                    if (await self.ask(client, pitch)).told != "200":
                        await asyncio.sleep(pause * random.uniform(0.5, 1.5))  # noqa: S311 - no secret

        await asyncio.gather(*(caller(pitch_of(number)) for number in range(num_callers)))

    async def _post(
        self, client: httpx.AsyncClient, pitch: float, request_id: str
    ) -> httpx.Response:
        headers = {**PCM, "X-Request-Id": request_id} if request_id else PCM
        return await client.post(
            "/transcribe?language=en", content=self._clips[pitch], headers=headers
        )


def pitch_of(number: int) -> float:
    return PITCHES[number % len(PITCHES)]


def counts(answers: Iterable[Answer]) -> dict[str, int]:
    """How many were told what."""
    return dict(Counter(answer.told for answer in answers))


async def crowd(server: RunningServer) -> Crowd:
    """One that has learnt what to expect."""
    found = Crowd(server)
    await found.learn()
    return found


def metric(server: RunningServer, name: str, *labels: str) -> float:
    """The sum of a metric's samples whose labels contain all of these."""
    text = httpx.get(f"{server.url}/metrics", timeout=HANG_SECONDS).text
    samples = [line for line in text.splitlines() if line.startswith((f"{name} ", f"{name}{{"))]
    return sum(
        float(sample.rsplit(" ", 1)[1])
        for sample in samples
        if all(label in sample for label in labels)
    )
