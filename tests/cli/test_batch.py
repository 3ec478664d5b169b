"""Several files at once: their order, their faults, and where their transcripts go."""

from __future__ import annotations

import asyncio
import io
import os
import re
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from simple_asr.cli.batch import NUM_AT_ONCE, Job, Output, plan_jobs, transcribe_jobs
from simple_asr.cli.files import Source
from simple_asr.engine.options import TranscribeOptions
from simple_asr.errors import InvalidParameter, UnreadableMedia
from simple_asr.service.fake import TRANSCRIPT
from simple_asr.service.parameters import read_parameters
from simple_asr.service.transcriber import ModelState
from simple_asr.transcript.events import Done, Event, Progress
from simple_asr.transcript.formats import FORMATS
from simple_asr.transcript.model import Transcript
from tests.support import WAIT

TEXT = read_parameters(b"", [("format", "text")])


class NameReader:
    """A transcriber that writes each file's name, and ends one in `gates` when its gate is set.

    `finished` has an event for each name; `running` holds the names of the files in work, and
    `peak` is how many those were at most.
    """

    def __init__(self, closed: Iterable[str] = (), unreadable: Iterable[str] = ()) -> None:
        self.model_state = ModelState("ready", requested="base", served="base")
        self.gates = {name: asyncio.Event() for name in closed}
        self.unreadable = set(unreadable)
        self.finished: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)
        self.running: set[str] = set()
        self.peak = 0
        self.transcript = TRANSCRIPT

    async def events(self, media: Path, options: TranscribeOptions) -> AsyncIterator[Event]:
        self.running.add(media.stem)
        self.peak = max(self.peak, len(self.running))
        yield Progress(0.0, 2.5)
        if media.stem in self.gates:
            await self.gates[media.stem].wait()
        await asyncio.sleep(0)  # Others begin, if they may.
        self.running.discard(media.stem)
        if media.stem in self.unreadable:
            raise UnreadableMedia("The file could not be read.")
        self.finished[media.stem].set()
        yield Done(replace(self.transcript, text=f" This is {media.stem}."))

    async def transcribe(self, media: Path, options: TranscribeOptions) -> Transcript:
        raise AssertionError("the progress of files comes with their events")


def jobs(*names: str) -> list[Job]:
    """Files whose transcripts go to standard output."""
    return [Job(Path(f"{name}.wav"), (Output(TEXT.format),)) for name in names]


def job(media: str, *destinations: Path) -> Job:
    """A file whose transcript goes to these, each in the format that it ends in."""
    formats = {form.extension: form for form in (TEXT.format, FORMATS["srt"])}
    outputs = (Output(formats[path.suffix[1:]], path) for path in destinations)
    return Job(Path(media), tuple(outputs))


def run(transcriber: NameReader, work: list[Job], errors: io.StringIO | None = None) -> bool:
    console = Console(file=errors or io.StringIO())
    return asyncio.run(transcribe_jobs(transcriber, work, TEXT, console))


# The work ---------------------------------------------------------------------------------------


def test_transcripts_come_in_the_order_of_the_files(
    capsysbinary: pytest.CaptureFixture[bytes],
) -> None:
    async def finish_the_first_last() -> bool:
        transcriber = NameReader(closed=["a"])
        work = transcribe_jobs(transcriber, jobs("a", "b", "c"), TEXT, Console(file=io.StringIO()))
        task = asyncio.create_task(work)
        await transcriber.finished["b"].wait()
        await transcriber.finished["c"].wait()
        transcriber.gates["a"].set()
        return await task

    assert asyncio.run(asyncio.wait_for(finish_the_first_last(), WAIT))
    assert capsysbinary.readouterr().out == b"This is a.\nThis is b.\nThis is c.\n"


