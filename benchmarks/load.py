"""A closed loop of clients over some recordings, the same for every system that is measured."""

from __future__ import annotations

import json
import statistics
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class Recording:
    path: Path
    seconds: float


@dataclass(frozen=True)
class Figures:
    """`speed` is audio seconds per second of wall time; latencies are in seconds."""

    speed: float
    p50: float
    p95: float

    def to_json(self) -> str:
        return json.dumps(asdict(self))


def short_recordings(folder: Path, shortest: float, longest: float) -> list[Recording]:
    """Recordings of `folder/manifest.jsonl` with speech, `shortest` to `longest` seconds long."""
    clips = map(json.loads, (folder / "manifest.jsonl").read_text().splitlines())
    return [
        Recording(folder / clip["path"], clip["duration_s"])
        for clip in clips
        if clip["language"] != "nospeech" and shortest <= clip["duration_s"] <= longest
    ]


def closed_loop(
    recordings: Sequence[Recording], num_clients: int, ask: Callable[[Path], object]
) -> Figures:
    """Every client asks for the next recording as soon as it has its answer, until none is left."""
    latencies: list[float] = []
    lock = threading.Lock()

    def timed(recording: Recording) -> None:
        began = time.perf_counter()
        ask(recording.path)
        with lock:
            latencies.append(time.perf_counter() - began)

    began = time.perf_counter()
    with ThreadPoolExecutor(num_clients) as clients:
        list(clients.map(timed, recordings))
    wall = time.perf_counter() - began
    ordered = sorted(latencies)
    return Figures(
        speed=sum(recording.seconds for recording in recordings) / wall,
        p50=statistics.median(ordered),
        p95=ordered[min(len(ordered) - 1, round(0.95 * len(ordered)))],
    )
