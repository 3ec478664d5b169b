"""Whisper's text decoder on a CPU: what may follow the tokens written so far."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnxruntime import OrtValue

from simple_asr.engine.backends.decoder_graph import (
    HEAD_WIDTH,
    DecoderGraph,
    DecoderWeights,
    cross_names,
    hearing_graph,
    past_names,
    present_names,
    quantized,
    step_graph,
)
from simple_asr.engine.rules import Logits
from simple_asr.engine.weights import plain, read_variables

_GELU = 3  # of CTranslate2's Activation: the exact one, as in openai-whisper


@dataclass(frozen=True, slots=True)
class Threads:
    """How many work on a step: `together` for a caller who is alone, `side_by_side` for others.

    `is_alone` tells, as a step begins, whether its caller is.
    """

    side_by_side: int = 1
    together: int = 1
    is_alone: Callable[[], bool] = lambda: False

    def now(self) -> int:
        """Those of a step that begins."""
        return self.together if self.is_alone() else self.side_by_side


_ONE_THREAD = Threads()


class Decoder:
    """The weights of one model's decoder. Any thread may ask."""

    def __init__(self, folder: Path, *, is_quantized: bool, threads: Threads = _ONE_THREAD) -> None:
        """Reads the `model.bin` in `folder`. Raises ValueError for a file of an unknown kind."""
        variables = read_variables(folder / "model.bin")
        if int(variables["decoder/activation"]) != _GELU:
            raise ValueError("Its decoder has another activation than openai-whisper's.")
        weights = DecoderWeights(variables, is_quantized)
        self._num_layers, self._num_heads = weights.num_layers, weights.num_heads
        self._positions = weights.positions
        self._embeddings, self._scales = _embeddings(weights)
        # A second pool of threads would be in the way of the first: steps are what takes long.
        self._hear = _Session(hearing_graph(weights), _ONE_THREAD)
        self._step = _Session(step_graph(weights), threads)

    def hear(self, heard: NDArray[np.float32]) -> Reading:
        """Begins to write about windows: the encoder's output, shape (windows, frames, width)."""
        names = [name for layer in range(self._num_layers) for name in cross_names(layer)]
        cross = dict(zip(names, self._hear.run({"heard": _shared(heard)}, names), strict=True))
        return Reading(self, cross, len(heard))

    def embed(self, tokens: NDArray[np.int64], position: int) -> NDArray[np.float32]:
        """Tokens at `position` and after it, shape (rows, tokens), as (rows, tokens, width)."""
        embedded = self._embeddings[tokens] * self._scales[tokens][..., None]
        embedded += self._positions[position : position + tokens.shape[1]]
        return np.asarray(embedded, np.float32)

    def step(self, inputs: dict[str, OrtValue]) -> tuple[Logits, dict[str, OrtValue]]:
        """Logits, shape (windows, wanted, vocabulary), and the past for the next step."""
        present = [name for layer in range(self._num_layers) for name in present_names(layer)]
        past = [name for layer in range(self._num_layers) for name in past_names(layer)]
        logits, *kept = self._step.run(inputs, ["logits", *present])
        return logits.numpy(), dict(zip(past, kept, strict=True))

    def empty_past(self, num_rows: int) -> dict[str, OrtValue]:
        nothing = np.zeros((num_rows, self._num_heads, 0, HEAD_WIDTH), np.float32)
        return {
            name: _shared(nothing)
            for layer in range(self._num_layers)
            for name in past_names(layer)
        }

    def by_row(self, num_rows: int, num_tokens: int) -> NDArray[np.int64]:
        return np.array([num_rows, num_tokens, self._num_heads, HEAD_WIDTH], np.int64)


