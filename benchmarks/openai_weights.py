"""Turns a CTranslate2 Whisper model back into one openai-whisper runs: the same weights, float32.

Comparing two implementations says something only when both hold the same numbers, and weights
published in CTranslate2's format were rounded on the way there.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from simple_asr.engine.weights import Variables, num_layers, plain, read_variables

if TYPE_CHECKING:
    import whisper

Weights = dict[str, NDArray[np.float32]]

_GELU = 3  # of CTranslate2's Activation: the exact one, as in openai-whisper


def load(folder: Path) -> whisper.Whisper:
    """openai-whisper's model with the weights of the CTranslate2 model in `folder`, on the CPU."""
    import torch  # noqa: PLC0415  (what only reads the weights does without)
    import whisper  # noqa: PLC0415

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
    import torch  # noqa: PLC0415

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
        "n_audio_layer": num_layers(variables, "encoder"),
        "n_vocab": n_vocab,
        "n_text_ctx": len(variables["decoder/position_encodings/encodings"]),
        "n_text_state": n_text_state,
        "n_text_head": int(variables["decoder/num_heads"]),
        "n_text_layer": num_layers(variables, "decoder"),
    }


def alignment_heads(folder: Path) -> list[tuple[int, int]]:
    """(layer, head) of each cross-attention head that follows the speech."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return [(layer, head) for layer, head in config["alignment_heads"]]


# openai-whisper's names --------------------------------------------------------------------------


def state_dict(variables: Variables) -> Weights:
    """CTranslate2's variables under openai-whisper's names, dequantised to float32."""
    if int(variables["decoder/activation"]) != _GELU:
        raise ValueError("The decoder of this model has another activation than openai-whisper's.")
    weights = {
        "encoder.positional_embedding": plain(variables, "encoder/position_encodings/encodings"),
        "decoder.positional_embedding": plain(variables, "decoder/position_encodings/encodings"),
        "decoder.token_embedding.weight": plain(variables, "decoder/embeddings/weight"),
        **_linear(variables, "encoder/conv1", "encoder.conv1"),
        **_linear(variables, "encoder/conv2", "encoder.conv2"),
        **_norm(variables, "encoder/layer_norm", "encoder.ln_post"),
        **_norm(variables, "decoder/layer_norm", "decoder.ln"),
    }
    for part in ("encoder", "decoder"):
        for index in range(num_layers(variables, part)):
            weights.update(_block(variables, f"{part}/layer_{index}", f"{part}.blocks.{index}"))
    return weights


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
    weights = np.split(plain(variables, f"{source}/weight"), len(names))
    biases = np.split(plain(variables, f"{source}/bias"), len(names))
    for name, weight, bias in zip(names, weights, biases, strict=True):
        yield f"{target}.{name}.weight", weight
        if name != "key":
            yield f"{target}.{name}.bias", bias
        else:
            assert not bias.any(), "Whisper's keys have no bias"


def _linear(variables: Variables, source: str, target: str) -> Weights:
    return {
        f"{target}.weight": plain(variables, f"{source}/weight"),
        f"{target}.bias": plain(variables, f"{source}/bias"),
    }


def _norm(variables: Variables, source: str, target: str) -> Weights:
    return {
        f"{target}.weight": plain(variables, f"{source}/gamma"),
        f"{target}.bias": plain(variables, f"{source}/beta"),
    }


def checkpoint(folder: Path) -> Path:
    """The checkpoint of a model's folder, written beside its files the first time."""
    path = folder.with_name(f"{folder.name}.pt")
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
