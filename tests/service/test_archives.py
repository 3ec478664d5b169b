"""Zips of every kind, the hostile ones too."""

from __future__ import annotations

import io
import struct
import tracemalloc
import zipfile
from pathlib import Path

import pytest

from simple_asr.errors import InvalidArchive, PayloadTooLarge
from simple_asr.service.archives import ENTRY_BYTES, ArchiveLimits, opened

LIMITS = ArchiveLimits(max_members=10, max_member_bytes=1000, max_bytes=2000)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "recordings.zip"


def packed(file: Path, *members: tuple[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, content in members:
            archive.writestr(zipfile.ZipInfo(name), content, method)
    return file


def unpacked(file: Path, limits: ArchiveLimits = LIMITS) -> list[tuple[str, bytes]]:
    with opened(file, limits) as archive:
        return [
            (name, b"".join(archive.chunks(number))) for number, name in enumerate(archive.names)
        ]


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_recordings_come_out_as_they_went_in(file: Path, method: int) -> None:
    members = [("b.wav", b"RIFF"), ("folder/a.mp3", bytes(999)), ("пример.ogg", b"OggS")]

    assert unpacked(packed(file, *members, method=method)) == members


def test_a_zip_with_something_before_it_is_read(file: Path) -> None:
    packed(file, ("a.wav", b"RIFF"))
    file.write_bytes(b"#!/bin/sh\n" + file.read_bytes())

    assert unpacked(file) == [("a.wav", b"RIFF")]


def test_folders_and_what_desktops_leave_are_no_recordings(file: Path) -> None:
    packed(
        file,
        ("folder/", b""),
        ("folder/a.wav", b"RIFF"),
        ("folder/.DS_Store", b"x"),
        ("__MACOSX/folder/._a.wav", b"x"),
    )

    assert unpacked(file) == [("folder/a.wav", b"RIFF")]


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("../../etc/passwd", "../../etc/passwd"),
        ("/etc/passwd", "/etc/passwd"),
        ("C:\\a.wav", "C:\\a.wav"),
        ("a\nb\x1b[31m.wav", "a\\nb\\x1b[31m.wav"),
        (300 * "a", 254 * "a" + "…"),
    ],
)
def test_a_name_is_shown_and_never_used(file: Path, tmp_path: Path, name: str, shown: str) -> None:
    packed(file, (name, b"RIFF"))

    assert unpacked(file) == [(shown, b"RIFF")]
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize(
    ("members", "text"),
    [
        ([(f"{number}.wav", b"") for number in range(11)], "MAX_BATCH_JOBS"),
        ([("a.wav", bytes(1001))], "MAX_UPLOAD_BYTES"),
        ([("a.wav", bytes(1000)), ("b.wav", bytes(1000)), ("c.wav", b"x")], "MAX_BATCH_BYTES"),
    ],
)
def test_more_than_the_limits_is_refused_before_anything_is_unpacked(
    file: Path, members: list[tuple[str, bytes]], text: str
) -> None:
    packed(file, *members)

    with pytest.raises(PayloadTooLarge, match=text):
        unpacked(file)


def test_a_bomb_is_refused_by_what_it_would_become(file: Path) -> None:
    packed(file, ("a.wav", bytes(100_000_000)))

    with pytest.raises(PayloadTooLarge, match="100000000 bytes"):
        unpacked(file)

    assert file.stat().st_size < 100_000


def test_a_bomb_that_lies_about_its_size_gives_no_more_than_it_says(file: Path) -> None:
    packed(file, ("a.wav", bytes(1_000_000)))
    size = struct.pack("<I", 1_000_000)
    lie = struct.pack("<I", 10)
    file.write_bytes(file.read_bytes().replace(size, lie))
    received: list[bytes] = []

    with opened(file, LIMITS) as archive, pytest.raises(InvalidArchive):
        received.extend(archive.chunks(0))

    assert sum(map(len, received)) <= 10


def test_members_that_share_their_bytes_count_each(file: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a.wav", bytes(900))
        archive.filelist += [archive.filelist[0], archive.filelist[0]]
    file.write_bytes(buffer.getvalue())

    with pytest.raises(PayloadTooLarge, match="MAX_BATCH_BYTES"):
        unpacked(file)


def test_a_table_of_contents_without_end_is_not_read(file: Path) -> None:
    limits = ArchiveLimits(max_members=300, max_member_bytes=1000, max_bytes=2000)
    packed(file, *((f"{number}.wav", b"") for number in range(20_000)))
    tracemalloc.start()

    with pytest.raises(PayloadTooLarge, match="more than 300"):
        unpacked(file, limits)

    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 2 * ENTRY_BYTES * limits.max_members


def test_an_encrypted_recording_is_refused(file: Path) -> None:
    packed(file, ("a.wav", b"RIFF"))
    content = bytearray(file.read_bytes())
    content[content.index(b"PK\1\2") + 8] |= 1
    file.write_bytes(content)

    with pytest.raises(InvalidArchive, match="encrypted"):
        unpacked(file)


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_ways_to_compress_that_know_no_bound_are_refused(file: Path, method: int) -> None:
    packed(file, ("a.wav", b"RIFF"), method=method)

    with pytest.raises(InvalidArchive, match="deflate"):
        unpacked(file)


@pytest.mark.parametrize("content", [b"PK\3\4...", b"PK\5\6...", b"\x1f\x8b...", b"Rar!..."])
def test_an_archive_in_the_archive_is_refused(file: Path, content: bytes) -> None:
    packed(file, ("a.zip", content))

    with pytest.raises(InvalidArchive, match="an archive itself"):
        unpacked(file)


def test_an_archive_without_recordings_is_refused(file: Path) -> None:
    with pytest.raises(InvalidArchive, match="no file"):
        unpacked(packed(file, ("folder/", b"")))


@pytest.mark.parametrize("content", [b"", b"RIFF", b"PK\3\4", b"PK\5\6" + bytes(18) + b"more"])
def test_what_is_no_zip_is_refused(file: Path, content: bytes) -> None:
    file.write_bytes(content)

    with pytest.raises(InvalidArchive):
        unpacked(file)


def test_a_zip_that_is_cut_or_changed_anywhere_is_refused_or_read(file: Path) -> None:
    packed(file, ("a.wav", b"RIFF" * 50), ("b.wav", bytes(100)))
    whole = file.read_bytes()

    for place in range(len(whole)):
        for damaged in (
            whole[:place],
            whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :],
        ):
            file.write_bytes(damaged)
            try:
                members = unpacked(file)
            except (InvalidArchive, PayloadTooLarge):
                continue
            assert all(len(content) in (100, 200) for _, content in members)
