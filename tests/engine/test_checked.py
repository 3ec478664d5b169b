"""The record of checked files: it survives a restart, and anything odd in it counts as nothing."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from simple_asr.engine.checked import RECORD, CheckedFile, read_record, sha256_of, write_record


def test_what_was_written_is_read_again(tmp_path: Path) -> None:
    record = {"model.bin": CheckedFile(num_bytes=3, mtime_ns=5, sha256="ab")}

    write_record(tmp_path, record)

    assert read_record(tmp_path) == record
    assert [path.name for path in tmp_path.iterdir()] == [RECORD]


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", '{"model.bin": 1}', '{"model.bin": {"sha256": "ab"}}', "\udcff"]
)
def test_an_unreadable_record_is_no_record(tmp_path: Path, text: str) -> None:
    (tmp_path / RECORD).write_bytes(text.encode("utf-8", "surrogateescape"))

    assert read_record(tmp_path) == {}


def test_a_folder_never_checked_has_no_record(tmp_path: Path) -> None:
    assert read_record(tmp_path) == {}


def test_a_file_that_was_touched_is_not_the_file_checked(tmp_path: Path) -> None:
    path = tmp_path / "model.bin"
    path.write_bytes(b"weights")
    before = CheckedFile.now(path, "ab")

    path.write_bytes(b"changed weights")

    assert CheckedFile.now(path, "ab") != before


def test_the_digest_is_of_the_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "model.bin"
    content = b"0123456789" * 300_000
    path.write_bytes(content)

    assert sha256_of(path) == hashlib.sha256(content).hexdigest()
