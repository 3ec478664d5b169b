"""Which files of a folder count as arrived."""

from __future__ import annotations

import asyncio
from pathlib import Path

from simple_asr.cli.files import Source
from simple_asr.cli.watch import Arrivals, arrivals
from tests.support import WAIT

A = Source(Path("in/a.wav"), Path("a.wav"))
B = Source(Path("in/b.wav"), Path("b.wav"))


def test_a_file_that_still_grows_is_not_complete() -> None:
    bookkeeping = Arrivals()

    given = [bookkeeping.complete({A: (size, size)}) for size in (1, 2, 3, 3)]

    assert given == [[], [], [], [A]]


def test_an_empty_file_is_waited_for() -> None:
    bookkeeping = Arrivals()

    assert [bookkeeping.complete({A: (0, 1)}) for _ in range(3)] == [[], [], []]


def test_a_file_is_given_once_and_again_when_it_was_replaced() -> None:
    bookkeeping = Arrivals()

    looks = [{A: (5, 1)}, {A: (5, 1)}, {A: (5, 1)}, {A: (7, 2)}, {A: (7, 2)}, {A: (7, 2)}]

    assert [bookkeeping.complete(look) for look in looks] == [[], [A], [], [], [A], []]


def test_files_do_not_wait_for_each_other() -> None:
    bookkeeping = Arrivals()
    bookkeeping.complete({A: (5, 1)})

    assert bookkeeping.complete({A: (5, 1), B: (1, 1)}) == [A]


def test_what_lies_in_the_folder_arrives(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(b"RIFF")

    async def first() -> list[Source]:
        async for sources in arrivals(tmp_path, pause=0.01):
            return sources
        raise AssertionError("arrivals do not end")

    found = asyncio.run(asyncio.wait_for(first(), WAIT))

    assert found == [Source(tmp_path / "a.wav", Path("a.wav"))]
