"""Warnings beside an answer, in a header, so that its body stays what its format says."""

from __future__ import annotations

import json
from collections.abc import Iterable

from simple_asr.service.labels import label

MAX_WARNINGS = 10
MAX_WARNING_CHARACTERS = 300


def shown_warnings(warnings: Iterable[str]) -> list[str]:
    """The first of them, each once, short enough for a header."""
    shown = dict.fromkeys(label(warning, MAX_WARNING_CHARACTERS) for warning in warnings)
    return list(shown)[:MAX_WARNINGS]


def warning_header(warnings: Iterable[str]) -> dict[str, str]:
    """A JSON list in ASCII; no header without warnings."""
    shown = shown_warnings(warnings)
    return {"X-ASR-Warnings": json.dumps(shown)} if shown else {}
