"""Ray Serve against the plain server on the same cores, and two replicas of one core against one.

    python -m benchmarks.cluster FOLDER overhead|scaling [--clients 16] [--rounds 2]
    python -m benchmarks.cluster FOLDER chunks --clients 1 [--repeat 2]

The first two send short recordings, the last one of seven minutes, whose chunks the replicas share.
FOLDER holds `manifest.jsonl`. Greedy decoding of `base` in int8. Systems are started anew for each
round, so that none works beside another; medians are printed with their range. Needs Ray
(requirements/cluster.txt).
"""

from __future__ import annotations

import argparse
import os
import statistics
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.load import Figures, closed_loop, short_recordings
from benchmarks.local_server import LocalServer, local_server

CORES = sorted(os.sched_getaffinity(0))
REPLICA = "ray::ServeReplica:simple-asr:Speech"


def main() -> None:
    arguments = _arguments()
    comparison = COMPARISONS[arguments.comparison]
    recordings = short_recordings(arguments.folder, *comparison.lengths) * arguments.repeat
    print(f"{len(recordings)} recordings, {sum(r.seconds for r in recordings):.0f} s of audio")
    figures: dict[str, list[Figures]] = defaultdict(list)
    for _ in range(arguments.rounds):
        for name, system in comparison.systems.items():
            with system() as server:
                ask = _ask(server, comparison.parameters)
                # Each replica's first request is slower.
                closed_loop(short_recordings(arguments.folder, *SHORT)[:2], 2, ask)
                figures[name].append(closed_loop(recordings, arguments.clients, ask))
    _tell(figures, comparison.expected)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("comparison", choices=COMPARISONS)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--repeat", type=int, default=1, help="times the recordings are sent")
    return parser.parse_args()


def _ask(server: LocalServer, parameters: Mapping[str, str]) -> Callable[[Path], None]:
    def ask(path: Path) -> None:
        with path.open("rb") as audio:
            server.client.post(
                "/transcribe",
                params={"format": "simple", **parameters},
                files={"audio_file": audio},
            ).raise_for_status()

    return ask


def _tell(figures: dict[str, list[Figures]], expected: str) -> None:
    speeds: list[float] = []
    print(f"{'':24} audio s/s (range)        p50 s    p95 s")
    for name, rows in figures.items():
        ordered = sorted(row.speed for row in rows)
        speeds.append(statistics.median(ordered))
        print(
            f"{name:24} {speeds[-1]:7.1f} ({ordered[0]:.1f} to {ordered[-1]:.1f})"
            f"   {statistics.median(row.p50 for row in rows):7.2f}"
            f"  {statistics.median(row.p95 for row in rows):7.2f}"
        )
    print(f"{speeds[1] / speeds[0]:.2f} times the first; {expected}")


# The systems -------------------------------------------------------------------------------------


@contextmanager
def _plain() -> Iterator[LocalServer]:
    with local_server(AUDIO_SPEEDUP=1) as server:
        yield server


@contextmanager
def _one_replica_of_all_cores() -> Iterator[LocalServer]:
    with _cluster("--cpus-per-replica", str(len(CORES))) as server:
        yield server


@contextmanager
def _replicas_of_one_core(num_replicas: int) -> Iterator[LocalServer]:
    """All of it, its callers too, on as many cores; each replica on a core of its own."""
    os.sched_setaffinity(0, CORES[:num_replicas])
    try:
        with _cluster("--min-replicas", str(num_replicas)) as server:
            for core, process_id in zip(CORES, _replicas(), strict=False):
                _pin(process_id, core)
            yield server
    finally:
        os.sched_setaffinity(0, CORES)


@contextmanager
def _cluster(*arguments: str) -> Iterator[LocalServer]:
    with local_server("--cluster", *arguments, AUDIO_SPEEDUP=1) as server:
        yield server


def _replicas() -> list[int]:
    """Process ids of the speech replicas on this machine."""
    programs = (
        (path.parent.name, path.read_text()) for path in Path("/proc").glob("[0-9]*/cmdline")
    )
    return [int(process_id) for process_id, words in programs if words.startswith(REPLICA)]


def _pin(process_id: int, core: int) -> None:
    """With its threads, and its children's."""
    for task in Path(f"/proc/{process_id}/task").iterdir():
        os.sched_setaffinity(int(task.name), {core})
        for child in (task / "children").read_text().split():
            _pin(int(child), core)


System = Callable[[], AbstractContextManager[LocalServer]]
SHORT = (1.5, 15.0)


@dataclass(frozen=True)
class Comparison:
    """`lengths` are those of the recordings, shortest and longest, in seconds."""

    systems: Mapping[str, System]
    expected: str
    lengths: tuple[float, float] = SHORT
    parameters: Mapping[str, str] = field(default_factory=dict)


ONE_AND_TWO: dict[str, System] = {
    "one replica, one core": lambda: _replicas_of_one_core(1),
    "two replicas, two cores": lambda: _replicas_of_one_core(2),
}
COMPARISONS = {
    "overhead": Comparison(
        {"plain server": _plain, "Serve, one replica": _one_replica_of_all_cores},
        "at least 0.85 is wanted",
    ),
    "scaling": Comparison(ONE_AND_TWO, "at least 1.8 is wanted"),
    "chunks": Comparison(
        ONE_AND_TWO,
        "each replica decodes all of it",
        lengths=(400, 450),
        parameters={"chunking_strategy": "auto"},
    ),
}


if __name__ == "__main__":
    main()
