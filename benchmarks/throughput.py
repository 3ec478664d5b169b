"""Audio seconds per second, and latencies, under 1 to 16 clients: we over HTTP, and faster-whisper.

    python -m benchmarks.throughput FOLDER [--clients 1 4 16] [--rounds 3] [--peer-python PYTHON]
        [--beside LONG ...]

FOLDER holds `manifest.jsonl`. Greedy decoding of `base` in int8; rounds alternate between the
systems, and medians are printed with their range. The peer runs as shipped in its best of two
worker settings, in a process of PYTHON, which has faster-whisper. We are measured once more while
each of the long recordings LONG is transcribed over and over, for other clients.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx

from benchmarks.load import Figures, closed_loop, short_recordings
from benchmarks.local_server import REPOSITORY, local_server, model_folder

_BEGIN_SECONDS = 60

Measure = Callable[[int], Figures]


def main() -> None:
    arguments = _arguments()
    recordings = short_recordings(arguments.folder, 1.5, 15) * arguments.repeat
    print(f"{len(recordings)} recordings, {sum(r.seconds for r in recordings):.0f} s of audio")
    cores = os.cpu_count() or 1
    with tempfile.NamedTemporaryFile("w") as listing, local_server(AUDIO_SPEEDUP=1) as server:
        listing.writelines(f"{recording.seconds} {recording.path}\n" for recording in recordings)
        listing.flush()

        def ours(context: str) -> Measure:
            def ask(path: Path) -> None:
                with path.open("rb") as audio:
                    server.client.post(
                        "/transcribe",
                        params={"format": "simple", "audio_context": context},
                        files={"audio_file": audio},
                    ).raise_for_status()

            return lambda num_clients: closed_loop(recordings, num_clients, ask)

        def beside_long(context: str) -> Measure:
            def measure(num_clients: int) -> Figures:
                with _kept_busy(server.client, arguments.beside, context):
                    return ours(context)(num_clients)

            return measure

        systems: dict[str, Measure] = {"exact": ours("full"), "reduced": ours("auto")}
        if arguments.beside:
            systems["exact, beside long"] = beside_long("full")
            systems["reduced, beside long"] = beside_long("auto")
        if arguments.peer_python:
            for workers, threads in ((1, cores), (cores, 1)):
                systems[f"faster-whisper {workers}x{threads}"] = _peer(
                    arguments.peer_python, workers, threads, listing.name
                )
        _warm(systems)
        for num_clients in arguments.clients:
            _compare(systems, num_clients, arguments.rounds)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--repeat", type=int, default=1, help="times the recordings are sent")
    parser.add_argument("--peer-python", help="a Python that has faster-whisper")
    parser.add_argument("--beside", type=Path, nargs="+", default=[], metavar="LONG")
    return parser.parse_args()


def _peer(python: str, workers: int, threads: int, listing: str) -> Measure:
    model = model_folder("base")

    def measure(num_clients: int) -> Figures:
        output = subprocess.check_output(
            [
                python,
                "-m",
                "benchmarks.peer_faster_whisper",
                str(model),
                str(workers),
                str(threads),
                str(num_clients),
                listing,
            ],
            cwd=REPOSITORY,
            text=True,
        )
        return Figures(**json.loads(output))

    return measure


@contextmanager
def _kept_busy(client: httpx.Client, recordings: Sequence[Path], context: str) -> Iterator[None]:
    """While each of the recordings is being transcribed, over and over."""
    is_over = threading.Event()
    has_begun = threading.Semaphore(0)

    def keep_asking(path: Path) -> None:
        is_first = True
        while not is_over.is_set():
            with (
                path.open("rb") as audio,
                client.stream(
                    "POST",
                    "/transcribe",
                    params={"audio_context": context},
                    headers={"Accept": "text/event-stream"},
                    files={"audio_file": audio},
                ) as events,
            ):
                for line in events.raise_for_status().iter_lines():
                    if is_first and line == "event: segment":
                        is_first = False
                        has_begun.release()
                    if is_over.is_set():
                        break  # Who leaves is not transcribed for any more.

    with ThreadPoolExecutor(len(recordings)) as clients:
        asking = [clients.submit(keep_asking, path) for path in recordings]
        try:
            if not all(has_begun.acquire(timeout=_BEGIN_SECONDS) for _ in recordings):
                raise TimeoutError(f"No text of a long recording after {_BEGIN_SECONDS} s.")
            yield
        finally:
            is_over.set()
            for each in asking:
                each.result()


def _warm(systems: dict[str, Measure]) -> None:
    for name in ("exact", "reduced"):
        systems[name](1)


def _compare(systems: dict[str, Measure], num_clients: int, rounds: int) -> None:
    figures: dict[str, list[Figures]] = defaultdict(list)
    for _ in range(rounds):
        for name, measure in systems.items():
            figures[name].append(measure(num_clients))
    print(f"\n{num_clients} clients          audio s/s (range)        p50 s    p95 s")
    for name, rows in figures.items():
        speeds = sorted(row.speed for row in rows)
        print(
            f"{name:22} {statistics.median(speeds):7.1f} ({speeds[0]:.1f} to {speeds[-1]:.1f})"
            f"   {statistics.median(row.p50 for row in rows):7.2f}"
            f"  {statistics.median(row.p95 for row in rows):7.2f}"
        )
    sys.stdout.flush()


if __name__ == "__main__":
    main()
