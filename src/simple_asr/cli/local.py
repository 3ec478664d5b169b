"""This machine's model, for a command that needs it once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import typer
from rich.console import Console

from simple_asr.assembly import build_transcriber
from simple_asr.cli.console import EXIT_CONFIGURATION
from simple_asr.cli.progress import download_bars
from simple_asr.service.models import ModelPool
from simple_asr.settings import Settings, load_settings


def load_settings_quietly() -> Settings:
    """The server's, without a warning at every use on a machine that has no GPU."""
    settings = load_settings()
    if settings.model_device == "cuda":
        return settings.model_copy(update={"model_device": "auto"})
    return settings


@contextmanager
def loaded_transcriber(settings: Settings, console: Console) -> Iterator[ModelPool]:
    """Ready to work; where no model can be loaded, the command ends."""
    with download_bars(console) as show:
        transcriber = build_transcriber(settings, show)
        try:
            transcriber.start()
            state = transcriber.wait_until_loaded()
        except BaseException:
            transcriber.close()
            raise
    try:
        if state.status == "failed":
            raise typer.Exit(EXIT_CONFIGURATION)  # The log has said why.
        yield transcriber
    finally:
        transcriber.close()
