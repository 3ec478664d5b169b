"""Uploads on disk: ours by name, ours alone to read, and gone when nobody needs them."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from simple_asr.errors import ConfigurationError, StorageFull, Unavailable
from simple_asr.service.spool import SpoolFile, has_room, sweep


def num_open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_an_upload_lies_under_a_random_name_for_this_user_alone(tmp_path: Path) -> None:
    one, other = SpoolFile(tmp_path / "spool"), SpoolFile(tmp_path / "spool")
    one.write(b"RIFF")

    assert one.path.read_bytes() == b"RIFF"
    assert one.size == 4
    assert one.path.name != other.path.name
    assert one.path.stat().st_mode & 0o777 == 0o600
    assert one.path.parent.stat().st_mode & 0o777 == 0o700


def test_an_upload_can_be_removed_twice_and_leaves_no_open_file(tmp_path: Path) -> None:
    open_before = num_open_files()
    upload = SpoolFile(tmp_path)

    upload.remove()
    upload.remove()

    assert list(tmp_path.iterdir()) == []
    assert num_open_files() == open_before


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_told_as_such(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def full(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "open", full)

    with pytest.raises(StorageFull):
        SpoolFile(tmp_path)


def test_a_disk_that_fills_up_while_writing_is_told_as_such() -> None:
    upload = SpoolFile.__new__(SpoolFile)
    # Linux's device for exactly this: every write fails with ENOSPC.
    upload._file = open("/dev/full", "wb")  # noqa: SIM115, PTH123 - closed by remove
    upload.path = Path("/nonexistent")

    with pytest.raises(StorageFull):
        upload.write(b"RIFF")
    upload.remove()

    assert upload._file.closed


def test_a_folder_that_fails_in_another_way_is_unavailable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_descriptors(*_: object) -> int:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(os, "open", no_descriptors)

    with pytest.raises(Unavailable):
        SpoolFile(tmp_path)


def test_room_is_what_is_free_now(tmp_path: Path) -> None:
    assert has_room(tmp_path, 1)
    assert not has_room(tmp_path, 2**62)


def test_a_folder_yet_to_be_made_has_room(tmp_path: Path) -> None:
    assert has_room(tmp_path / "absent", 2**62)


def test_a_sweep_removes_what_a_killed_server_left_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "0123.upload").write_bytes(b"left behind")
    (tmp_path / "notes.txt").write_bytes(b"somebody's")
    in_use = SpoolFile(tmp_path)

    removed = sweep(tmp_path)

    assert removed == 1
    assert {path.name for path in tmp_path.iterdir()} == {"notes.txt", in_use.path.name}


def test_a_sweep_follows_no_link_out_of_the_folder(tmp_path: Path) -> None:
    outside = tmp_path / "outside.txt"
    outside.write_text("mine")
    spool = tmp_path / "spool"
    spool.mkdir()
    (spool / "link.upload").symlink_to(outside)

    sweep(spool)

    assert outside.read_text() == "mine"


def test_a_sweep_makes_the_folder(tmp_path: Path) -> None:
    sweep(tmp_path / "data" / "spool")

    assert (tmp_path / "data" / "spool").is_dir()


def test_a_folder_that_cannot_be_used_is_refused_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")

    with pytest.raises(ConfigurationError, match="SPOOL_DIR"):
        sweep(tmp_path / "file")
