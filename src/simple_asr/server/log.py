"""How the log is written: from which level on, as text or as JSON."""

from __future__ import annotations

import logging
import logging.config

from simple_asr.server.json_log import JsonFormatter
from simple_asr.settings import LogFormat, LogLevel


def configure_logging(level: LogLevel, form: LogFormat = "text") -> None:
    """One line per event to standard error, as text (then with tracebacks below) or as JSON."""
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "formatters": {
                "text": {"format": "%(asctime)s %(levelname)-7s %(name)s: %(message)s"},
                "json": {"()": JsonFormatter},
            },
            "handlers": {
                "stderr": {
                    "class": "logging.StreamHandler",
                    "formatter": form,
                },
            },
            "root": {"handlers": ["stderr"], "level": level.upper()},
            "loggers": {
                # It warns of every malformed upload, and so does the request's own line.
                "python_multipart": {"level": "ERROR"},
                # It repeats addresses to which others redirect, with their signatures.
                "httpcore2": {"level": "WARNING"},
                # It tells of each of its own plug-ins.
                "alembic.runtime.plugins": {"level": "WARNING"},
            },
        }
    )


def set_log_level(level: LogLevel) -> None:
    """From now on, for every logger."""
    logging.getLogger().setLevel(level.upper())
