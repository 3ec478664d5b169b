"""How a command speaks: results on standard output, all else on standard error, an exit code."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console

# The command line itself was wrong: what typer exits with as well.
EXIT_USAGE = 2
# `EX_CONFIG` of sysexits.h; `asr.service` does not restart a server that ends so.
EXIT_CONFIGURATION = 78


def results() -> Console:
    """For tables on standard output. A pipe has no width that would cut them."""
    return Console(width=None if sys.stdout.isatty() else 1000, highlight=False)


def notices() -> Console:
    """For sentences and progress bars on standard error."""
    return Console(stderr=True, highlight=False)


def tell(console: Console, sentence: str) -> None:
    """Writes one line as it is; above the bars, where the console has some."""
    console.print(sentence, markup=False, emoji=False, soft_wrap=True)


@contextmanager
def log_to(console: Console, *, verbose: bool) -> Iterator[None]:
    """Warnings of the library become lines on the console; all its log when `verbose`."""
    logger = logging.getLogger("simple_asr")
    handler = _ConsoleHandler(console)
    previous = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG if verbose else logging.WARNING)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(previous)


class _ConsoleHandler(logging.Handler):
    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        tell(self._console, self.format(record))
