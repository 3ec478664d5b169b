"""What a library logs during a command, and where it is heard."""

from __future__ import annotations

import io
import logging

from rich.console import Console

from simple_asr.cli.console import log_to


def test_warnings_are_lines_on_the_console() -> None:
    lines = io.StringIO()

    with log_to(Console(file=lines), verbose=False):
        logging.getLogger("simple_asr.engine").info("Fetched.")
        logging.getLogger("simple_asr.engine").warning("The model %s is not here.", "turbo")

    assert lines.getvalue() == "The model turbo is not here.\n"


def test_a_verbose_command_tells_everything() -> None:
    lines = io.StringIO()

    with log_to(Console(file=lines), verbose=True):
        logging.getLogger("simple_asr.engine").debug("Fetched.")

    assert lines.getvalue() == "Fetched.\n"


def test_nothing_is_heard_after_the_command() -> None:
    lines = io.StringIO()
    with log_to(Console(file=lines), verbose=False):
        pass

    logging.getLogger("simple_asr.engine").warning("Late.")

    assert lines.getvalue() == ""
