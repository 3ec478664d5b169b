"""The log as JSON: one object a line, whatever is logged."""

from __future__ import annotations

import json
import logging
import sys

from simple_asr.server.json_log import JsonFormatter


def logged(message: str, *arguments: object, exc_info: bool = False) -> str:
    error = sys.exc_info() if exc_info else None
    record = logging.LogRecord("asr.x", logging.ERROR, "x.py", 1, message, arguments, error)
    return JsonFormatter().format(record)


def test_an_event_is_an_object_with_time_level_logger_and_message() -> None:
    event = json.loads(logged("Key %s", "алиса"))

    assert event.pop("time").endswith("+00:00")
    assert event == {"level": "error", "logger": "asr.x", "message": "Key алиса"}


def test_a_traceback_stays_on_the_line() -> None:
    try:
        raise RuntimeError("first\nsecond")
    except RuntimeError:
        line = logged("It\nfailed", exc_info=True)

    assert "\n" not in line
    assert json.loads(line)["traceback"].endswith("RuntimeError: first\nsecond")
