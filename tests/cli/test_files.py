"""What a command line may name, and which recordings that comes to."""

from __future__ import annotations

from pathlib import Path

import pytest

from simple_asr.cli.files import find_media
from simple_asr.errors import InvalidParameter


@pytest.fixture(autouse=True)
def tree(home: Path) -> None:
    (home / "talks" / "old").mkdir(parents=True)
    for name in ("b.MP4", "a.wav", "notes.txt", ".hidden.wav", "old/c.ogg"):
        (home / "talks" / name).touch()


def found(*names: str) -> list[str]:
    return [str(source.media) for source in find_media(names, Path())]


def test_a_folder_is_its_recordings_and_those_below_by_name() -> None:
    assert found("talks") == ["talks/a.wav", "talks/b.MP4", "talks/old/c.ogg"]


def test_a_recording_of_a_folder_remembers_its_place() -> None:
    sources = find_media(["talks"], Path())

    assert [str(source.relative) for source in sources] == ["a.wav", "b.MP4", "old/c.ogg"]


def test_a_pattern_is_what_it_matches() -> None:
    assert found("talks/**/*.[ow]*") == ["talks/a.wav", "talks/old/c.ogg"]


def test_a_file_may_end_as_it_likes_and_look_like_a_pattern(home: Path) -> None:
    (home / "a[1].bin").touch()

    assert found("talks/notes.txt", "a[1].bin") == ["talks/notes.txt", "a[1].bin"]


def test_what_is_named_comes_in_that_order_and_as_often() -> None:
    assert found("talks/old", "talks/a.wav", "talks/a.wav") == [
        "talks/old/c.ogg",
        "talks/a.wav",
        "talks/a.wav",
    ]


@pytest.mark.parametrize("name", ["none.wav", "talks/*.flac", "empty"])
def test_a_name_that_leads_to_nothing_is_refused(home: Path, name: str) -> None:
    (home / "empty").mkdir()

    with pytest.raises(InvalidParameter, match="no recording was found there"):
        find_media([name], Path())
