"""What waiting looks like, on a screen, in a pipe and in a log."""

from __future__ import annotations

import io
import logging

import pytest
from rich.console import Console

from simple_asr.cli.progress import download_bars, download_log
from simple_asr.engine.models import DownloadProgress

LARGE = 1_000_000_000


def test_a_pipe_gets_no_bars() -> None:
    pipe = io.StringIO()

    with download_bars(Console(file=pipe)) as show:
        show(DownloadProgress("model.bin", LARGE // 2, LARGE))

    assert pipe.getvalue() == ""


def test_a_terminal_gets_a_bar_for_each_file_with_its_size() -> None:
    terminal = io.StringIO()

    with download_bars(Console(file=terminal, force_terminal=True, width=120)) as show:
        show(DownloadProgress("config.json", 2000, 2000))
        show(DownloadProgress("model.bin", LARGE // 2, LARGE))

    assert "config.json" in terminal.getvalue()
    assert "0.5/1.0 GB" in terminal.getvalue()


def test_a_log_gets_a_line_for_every_tenth(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    note = download_log()

    for done in range(0, LARGE + 1, LARGE // 1000):
        note(DownloadProgress("model.bin", done, LARGE))

    assert len(caplog.messages) == 10
    assert caplog.messages[2] == "Fetching model.bin: 30 % of 1000 MB"


def test_small_files_are_not_worth_a_line(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)

    download_log()(DownloadProgress("config.json", 2000, 2000))

    assert caplog.messages == []
