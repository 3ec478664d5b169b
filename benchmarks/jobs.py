"""Seconds a short clip takes while nothing else is done, and while jobs wait.

    python -m benchmarks.jobs CLIP LONG [--jobs 20] [--requests 30]

LONG is sent as so many jobs at once, and CLIP one request after the other: first alone, then while
the jobs are worked on in the background.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import httpx
import numpy as np

from benchmarks.local_server import local_server

GREEDY = {"language": "en", "temperature": "0"}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("clip", type=Path)
    parser.add_argument("long", type=Path)
    parser.add_argument("--jobs", type=int, default=20)
    parser.add_argument("--requests", type=int, default=30)
    arguments = parser.parse_args()
    with local_server(AUDIO_SPEEDUP=1) as server:
        clip = arguments.clip.read_bytes()
        alone = _seconds(server.client, clip, arguments.requests)
        for _ in range(arguments.jobs):
            _send(server.client, "/jobs", arguments.long.read_bytes()).raise_for_status()
        beside = _seconds(server.client, clip, arguments.requests)
        listed = server.client.get("/jobs", params={"limit": 100}).raise_for_status().json()["jobs"]
    num_done = sum(job["state"] == "done" for job in listed)
    for name, seconds in (("alone", alone), (f"{arguments.jobs} jobs", beside)):
        p50, p95 = np.percentile(seconds, [50, 95])
        print(f"{name:10} p50 {p50:.2f} s, p95 {p95:.2f} s")
    print(f"jobs done meanwhile: {num_done} of {arguments.jobs}")


def _seconds(client: httpx.Client, clip: bytes, num_requests: int) -> list[float]:
    found = []
    for _ in range(num_requests):
        began = time.perf_counter()
        _send(client, "/transcribe", clip).raise_for_status()
        found.append(time.perf_counter() - began)
    return found


def _send(client: httpx.Client, path: str, media: bytes) -> httpx.Response:
    return client.post(path, params=GREEDY, files={"audio_file": ("audio", media)})


if __name__ == "__main__":
    main()
