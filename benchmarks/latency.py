"""Seconds from a request to its answer, one at a time: we over HTTP, and the peers in one run.

    python -m benchmarks.latency RECORDING... --peer-python PYTHON [--model base] [--rounds 5]

Medians over rounds in which the systems take turns. We are measured over HTTP, in int8, with the
server's defaults but for `speedup`, which is 1; the peers in their own process, without HTTP.
openai-whisper computes in float32, whisper.cpp with weights in float16.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from benchmarks.local_server import LocalServer, local_server, model_folder
from benchmarks.peer import SYSTEMS, has_module, running_peer

Ask = Callable[[Path, int], tuple[float, str]]
"""Recording and beam size in, seconds and text out."""


def main() -> None:
    arguments = _arguments()
    with ExitStack() as stack:
        systems = systems_of(stack, arguments.model, arguments.peer_python, ours=OURS)
        for recording in arguments.recordings:
            for beam_size in arguments.beam_size:
                print(f"\n{arguments.model}, {recording.name}, beam_size {beam_size}")
                _compare(systems, recording, beam_size, arguments.rounds)


OURS: dict[str, dict[str, str]] = {
    "exact": {"audio_context": "full"},
    "reduced context": {"audio_context": "auto"},
}
"""Our ways to run, as parameters of a request."""


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("recordings", type=Path, nargs="+")
    parser.add_argument("--model", default="base")
    parser.add_argument("--beam-size", type=int, nargs="+", default=[1, 5])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--peer-python", help="a Python that has the peers")
    return parser.parse_args()


def systems_of(
    stack: ExitStack,
    model: str,
    peer_python: str | None,
    ours: dict[str, dict[str, str]],
    *,
    tries_once: bool = False,
) -> dict[str, Ask]:
    """Everybody who is compared, running until `stack` ends."""
    server = stack.enter_context(local_server(DEFAULT_MODEL=model, AUDIO_SPEEDUP=1))
    systems = {name: _our(server, parameters) for name, parameters in ours.items()}
    if peer_python:
        folder = model_folder(model)
        peers = {
            "openai-whisper": ("openai", False),
            "whisper.cpp": ("whisper.cpp", False),
            "faster-whisper": ("faster-whisper", False),
            "  batched": ("faster-whisper-batched", False),
            "  tuned": ("faster-whisper", True),
            "  batched, tuned": ("faster-whisper-batched", True),
        }
        for name, (system, is_tuned) in peers.items():
            module = SYSTEMS[system].module
            if not has_module(peer_python, module):
                print(f"{name.strip()} is left out: {peer_python} has no {module}")
                continue
            peer = running_peer(
                peer_python, system, folder, is_tuned=is_tuned, tries_once=tries_once
            )
            systems[name] = stack.enter_context(peer).ask
    return systems


def _our(server: LocalServer, parameters: dict[str, str]) -> Ask:
    def ask(path: Path, beam_size: int) -> tuple[float, str]:
        # Greedy decoding is no beam_size, as in openai-whisper.
        search = {} if beam_size == 1 else {"beam_size": str(beam_size)}
        began = time.perf_counter()
        with path.open("rb") as audio:
            answer = server.client.post(
                "/transcribe",
                params={"format": "simple", **parameters, **search},
                files={"audio_file": audio},
            )
        seconds = time.perf_counter() - began
        return seconds, str(answer.raise_for_status().json()["text"])

    return ask


def _compare(systems: dict[str, Ask], recording: Path, beam_size: int, rounds: int) -> None:
    times: dict[str, list[float]] = defaultdict(list)
    for number in range(rounds + 1):
        for name, ask in systems.items():
            seconds, _ = ask(recording, beam_size)
            if number:  # the first round warms
                times[name].append(seconds)
    for name, values in times.items():
        spread = f"({min(values):.2f} to {max(values):.2f})"
        print(f"{name:18} {statistics.median(values):7.2f} s  {spread}", flush=True)


if __name__ == "__main__":
    main()
