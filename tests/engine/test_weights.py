"""CTranslate2's file of weights, read without the library."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from simple_asr.engine.weights import Variables, num_layers, plain, read_variables


@pytest.mark.weights
def test_base_has_the_shapes_of_base(base_model: Path) -> None:
    variables = read_variables(base_model / "model.bin")

    assert num_layers(variables, "encoder") == num_layers(variables, "decoder") == 6
    assert variables["decoder/embeddings/weight"].shape == (51865, 512)
    assert plain(variables, "decoder/position_encodings/encodings").shape == (448, 512)


def test_integers_are_divided_by_the_scale_of_their_row() -> None:
    variables: Variables = {
        "matrix": np.array([[2, -4], [30, 10]], np.int8),
        "matrix_scale": np.array([2, 10], np.float32),
    }

    assert plain(variables, "matrix").tolist() == [[1, -2], [3, 1]]


@pytest.mark.parametrize("content", [b"", b"not a model", b"\x06\0\0\0\x05\0Else\0\x03\0\0\0"])
def test_other_files_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.bin"
    path.write_bytes(content)

    with pytest.raises(ValueError, match=r"cannot be read"):
        read_variables(path)


@pytest.mark.weights
def test_a_file_cut_short_is_refused(tmp_path: Path, base_model: Path) -> None:
    path = tmp_path / "model.bin"
    with (base_model / "model.bin").open("rb") as whole:
        path.write_bytes(whole.read(1_000_000))

    with pytest.raises(ValueError, match="cannot be read"):
        read_variables(path)
