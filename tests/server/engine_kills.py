"""Has the model of a server under load hang, die and be killed, and sees what becomes of callers.

python -m tests.server.engine_kills 20
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import cycle, islice
from pathlib import Path

import httpx

from simple_asr.engine.models import ModelStore
from tests.running_server import RunningServer, running_server
from tests.support import hiss

NUM_CALLERS = 8
# Longer than any answer may take here: who waits so long hangs.
HANG_SECONDS = 30.0
# Given up after a second, noticed within another, and what a busy machine adds.
MOST_SECONDS_TO_NOTICE = 15.0

PROGRAM = """
import sys
import threading
from pathlib import Path
from simple_asr import assembly
from simple_asr.cli.main import main
from simple_asr.engine.backends.fake import FakeBackend
from simple_asr.engine.tokens import Tokenizer
from simple_asr.server import supervisor
from simple_asr.service.transcriber import LoadedModel

tokenizer = Tokenizer.from_folder(Path(sys.argv[1]))

class FaultyBackend(FakeBackend):
    def decode(self, encoded, steps):
        for fault in ("hang", "die"):
            try:
                Path(fault).unlink()
            except FileNotFoundError:
                continue
            if fault == "die":
                raise SystemExit
            threading.Event().wait()
        return super().decode(encoded, steps)

assembly.load_model = lambda *_: LoadedModel([FaultyBackend(tokenizer)])
supervisor.STEADY_SECONDS = 0.0  # Kills come faster here than anybody would call steady.
sys.argv = ["simple-asr", "serve"]
main()
"""


class Callers:
    """Send one request after another, and note what they are told."""

    def __init__(self, server: RunningServer) -> None:
        self.told: Counter[str] = Counter()
        self.is_over = threading.Event()
        self._server = server
        self._clip = hiss(3)

    def __call__(self, _: int) -> None:
        with self._server.client() as client:
            client.timeout = httpx.Timeout(HANG_SECONDS)
            while not self.is_over.is_set():
                self.told[self._ask(client)] += 1

    def _ask(self, client: httpx.Client) -> str:
        headers = {"Content-Type": "audio/pcm;rate=16000"}
        try:
            answer = client.post("/transcribe?language=en", content=self._clip, headers=headers)
        except httpx.TimeoutException:
            return "hung"
        except httpx.ConnectError:
            return "refused"
        except httpx.TransportError:
            return "cut off"
        if answer.status_code != 503:
            return str(answer.status_code)
        time.sleep(0.05)  # Less than Retry-After, which is for callers with patience.
        return "503" if "Retry-After" in answer.headers else "503 without Retry-After"


def cause(fault: str, server: RunningServer, home: Path) -> None:
    """The model hangs or its worker dies at the next call, or the process is killed now."""
    if fault == "kill":
        os.kill(serving(server), signal.SIGKILL)
    else:
        (home / fault).touch()


def serving(server: RunningServer) -> int:
    """The process that serves: the parent's only child."""
    [process_id] = server.decoders
    return process_id


def readiness(server: RunningServer) -> int:
    """The status of /health/ready; 0 where there was no answer at all."""
    try:
        return httpx.get(f"{server.url}/health/ready", timeout=HANG_SECONDS).status_code
    except httpx.TransportError:
        return 0


def seconds_until(server: RunningServer, is_ready: bool) -> float:
    began = time.monotonic()
    server.until(lambda: (readiness(server) == 200) == is_ready, f"it is ready: {is_ready}")
    return time.monotonic() - began


def main(num_faults: int) -> None:
    """Raises AssertionError where a caller hung, or readiness was wrong."""
    told: Counter[str] = Counter()
    unready: list[float] = []
    ready: list[float] = []
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        tokenizer = ModelStore(home / "models", offline=True).resolve("base").folder
        with running_server(
            home, tokenizer, program=PROGRAM, supervise=True, engine_timeout_seconds=1
        ) as server:
            for fault in islice(cycle(("hang", "die", "kill")), num_faults):
                callers = Callers(server)
                before = serving(server)
                with ThreadPoolExecutor(NUM_CALLERS) as threads:
                    sending = [threads.submit(callers, n) for n in range(NUM_CALLERS)]
                    try:
                        server.until(lambda c=callers: c.told["200"] > 0, "callers are served")  # type: ignore[misc]  # bound to this round
                        cause(fault, server, home)
                        if fault != "kill":  # That is over sooner than anybody can ask.
                            unready.append(seconds_until(server, is_ready=False))
                        server.until(lambda b=before: has_changed(server, b), "another serves")  # type: ignore[misc]  # the same
                        ready.append(seconds_until(server, is_ready=True))
                    finally:
                        callers.is_over.set()
                    for one in sending:
                        one.result()
                assert set(callers.told) <= {"200", "503", "cut off"}, (fault, callers.told)
                most_cut_off = NUM_CALLERS if fault == "kill" else 0
                assert callers.told["cut off"] <= most_cut_off, (fault, callers.told)
                told += callers.told
            assert readiness(server) == 200
    assert max(unready, default=0.0) <= MOST_SECONDS_TO_NOTICE
    print(  # noqa: T201
        f"{num_faults} faults, {sum(told.values())} requests: {dict(told)}; not ready after at "
        f"most {max(unready, default=0.0):.1f} s, ready again after at most {max(ready):.1f} s"
    )


def has_changed(server: RunningServer, before: int) -> bool:
    with suppress(ValueError):  # There is none, or the stand-in leaves.
        return serving(server) != before
    return False


if __name__ == "__main__":
    main(int(sys.argv[1]))
