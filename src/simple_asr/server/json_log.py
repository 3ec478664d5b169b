"""The log as a JSON object a line, for programs that collect it."""

from __future__ import annotations

import json
import logging
from datetime import datetime, timezone


class JsonFormatter(logging.Formatter):
    """Time (UTC), level, logger and message; a traceback is one string, so a line is one event."""

    def format(self, record: logging.LogRecord) -> str:
        """Never with a line break: JSON escapes them."""
        event = {
            "time": datetime.fromtimestamp(record.created, timezone.utc).isoformat(),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            event["traceback"] = self.formatException(record.exc_info)
        return json.dumps(event, ensure_ascii=False, default=str)
