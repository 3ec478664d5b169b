"""Reads a field that is true or false from text, as every parameter that is one is read."""

from __future__ import annotations

from pydantic import TypeAdapter, ValidationError

from simple_asr.errors import InvalidParameter
from simple_asr.fields import OptionalFlag
from simple_asr.service.labels import value_label

_FLAG: TypeAdapter[bool | None] = TypeAdapter(OptionalFlag)


def read_flag(name: str, value: str) -> bool:
    """Whether it is true; nothing at all is false. Raises InvalidParameter."""
    try:
        return bool(_FLAG.validate_python(value.strip()))
    except ValidationError:
        raise InvalidParameter(
            f"{name} {value_label(value)}: should be true or false.", field=name
        ) from None
