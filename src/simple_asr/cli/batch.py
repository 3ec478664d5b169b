"""Transcribes several files at once, and hands their transcripts over in the order of the files."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import typer
from rich.console import Console
from rich.progress import Progress as Bars

from simple_asr.cli.console import tell
from simple_asr.cli.progress import bars
from simple_asr.engine.options import TranscribeOptions
from simple_asr.errors import AsrError, InvalidParameter
from simple_asr.service.parameters import TranscribeParameters
from simple_asr.service.transcriber import Transcriber
from simple_asr.transcript.events import Done, Progress
from simple_asr.transcript.formats import Format
from simple_asr.transcript.model import Transcript

# Enough for shared model calls, and few enough to see each file move.
NUM_AT_ONCE = 4


@dataclass(frozen=True, slots=True)
class Job:
    """One file, and the file its transcript goes to; None is standard output."""

    media: Path
    destination: Path | None


# Where transcripts go ---------------------------------------------------------------------------


def plan_jobs(files: Sequence[Path], output: str | None, format_: Format) -> list[Job]:
    """One job a file. Raises InvalidParameter where one file would be written over by another."""
    if output is None:
        return [Job(media, None) for media in files]
    if len(files) == 1 and not _is_folder(output):
        jobs = [Job(files[0], Path(output))]
    else:
        folder = Path(output)
        if folder.exists() and not folder.is_dir():
            raise _bad_output(f"{output} is a file, and there are {len(files)} transcripts.")
        jobs = [Job(media, folder / f"{media.stem}.{format_.extension}") for media in files]
    _refuse_collisions(jobs)
    return jobs


def _is_folder(output: str) -> bool:
    return output.endswith("/") or Path(output).is_dir()


def _refuse_collisions(jobs: Sequence[Job]) -> None:
    media = {job.media.resolve() for job in jobs}
    sources: dict[Path, Path] = {}
    for job in jobs:
        assert job.destination is not None, "only transcripts with a destination can collide"
        destination = job.destination.resolve()
        if destination in media:
            raise _bad_output(f"{job.destination} is one of the files to transcribe.")
        if destination in sources:
            raise _bad_output(
                f"The transcripts of {sources[destination]} and {job.media} would both be "
                f"{job.destination}."
            )
        sources[destination] = job.media


def _bad_output(fault: str) -> InvalidParameter:
    return InvalidParameter(f"--output: {fault} Name another folder.", field="output")


# The work ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What there is to say of one file: on standard output, and on standard error."""

    is_transcribed: bool
    text: str = ""
    notes: Sequence[str] = ()


async def transcribe_jobs(
    transcriber: Transcriber,
    jobs: Sequence[Job],
    parameters: TranscribeParameters,
    console: Console,
) -> bool:
    """Whether all were transcribed. What is wrong with a file is told on the console."""
    gate = asyncio.Semaphore(NUM_AT_ONCE)
    with bars(console) as progress:

        async def outcome(job: Job) -> _Outcome:
            async with gate:
                return await _outcome(transcriber, job, parameters, progress)

        tasks = [asyncio.create_task(outcome(job)) for job in jobs]
        for job, task in zip(jobs, tasks, strict=True):
            _report(job, await task, progress)
    return all(task.result().is_transcribed for task in tasks)


async def _outcome(
    transcriber: Transcriber, job: Job, parameters: TranscribeParameters, progress: Bars
) -> _Outcome:
    try:
        transcript = await _transcript(transcriber, job.media, parameters.options, progress)
        text = parameters.write(transcript).rstrip("\n") + "\n"
        notes = [*transcript.warnings, *parameters.without_effect()]
        if job.destination is None:
            return _Outcome(True, text, notes)
        # At once, not in turn: what is done stays done if the rest is broken off.
        _save(text, job.destination)
        return _Outcome(True, "", notes)
    except AsrError as error:
        return _Outcome(False, "", [error.detail])


async def _transcript(
    transcriber: Transcriber, media: Path, options: TranscribeOptions, progress: Bars
) -> Transcript:
    """The transcript of a file, which has a bar while it is worked on."""
    # Until it is decoded, nobody knows how long it is.
    bar = progress.add_task(media.name, total=None)
    transcript = None
    try:
        async for event in transcriber.events(media, options):
            if isinstance(event, Progress):
                progress.update(bar, completed=event.seconds_done, total=event.seconds_total)
            elif isinstance(event, Done):
                transcript = event.transcript
    finally:
        progress.remove_task(bar)
    assert transcript is not None, "A stream of events ends with Done or an error"
    return transcript


def _save(text: str, destination: Path) -> None:
    try:
        destination.parent.mkdir(parents=True, exist_ok=True)
        destination.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InvalidParameter(
            f"The transcript cannot be written to {destination}: {error.strerror}. Name another "
            "place with --output.",
            field="output",
        ) from error


def _report(job: Job, outcome: _Outcome, progress: Bars) -> None:
    for note in outcome.notes:
        tell(progress.console, f"{job.media}: {note}")
    if outcome.text:
        with _cleared_screen(progress):
            # As bytes: standard output may be set to an encoding that lacks a letter.
            typer.echo(outcome.text.encode(), nl=False)


@contextmanager
def _cleared_screen(progress: Bars) -> Iterator[None]:
    """No bars meanwhile: they would be drawn over what is printed."""
    progress.stop()
    try:
        yield
    finally:
        progress.start()
