"""Which answer an error gets: a problem document, or what the dialect of its path calls for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from http import HTTPStatus

from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Match
from starlette.types import Scope

from simple_asr.errors import AsrError, InvalidParameter, SeveralErrors
from simple_asr.server.openai_errors import openai_error_response
from simple_asr.server.problems import (
    MalformedRequest,
    MethodNotAllowed,
    NotFound,
    problem_response,
)
from simple_asr.server.record import record_of
from simple_asr.service.labels import label, value_label

METHODS = ("DELETE", "GET", "HEAD", "PATCH", "POST", "PUT")


def error_answer(scope: Scope, error: AsrError) -> Response:
    """The answer to a request that ends with this error."""
    write = next(
        (write for prefix, write in DIALECTS.items() if scope["path"].startswith(prefix)),
        problem_response,
    )
    return write(error, record_of(scope).request_id)


# Handlers, as FastAPI calls them ---------------------------------------------------------------


async def answer_asr_error(request: Request, error: Exception) -> Response:
    """Any error of ours."""
    assert isinstance(error, AsrError), "registered for AsrError alone"
    return error_answer(request.scope, error)


async def answer_http_exception(request: Request, error: Exception) -> Response:
    """What Starlette itself refuses: an unknown path, a method a path does not take."""
    assert isinstance(error, HTTPException), "registered for HTTPException alone"
    headers = dict(error.headers or {})
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED and (taken := _methods_taken(request)):
        headers["Allow"] = ", ".join(taken)
    response = error_answer(request.scope, _from_http_exception(error, headers))
    response.headers.update(headers)
    return response


def _methods_taken(request: Request) -> list[str]:
    """Those of all routes of this path: Starlette names the first one's alone. Of files, none."""

    def takes(route: BaseRoute, method: str) -> bool:
        match, _ = route.matches({**request.scope, "method": method})
        return match is Match.FULL

    return [
        method for method in METHODS if any(takes(route, method) for route in request.app.routes)
    ]


async def answer_validation_error(request: Request, error: Exception) -> Response:
    """Parameters that FastAPI checks, of routes that declare theirs to it."""
    assert isinstance(error, RequestValidationError), "registered for RequestValidationError alone"
    faults = [
        InvalidParameter(
            f"{name} {value_label(fault.get('input'))}: {fault['msg']}.", field=label(name)
        )
        for fault in error.errors()
        for name in [str(fault["loc"][-1])]
    ]
    return error_answer(request.scope, faults[0] if len(faults) == 1 else SeveralErrors(faults))


def _from_http_exception(error: HTTPException, headers: Mapping[str, str]) -> AsrError:
    if error.status_code == HTTPStatus.NOT_FOUND:
        return NotFound("There is nothing at this path. GET /openapi.json lists what there is.")
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        allowed = headers.get("Allow", "other methods")
        return MethodNotAllowed(f"This path does not take this method; it takes {allowed}.")
    return MalformedRequest("The request cannot be read as HTTP asks for.")


# A prefix of paths whose clients expect errors in a form of their own, and that form.
DIALECTS: dict[str, Callable[[AsrError, str], Response]] = {"/v1/": openai_error_response}
