"""Turns a CTranslate2 Whisper model into a file whisper.cpp loads: the same weights, in float16.

The format is that of whisper.cpp 1.8.5, src/whisper.cpp (`whisper_model_load`): little-endian
numbers of 32 bits, sizes before what they count.
"""

from __future__ import annotations

import json
import struct
from operator import itemgetter
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from benchmarks.openai_weights import dimensions, state_dict
from simple_asr.audio.features import mel_filters
from simple_asr.engine.weights import read_variables

_MAGIC = 0x67676D6C  # "ggml"
_SIZES = (
    "n_vocab",
    "n_audio_ctx",
    "n_audio_state",
    "n_audio_head",
    "n_audio_layer",
    "n_text_ctx",
    "n_text_state",
    "n_text_head",
    "n_text_layer",
    "n_mels",
)
"""The model's dimensions in the order of the file, by openai-whisper's names."""

# Of ggml's types. The header has one for the whole file: that of its matrices.
_FLOAT32, _FLOAT16 = 0, 1


def ggml_file(folder: Path) -> Path:
    """The file of a model's folder, written beside it the first time."""
    path = folder.with_name(f"{folder.name}.ggml")
    if not path.exists():
        unfinished = path.with_suffix(".unfinished")
        save(folder, unfinished)
        unfinished.replace(path)
    return path


def save(folder: Path, path: Path) -> None:
    """Writes the model in `folder` to `path`."""
    sizes = dimensions(folder)
    with path.open("wb") as file:
        _write_numbers(file, _MAGIC, *(sizes[name] for name in _SIZES), _FLOAT16)
        filters = mel_filters(sizes["n_mels"])
        _write_numbers(file, *filters.shape)
        file.write(filters.astype("<f4").tobytes())
        words = vocabulary(folder)
        _write_numbers(file, len(words))
        for word in words:
            _write_numbers(file, len(word))
            file.write(word)
        for name, values in state_dict(read_variables(folder / "model.bin")).items():
            _write_tensor(file, name, values)


def vocabulary(folder: Path) -> list[bytes]:
    """What each token of text stands for, by its number; whisper.cpp knows the others itself."""
    tokenizer = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    ids: dict[str, int] = tokenizer["model"]["vocab"]
    byte_of = _byte_of_character()
    return [
        bytes(byte_of[character] for character in spelling)
        for spelling, token in sorted(ids.items(), key=itemgetter(1))
        if token < ids["<|endoftext|>"]
    ]


def _byte_of_character() -> dict[str, int]:
    """How GPT-2's vocabulary spells bytes: those that Latin-1 prints as they are, others above."""
    printed = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = sorted(set(range(0x100)) - set(printed))
    return {chr(byte): byte for byte in printed} | {
        chr(0x100 + place): byte for place, byte in enumerate(others)
    }


def _write_tensor(file: BinaryIO, name: str, values: NDArray[np.float32]) -> None:
    """Matrices in float16; vectors and positions in float32, as whisper.cpp expects each."""
    is_matrix = name.endswith(".weight") and values.ndim > 1
    if name in ("encoder.conv1.bias", "encoder.conv2.bias"):
        values = values[:, np.newaxis]  # added to the output of a convolution, (channels, frames)
    encoded_name = name.encode()
    _write_numbers(file, values.ndim, len(encoded_name), _FLOAT16 if is_matrix else _FLOAT32)
    _write_numbers(file, *reversed(values.shape))
    file.write(encoded_name)
    file.write(values.astype("<f2" if is_matrix else "<f4").tobytes())


def _write_numbers(file: BinaryIO, *numbers: int) -> None:
    file.write(struct.pack(f"<{len(numbers)}i", *numbers))
