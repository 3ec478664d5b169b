"""Transcribes several files at once, and hands their transcripts over in the order of the files."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import typer
from rich.console import Console
from rich.progress import Progress as Bars

from simple_asr.cli.console import tell
from simple_asr.cli.files import Source
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
class Output:
    """A format, and the file it goes to; None is standard output."""

    format: Format
    destination: Path | None = None


@dataclass(frozen=True, slots=True)
class Job:
    """One recording, and all that is written of it. `title` is the source's."""

    media: Path
    outputs: tuple[Output, ...]
    title: str | None = None

    @property
    def name(self) -> str:
        """What messages call the recording."""
        return self.title or str(self.media)

    @property
    def destinations(self) -> list[Path]:
        """The files that are written; none on standard output."""
        return [output.destination for output in self.outputs if output.destination is not None]

    @property
    def is_done(self) -> bool:
        """Whether all its files are there, and none is older than the recording, if that is."""
        try:
            changed = self.media.stat().st_mtime
        except FileNotFoundError:  # It may be moved at any time.
            return False
        return all(
            output.destination is not None
            and output.destination.is_file()
            and output.destination.stat().st_mtime >= changed
            for output in self.outputs
        )


# Where transcripts go ---------------------------------------------------------------------------


def plan_jobs(
    sources: Sequence[Source], output: str | None, formats: Sequence[Format]
) -> list[Job]:
    """One job a recording. Raises InvalidParameter where one file would be written over another.

    A recording that was found in a folder keeps its place below it.
    """
    if output is None:
        if len(formats) > 1:
            raise InvalidParameter(
                f"--format: standard output takes one format, and {len(formats)} are named. Name "
                "a folder for them with --output.",
                field="format",
            )
        return [Job(source.media, (Output(formats[0]),), source.title) for source in sources]
    if len(sources) == len(formats) == 1 and not _is_folder(output):
        [source] = sources
        jobs = [Job(source.media, (Output(formats[0], Path(output)),), source.title)]
    else:
        folder = Path(output)
        if folder.exists() and not folder.is_dir():
            num_files = len(sources) * len(formats)
            raise _bad_output(f"{output} is a file, and there are {num_files} transcripts.")
        jobs = [job_in(folder, source, formats) for source in sources]
    _refuse_collisions(jobs)
    return jobs


def job_in(folder: Path, source: Source, formats: Sequence[Format]) -> Job:
    """The job whose transcripts lie in a folder as the recording lies in its own."""
    place = folder / source.relative.parent
    outputs = (Output(form, place / f"{source.media.stem}.{form.extension}") for form in formats)
    return Job(source.media, tuple(outputs), source.title)


def _is_folder(output: str) -> bool:
    return output.endswith("/") or Path(output).is_dir()


def _refuse_collisions(jobs: Sequence[Job]) -> None:
    media = {job.media.resolve() for job in jobs}
    claims = Claims()
    for job in jobs:
        for destination in job.destinations:
            if destination.resolve() in media:
                raise _bad_output(f"{destination} is one of the files to transcribe.")
        claims.add(job)


class Claims:
    """Which recording each transcript is of, so that none is written over another's."""

    def __init__(self) -> None:
        self._owners: dict[Path, Job] = {}

    def add(self, job: Job) -> None:
        """Raises InvalidParameter where a file would be written twice."""
        for destination in job.destinations:
            owner = self._owners.get(destination.resolve())
            if owner is not None:
                raise _bad_output(
                    f"The transcripts of {owner.name} and {job.name} would both be {destination}."
                )
            self._owners[destination.resolve()] = job

    def forget(self, media: Path) -> None:
        """For a recording that comes again, changed."""
        self._owners = {
            place: owner for place, owner in self._owners.items() if owner.media != media
        }


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
        total = progress.add_task("All files", total=len(jobs), visible=len(jobs) > 1)

        async def outcome(job: Job) -> _Outcome:
            async with gate:
                outcome = await _outcome(transcriber, job, parameters, progress)
            progress.advance(total)
            return outcome

        tasks = [asyncio.create_task(outcome(job)) for job in jobs]
        for job, task in zip(jobs, tasks, strict=True):
            _report(job, await task, progress)
    return all(task.result().is_transcribed for task in tasks)


async def _outcome(
    transcriber: Transcriber, job: Job, parameters: TranscribeParameters, progress: Bars
) -> _Outcome:
    try:
        transcript = await _transcript(transcriber, job.media, parameters.options, progress)
        printed = ""
        # At once, not in turn: what is done stays done if the rest is broken off.
        for output in job.outputs:
            text = replace(parameters, format=output.format).write(transcript).rstrip("\n") + "\n"
            if output.destination is None:
                printed += text
            else:
                _save(text, output.destination)
    except AsrError as error:
        return _Outcome(False, "", [error.detail])
    return _Outcome(True, printed, [*transcript.warnings, *_without_effect(job, parameters)])


def _without_effect(job: Job, parameters: TranscribeParameters) -> list[str]:
    """What has no effect on any of the formats; the one at hand says it of itself."""
    notes = [replace(parameters, format=output.format).without_effect() for output in job.outputs]
    return notes[0] if all(notes) else []


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
    """Whole or not at all, so that what is there counts as done."""
    unfinished = destination.with_name(f".{destination.name}.part")
    try:
        destination.parent.mkdir(parents=True, exist_ok=True)
        unfinished.write_text(text, encoding="utf-8")
        unfinished.replace(destination)
    except OSError as error:
        raise InvalidParameter(
            f"The transcript cannot be written to {destination}: {error.strerror}. Name another "
            "place with --output.",
            field="output",
        ) from error


def _report(job: Job, outcome: _Outcome, progress: Bars) -> None:
    for note in outcome.notes:
        tell(progress.console, f"{job.name}: {note}")
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
