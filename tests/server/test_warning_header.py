"""Warnings in a header: in ASCII, each once, and not without end."""

from __future__ import annotations

import json

from simple_asr.server.warning_header import MAX_WARNINGS, warning_header


def test_no_warnings_are_no_header() -> None:
    assert warning_header([]) == {}


def test_a_warning_is_told_once_and_in_ascii() -> None:
    header = warning_header(["Половина.", "Половина."])["X-ASR-Warnings"]

    assert header.isascii()
    assert json.loads(header) == ["Половина."]


def test_a_header_has_an_end() -> None:
    header = warning_header(f"{number} {'x' * 1000}" for number in range(100))["X-ASR-Warnings"]

    assert len(json.loads(header)) == MAX_WARNINGS
    assert len(header) < 4096
