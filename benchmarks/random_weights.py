"""Random weights in a published model's shape: as fast as the real ones, and saying nothing.

    python -m benchmarks.random_weights large-v3 FOLDER --like .cache/models/base

Vocabulary and tokenizer are those of the multilingual model in `--like`, so large-v3 is one token
short.
"""

from __future__ import annotations

import argparse
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ctranslate2.specs import WhisperSpec
from numpy.typing import NDArray

_N_AUDIO_CONTEXT = 1500
_N_TEXT_CONTEXT = 448


@dataclass(frozen=True)
class Shape:
    """Source: openai/whisper, the dimensions stored in each published checkpoint."""

    n_mels: int
    width: int
    num_heads: int
    num_encoder_layers: int
    num_decoder_layers: int


SHAPES = {
    "tiny": Shape(80, 384, 6, 4, 4),
    "base": Shape(80, 512, 8, 6, 6),
    "small": Shape(80, 768, 12, 12, 12),
    "medium": Shape(80, 1024, 16, 24, 24),
    "large-v3": Shape(128, 1280, 20, 32, 32),
    "turbo": Shape(128, 1280, 20, 32, 4),
}


def write_random_model(shape: Shape, folder: Path, like: Path) -> None:
    """Writes a CTranslate2 model of `shape` in float16, with the vocabulary of the model `like`."""
    vocabulary = (like / "vocabulary.txt").read_text("utf-8").removesuffix("\n").split("\n")
    spec = _random_spec(shape, len(vocabulary))
    spec.register_vocabulary(vocabulary)
    config = json.loads((like / "config.json").read_text())
    for name in ("suppress_ids", "suppress_ids_begin", "lang_ids"):
        setattr(spec.config, name, config[name])
    spec.config.alignment_heads = [[shape.num_decoder_layers - 1, head] for head in range(6)]
    spec.validate()
    folder.mkdir(parents=True, exist_ok=True)
    spec.save(str(folder))
    shutil.copy(like / "tokenizer.json", folder)
    # faster-whisper reads the number of mel bands here.
    (folder / "preprocessor_config.json").write_text(json.dumps({"feature_size": shape.n_mels}))


def _random_spec(shape: Shape, num_tokens: int) -> Any:
    spec = WhisperSpec(
        shape.num_encoder_layers, shape.num_heads, shape.num_decoder_layers, shape.num_heads
    )
    weights = _Weights()
    width = shape.width
    encoder, decoder = spec.encoder, spec.decoder
    weights.linear(encoder.conv1, width, shape.n_mels, 3)
    weights.linear(encoder.conv2, width, width, 3)
    encoder.position_encodings.encodings = weights.matrix(_N_AUDIO_CONTEXT, width)
    weights.norm(encoder.layer_norm, width)
    for layer in encoder.layer:
        weights.attention(layer.self_attention, width, num_inputs=1)
        weights.feed_forward(layer.ffn, width)
    decoder.embeddings.weight = weights.matrix(num_tokens, width)
    decoder.projection.weight = decoder.embeddings.weight
    decoder.position_encodings.encodings = weights.matrix(_N_TEXT_CONTEXT, width)
    weights.norm(decoder.layer_norm, width)
    for layer in decoder.layer:
        weights.attention(layer.self_attention, width, num_inputs=1)
        weights.attention(layer.attention, width, num_inputs=2)
        weights.feed_forward(layer.ffn, width)
    return spec


class _Weights:
    """Fills the parts of a specification in place."""

    def __init__(self) -> None:
        self._generator = np.random.default_rng(0)

    def matrix(self, *shape: int) -> NDArray[np.float16]:
        """Small enough that activations neither grow nor vanish over the layers."""
        scale = shape[-1] ** -0.5
        values: NDArray[np.float32] = self._generator.standard_normal(shape, np.float32) * scale
        return values.astype(np.float16)

    def linear(self, layer: Any, *shape: int) -> None:
        layer.weight = self.matrix(*shape)
        layer.bias = np.zeros(shape[0], np.float16)

    def norm(self, layer: Any, width: int) -> None:
        layer.gamma = np.ones(width, np.float16)
        layer.beta = np.zeros(width, np.float16)

    def attention(self, layer: Any, width: int, *, num_inputs: int) -> None:
        """One matrix for what has one input: queries, keys and values, or keys and values."""
        rows = [3 * width, width] if num_inputs == 1 else [width, 2 * width, width]
        for linear, num_rows in zip(layer.linear, rows, strict=True):
            self.linear(linear, num_rows, width)
        self.norm(layer.layer_norm, width)

    def feed_forward(self, layer: Any, width: int) -> None:
        self.linear(layer.linear_0, 4 * width, width)
        self.linear(layer.linear_1, width, 4 * width)
        self.norm(layer.layer_norm, width)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("model", choices=SHAPES)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--like", type=Path, required=True, help="a multilingual model's folder")
    arguments = parser.parse_args()
    write_random_model(SHAPES[arguments.model], arguments.folder, arguments.like)


if __name__ == "__main__":
    main()
