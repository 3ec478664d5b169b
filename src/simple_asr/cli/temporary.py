"""A folder for as long as a command runs, which a command that is ended leaves behind no more."""

from __future__ import annotations

import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import typer

# What a shell tells of a command that the signal ended.
EXIT_TERMINATED = 128 + signal.SIGTERM


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """Removed at the end, also when Ctrl-C or SIGTERM brings it. For the main thread."""
    with (
        _interrupted_by_sigterm(),
        tempfile.TemporaryDirectory(prefix="simple-asr-") as folder,
    ):
        yield Path(folder)


@contextmanager
def _interrupted_by_sigterm() -> Iterator[None]:
    """SIGTERM ends what is inside as Ctrl-C does, asyncio's part included, but for the status."""
    is_terminated = False

    def interrupt(_: int, frame: FrameType | None) -> None:
        nonlocal is_terminated
        is_terminated = True
        # A shell has what it starts in the background ignore SIGINT: then there is none to call.
        handler = signal.getsignal(signal.SIGINT)
        (handler if callable(handler) else signal.default_int_handler)(signal.SIGINT, frame)

    previous = signal.getsignal(signal.SIGTERM)
    try:
        signal.signal(signal.SIGTERM, interrupt)
        yield
    except KeyboardInterrupt:
        if is_terminated:
            raise typer.Exit(EXIT_TERMINATED) from None
        raise
    finally:
        signal.signal(signal.SIGTERM, previous)
