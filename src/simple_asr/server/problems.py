"""Turns an error into the answer a caller sees: a status and an RFC 9457 problem document."""

from __future__ import annotations

import json
import math
from http import HTTPStatus

from starlette.responses import Response

from simple_asr import errors
from simple_asr.errors import AsrError, RequestError, SeveralErrors
from simple_asr.service.labels import label

MEDIA_TYPE = "application/problem+json"
MAX_PROBLEM_BYTES = 4096
MAX_DETAIL = 800
# Seconds after which a caller may ask again, where the error itself knows no better.
DEFAULT_RETRY_AFTER = 5


class NotFound(RequestError):
    code = "not_found"
    title = "No such path"


class MethodNotAllowed(RequestError):
    code = "method_not_allowed"
    title = "Method not allowed"


class MalformedRequest(RequestError):
    code = "malformed_request"
    title = "Malformed HTTP request"


class HeadersTooLarge(RequestError):
    code = "headers_too_large"
    title = "Request headers too large"


def problem_response(error: AsrError, request_id: str) -> Response:
    """The answer for an error, with the headers its status calls for."""
    status = status_of(error)
    return Response(
        content=_problem_body(error, status, request_id),
        status_code=status,
        headers=error_headers(error, status),
        media_type=MEDIA_TYPE,
    )


def problem_json(error: AsrError, request_id: str) -> str:
    """The document alone, for an answer that has begun already."""
    return _problem_body(error, status_of(error), request_id).decode("utf-8")


def status_of(error: AsrError) -> int:
    """The status of the nearest class in STATUSES."""
    return next(STATUSES[kind] for kind in type(error).__mro__ if kind in STATUSES)


def _problem_body(error: AsrError, status: int, request_id: str) -> bytes:
    """At most MAX_PROBLEM_BYTES of UTF-8: the last of several errors give way first."""
    several = list(error.errors) if isinstance(error, SeveralErrors) else []
    while True:
        body = _encode(_problem(error, several, status, request_id))
        if len(body) <= MAX_PROBLEM_BYTES or not several:
            return body
        several.pop()


def _problem(
    error: AsrError, several: list[RequestError], status: int, request_id: str
) -> dict[str, object]:
    problem: dict[str, object] = {
        # Not an address: nothing is to be fetched. `code` says the same in short.
        "type": f"urn:problem-type:simple-asr:{error.code}",
        "title": error.title,
        "status": status,
        "detail": shown_detail(error.detail),
        "code": error.code,
        "request_id": request_id,
    }
    if error.field is not None:
        problem["field"] = label(error.field)
    if several:
        problem["errors"] = [
            {
                "code": fault.code,
                "field": label(fault.field or ""),
                "detail": shown_detail(fault.detail),
            }
            for fault in several
        ]
    return problem


def shown_detail(text: str) -> str:
    """An error's text, short enough for any answer."""
    return text if len(text) <= MAX_DETAIL else text[: MAX_DETAIL - 1] + "…"


def _encode(problem: dict[str, object]) -> bytes:
    return json.dumps(problem, ensure_ascii=False).encode("utf-8", "backslashreplace")


def error_headers(error: AsrError, status: int) -> dict[str, str]:
    """What an answer of this status carries, whatever its body's form."""
    headers = {}
    if status == HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = 'Bearer realm="simple-asr"'
    if status in (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE):
        seconds = DEFAULT_RETRY_AFTER if error.retry_after is None else error.retry_after
        headers["Retry-After"] = str(max(1, math.ceil(seconds)))
    return headers


def internal_error(request_id: str) -> AsrError:
    """What a caller is told of a fault of ours; the log has the rest."""
    return AsrError(
        f"The server failed on this request; its log says why under {request_id}. "
        "Trying again may help; otherwise give that id to the operator."
    )


# To give an error a status, add a row: an error without one has that of its base.
STATUSES: dict[type[AsrError], int] = {
    AsrError: 500,
    # The request.
    RequestError: 422,
    MalformedRequest: 400,
    errors.MalformedBody: 400,
    errors.TwoRecordings: 400,
    NotFound: 404,
    errors.ModelNotFound: 404,
    errors.JobNotFound: 404,
    errors.JobNotDone: 409,
    errors.IdempotencyMismatch: 409,
    errors.ModelInUse: 409,
    errors.AdministratorsOnly: 403,
    MethodNotAllowed: 405,
    errors.RequestTimeout: 408,
    errors.PayloadTooLarge: 413,
    errors.UnsupportedContentType: 415,
    HeadersTooLarge: 431,
    # The media.
    errors.MediaError: 422,
    errors.MediaLimitExceeded: 413,
    errors.DownloadFailed: 422,
    # The caller.
    errors.MissingKey: 401,
    errors.WrongKey: 403,
    errors.QuotaExceeded: 429,
    # The server.
    errors.Unavailable: 503,
    errors.DeadlineExceeded: 504,
    errors.StorageFull: 507,
    errors.EngineFailed: 500,
    # nginx's number for a caller that left: it stands in the log, and nobody else reads it.
    errors.Cancelled: 499,
    # The start; a key file can also turn out broken at a reload, and then the old set stays.
    errors.ConfigurationError: 500,
    errors.InvalidKeyFile: 409,
}
