"""Finds the recordings that a command line names: files, folders, patterns, standard input."""

from __future__ import annotations

import glob
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from simple_asr.errors import InvalidParameter

STDIN = "-"
# What a folder is searched for. A file that is named itself may end as it likes.
ENDINGS = frozenset(
    ".3gp .aac .ac3 .aif .aiff .amr .au .avi .caf .flac .flv .m4a .m4b .m4v .mka .mkv .mov .mp2 "
    ".mp3 .mp4 .mpeg .mpg .mts .oga .ogg .ogv .opus .ts .wav .weba .webm .wma .wmv".split()
)


@dataclass(frozen=True, slots=True)
class Source:
    """A recording, and where it lies below the folder it was found in; only its name otherwise.

    `title` is what to call it where its path is ours and tells nobody anything.
    """

    media: Path
    relative: Path
    title: str | None = None


def find_media(names: Sequence[str], folder_for_stdin: Path) -> list[Source]:
    """All recordings, in the order they are named; those of a folder by name.

    Standard input is read whole, into a file of the folder given. Raises InvalidParameter for a
    name that leads to nothing.
    """
    sources: list[Source] = []
    for name in names:
        found = list(_found(name, folder_for_stdin))
        if not found:
            raise InvalidParameter(
                f"{name}: no recording was found there. Name files, folders that hold some, or a "
                "pattern such as 'talks/*.mp4'.",
                field="files",
            )
        sources += found
    return sources


def media_in(folder: Path) -> list[Source]:
    """The recordings in a folder and those below it, by name. Hidden ones are passed over."""
    found = (path for path in folder.rglob("*") if path.suffix.lower() in ENDINGS)
    return [
        Source(path, path.relative_to(folder))
        for path in sorted(found)
        if path.is_file() and not _is_hidden(path.relative_to(folder))
    ]


def _found(name: str, folder_for_stdin: Path) -> Iterator[Source]:
    path = Path(name)
    if name == STDIN:
        yield _standard_input(folder_for_stdin)
    elif path.is_dir():
        yield from media_in(path)
    elif path.exists():
        yield Source(path, Path(path.name))
    else:  # A shell on its own, or a quoted pattern with **.
        for match in sorted(map(Path, glob.glob(name, recursive=True))):  # noqa: PTH207  (may be absolute)
            if match.is_file():
                yield Source(match, Path(match.name))


def _standard_input(folder: Path) -> Source:
    path = folder / "stdin"
    with path.open("wb") as file:
        while chunk := sys.stdin.buffer.read(1 << 20):
            file.write(chunk)
    return Source(path, Path(path.name), "standard input")


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)
