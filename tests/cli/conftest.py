"""A command's surroundings: an empty folder, default settings, and no hub."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from simple_asr.cli.main import app
from simple_asr.settings import Settings


@pytest.fixture(autouse=True, scope="session")
def take_interrupts() -> None:
    """Tests that run in the background have SIGINT ignored, and so would what they start."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the command runs, and finds no `.env`."""
    for name in os.environ:
        if name.lower() in Settings.model_fields:
            monkeypatch.delenv(name)
    monkeypatch.setenv("HF_HUB_OFFLINE", "true")
    monkeypatch.setenv("NO_PROXY", "*")
    # Typer's boxes would break the sentences that tests look for.
    monkeypatch.setenv("COLUMNS", "300")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def run() -> Callable[..., Result]:
    """Runs `simple-asr` with these arguments in this process."""

    def run(*arguments: str | Path) -> Result:
        return CliRunner().invoke(app, [str(argument) for argument in arguments])

    return run
