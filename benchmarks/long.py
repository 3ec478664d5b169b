"""Long recordings, one at a time: seconds and word error rate, ours and the peers' in one run.

    python -m benchmarks.long FOLDER audio/long.mp3... --peer-python PYTHON [--rounds 1] [--once]

FOLDER holds `manifest.jsonl`, which has the recordings' transcripts. With `--once` no window that
fails a check is drawn at a higher temperature, which takes time and gives another text every time.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections import defaultdict
from contextlib import ExitStack
from pathlib import Path

from benchmarks.accuracy import count_errors
from benchmarks.latency import Ask, systems_of

OURS = {
    "sequential": {"audio_context": "full"},
    "speedup 1.25": {"audio_context": "full", "speedup": "1.25"},
    "chunks": {"chunking_strategy": "auto", "audio_context": "full"},
    "chunks, reduced": {"chunking_strategy": "auto", "audio_context": "auto"},
}


def main() -> None:
    arguments = _arguments()
    lines = (arguments.folder / "manifest.jsonl").read_text().splitlines()
    known = {clip["path"]: clip for clip in map(json.loads, lines)}
    with ExitStack() as stack:
        once = {"temperature": "0"} if arguments.once else {}
        systems = systems_of(
            stack,
            arguments.model,
            arguments.peer_python,
            {name: {**parameters, **once} for name, parameters in OURS.items()},
            tries_once=arguments.once,
        )
        for path in arguments.recordings:
            print(f"\n{path}, {known[path]['duration_s']:.0f} s, greedy")
            _compare(systems, arguments.folder, known[path], arguments.rounds)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("recordings", nargs="+", help="as the manifest names them")
    parser.add_argument("--model", default="base")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--once", action="store_true", help="at temperature 0 alone")
    parser.add_argument("--peer-python", help="a Python that has the peers")
    return parser.parse_args()


def _compare(systems: dict[str, Ask], folder: Path, clip: dict[str, str], rounds: int) -> None:
    times: dict[str, list[float]] = defaultdict(list)
    errors: dict[str, float] = {}
    for _ in range(rounds):
        for name, ask in systems.items():
            seconds, text = ask(folder / clip["path"], 1)
            times[name].append(seconds)
            num_errors, num_units = count_errors(clip["text"], text, clip["language"])
            errors[name] = num_errors / num_units
    for name, values in times.items():
        seconds = statistics.median(values)
        speed = float(clip["duration_s"]) / seconds
        print(
            f"{name:18} {seconds:7.1f} s  {speed:6.1f} times real time"
            f"   word error rate {100 * errors[name]:5.2f} %",
            flush=True,
        )


if __name__ == "__main__":
    main()
