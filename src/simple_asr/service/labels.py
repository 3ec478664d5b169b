"""Makes text of others safe to show: in an error, in a header, in a log line."""

from __future__ import annotations

import json

MAX_LABEL = 80


def label(text: str, limit: int = MAX_LABEL) -> str:
    """The text on one line of at most `limit` characters, unprintable ones escaped."""
    shown = "".join(
        character if character.isprintable() else _escaped(character)
        for character in text[: limit + 1]
    )
    return shown if len(shown) <= limit else shown[: limit - 1] + "…"


def ascii_label(text: str, limit: int = MAX_LABEL) -> str:
    """As `label`, and in ASCII, as a header must be."""
    return label(text, limit).encode("ascii", "backslashreplace").decode("ascii")


def value_label(value: object) -> str:
    """A parameter's value as its sender would recognise it: text in quotes, the rest as JSON."""
    if isinstance(value, str):
        return f"'{label(value)}'"
    try:
        return label(json.dumps(value, ensure_ascii=False))
    except ValueError:  # An integer of more digits than Python writes (sys.int_info).
        return "a number of thousands of digits"


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