class Reading:
    """Several windows being written down, in as many rows each: beams or samples of it.

    Every row has read as many tokens as every other.
    """

    def __init__(self, decoder: Decoder, cross: dict[str, OrtValue], num_windows: int) -> None:
        self._decoder = decoder
        self._cross = cross
        self._num_windows = num_windows
        self._past = decoder.empty_past(num_windows)
        self._num_read = 0

    def read_prompt(self, tokens: NDArray[np.int64], wanted: Sequence[int]) -> Logits:
        """Reads prompts, shape (windows, tokens): one row a window.

        Tells what may follow the tokens at the places `wanted`: shape (windows, wanted,
        vocabulary).
        """
        return self._read(tokens, np.array(wanted, np.int64))

    def read(self, tokens: NDArray[np.int64]) -> Logits:
        """Reads a token a row, shape (rows,); tells what may follow: shape (rows, vocabulary)."""
        num_rows = len(tokens) // self._num_windows
        logits = self._read(tokens[:, None], np.arange(num_rows))
        return logits.reshape(len(tokens), -1)

    def keep_rows(self, rows: NDArray[np.int64]) -> None:
        """Goes on with these rows in their order, some perhaps more than once."""
        if not np.array_equal(rows, np.arange(len(rows))) or len(rows) != self._num_rows:
            self._past = {name: _shared(past.numpy()[rows]) for name, past in self._past.items()}

    def keep_windows(self, windows: NDArray[np.int64]) -> None:
        """Goes on with these windows in their order, and all of their rows."""
        rows = np.arange(self._num_rows).reshape(self._num_windows, -1)[windows].ravel()
        self.keep_rows(rows)
        self._cross = {name: _shared(cross.numpy()[windows]) for name, cross in self._cross.items()}
        self._num_windows = len(windows)

    @property
    def _num_rows(self) -> int:
        return int(next(iter(self._past.values())).shape()[0])

    def _read(self, tokens: NDArray[np.int64], wanted: NDArray[np.int64]) -> Logits:
        num_rows, num_tokens = tokens.shape
        embedded = self._decoder.embed(tokens, self._num_read)
        logits, self._past = self._decoder.step(
            {
                "tokens": _shared(embedded.reshape(self._num_windows, -1, embedded.shape[-1])),
                "by_row": _shared(self._decoder.by_row(num_rows, num_tokens)),
                "mask": _shared(_causal_mask(self._num_read, num_tokens)),
                "wanted": _shared(wanted),
                **self._cross,
                **self._past,
            }
        )
        self._num_read += num_tokens
        return logits


def _embeddings(weights: DecoderWeights) -> tuple[NDArray[Any], NDArray[np.float32]]:
    """A row for each token, and what it is to be multiplied by."""
    name = "decoder/embeddings/weight"
    if weights.is_quantized:
        return quantized(weights.variables, name)
    plain_rows = plain(weights.variables, name)
    return plain_rows, np.ones(len(plain_rows), np.float32)


def _causal_mask(num_before: int, num_new: int) -> NDArray[np.float32]:
    """What keeps each new token from those after it, shape (new, before and new)."""
    return np.triu(np.full((num_new, num_before + num_new), -np.inf, np.float32), num_before + 1)


class _Session:
    """A graph that can be run. Its results are equal to the bit with any number of threads."""

    def __init__(self, graph: DecoderGraph, threads: Threads) -> None:
        self._threads = threads
        # The library reads them where they are, but for matrices, of which each session has a copy.
        self._weights = {name: _shared(value) for name, value in graph.constants.items()}
        self._by_threads = {
            number: self._load(graph.model(), number)
            for number in {threads.side_by_side, threads.together}
        }

    def _load(self, model: bytes, num_threads: int) -> onnxruntime.InferenceSession:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = num_threads
        options.inter_op_num_threads = 1
        options.enable_cpu_mem_arena = False
        options.enable_mem_pattern = False  # every step is longer than the last
        # Between two steps the cores are others'.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        options.add_external_initializers(list(self._weights), list(self._weights.values()))
        return onnxruntime.InferenceSession(
            model, sess_options=options, providers=["CPUExecutionProvider"]
        )

    def run(self, inputs: dict[str, OrtValue], outputs: Sequence[str]) -> list[OrtValue]:
        """The outputs where the library left them: they are large, and most go in again."""
        session = self._by_threads[self._threads.now()]
        binding = session.io_binding()
        for name, value in inputs.items():
            binding.bind_ortvalue_input(name, value)
        for name in outputs:
            binding.bind_output(name)
        session.run_with_iobinding(binding)
        return list(binding.get_outputs())


def _shared(array: NDArray[np.generic]) -> OrtValue:
    return OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array))
