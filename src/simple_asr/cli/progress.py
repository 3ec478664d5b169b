"""What waiting looks like: bars on a terminal, lines in a log, nothing in a pipe."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    ProgressColumn,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)

from simple_asr.engine.models import DownloadProgress, OnDownload

logger = logging.getLogger(__name__)

# Smaller files are here before anybody has read about them.
LOGGED_BYTES = 10_000_000


def bars(console: Console, *columns: ProgressColumn) -> Progress:
    """Bars that leave the screen when they are done; none where the console is no terminal."""
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        *columns,
        TimeRemainingColumn(compact=True),
        console=console,
        transient=True,
        disable=not console.is_interactive,
        # They would send what is printed to standard output to standard error.
        redirect_stdout=False,
        redirect_stderr=False,
    )


@contextmanager
def download_bars(console: Console) -> Iterator[OnDownload]:
    """One bar for each file of a model, as it is fetched."""
    with bars(console, DownloadColumn()) as progress:
        tasks = {}

        def show(download: DownloadProgress) -> None:
            file = download.file
            if file not in tasks:
                tasks[file] = progress.add_task(file, total=download.bytes_total)
            progress.update(tasks[file], completed=download.bytes_done)

        yield show


def download_log() -> OnDownload:
    """A log line for every tenth of a large file."""
    tenths: dict[str, int] = {}

    def note(download: DownloadProgress) -> None:
        if download.bytes_total < LOGGED_BYTES:
            return
        tenth = 10 * download.bytes_done // download.bytes_total
        if tenth > tenths.get(download.file, 0):
            logger.info(
                "Fetching %s: %d %% of %.0f MB",
                download.file,
                10 * tenth,
                download.bytes_total / 1e6,
            )
        tenths[download.file] = tenth

    return note
