"""CTranslate2's file of weights, read without the library.

Layout read from CTranslate2 4.8, python/ctranslate2/specs/model_spec.py (`ModelSpec._serialize`).
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Variables: TypeAlias = Mapping[str, NDArray[Any]]
"""Weights by CTranslate2's names, such as `decoder/layer_0/ffn/linear_0/weight`."""

_BINARY_VERSION = 6
_REVISION = 3
# In the order of CTranslate2's DataType. bfloat16 has no NumPy type and is read as its bits.
_BFLOAT16 = 5
_DTYPES = tuple(np.dtype(name) for name in ("<f4", "i1", "<i2", "<i4", "<f2", "<u2"))


def read_variables(path: Path) -> Variables:
    """Every variable of a `model.bin` by its name, as stored; they are read when they are used.

    Raises ValueError for a file of another kind or version.
    """
    try:
        with path.open("rb") as file:
            return _variables(_Cursor(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)))
    except (struct.error, IndexError, ValueError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from error


def _variables(cursor: _Cursor) -> Variables:
    version, name, revision = cursor.number("I"), cursor.text(), cursor.number("I")
    if (version, name, revision) != (_BINARY_VERSION, "WhisperSpec", _REVISION):
        raise ValueError(
            f"It holds revision {revision} of {name!r} in version {version} of CTranslate2's "
            f"format; revision {_REVISION} of 'WhisperSpec' in version {_BINARY_VERSION} is known."
        )
    variables = dict(cursor.variable() for _ in range(cursor.number("I")))
    for _ in range(cursor.number("I")):
        alias, original = cursor.text(), cursor.text()
        variables[alias] = variables[original]
    return variables


def num_layers(variables: Variables, part: str) -> int:
    """Transformer layers of the `encoder` or the `decoder`."""
    return len(
        {name.split("/")[1] for name in variables if name.startswith(f"{part}/layer_")}
        - {"layer_norm"}
    )


def plain(variables: Variables, name: str) -> NDArray[np.float32]:
    """A variable in float32; an integer one is divided by its scale, one for each row."""
    values = variables[name].astype(np.float32)
    scale = variables.get(f"{name}_scale")
    if scale is not None:
        values /= scale.reshape(-1, *[1] * (values.ndim - 1)).astype(np.float32)
    return values


class _Cursor:
    """A place in the file."""

    def __init__(self, content: mmap.mmap) -> None:
        self._content = content
        self._position = 0

    def number(self, kind: str) -> int:
        """One little-endian number, its type by a letter of `struct`."""
        layout = struct.Struct(f"<{kind}")
        (number,) = layout.unpack_from(self._content, self._position)
        self._position += layout.size
        return int(number)

    def text(self) -> str:
        length = self.number("H")
        text = self._content[self._position : self._position + length - 1]  # ends with a zero byte
        self._position += length
        return text.decode()

    def variable(self) -> tuple[str, NDArray[Any]]:
        name = self.text()
        shape = tuple(self.number("I") for _ in range(self.number("B")))
        type_id, num_bytes = self.number("B"), self.number("I")
        dtype = _DTYPES[type_id]
        values = np.frombuffer(
            self._content, dtype, num_bytes // dtype.itemsize, self._position
        ).reshape(shape)
        self._position += num_bytes
        if type_id == _BFLOAT16:
            values = (values.astype(np.uint32) << 16).view(np.float32)
        return name, values
