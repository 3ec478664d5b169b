"""`simple-asr transcribe`: recordings in, transcripts out, by this machine's model or a server."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from simple_asr.cli.batch import NUM_AT_ONCE, Claims, Job, job_in, plan_jobs, transcribe_jobs
from simple_asr.cli.console import log_to, notices, tell
from simple_asr.cli.files import find_media
from simple_asr.cli.local import load_settings_quietly, loaded_transcriber
from simple_asr.cli.remote import RemoteTranscriber
from simple_asr.cli.rocm import tell_rocm
from simple_asr.cli.temporary import temporary_folder
from simple_asr.cli.watch import arrivals
from simple_asr.client import AsyncClient
from simple_asr.errors import InvalidParameter
from simple_asr.service.parameters import TranscribeParameters, read_parameters
from simple_asr.service.transcriber import Transcriber
from simple_asr.settings import Settings
from simple_asr.transcript.formats import FORMATS, Format

app = typer.Typer(add_completion=False)


@app.command()
def transcribe(
    files: Annotated[
        list[str] | None,
        typer.Argument(
            help="Audio or video files, folders of them, patterns such as 'talks/**/*.mp4', or - "
            "for standard input.",
            metavar="FILE...",
            show_default=False,
        ),
    ] = None,
    *,
    format_: Annotated[
        list[str] | None,
        typer.Option(
            "--format",
            "-f",
            metavar="FORMATS",
            help=f"How to write transcripts, one or several: {', '.join(FORMATS)}. Absent: text.",
        ),
    ] = None,
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            help="File for one transcript, or folder for one file each. Absent: standard output.",
        ),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="With --output: leave out what has been transcribed there."),
    ] = False,
    watch: Annotated[
        Path | None,
        typer.Option(
            help="Folder to wait at for recordings, until interrupted. Transcripts go to --output, "
            "or beside them.",
            metavar="FOLDER",
            exists=True,
            file_okay=False,
        ),
    ] = None,
    server: Annotated[
        str | None,
        typer.Option(
            help="Address of a server that does the work.",
            metavar="URL",
            envvar="SIMPLE_ASR_SERVER",
        ),
    ] = None,
    key: Annotated[
        str | None,
        typer.Option(
            help="API key for --server. In the environment others do not see it.",
            envvar="SIMPLE_ASR_KEY",
            show_envvar=True,
        ),
    ] = None,
    background: Annotated[
        bool,
        typer.Option(
            "--background",
            help="With --server: jobs, which go on when this command is broken off. The same "
            "command again finds them.",
        ),
    ] = False,
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
    """Transcribe audio and video files, without a server or with one.

    Exit codes: 0 all done, 1 some failed, 2 wrong command line, 78 wrong settings, 130 ended by
    Ctrl-C, 143 by SIGTERM.
    """
    named = {
        # Here, a model may also be one that only this machine has.
        "model": model if server else None,
        "language": language,
        "task": task,
        "beam_size": beam_size,
        "temperature": temperature,
        "word_timestamps": "true" if word_timestamps else None,
        "initial_prompt": initial_prompt,
    }
    _check(files, output, resume=resume, watch=watch, is_alone=not server, background=background)
    wanted = [name.strip() for names in format_ or ["text"] for name in names.split(",")]
    parameters = _parameters({"format": wanted[0], **named}, param or ())
    formats = [_parameters({"format": name}, ()).format for name in dict.fromkeys(wanted)]
    console = notices()
    with temporary_folder() as spool:
        jobs = [] if watch else plan_jobs(find_media(files or (), spool), output, formats)
        order = _Order(
            parameters, formats, _left_to_do(jobs, console) if resume else jobs, watch, output
        )
        if server:
            is_good = asyncio.run(_have_done(order, server, key, console, background=background))
        else:
            is_good = _do(order, model or parameters.options.model, spool, console)
    if not is_good:
        raise typer.Exit(1)


@dataclass(frozen=True, slots=True)
class _Order:
    """What is to be done: these jobs, or whatever arrives in a folder."""

    parameters: TranscribeParameters
    formats: Sequence[Format]
    jobs: Sequence[Job]
    watched: Path | None
    output: str | None


def _check(
    files: Sequence[str] | None,
    output: str | None,
    *,
    resume: bool,
    watch: Path | None,
    is_alone: bool,
    background: bool,
) -> None:
    """Raises InvalidParameter for what cannot be meant together."""
    if not files and not watch:
        raise InvalidParameter(
            "Name files to transcribe, folders of them, or - for standard input; or a folder to "
            "wait at with --watch.",
            field="files",
        )
    if files and watch:
        raise InvalidParameter(
            "--watch: takes the files that arrive in its folder. Transcribe others without it.",
            field="watch",
        )
    if resume and output is None:
        raise InvalidParameter(
            "--resume: looks for finished transcripts in --output, which is not given.",
            field="resume",
        )
    if background and is_alone:
        raise InvalidParameter(
            "--background: a server keeps jobs. Name it with --server, or leave this out.",
            field="background",
        )


def _parameters(named: dict[str, str | None], others: Sequence[str]) -> TranscribeParameters:
    """Raises RequestError, in the server's own words."""
    given = [(name, value) for name, value in named.items() if value is not None]
    for other in others:
        name, equals, value = other.partition("=")
        if not equals:
            raise InvalidParameter(f"--param {other}: should be NAME=VALUE.", field="param")
        given.append((name, value))
    return read_parameters(b"", given, fields_place="the command line")


