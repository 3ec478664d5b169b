"""Silero's voice activity model for many frames at a time, from the file as it was published.

That file takes one frame a call, thirty calls a second of audio. All but the recurrent layer treats
each frame alone, so that any number can be convolved as one signal with zeros between them, and the
recurrent layer takes them in a row: the same in a third of the time (docs/benchmarks.md).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from simple_asr.audio import SAMPLE_RATE

STATE_WIDTH = 128

_HOP = 128
_PADDING = 64
"""Samples at the end of a frame that are mirrored after it."""
_ENCODER = ((1, 6, 4), (2, 3, 2), (2, 2, 1), (1, 3, 1))
"""Of each convolution its stride, the steps that begin in a frame with a zero at both ends, and how
many of these end in it."""
_OPSETS = [helper.make_opsetid("", 21)]
_IR_VERSION = 10
# PyTorch's gates are input, forget, cell, output; those of ONNX input, output, forget, cell.
_GATES = [0, 3, 1, 2]


def speech_model(published: bytes) -> bytes:
    """The same model as a graph for `frames` in a row, shape (frames, 576): 64 samples before each.

    With `hidden` and `cell`, shape (1, 1, 128), it tells the `probabilities` of speech, shape
    (frames,), and both as they are after the last frame: `hidden_after`, `cell_after`.
    """
    graph = _Graph(_weights(onnx.load_from_string(published)))
    spoken = graph.recurrent(graph.encoded(graph.spectrogram("frames")))
    scores = graph.add(
        "MatMul",
        [graph.add("Relu", [spoken]), graph.constant(graph.weights["decoder.decoder.2.weight"][0])],
    )
    bias = graph.constant(graph.weights["decoder.decoder.2.bias"])
    graph.add("Sigmoid", [graph.reshape(graph.add("Add", [scores, bias]), -1)], "probabilities")
    return graph.model()


def _weights(published: onnx.ModelProto) -> dict[str, NDArray[np.float32]]:
    """Those for 16 kHz, by the names they have in Silero's own code."""
    (choice,) = (node for node in published.graph.node if node.op_type == "If")
    (rate,) = (node for node in published.graph.node if node.op_type == "Constant")
    assert numpy_helper.to_array(rate.attribute[0].t) == SAMPLE_RATE, "which the If compares with"
    branches = {attribute.name: attribute.g for attribute in choice.attribute}
    return {
        node.output[0].rpartition("__")[2]: numpy_helper.to_array(node.attribute[0].t)
        for node in branches["then_branch"].node
        if node.op_type == "Constant"
    }


class _Graph:
    """The graph under construction. A state has the shape (channels, frames, steps)."""

    def __init__(self, weights: dict[str, NDArray[np.float32]]) -> None:
        self.weights = weights
        self._nodes: list[onnx.NodeProto] = []
        self._constants: list[TensorProto] = []

    def model(self) -> bytes:
        """In ONNX's format."""

        def value(name: str, shape: list[str | int]) -> onnx.ValueInfoProto:
            return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

        def states(*names: str) -> list[onnx.ValueInfoProto]:
            return [value(name, [1, 1, STATE_WIDTH]) for name in names]

        graph = helper.make_graph(
            self._nodes,
            "speech",
            [value("frames", ["frames", "samples"]), *states("hidden", "cell")],
            [value("probabilities", ["frames"]), *states("hidden_after", "cell_after")],
            self._constants,
        )
        model = helper.make_model(graph, opset_imports=_OPSETS, ir_version=_IR_VERSION)
        return bytes(model.SerializeToString())

    def add(self, kind: str, inputs: list[str], output: str = "", **attributes: Any) -> str:
        """A node with one output, whose name it returns."""
        output = output or f"value_{len(self._nodes)}"
        self._nodes.append(helper.make_node(kind, inputs, [output], **attributes))
        return output

    def constant(self, value: NDArray[Any]) -> str:
        name = f"constant_{len(self._constants)}"
        self._constants.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def ints(self, *numbers: int) -> str:
        return self.constant(np.array(numbers, np.int64))

    def reshape(self, value: str, *shape: int) -> str:
        return self.add("Reshape", [value, self.ints(*shape)])

    def spectrogram(self, frames: str) -> str:
        """Magnitudes of 129 frequencies at four steps of each frame."""
        padded = self.add("Pad", [frames, self.ints(0, 0, 0, _PADDING)], mode="reflect")
        waves = self.weights["stft.forward_basis_buffer"]
        found = self._convolved(self.add("Unsqueeze", [padded, self.ints(0)]), waves, _HOP, 5, 4)
        parts = ["real", "imaginary"]
        self._nodes.append(helper.make_node("Split", [found], parts, axis=0, num_outputs=2))
        squares = [self.add("Mul", [part, part]) for part in parts]
        return self.add("Sqrt", [self.add("Add", squares)])

    def encoded(self, state: str) -> str:
        """What the convolutions make of it: one step a frame."""
        for index, steps in enumerate(_ENCODER):
            name = f"encoder.{index}.reparam_conv"
            kernel, bias = self.weights[f"{name}.weight"], self.weights[f"{name}.bias"]
            padded = self.add("Pad", [state, self.ints(0, 0, 1, 0, 0, 1)])
            found = self._convolved(padded, kernel, *steps)
            biased = self.add("Add", [found, self.constant(bias[:, None, None])])
            state = self.add("Relu", [biased])
        return state

    def recurrent(self, state: str) -> str:
        """What the recurrent layer makes of the frames in their order, shape (frames, 128)."""
        in_a_row = self.add("Transpose", [state], perm=[1, 2, 0])
        inputs, hidden, *biases = (
            self.weights[f"decoder.rnn.{kind}"]
            .reshape(4, STATE_WIDTH, -1)[_GATES]
            .reshape(1, 4 * STATE_WIDTH, -1)
            for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        )
        weights = [inputs, hidden, np.concatenate(biases, axis=1)[..., 0]]
        self._nodes.append(
            helper.make_node(
                "LSTM",
                [in_a_row, *map(self.constant, weights), "", "hidden", "cell"],
                ["steps", "hidden_after", "cell_after"],
                hidden_size=STATE_WIDTH,
            )
        )
        return self.reshape("steps", -1, STATE_WIDTH)

    def _convolved(
        self, state: str, kernel: NDArray[np.float32], stride: int, num_begun: int, num_kept: int
    ) -> str:
        """Every frame by itself, by way of one long signal.

        In it `num_begun` steps begin in each frame, and the first `num_kept` end there too.
        """
        num_filters, num_channels, length = kernel.shape
        signal = self.reshape(state, 1, num_channels, -1)
        found = self.add("Conv", [signal, self.constant(kernel)], strides=[stride])
        # The last steps to begin have no room to end.
        missing = (length - 1) // stride
        begun = self.add("Pad", [found, self.ints(0, 0, 0, 0, 0, missing)])
        by_frame = self.reshape(begun, num_filters, -1, num_begun)
        return self.add("Slice", [by_frame, self.ints(0), self.ints(num_kept), self.ints(2)])
