"""Turns a CTranslate2 Whisper model back into one openai-whisper runs: the same weights, float32.

Comparing two implementations says something only when both hold the same numbers, and weights
published in CTranslate2's format were rounded on the way there. Layout read from CTranslate2 4.8,
python/ctranslate2/specs/model_spec.py (`ModelSpec._serialize`) and whisper_spec.py.
"""

from __future__ import annotations

import argparse
import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
import whisper
from numpy.typing import NDArray

Variables = dict[str, NDArray[Any]]
Weights = dict[str, NDArray[np.float32]]

_BINARY_VERSION = 6
# In the order of CTranslate2's DataType. bfloat16 has no NumPy type and is read as its bits.
_BFLOAT16 = 5
_DTYPES = tuple(np.dtype(name) for name in ("<f4", "i1", "<i2", "<i4", "<f2", "<u2"))
_GELU = 3  # of CTranslate2's Activation: the exact one, as in openai-whisper


def load(folder: Path) -> whisper.Whisper:
    """openai-whisper's model with the weights of the CTranslate2 model in `folder`, on the CPU."""
    weights = state_dict(read_variables(folder / "model.bin"))
    model = whisper.model.Whisper(whisper.model.ModelDimensions(**dimensions(folder)))
    model.load_state_dict({name: torch.from_numpy(value) for name, value in weights.items()})
    heads = torch.zeros(model.dims.n_text_layer, model.dims.n_text_head, dtype=torch.bool)
    for layer, head in alignment_heads(folder):
        heads[layer, head] = True
    model.register_buffer("alignment_heads", heads.to_sparse(), persistent=False)
    return model.eval()


def save(folder: Path, path: Path) -> None:
    """Writes a checkpoint for `whisper.load_model(str(path))`.

    openai-whisper knows the alignment heads of its own downloads by name and takes half of all
    heads for any other file, so word times need `load`; the heads are in the checkpoint too.
    """
    checkpoint = {
        "dims": dimensions(folder),
        "model_state_dict": {
            name: torch.from_numpy(value)
            for name, value in state_dict(read_variables(folder / "model.bin")).items()
        },
        "alignment_heads": alignment_heads(folder),
    }
    torch.save(checkpoint, path)


def dimensions(folder: Path) -> dict[str, int]:
    """openai-whisper's `ModelDimensions`, read from the shapes of the weights."""
    variables = read_variables(folder / "model.bin")
    n_audio_state, n_mels, _ = variables["encoder/conv1/weight"].shape
    n_vocab, n_text_state = variables["decoder/embeddings/weight"].shape
    return {
        "n_mels": n_mels,
        "n_audio_ctx": len(variables["encoder/position_encodings/encodings"]),
        "n_audio_state": n_audio_state,
        "n_audio_head": int(variables["encoder/num_heads"]),
        "n_audio_layer": _num_layers(variables, "encoder"),
        "n_vocab": n_vocab,
        "n_text_ctx": len(variables["decoder/position_encodings/encodings"]),
        "n_text_state": n_text_state,
        "n_text_head": int(variables["decoder/num_heads"]),
        "n_text_layer": _num_layers(variables, "decoder"),
    }


