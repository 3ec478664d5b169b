"""Whisper's text decoder as graphs for onnxruntime, made from CTranslate2's weights.

A step on one token reads every weight once, so its speed is that of reading memory, and integers
are read in a quarter of the time. Figures: docs/benchmarks.md, "writing a token".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from simple_asr.engine.weights import Variables, num_layers, plain

HEAD_WIDTH = 64
"""Of every Whisper model; its inverse root, 1/8, is exact in floating point."""

# Weights in a row of a matrix that `MatMulNBits` multiplies at once. With larger blocks, a little
# faster, a window's products differ in their last bits with the number of windows beside it.
_BLOCK = 64

_ZERO = 128
"""The unsigned 8-bit integer that stands for zero."""
_OPSETS = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
_IR_VERSION = 10
_LAYER_NORM_EPSILON = 1e-5


@dataclass(frozen=True, slots=True)
class DecoderWeights:
    """Weights of the decoder. With `is_quantized` matrices are held as 8-bit integers."""

    variables: Variables
    is_quantized: bool

    @property
    def num_layers(self) -> int:
        return num_layers(self.variables, "decoder")

    @property
    def num_heads(self) -> int:
        return int(self.variables["decoder/num_heads"])

    @property
    def positions(self) -> NDArray[np.float32]:
        """Shape (context, width)."""
        return plain(self.variables, "decoder/position_encodings/encodings")


def cross_names(layer: int) -> tuple[str, str]:
    """Keys and values of what was heard."""
    return f"cross_keys_{layer}", f"cross_values_{layer}"


def past_names(layer: int) -> tuple[str, str]:
    """Keys and values of the tokens before."""
    return f"past_keys_{layer}", f"past_values_{layer}"


def present_names(layer: int) -> tuple[str, str]:
    """The same with the tokens of this step."""
    return f"keys_{layer}", f"values_{layer}"


def hearing_graph(weights: DecoderWeights) -> DecoderGraph:
    """From `heard`, shape (windows, frames, width), every layer's keys and values of it.

    Keys have the shape (windows, heads, 64, frames), values (windows, heads, frames, 64).
    """
    graph = DecoderGraph(weights)
    graph.input("heard", TensorProto.FLOAT, ["windows", "frames", "width"])
    heard = graph.in_bulk("heard")
    for layer in range(weights.num_layers):
        names = cross_names(layer)
        keys, values = graph.halves_in_bulk(heard, f"decoder/layer_{layer}/attention/linear_1")
        graph.add("Transpose", [graph.by_heads(keys)], names[0], perm=[0, 2, 3, 1])
        graph.add("Transpose", [graph.by_heads(values)], names[1], perm=[0, 2, 1, 3])
        for name in names:
            graph.output(name)
    return graph


def step_graph(weights: DecoderWeights) -> DecoderGraph:
    """Reads tokens and tells what may follow.

    `tokens` has the shape (windows, tokens of all its rows, width): embedded, with positions. Each
    row attends to its own tokens: `by_row` is the shape (rows, tokens, heads, 64), and `mask` what
    is added to scores, shape (tokens, tokens with the past). `wanted` are the tokens, of those of a
    window, whose `logits` are told. The past has the shape (rows, heads, tokens before, 64).
    """
    graph = DecoderGraph(weights)
    graph.input("tokens", TensorProto.FLOAT, ["windows", "tokens", "width"])
    graph.input("by_row", TensorProto.INT64, [4])
    graph.input("mask", TensorProto.FLOAT, ["new", "all"])
    graph.input("wanted", TensorProto.INT64, ["wanted"])
    shape = graph.add("Shape", ["tokens"])
    state = "tokens"
    for layer in range(weights.num_layers):
        name = f"decoder/layer_{layer}"
        state = graph.residual(state, _own_attention(graph, state, shape, layer))
        state = graph.residual(state, _cross_attention(graph, state, shape, layer))
        inner = graph.linear(graph.norm(state, f"{name}/ffn/layer_norm"), f"{name}/ffn/linear_0")
        state = graph.residual(state, graph.linear(graph.gelu(inner), f"{name}/ffn/linear_1"))
    last = graph.add("Gather", [graph.norm(state, "decoder/layer_norm"), "wanted"], axis=1)
    graph.multiply(last, graph.embeddings(), "logits")
    graph.output("logits")
    return graph


def _own_attention(graph: DecoderGraph, state: str, shape: str, layer: int) -> str:
    name = f"decoder/layer_{layer}/self_attention"
    normal = graph.norm(state, f"{name}/layer_norm")
    fused = graph.linear(normal, f"{name}/linear_0", num_queries=3)
    rows = [graph.add("Reshape", [part, "by_row"]) for part in graph.split(fused, 3)]
    queries, *new = [graph.add("Transpose", [row], perm=[0, 2, 1, 3]) for row in rows]
    for past, present, part in zip(past_names(layer), present_names(layer), new, strict=True):
        graph.input(past, TensorProto.FLOAT, ["rows", graph.num_heads, "before", HEAD_WIDTH])
        graph.add("Concat", [past, part], present, axis=2)
        graph.output(present)
    keys, values = present_names(layer)
    turned = graph.add("Transpose", [keys], perm=[0, 1, 3, 2])
    scores = graph.add("Add", [graph.add("MatMul", [queries, turned]), "mask"])
    return graph.linear(graph.attended(scores, values, shape), f"{name}/linear_1")


def _cross_attention(graph: DecoderGraph, state: str, shape: str, layer: int) -> str:
    name = f"decoder/layer_{layer}/attention"
    normal = graph.norm(state, f"{name}/layer_norm")
    queries = graph.linear(normal, f"{name}/linear_0", num_queries=1)
    queries = graph.add("Transpose", [graph.by_heads(queries)], perm=[0, 2, 1, 3])
    keys, values = cross_names(layer)
    graph.input(keys, TensorProto.FLOAT, ["windows", graph.num_heads, HEAD_WIDTH, "frames"])
    graph.input(values, TensorProto.FLOAT, ["windows", graph.num_heads, "frames", HEAD_WIDTH])
    scores = graph.add("MatMul", [queries, keys])
    return graph.linear(graph.attended(scores, values, shape), f"{name}/linear_2")


class DecoderGraph:
    """A graph under construction: nodes, inputs, outputs, and weights kept outside of it."""

    def __init__(self, weights: DecoderWeights) -> None:
        self._weights = weights
        self.num_heads = weights.num_heads
        self.constants: dict[str, NDArray[np.generic]] = {}
        self._nodes: list[onnx.NodeProto] = []
        self._inputs: list[onnx.ValueInfoProto] = []
        self._outputs: list[onnx.ValueInfoProto] = []

    def model(self) -> bytes:
        """The graph in ONNX's format. Its weights are `constants`, to be given to the session."""
        graph = helper.make_graph(
            self._nodes,
            "decoder",
            self._inputs,
            self._outputs,
            [_kept_outside(name, value) for name, value in self.constants.items()],
        )
        model = helper.make_model(graph, opset_imports=_OPSETS, ir_version=_IR_VERSION)
        return bytes(model.SerializeToString())

    def input(self, name: str, kind: int, shape: Sequence[str | int]) -> None:
        self._inputs.append(helper.make_tensor_value_info(name, kind, shape))

    def output(self, name: str) -> None:
        self._outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))

    def add(self, kind: str, inputs: Sequence[str], output: str = "", **attributes: Any) -> str:
        """A node with one output, whose name it returns."""
        output = output or f"value_{len(self._nodes)}"
        self._nodes.append(helper.make_node(kind, inputs, [output], **attributes))
        return output

    def constant(self, name: str, value: NDArray[np.generic]) -> str:
        self.constants[name] = np.ascontiguousarray(value)
        return name

    def split(self, value: str, number: int) -> list[str]:
        """Equal parts of the last axis."""
        parts = [f"{value}_{index}" for index in range(number)]
        self._nodes.append(helper.make_node("Split", [value], parts, axis=-1, num_outputs=number))
        return parts

    def by_heads(self, value: str) -> str:
        """(windows, n, width) as (windows, n, heads, 64)."""
        return self.add("Reshape", [value, self._ints(0, 0, self.num_heads, HEAD_WIDTH)])

    def attended(self, scores: str, values: str, shape: str) -> str:
        """Values weighed by the softmax of scores, as the state's shape."""
        found = self.add("MatMul", [self.add("Softmax", [scores], axis=-1), values])
        return self.add("Reshape", [self.add("Transpose", [found], perm=[0, 2, 1, 3]), shape])

    def residual(self, state: str, change: str) -> str:
        return self.add("Add", [state, change])

    def gelu(self, value: str) -> str:
        return self.add("Gelu", [value])

    def norm(self, value: str, name: str) -> str:
        names = [
            self.constant(f"{name}/{part}", plain(self._weights.variables, f"{name}/{part}"))
            for part in ("gamma", "beta")
        ]
        return self.add("LayerNormalization", [value, *names], axis=-1, epsilon=_LAYER_NORM_EPSILON)

    def linear(self, value: str, name: str, *, num_queries: int = 0) -> str:
        """A layer `name`. Of its `num_queries` parts, if any, the first is made queries.

        Queries are divided by the root of a head's width beforehand, which is exact.
        """
        bias = plain(self._weights.variables, f"{name}/bias")
        factors = np.ones(len(bias), np.float32)
        if num_queries:
            factors[: len(bias) // num_queries] = HEAD_WIDTH**-0.5
        product = self.multiply(value, _Matrix(f"{name}/weight", factors))
        return self.add("Add", [product, self.constant(f"{name}/bias", bias * factors)])

    def embeddings(self) -> _Matrix:
        name = "decoder/embeddings/weight"
        return _Matrix(name, np.ones(len(self._weights.variables[name]), np.float32))

    def in_bulk(self, value: str) -> _InBulk:
        """Very many rows, ready to be multiplied by several matrices.

        Each becomes 8-bit integers by a scale of its own, so that no row depends on another.
        """
        if not self._weights.is_quantized:
            return _InBulk(value, "")
        largest = self.add("ReduceMax", [self.add("Abs", [value]), self._ints(-1)], keepdims=1)
        scales = self.add(
            "Mul", [self.add("Max", [largest, self._float(1e-9)]), self._float(1 / 127)]
        )
        signed = self.add("Round", [self.add("Div", [value, scales])])
        shifted = self.add("Add", [signed, self._float(_ZERO)])
        return _InBulk(self.add("Cast", [shifted], to=TensorProto.UINT8), scales)

    def halves_in_bulk(self, rows: _InBulk, name: str) -> list[str]:
        """What a layer makes of the rows, in two halves."""
        bias = plain(self._weights.variables, f"{name}/bias")
        middle = len(bias) // 2
        return [
            self.add(
                "Add",
                [
                    self._multiply_in_bulk(rows, f"{name}/weight", part),
                    self.constant(f"{name}/bias {part.start}", bias[part]),
                ],
            )
            for part in (slice(0, middle), slice(middle, len(bias)))
        ]

    def _multiply_in_bulk(self, rows: _InBulk, name: str, part: slice) -> str:
        """Of each row, its products with a part of the rows of a matrix."""
        called = f"{name} {part.start}"
        if not self._weights.is_quantized:
            weights = plain(self._weights.variables, name)[part].T
            return self.add("MatMul", [rows.values, self.constant(called, weights)])
        integers, scales = quantized(self._weights.variables, name)
        zero = self.add("Constant", [], value=onnx.numpy_helper.from_array(np.uint8(_ZERO)))
        found = self.add(
            "MatMulInteger", [rows.values, self.constant(called, integers[part].T), zero]
        )
        found = self.add("Mul", [self.add("Cast", [found], to=TensorProto.FLOAT), rows.scales])
        return self.add("Mul", [found, self.constant(f"{called} scale", scales[part])])

    def _ints(self, *numbers: int) -> str:
        return self.add("Constant", [], value_ints=list(numbers))

    def _float(self, number: float) -> str:
        return self.add("Constant", [], value_float=float(number))

    def multiply(self, value: str, matrix: _Matrix, output: str = "") -> str:
        """Of each row of `value`, its products with the rows of the matrix."""
        if not self._weights.is_quantized:
            weights = plain(self._weights.variables, matrix.name) * matrix.factors[:, None]
            return self.add("MatMul", [value, self.constant(matrix.name, weights.T)], output)
        integers, scales = quantized(self._weights.variables, matrix.name)
        num_rows, width = integers.shape
        num_blocks = width // _BLOCK
        scales = np.repeat(scales * matrix.factors, num_blocks)
        return self.add(
            "MatMulNBits",
            [
                value,
                self.constant(
                    matrix.name,
                    (integers.view(np.uint8) ^ _ZERO).reshape(num_rows, num_blocks, _BLOCK),
                ),
                self.constant(f"{matrix.name}_scale", scales),
            ],
            output,
            domain="com.microsoft",
            K=width,
            N=num_rows,
            bits=8,
            block_size=_BLOCK,
            accuracy_level=4,  # the other factor is made 8-bit integers as well
        )


@dataclass(frozen=True, slots=True)
class _InBulk:
    """Rows by the name of their values, and of what those are to be multiplied by, if anything."""

    values: str
    scales: str


@dataclass(frozen=True, slots=True)
class _Matrix:
    """A matrix by its name, each row to be multiplied by its factor."""

    name: str
    factors: NDArray[np.float32]


def quantized(variables: Variables, name: str) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """A matrix as integers, and for each row what they are to be multiplied by.

    The largest weight of a row becomes 127, as in CTranslate2; a file may hold it so already.
    """
    scale = variables.get(f"{name}_scale")
    if scale is not None and variables[name].dtype == np.int8:
        return variables[name], np.float32(1) / np.asarray(scale, np.float32).reshape(-1)
    weights = plain(variables, name)
    largest = np.abs(weights).max(axis=1)
    largest[largest == 0] = 127
    integers = np.rint(weights * (127 / largest)[:, None]).astype(np.int8)
    return integers, (largest / 127).astype(np.float32)


def _kept_outside(name: str, value: NDArray[np.generic]) -> onnx.TensorProto:
    tensor = TensorProto(name=name, dims=value.shape)
    tensor.data_type = helper.np_dtype_to_tensor_dtype(value.dtype)
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="given to the session")
    return tensor
