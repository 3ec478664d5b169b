"""Rewrites the key file of a server under load, by renames and in place, a thousand times.

python -m tests.promises.key_file 1000
"""

from __future__ import annotations

import os
import tempfile
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx

from tests.promises.figures import Figures, arguments
from tests.promises.hearing_server import hearing_server
from tests.running_server import KEY, RunningServer

# In every file; in one file of two; in the other.
ALWAYS, EVEN, ODD = KEY, "e" * 64, "0" * 64
REQUESTS_PER_SECOND = 50
NUM_CALLERS = 5
SECONDS_BETWEEN = 0.05
# After each of so many rewrites the file is left alone, and what counts then is looked at.
REWRITES_A_ROUND = 50
MOST_SECONDS = 2.0


def main(num_rewrites: int, figures: Figures) -> None:
    """As many of either kind."""
    with tempfile.TemporaryDirectory() as name, hearing_server(Path(name), 0) as server:
        told: Counter[int] = Counter()
        is_over = threading.Event()
        with ThreadPoolExecutor(NUM_CALLERS) as threads:
            calling = [threads.submit(call, server, is_over) for _ in range(NUM_CALLERS)]
            try:
                taken = [
                    settle(server, Path(name) / "keys.txt", first)
                    for first in range(0, 2 * num_rewrites, REWRITES_A_ROUND)
                ]
            finally:
                is_over.set()
            for caller in calling:
                told += caller.result()
        figures.note(f"{2 * num_rewrites} rewrites, {sum(told.values())} requests: {dict(told)}")
        figures.equal(
            "the key in all files: told anything but 200", sum(told.values()) - told[200], 0
        )
        figures.within("the last file in force after, most", max(taken), MOST_SECONDS)
        figures.no_traceback(server.log)
    figures.end()


def settle(server: RunningServer, file: Path, first: int) -> float:
    """Rewrites for a round; seconds until the last file counts, its own key and no other's."""
    for number in range(first, first + REWRITES_A_ROUND):
        content = f"{ALWAYS}  # always\n{(EVEN, ODD)[number % 2]}  # sometimes\n"
        write(file, content, by_rename=number // 2 % 2 == 0)
        time.sleep(SECONDS_BETWEEN)
    began = time.monotonic()
    valid, revoked = ((EVEN, ODD), (ODD, EVEN))[(first + REWRITES_A_ROUND - 1) % 2]
    with server.client() as client:
        server.until(
            lambda: [status_of(client, key) for key in (valid, revoked)] == [200, 403],
            "the last file counts",
        )
    return time.monotonic() - began


def write(file: Path, content: str, *, by_rename: bool) -> None:
    """In place a reader may meet it empty, or half written."""
    if by_rename:
        new = file.with_suffix(".new")
        new.write_text(content)
        new.chmod(0o600)
        new.rename(file)
        return
    with file.open("w") as opened:
        middle = len(content) // 2
        opened.write(content[:middle])
        opened.flush()
        os.fsync(opened.fileno())
        opened.write(content[middle:])


def status_of(client: httpx.Client, key: str) -> int:
    return client.get("/models", headers={"X-API-Key": key}).status_code


def call(server: RunningServer, is_over: threading.Event) -> Counter[int]:
    """What one caller with the key in all files is told."""
    told: Counter[int] = Counter()
    with server.client() as client:
        while not is_over.wait(NUM_CALLERS / REQUESTS_PER_SECOND):
            told[client.get("/models").status_code] += 1
    return told


if __name__ == "__main__":
    amount, held = arguments()
    main(int(amount), held)
