"""Starts this project's server on loopback for a benchmark, in a folder that is thrown away."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from simple_asr.engine.models import ModelStore

REPOSITORY = Path(__file__).resolve().parent.parent
MODELS = REPOSITORY / ".cache" / "models"
START_SECONDS = 120


def model_folder(name: str) -> Path:
    """The files of a model, installed or downloaded where they are missing."""
    return ModelStore(MODELS).resolve(name).folder


@dataclass(frozen=True)
class LocalServer:
    """A server that is ready; `client` carries its address and key. `pid` is its main process."""

    client: httpx.Client
    pid: int


@contextmanager
def local_server(*arguments: str, **settings: object) -> Iterator[LocalServer]:
    """A ready server with `arguments` and `settings` (variables in capitals).

    Models are kept between runs.
    """
    # Below those that the system gives away, maybe before the server has it.
    port = secrets.choice(range(20_000, 32_768))
    with tempfile.TemporaryDirectory() as folder:
        key = secrets.token_hex(32)
        keys_file = Path(folder) / "keys.txt"
        keys_file.touch(mode=0o600)
        keys_file.write_text(key + "\n")
        environment = {
            "HOST": "127.0.0.1",
            "PORT": str(port),
            "KEYS_FILE": "keys.txt",
            "SPOOL_DIR": "spool",
            "JOBS_DIR": "jobs",
            "MODEL_DOWNLOAD_ROOT": str(MODELS),
            "MODEL_DEVICE": "cpu",
            "DEFAULT_MODEL": "base",
            "LOG_LEVEL": "warning",
            # So that `pid` is the process that works.
            "SUPERVISE": "false",
            **{name: str(value) for name, value in settings.items()},
        }
        process = subprocess.Popen(
            [sys.executable, "-m", "simple_asr", "serve", *arguments],
            cwd=folder,
            env={**os.environ, **environment},
        )
        client = httpx.Client(
            base_url=f"http://127.0.0.1:{port}", headers={"X-API-Key": key}, timeout=3600
        )
        try:
            _wait_until_ready(client, process)
            yield LocalServer(client, process.pid)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)


def _wait_until_ready(client: httpx.Client, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if client.get("/health/ready").status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.2)
    raise RuntimeError("the server did not become ready; its log is above")
