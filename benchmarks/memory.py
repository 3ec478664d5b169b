"""Peak memory of the server and its children while it hears 1 minute, 1 hour, 4 hours.

    python -m benchmarks.memory RECORDING [--minutes 1 60 240] [--sequential]

RECORDING is repeated to each length, and recognised in chunks side by side, in full batches, or
`--sequential`, window after window. Memory is the proportional share (Pss) of all processes of
the server, sampled twice a second; it is a sum that counts no shared page twice.
"""

from __future__ import annotations

import argparse
import tempfile
import threading
import time
from pathlib import Path

import av

from benchmarks.local_server import LocalServer, local_server

_KIB_PER_MIB = 1024

IN_CHUNKS = {"chunking_strategy": "auto", "audio_context": "auto"}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("recording", type=Path)
    parser.add_argument("--minutes", type=float, nargs="+", default=[1, 60, 240])
    parser.add_argument("--sequential", action="store_true")
    arguments = parser.parse_args()
    options = {} if arguments.sequential else IN_CHUNKS
    with local_server(AUDIO_SPEEDUP=1, MAX_AUDIO_SECONDS=86_400) as server:
        print(f"at rest {_memory_mib(server.pid):6.0f} MiB")
        for minutes in arguments.minutes:
            with tempfile.NamedTemporaryFile(suffix=".opus") as file:
                _repeat(arguments.recording, minutes * 60, file.name)
                began = time.perf_counter()
                peak = _peak_while_heard(server, Path(file.name), options)
                seconds = time.perf_counter() - began
            print(f"{minutes:5g} minutes: peak {peak:6.0f} MiB, {seconds:.0f} s", flush=True)


def _repeat(recording: Path, seconds: float, target: str) -> None:
    """Writes Opus of at least `seconds`, the recording over and over."""
    with av.open(target, "w", format="ogg") as output:
        stream = output.add_stream("libopus", rate=16_000)
        resampler = av.AudioResampler("s16", "mono", 16_000)
        written = 0
        while written < seconds * 16_000:
            with av.open(str(recording)) as source:
                for frame in source.decode(audio=0):
                    for part in resampler.resample(frame):
                        part.pts = written
                        written += part.samples
                        output.mux(stream.encode(part))
        output.mux(stream.encode(None))


def _peak_while_heard(server: LocalServer, path: Path, options: dict[str, str]) -> float:
    peaks = [0.0]
    is_done = threading.Event()

    def watch() -> None:
        while not is_done.wait(0.5):
            peaks.append(_memory_mib(server.pid))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        with path.open("rb") as audio:
            server.client.post(
                "/transcribe",
                params={"format": "simple", **options},
                files={"audio_file": audio},
            ).raise_for_status()
    finally:
        is_done.set()
        watcher.join()
    return max(peaks)


def _memory_mib(pid: int) -> float:
    """The process and all its descendants; one that ends meanwhile counts nothing."""
    try:
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return 0.0
    pss = next(line for line in rollup.splitlines() if line.startswith("Pss:"))
    own = int(pss.split()[1]) / _KIB_PER_MIB
    return own + sum(_memory_mib(int(child)) for child in children)


if __name__ == "__main__":
    main()
