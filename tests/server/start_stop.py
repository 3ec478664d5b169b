"""Starts a server with a real model, has it recognise speech, and stops it, again and again.

CTranslate2, onnxruntime and OpenMP end their threads in one process; that must never take for ever.

python -m tests.server.start_stop 200
"""

from __future__ import annotations

import importlib.metadata
import sys
import tempfile
import time
from pathlib import Path

from tests.conftest import REPOSITORY
from tests.promises.processes import descendants
from tests.running_server import RunningServer, running_server

# With nothing in work there is nothing to wait for; a busy machine takes some of it.
MOST_SECONDS = 10.0


def main(num_cycles: int) -> None:
    """Raises AssertionError where a server ended late, badly, or left a process behind."""
    longest = max(cycle() for _ in range(num_cycles))
    print(f"{num_cycles} starts and stops, the slowest stop {longest:.2f} s")  # noqa: T201


def cycle() -> float:
    """Seconds from the signal to the end."""
    with (
        tempfile.TemporaryDirectory() as name,
        running_server(
            Path(name),
            None,
            supervise=True,
            default_model="base",
            model_device="cpu",
            model_download_root=REPOSITORY / ".cache" / "models",
        ) as server,
    ):
        with server.client() as client:
            # Chunks of speech are found by onnxruntime.
            form = {"language": "en", "chunking_strategy": "auto"}
            answer = client.post("/transcribe", data=form, files={"audio_file": speech()})
        assert answer.json()["text"].strip(), answer.text
        processes = descendants(server.process_id)
        began = time.monotonic()
        status = server.stop()
        seconds = time.monotonic() - began
        check_end(server, status, seconds, processes)
    return seconds


def check_end(server: RunningServer, status: int, seconds: float, processes: list[int]) -> None:
    assert status == 0, f"exit status {status}:\n{server.log}"
    assert seconds <= MOST_SECONDS, f"{seconds:.1f} s:\n{server.log}"
    assert len(processes) >= 2, "a server and its decoders"
    left = [process_id for process_id in processes if Path(f"/proc/{process_id}").exists()]
    assert not left, f"left behind: {left}"


def speech() -> bytes:
    """A short clip of English."""
    files = importlib.metadata.files("pytest-audioeval") or []
    clip = next(file for file in files if file.name == "hello_world.wav")
    return Path(str(clip.locate())).read_bytes()


if __name__ == "__main__":
    main(int(sys.argv[1]))