def alignment_heads(folder: Path) -> list[tuple[int, int]]:
    """(layer, head) of each cross-attention head that follows the speech."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return [(layer, head) for layer, head in config["alignment_heads"]]


# CTranslate2's file ------------------------------------------------------------------------------


def read_variables(path: Path) -> Variables:
    """Every variable of a `model.bin` by its name, as stored. Raises ValueError for other files."""
    with path.open("rb") as file:
        version = _number(file, "I")
        name, revision = _text(file), _number(file, "I")
        if version != _BINARY_VERSION or name != "WhisperSpec":
            raise ValueError(
                f"{path} holds {name!r} in version {version} of CTranslate2's format; this tool "
                f"reads 'WhisperSpec' in version {_BINARY_VERSION}. Convert the model again."
            )
        assert revision == 3, f"Revision {revision} of the Whisper specification is not known here"
        variables = dict(_variable(file) for _ in range(_number(file, "I")))
        for _ in range(_number(file, "I")):
            alias, original = _text(file), _text(file)
            variables[alias] = variables[original]
    return variables


def _variable(file: BinaryIO) -> tuple[str, NDArray[Any]]:
    name = _text(file)
    shape = tuple(_number(file, "I") for _ in range(_number(file, "B")))
    type_id = _number(file, "B")
    values = np.frombuffer(file.read(_number(file, "I")), dtype=_DTYPES[type_id]).reshape(shape)
    if type_id == _BFLOAT16:
        values = (values.astype(np.uint32) << 16).view(np.float32)
    return name, values


def _number(file: BinaryIO, kind: str) -> int:
    layout = struct.Struct(f"<{kind}")
    (number,) = layout.unpack(file.read(layout.size))
    return int(number)


def _text(file: BinaryIO) -> str:
    return file.read(_number(file, "H"))[:-1].decode()  # ends with a zero byte


# openai-whisper's names --------------------------------------------------------------------------


def state_dict(variables: Variables) -> Weights:
    """CTranslate2's variables under openai-whisper's names, dequantised to float32."""
    if int(variables["decoder/activation"]) != _GELU:
        raise ValueError("The decoder of this model has another activation than openai-whisper's.")
    weights = {
        "encoder.positional_embedding": _plain(variables, "encoder/position_encodings/encodings"),
        "decoder.positional_embedding": _plain(variables, "decoder/position_encodings/encodings"),
        "decoder.token_embedding.weight": _plain(variables, "decoder/embeddings/weight"),
        **_linear(variables, "encoder/conv1", "encoder.conv1"),
        **_linear(variables, "encoder/conv2", "encoder.conv2"),
        **_norm(variables, "encoder/layer_norm", "encoder.ln_post"),
        **_norm(variables, "decoder/layer_norm", "decoder.ln"),
    }
    for part in ("encoder", "decoder"):
        for index in range(_num_layers(variables, part)):
            weights.update(_block(variables, f"{part}/layer_{index}", f"{part}.blocks.{index}"))
    return weights


def _num_layers(variables: Variables, part: str) -> int:
    return len(
        {name.split("/")[1] for name in variables if name.startswith(f"{part}/layer_")}
        - {"layer_norm"}
    )


def _block(variables: Variables, source: str, target: str) -> Iterator[tuple[str, Any]]:
    """One transformer layer. CTranslate2 keeps projections of the same input in one matrix."""
    yield from _norm(variables, f"{source}/self_attention/layer_norm", f"{target}.attn_ln").items()
    fused = f"{source}/self_attention/linear_0"
    yield from _projections(variables, fused, f"{target}.attn", ("query", "key", "value"))
    out = f"{source}/self_attention/linear_1"
    yield from _linear(variables, out, f"{target}.attn.out").items()

    if f"{source}/attention/linear_0/weight" in variables:
        cross, name = f"{source}/attention", f"{target}.cross_attn"
        yield from _norm(variables, f"{cross}/layer_norm", f"{name}_ln").items()
        yield from _projections(variables, f"{cross}/linear_0", name, ("query",))
        yield from _projections(variables, f"{cross}/linear_1", name, ("key", "value"))
        yield from _linear(variables, f"{cross}/linear_2", f"{name}.out").items()

    yield from _norm(variables, f"{source}/ffn/layer_norm", f"{target}.mlp_ln").items()
    yield from _linear(variables, f"{source}/ffn/linear_0", f"{target}.mlp.0").items()
    yield from _linear(variables, f"{source}/ffn/linear_1", f"{target}.mlp.2").items()


def _projections(
    variables: Variables, source: str, target: str, names: tuple[str, ...]
) -> Iterator[tuple[str, NDArray[np.float32]]]:
    weights = np.split(_plain(variables, f"{source}/weight"), len(names))
    biases = np.split(_plain(variables, f"{source}/bias"), len(names))
    for name, weight, bias in zip(names, weights, biases, strict=True):
        yield f"{target}.{name}.weight", weight
        if name != "key":
            yield f"{target}.{name}.bias", bias
        else:
            assert not bias.any(), "Whisper's keys have no bias"


def _linear(variables: Variables, source: str, target: str) -> Weights:
    return {
        f"{target}.weight": _plain(variables, f"{source}/weight"),
        f"{target}.bias": _plain(variables, f"{source}/bias"),
    }


def _norm(variables: Variables, source: str, target: str) -> Weights:
    return {
        f"{target}.weight": _plain(variables, f"{source}/gamma"),
        f"{target}.bias": _plain(variables, f"{source}/beta"),
    }


def _plain(variables: Variables, name: str) -> NDArray[np.float32]:
    """A variable in float32; an integer one is divided by its scale, one for each row."""
    values = variables[name].astype(np.float32)
    scale = variables.get(f"{name}_scale")
    if scale is not None:
        values /= scale.reshape(-1, *[1] * (values.ndim - 1)).astype(np.float32)
    return values


def checkpoint(folder: Path) -> Path:
    """The checkpoint of a model's folder, written beside its files the first time."""
    path = folder.with_suffix(".pt")
    if not path.exists():
        save(folder, path)
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path, help="folder with model.bin and config.json")
    parser.add_argument("checkpoint", type=Path, help="the .pt file to write")
    arguments = parser.parse_args()
    save(arguments.model, arguments.checkpoint)
    print(f"{arguments.checkpoint}: whisper.load_model reads it by this path")


if __name__ == "__main__":
    main()
