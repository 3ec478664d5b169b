"""The command `simple-asr`. To add a command, add its module here and a row to COMMANDS."""

from __future__ import annotations

import os
import sys
import threading
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from simple_asr import __version__
from simple_asr.cli.console import EXIT_CONFIGURATION, EXIT_USAGE
from simple_asr.errors import AsrError, ConfigurationError, RequestError

# The command's name and summary; the module of that name holds it as `app`.
COMMANDS = {
    "serve": "Serve over HTTP until stopped.",
    "transcribe": "Transcribe audio and video files, without a server or with one.",
    "keys": "Add, list and revoke API keys.",
    "usage": "Tell what each key has used, by day.",
    "models": "List models, and download them ahead of time.",
    "bench": "Measure which models keep up with speech on this machine.",
    "health": "Ask the server on this machine how it is.",
    "doctor": "Tell what would keep this machine from serving, and what to do.",
}


def main() -> None:
    """The command as a process of its own."""
    try:
        app(prog_name="simple-asr")
    except SystemExit as ending:
        if _is_a_thread_left():
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(int(ending.code or 0))
        raise


def _is_a_thread_left() -> bool:
    """One that loads or runs a model cannot be stopped, and Python's own way out would abort it."""
    return any(thread.daemon for thread in threading.enumerate())


class _CommandsOnDemand(TyperGroup):
    """Imports a command's module when the command is run, so that `--help` waits for none.

    Also the one place where an error becomes a sentence on standard error and an exit code.
    """

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name, placeholder, rest = super().resolve_command(ctx, args)
        return name, load_command(name) if name else placeholder, rest

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except AsrError as error:
            typer.echo(error.detail, err=True)
            raise typer.Exit(exit_code(error)) from None


def load_command(name: str) -> Any:
    """The command that a row of COMMANDS stands for, as typer runs it."""
    return typer.main.get_command(import_module(f"simple_asr.cli.{name}").app)


def exit_code(error: AsrError) -> int:
    """What the command exits with when this error ends it."""
    if isinstance(error, ConfigurationError):
        return EXIT_CONFIGURATION
    return EXIT_USAGE if isinstance(error, RequestError) else 1


app = typer.Typer(
    cls=_CommandsOnDemand,
    no_args_is_help=True,
    # Typer's tracebacks are made for screens; a log wants Python's own.
    pretty_exceptions_enable=False,
)


def _show_version(is_wanted: bool) -> None:
    if is_wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _simple_asr(
    _: Annotated[
        bool,
        typer.Option("--version", help="Show the version.", callback=_show_version, is_eager=True),
    ] = False,
) -> None:
    """Speech to text with every parameter of whisper.transcribe().

    Settings come from the environment and from .env; `.env.example` lists them.
    """


def _placeholder() -> None:
    """Stands in the list of commands, and is never run."""


for _name, _summary in COMMANDS.items():
    app.command(_name, help=_summary)(_placeholder)