def test_a_bad_file_costs_only_itself(capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    errors = io.StringIO()

    is_good = run(NameReader(unreadable=["b"]), jobs("a", "b", "c"), errors)

    assert not is_good
    assert capsysbinary.readouterr().out == b"This is a.\nThis is c.\n"
    assert errors.getvalue() == "b.wav: The file could not be read.\n"


def test_several_files_are_worked_on_at_once_and_not_all() -> None:
    transcriber = NameReader()

    run(transcriber, jobs(*"abcdefghij"))

    assert transcriber.peak == NUM_AT_ONCE


def test_warnings_are_told_apart_from_the_transcript(
    capsysbinary: pytest.CaptureFixture[bytes],
) -> None:
    errors = io.StringIO()
    transcriber = NameReader()
    transcriber.transcript = replace(TRANSCRIPT, warnings=("The end of the file is missing.",))

    assert run(transcriber, jobs("a"), errors)
    assert capsysbinary.readouterr().out == b"This is a.\n"
    assert errors.getvalue() == "a.wav: The end of the file is missing.\n"


def test_what_looks_like_markup_is_told_as_it_is() -> None:
    errors = io.StringIO()
    work = [Job(Path("[red]:smile:.wav"), (Output(TEXT.format),))]

    run(NameReader(unreadable=["[red]:smile:"]), work, errors)

    assert errors.getvalue() == "[red]:smile:.wav: The file could not be read.\n"


def test_a_sentence_is_one_line_however_long() -> None:
    errors = io.StringIO()
    name = "a" * 200

    run(NameReader(unreadable=[name]), jobs(name), errors)

    assert errors.getvalue().count("\n") == 1


def test_a_finished_transcript_is_in_its_file_before_the_others_are_done(tmp_path: Path) -> None:
    async def break_off_at_the_first() -> None:
        transcriber = NameReader(closed=["a"])
        work = [job(f"{name}.wav", tmp_path / f"{name}.txt") for name in "ab"]
        task = asyncio.create_task(
            transcribe_jobs(transcriber, work, TEXT, Console(file=io.StringIO()))
        )
        await transcriber.finished["b"].wait()
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task

    asyncio.run(asyncio.wait_for(break_off_at_the_first(), WAIT))

    assert [path.name for path in tmp_path.iterdir()] == ["b.txt"]
    assert (tmp_path / "b.txt").read_text() == "This is b.\n"


def test_one_recognition_serves_all_formats(tmp_path: Path) -> None:
    transcriber = NameReader()

    assert run(transcriber, [job("a.wav", tmp_path / "a.txt", tmp_path / "a.srt")])

    assert (tmp_path / "a.txt").read_text() == "This is a.\n"
    assert "-->" in (tmp_path / "a.srt").read_text()
    assert transcriber.peak == 1


def test_nothing_half_written_is_left(tmp_path: Path) -> None:
    run(NameReader(), [job("a.wav", tmp_path / "a.txt")])

    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_a_folder_that_is_missing_is_made(tmp_path: Path) -> None:
    destination = tmp_path / "new" / "a.txt"

    assert run(NameReader(), [job("a.wav", destination)])
    assert destination.read_text() == "This is a.\n"


def test_a_place_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    errors = io.StringIO()
    (tmp_path / "file").touch()
    destination = tmp_path / "file" / "a.txt"

    assert not run(NameReader(), [job("a.wav", destination)], errors)
    assert re.fullmatch(r"a\.wav: The transcript cannot be written to .*\n", errors.getvalue())


def test_the_bar_on_a_terminal_is_gone_when_the_transcript_is_printed(
    capsysbinary: pytest.CaptureFixture[bytes],
) -> None:
    terminal = Console(force_terminal=True, width=80)

    asyncio.run(transcribe_jobs(NameReader(), jobs("a"), TEXT, terminal))

    before, _, _ = capsysbinary.readouterr().out.partition(b"This is a.\n")
    _, _, after_the_bar = before.rpartition(b"a.wav")
    assert b"\x1b[2K" in after_the_bar


# Where transcripts go ---------------------------------------------------------------------------


def destinations(files: list[str], output: str | None, *formats: str) -> list[Path | None]:
    sources = [Source(Path(file), Path(file).relative_to(Path(file).parent)) for file in files]
    planned = plan_jobs(sources, output, [FORMATS[name] for name in formats or ("text",)])
    return [output.destination for job in planned for output in job.outputs]


@pytest.fixture
def folder(home: Path) -> str:
    (home / "folder").mkdir()
    return "folder"


def test_without_output_transcripts_go_to_standard_output() -> None:
    assert destinations(["a.wav", "b.wav"], None) == [None, None]


def test_one_transcript_goes_to_the_file_that_is_named() -> None:
    assert destinations(["a.wav"], "notes.md") == [Path("notes.md")]


@pytest.mark.parametrize("output", ["folder", "folder/", "other/"])
def test_one_transcript_goes_into_a_folder_that_is_there_or_ends_in_a_slash(
    folder: str, output: str
) -> None:
    assert destinations(["media/a.wav"], output) == [Path(output) / "a.txt"]


@pytest.mark.parametrize(
    ("format_", "expected"), [("json", "a.json"), ("simple", "a.json"), ("text", "a.txt")]
)
def test_a_file_in_a_folder_is_named_by_its_media_and_format(
    folder: str, format_: str, expected: str
) -> None:
    assert destinations(["a.b.wav", "a.wav"], folder, format_)[1] == Path(folder, expected)


def test_several_transcripts_need_a_folder(home: Path) -> None:
    (home / "notes.txt").touch()

    with pytest.raises(InvalidParameter, match=r"notes\.txt is a file, and there are 2"):
        destinations(["a.wav", "b.wav"], "notes.txt")


def test_two_transcripts_may_not_share_a_file(folder: str) -> None:
    with pytest.raises(InvalidParameter, match=r"x/a\.wav and y/a\.mp3 would both be folder/a"):
        destinations(["x/a.wav", "y/a.mp3"], folder)


def test_each_format_has_a_file_of_its_own(folder: str) -> None:
    assert destinations(["a.wav"], folder, "srt", "json") == [
        Path("folder/a.srt"),
        Path("folder/a.json"),
    ]


def test_a_recording_with_a_title_is_called_by_it(folder: str) -> None:
    sources = [Source(Path("x/a"), Path("a"), "standard input"), Source(Path("a"), Path("a"))]

    with pytest.raises(InvalidParameter, match=r"of standard input and a would both be folder/a"):
        plan_jobs(sources, folder, [TEXT.format])


def test_several_formats_need_a_folder(home: Path) -> None:
    with pytest.raises(InvalidParameter, match=r"standard output takes one format, and 2"):
        destinations(["a.wav"], None, "srt", "vtt")
    (home / "notes.txt").touch()
    with pytest.raises(InvalidParameter, match=r"notes\.txt is a file"):
        destinations(["a.wav"], "notes.txt", "srt", "vtt")


def test_two_formats_may_not_share_a_file(folder: str) -> None:
    with pytest.raises(InvalidParameter, match=r"would both be folder/a\.json"):
        destinations(["a.wav"], folder, "json", "simple")


def test_what_lies_below_a_folder_keeps_its_place() -> None:
    source = Source(Path("talks/2026/a.mp4"), Path("2026/a.mp4"))

    (planned,) = plan_jobs([source], "out/", [FORMATS["srt"]])

    assert planned.outputs[0].destination == Path("out/2026/a.srt")


def test_a_job_is_done_when_all_its_files_are_there_and_not_older(tmp_path: Path) -> None:
    media, text, subtitles = (tmp_path / name for name in ("a.wav", "a.txt", "a.srt"))
    for number, path in enumerate((media, text, subtitles)):
        path.touch()
        os.utime(path, (number, number))
    both = job(str(media), text, subtitles)

    assert both.is_done
    os.utime(media, (9, 9))
    assert not both.is_done
    os.utime(media, (0, 0))
    subtitles.unlink()
    assert not both.is_done


@pytest.mark.parametrize(("file", "output"), [("a.wav", "a.wav"), ("a.txt", "./")])
def test_a_transcript_may_not_replace_its_own_media(file: str, output: str) -> None:
    with pytest.raises(InvalidParameter, match="is one of the files to transcribe"):
        destinations([file], output)
