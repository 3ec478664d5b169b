"""The ggml file of a small random model, read back: header, vocabulary and every tensor."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks.ggml_weights import ggml_file
from benchmarks.openai_weights import state_dict
from benchmarks.random_weights import Shape, write_random_model
from simple_asr.audio.features import mel_filters
from simple_asr.engine.tokens import Tokenizer
from simple_asr.engine.weights import read_variables

SMALL = Shape(n_mels=80, width=64, num_heads=2, num_encoder_layers=1, num_decoder_layers=3)


@dataclass(frozen=True)
class Ggml:
    """What a ggml file of Whisper holds."""

    header: tuple[int, ...]
    filters: NDArray[np.float32]
    words: list[bytes]
    tensors: dict[str, NDArray[Any]]


@pytest.fixture(scope="module")
def model(base_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "small"
    write_random_model(SMALL, folder, like=base_model)
    return folder


@pytest.fixture(scope="module")
def written(model: Path) -> Ggml:
    with ggml_file(model).open("rb") as file:
        return _read(file)


def test_the_header_gives_the_models_dimensions(written: Ggml) -> None:
    magic, *sizes, file_type = written.header

    assert magic == int.from_bytes(b"ggml", "big")
    assert sizes == [51865, 1500, 64, 2, 1, 448, 64, 2, 3, 80]
    assert file_type == 1


def test_the_mel_filters_are_ours(written: Ggml) -> None:
    assert np.array_equal(written.filters, mel_filters(80))


def test_the_words_are_those_of_the_tokenizer(written: Ggml, tokenizer: Tokenizer) -> None:
    text = "Ich höre, «привет» 你好 🎙\n"

    spelled = b"".join(written.words[token] for token in tokenizer.encode(text))

    assert spelled.decode() == text
    assert len(written.words) == tokenizer.eot


def test_every_tensor_is_the_models(written: Ggml, model: Path) -> None:
    weights = state_dict(read_variables(model / "model.bin"))

    assert written.tensors.keys() == weights.keys()
    for name, values in weights.items():
        assert np.array_equal(written.tensors[name].reshape(values.shape), values), name


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("encoder.conv1.weight", np.float16),
        ("decoder.token_embedding.weight", np.float16),
        ("decoder.blocks.2.cross_attn.key.weight", np.float16),
        ("encoder.blocks.0.mlp.0.bias", np.float32),
        ("encoder.ln_post.weight", np.float32),
        ("encoder.conv2.bias", np.float32),
        ("decoder.positional_embedding", np.float32),
    ],
)
def test_matrices_are_halved_and_vectors_and_positions_are_not(
    written: Ggml, name: str, dtype: type
) -> None:
    assert written.tensors[name].dtype == dtype


def test_biases_of_convolutions_are_columns(written: Ggml) -> None:
    assert written.tensors["encoder.conv1.bias"].shape == (64, 1)
    assert written.tensors["encoder.conv2.bias"].shape == (64, 1)


def test_a_file_is_written_once(model: Path) -> None:
    first = ggml_file(model).stat()

    again = ggml_file(model).stat()

    assert (again.st_ino, again.st_mtime_ns) == (first.st_ino, first.st_mtime_ns)


def _read(file: BinaryIO) -> Ggml:
    header = _numbers(file, 12)
    n_mels, n_bins = _numbers(file, 2)
    filters = np.frombuffer(file.read(4 * n_mels * n_bins), "<f4").reshape(n_mels, n_bins)
    (num_words,) = _numbers(file, 1)
    words = [file.read(*_numbers(file, 1)) for _ in range(num_words)]
    tensors = {}
    while start := file.read(12):
        num_dimensions, name_length, type_id = struct.unpack("<3i", start)
        shape = _numbers(file, num_dimensions)[::-1]
        name = file.read(name_length).decode()
        dtype = np.dtype(("<f4", "<f2")[type_id])
        values = np.frombuffer(file.read(dtype.itemsize * int(np.prod(shape))), dtype)
        tensors[name] = values.reshape(shape)
    return Ggml(header, filters, words, tensors)


def _numbers(file: BinaryIO, count: int) -> tuple[int, ...]:
    return struct.unpack(f"<{count}i", file.read(4 * count))
