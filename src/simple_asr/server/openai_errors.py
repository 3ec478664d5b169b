"""Errors as OpenAI's API writes them, with the headers its SDK obeys."""

from __future__ import annotations

import json
from http import HTTPStatus

from starlette.responses import Response

from simple_asr.errors import AsrError, SeveralErrors, Unavailable
from simple_asr.server.openai_fields import OPENAI_NAMES
from simple_asr.server.problems import error_headers, shown_detail, status_of
from simple_asr.service.labels import label

# OpenAI has no use for these: a parameter at fault is 400, a key not accepted 401.
_STATUSES: dict[int, int] = {
    HTTPStatus.UNPROCESSABLE_ENTITY: HTTPStatus.BAD_REQUEST,
    HTTPStatus.FORBIDDEN: HTTPStatus.UNAUTHORIZED,
}


def openai_error_response(error: AsrError, _request_id: str = "") -> Response:
    """The answer for an error under `/v1`; the id of its request stands in a header."""
    status = openai_status_of(error)
    headers = error_headers(error, status)
    if status == HTTPStatus.CONFLICT or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        # The SDK sends the whole file again after these, which helps only where time does.
        headers["x-should-retry"] = "true" if isinstance(error, Unavailable) else "false"
    content = json.dumps(openai_error(error), ensure_ascii=False)
    return Response(
        content.encode("utf-8", "backslashreplace"),
        status,
        headers,
        media_type="application/json",
    )


def openai_status_of(error: AsrError) -> int:
    """As everywhere, but for what OpenAI answers otherwise."""
    status = status_of(error)
    return _STATUSES.get(status, status)


def openai_error(error: AsrError) -> dict[str, object]:
    """The body. All four keys are required by OpenAI's schema."""
    several = error.errors if isinstance(error, SeveralErrors) else ()
    field = several[0].field if several else error.field
    status = openai_status_of(error)
    return {
        "error": {
            "message": shown_detail(error.detail),
            "type": _type(status),
            "param": None if field is None else label(OPENAI_NAMES.get(field, field)),
            "code": error.code,
        }
    }


def _type(status: int) -> str:
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        return "rate_limit_error"
    is_ours = status >= HTTPStatus.INTERNAL_SERVER_ERROR
    return "server_error" if is_ours else "invalid_request_error"
