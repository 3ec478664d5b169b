"""A job's file is on disk, or its sender is told why not."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from simple_asr.errors import StorageFull, Unavailable
from simple_asr.service.job_files import FolderFiles


def test_a_file_from_another_disk_is_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    media = tmp_path / "an.upload"
    media.write_bytes(b"RIFF")
    rename = Path.rename

    def rename_on_one_disk(path: Path, target: Path) -> Path:
        if path == media:
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", rename_on_one_disk)
    files = FolderFiles(tmp_path / "jobs")

    files.adopt(media, "a")

    assert files.path("a").read_bytes() == b"RIFF"
    assert list(files.folder.iterdir()) == [files.path("a")]


@pytest.mark.parametrize(
    ("number", "expected"),
    [(errno.ENOSPC, StorageFull), (errno.EDQUOT, StorageFull), (errno.EIO, Unavailable)],
)
def test_a_file_the_disk_does_not_take_is_refused_for_that_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, expected: type[Exception]
) -> None:
    media = tmp_path / "an.upload"
    media.write_bytes(b"RIFF")

    def fail(_: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fail)

    with pytest.raises(expected):
        FolderFiles(tmp_path).adopt(media, "a")