def _left_to_do(jobs: Sequence[Job], console: Console) -> list[Job]:
    left = [job for job in jobs if not job.is_done]
    if len(left) < len(jobs):
        tell(console, f"{len(jobs) - len(left)} of {len(jobs)} recordings were done before.")
    return left


async def _have_done(
    order: _Order, server: str, key: str | None, console: Console, *, background: bool
) -> bool:
    """Whether a server did all of it well."""
    async with AsyncClient(server, key) as client:
        transcriber = RemoteTranscriber(client, is_background=background)
        return await _carry_out(order, transcriber, console)


def _do(order: _Order, model: str | None, spool: Path, console: Console) -> bool:
    """Whether this machine did all of it well."""
    if not order.jobs and not order.watched:
        return True  # A model need not be loaded for that.
    settings = _settings(model, spool)
    tell_rocm(settings)
    with (
        log_to(console, verbose=settings.log_level == "debug"),
        loaded_transcriber(settings, console) as transcriber,
    ):
        return asyncio.run(_carry_out(order, transcriber, console))


async def _carry_out(order: _Order, transcriber: Transcriber, console: Console) -> bool:
    if order.watched is None:
        return await transcribe_jobs(transcriber, order.jobs, order.parameters, console)
    place = Path(order.output or order.watched)
    claims = Claims()
    async for sources in arrivals(order.watched):
        jobs = [job_in(place, source, order.formats) for source in sources]
        left = [job for job in jobs if _is_claimed(job, claims, console) and not job.is_done]
        await transcribe_jobs(transcriber, left, order.parameters, console)
        for job in left:
            if job.is_done:
                tell(console, f"{job.media}: transcribed.")
    raise AssertionError("arrivals end with an interrupt")


def _is_claimed(job: Job, claims: Claims, console: Console) -> bool:
    """Whether its transcripts are its own. Where they are another's, that is told."""
    claims.forget(job.media)
    try:
        claims.add(job)
    except InvalidParameter as fault:
        tell(console, f"{job.media}: {fault.detail}")
        return False
    return True


def _settings(model: str | None, spool: Path) -> Settings:
    """Those of the server, except for what this command line decides."""
    settings = load_settings_quietly()
    changes: dict[str, object] = {"max_waiting_requests": NUM_AT_ONCE}
    if "spool_dir" not in settings.model_fields_set:
        # The server's default would leave a folder behind wherever the command is used.
        changes["spool_dir"] = spool
    if model is not None:
        # Whoever names a model wants no other.
        changes |= {"default_model": model, "fallback_model": ""}
    return settings.model_copy(update=changes)
