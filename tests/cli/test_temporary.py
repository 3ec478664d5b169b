"""What becomes of a command's folder; a command that is a process: `test_transcribe.py`."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest
import typer

from simple_asr.cli.temporary import temporary_folder


@pytest.fixture
def _ignored_interrupts() -> Iterator[None]:
    previous = signal.signal(signal.SIGINT, signal.SIG_IGN)
    yield
    signal.signal(signal.SIGINT, previous)


def test_a_folder_lasts_as_long_as_it_is_used() -> None:
    with temporary_folder() as folder:
        (folder / "media").touch()

    assert not folder.exists()


def test_sigterm_ends_the_command_without_its_folder() -> None:
    with pytest.raises(typer.Exit) as ending, temporary_folder() as folder:
        signal.raise_signal(signal.SIGTERM)

    assert (ending.value.exit_code, folder.exists()) == (143, False)


@pytest.mark.usefixtures("_ignored_interrupts")
def test_sigterm_ends_a_command_that_a_shell_has_ignore_interrupts() -> None:
    with pytest.raises(typer.Exit) as ending, temporary_folder() as folder:
        signal.raise_signal(signal.SIGTERM)

    assert (ending.value.exit_code, folder.exists()) == (143, False)


def test_an_interrupt_stays_an_interrupt() -> None:
    with pytest.raises(KeyboardInterrupt), temporary_folder() as folder:
        signal.raise_signal(signal.SIGINT)

    assert not folder.exists()


def test_signals_are_anothers_again_afterwards() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with temporary_folder():
        pass

    assert signal.getsignal(signal.SIGTERM) == before
