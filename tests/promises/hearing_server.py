"""A server of known speed whose model names the tone it hears: no caller can get another's answer.

It runs in a process of its own, which also notes how late its event loop is.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import uvicorn
from numpy.typing import NDArray

from simple_asr import assembly
from simple_asr.cli.main import main as simple_asr
from simple_asr.engine.backends.fake import FakeBackend
from simple_asr.engine.models import ModelStore
from simple_asr.engine.tokens import Tokenizer
from simple_asr.engine.window import Decode, Decoded, Encoded, Hypothesis
from simple_asr.server import run
from simple_asr.service.transcriber import LoadedModel
from tests.conftest import REPOSITORY
from tests.running_server import RunningServer, running_server

LAG_FILE = "lags"
PROBE_SECONDS = 0.01


@contextmanager
def hearing_server(
    home: Path, seconds_per_window: float, **settings: Any
) -> Iterator[RunningServer]:
    """One that is ready; `home` is an empty folder."""
    with running_server(
        home,
        ModelStore(home / "models", offline=True).resolve("base").folder,
        program="from tests.promises.hearing_server import main; main()",
        pythonpath=REPOSITORY,
        seconds_per_window=seconds_per_window,
        metrics_on_loopback=True,
        # What other programs leave free is not this server's doing.
        min_free_memory_bytes=0,
        **settings,
    ) as server:
        yield server


def lags(home: Path) -> list[float]:
    """How late the event loop was each time it was looked at, in seconds, since the start."""
    return [float(line) for line in (home / LAG_FILE).read_text().splitlines()]


def main() -> None:
    """The process itself."""
    tokenizer = Tokenizer.from_folder(Path(sys.argv[1]))
    backend = HearingBackend(tokenizer, float(os.environ["SECONDS_PER_WINDOW"]))
    assembly.load_model = lambda *_: LoadedModel([backend])
    build_server = run.build_server
    run.build_server = lambda *given: _probed(build_server(*given))
    sys.argv = ["simple-asr", "serve"]
    try:
        simple_asr()
    except SystemExit as ending:
        # A parent has imported all of this here, which the real one never does: to take it down
        # takes Python longer than a server has for its end.
        os._exit(int(ending.code or 0))


class HearingBackend(FakeBackend):
    """Says which of the 80 bands of its spectrogram is the loudest. It remembers nothing."""

    def __init__(self, tokenizer: Tokenizer, seconds_per_window: float) -> None:
        super().__init__(tokenizer)
        self._seconds_per_window = seconds_per_window

    def encode(self, log_mels: Sequence[NDArray[np.float32]]) -> list[Encoded]:
        return [int(log_mel.mean(axis=1).argmax()) for log_mel in log_mels]

    def decode(
        self, encoded: Sequence[Encoded], steps: Sequence[Decode]
    ) -> Iterator[dict[int, Decoded]]:
        time.sleep(self._seconds_per_window * len(steps))
        yield {row: self._name(band) for row, band in enumerate(encoded)}

    def _name(self, band: Encoded) -> Decoded:
        begin = self.tokenizer.timestamp_begin
        tokens = (begin, *self.tokenizer.encode(f" Band {band}."), begin + 50)
        return Decoded((Hypothesis(tokens, sum_logprob=-1.0),), no_speech_prob=0.01)


def _probed(server: uvicorn.Server) -> uvicorn.Server:
    serve = server.serve
    # Line by line, so that the file can be read meanwhile.
    file = Path(LAG_FILE).open("a", buffering=1)  # noqa: SIM115 - open as long as the process

    async def serve_and_probe(sockets: list[socket.socket] | None = None) -> None:
        probing = asyncio.ensure_future(_note_lags(file))
        try:
            await serve(sockets)
        finally:
            probing.cancel()

    server.serve = serve_and_probe  # type: ignore[method-assign]  # of this one server
    return server


async def _note_lags(file: TextIO) -> None:
    while True:
        began = time.monotonic()
        await asyncio.sleep(PROBE_SECONDS)
        file.write(f"{time.monotonic() - began - PROBE_SECONDS:.4f}\n")
