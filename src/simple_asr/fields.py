"""Types of parameters that may come as text, since a form and a query carry nothing else."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field

# Eleven days: longer than any audio, and short of where hundredths of a second overflow.
MAX_SECONDS = 1_000_000
NULL_WORDS = frozenset({"null", "none"})


def null_from_text(value: Any) -> Any:
    """A form has no null: the words `null` and `none`, and nothing at all, stand for it."""
    if isinstance(value, str) and value.strip().lower() in NULL_WORDS | {""}:
        return None
    return value


def no_boolean(value: Any) -> Any:
    """Pydantic reads true as 1; who sends it for a number has mixed up two parameters."""
    if isinstance(value, bool):
        raise ValueError("is true or false where a number is wanted")
    return value


Finite = Annotated[float, Field(allow_inf_nan=False)]
Threshold = Annotated[Finite | None, BeforeValidator(no_boolean), BeforeValidator(null_from_text)]
OptionalCount = Annotated[int | None, BeforeValidator(no_boolean), BeforeValidator(null_from_text)]
OptionalFlag = Annotated[bool | None, BeforeValidator(null_from_text)]
