"""`simple-asr transcribe`: files in, transcripts out, by the server's engine without the server."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from simple_asr.assembly import build_transcriber
from simple_asr.cli.batch import NUM_AT_ONCE, Job, plan_jobs, transcribe_jobs
from simple_asr.cli.console import EXIT_CONFIGURATION, log_to, notices
from simple_asr.cli.progress import download_bars
from simple_asr.cli.rocm import tell_rocm
from simple_asr.errors import InvalidParameter
from simple_asr.service.parameters import TranscribeParameters, read_parameters
from simple_asr.service.transcriber import LocalTranscriber
from simple_asr.settings import Settings, load_settings
from simple_asr.transcript.formats import FORMATS

app = typer.Typer(add_completion=False)


@app.command()
def transcribe(
    files: Annotated[
        list[Path],
        typer.Argument(
            help="Audio or video files.", metavar="FILE...", exists=True, dir_okay=False
        ),
    ],
    *,
    format_: Annotated[
        str, typer.Option("--format", "-f", help=f"How to write transcripts: {', '.join(FORMATS)}.")
    ] = "text",
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            help="File for one transcript, or folder for one file each. Absent: standard output.",
        ),
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Model to use instead of DEFAULT_MODEL.")
    ] = None,
    language: Annotated[
        str | None, typer.Option(help="Language spoken, such as en. Absent: it is detected.")
    ] = None,
    task: Annotated[str | None, typer.Option(help="transcribe, or translate into English.")] = None,
    beam_size: Annotated[
        str | None, typer.Option(metavar="INTEGER", help="Beams at temperature 0.")
    ] = None,
    temperature: Annotated[
        str | None,
        typer.Option(metavar="NUMBERS", help="One number, or a ladder of them: 0,0.2,0.4."),
    ] = None,
    word_timestamps: Annotated[
        bool, typer.Option("--word-timestamps", help="With --format json: times of each word.")
    ] = False,
    initial_prompt: Annotated[
        str | None, typer.Option(help="Names, terms and style to expect.")
    ] = None,
    param: Annotated[
        list[str] | None,
        typer.Option(
            "--param",
            "-p",
            metavar="NAME=VALUE",
            help="Any other parameter of POST /transcribe, by its name there. May be repeated.",
        ),
    ] = None,
) -> None:
    """Transcribe audio and video files, without a server.

    Exit codes: 0 all done, 1 some failed, 2 wrong command line, 78 wrong settings.
    """
    named = {
        "format": format_,
        "language": language,
        "task": task,
        "beam_size": beam_size,
        "temperature": temperature,
        "word_timestamps": "true" if word_timestamps else None,
        "initial_prompt": initial_prompt,
    }
    parameters = _parameters(named, param or ())
    jobs = plan_jobs(files, output, parameters.format)
    if not _run(jobs, parameters, model):
        raise typer.Exit(1)


def _parameters(named: dict[str, str | None], others: Sequence[str]) -> TranscribeParameters:
    """Raises RequestError, in the server's own words."""
    given = [(name, value) for name, value in named.items() if value is not None]
    for other in others:
        name, equals, value = other.partition("=")
        if not equals:
            raise InvalidParameter(f"--param {other}: should be NAME=VALUE.", field="param")
        given.append((name, value))
    return read_parameters(b"", given, fields_place="the command line")


def _run(jobs: Sequence[Job], parameters: TranscribeParameters, model: str | None) -> bool:
    """Whether all went well."""
    console = notices()
    with tempfile.TemporaryDirectory(prefix="simple-asr-") as spool:
        settings = _settings(model, Path(spool))
        tell_rocm(settings)
        with (
            log_to(console, verbose=settings.log_level == "debug"),
            _loaded_transcriber(settings, console) as transcriber,
        ):
            return asyncio.run(transcribe_jobs(transcriber, jobs, parameters, console))


def _settings(model: str | None, spool: Path) -> Settings:
    """Those of the server, except for what this command line decides."""
    settings = load_settings()
    changes: dict[str, object] = {"max_waiting_requests": NUM_AT_ONCE}
    if settings.model_device == "cuda":
        # The same, without a warning at every use on a machine that has no GPU.
        changes["model_device"] = "auto"
    if "spool_dir" not in settings.model_fields_set:
        # The server's default would leave a folder behind wherever the command is used.
        changes["spool_dir"] = spool
    if model is not None:
        # Whoever names a model wants no other.
        changes |= {"default_model": model, "fallback_model": ""}
    return settings.model_copy(update=changes)


@contextmanager
def _loaded_transcriber(settings: Settings, console: Console) -> Iterator[LocalTranscriber]:
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
