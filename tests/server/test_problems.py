"""Every error has a status and a problem document that says enough, and no more."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from simple_asr import errors
from simple_asr.errors import (
    AsrError,
    InvalidParameter,
    MissingKey,
    Overloaded,
    RequestError,
    SeveralErrors,
)
from simple_asr.server import problems
from simple_asr.server.openapi import MEANINGS
from simple_asr.server.problems import (
    MAX_PROBLEM_BYTES,
    STATUSES,
    internal_error,
    problem_response,
    status_of,
)


def error_classes() -> Iterator[type[AsrError]]:
    for module in (errors, problems):
        for _, found in inspect.getmembers(module, inspect.isclass):
            if issubclass(found, AsrError) and found.__module__ == module.__name__:
                yield found


@pytest.mark.parametrize("kind", list(error_classes()))
def test_every_error_has_a_status_that_fits_whose_fault_it_is(kind: type[AsrError]) -> None:
    error = SeveralErrors([]) if kind is SeveralErrors else kind("What happened.")

    status = status_of(error)

    of_the_key = (MissingKey, errors.WrongKey, errors.AdministratorsOnly)
    is_callers = issubclass(kind, (RequestError, errors.MediaError, *of_the_key))
    assert status // 100 == 4 if is_callers else status >= 409


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        (errors.MissingKey, 401),
        (errors.WrongKey, 403),
        (errors.UnknownParameter, 422),
        (errors.UnreadableMedia, 422),
        (errors.PayloadTooLarge, 413),
        (errors.MediaLimitExceeded, 413),
        (errors.UnsupportedContentType, 415),
        (errors.MalformedBody, 400),
        (errors.RequestTimeout, 408),
        (errors.Overloaded, 503),
        (errors.QuotaExceeded, 429),
        (errors.DecoderUnavailable, 503),
        (errors.ModelNotReady, 503),
        (errors.ShuttingDown, 503),
        (errors.StorageFull, 507),
        (errors.EngineFailed, 500),
        (AsrError, 500),
    ],
)
def test_the_statuses_promised(kind: type[AsrError], status: int) -> None:
    assert status_of(kind("What happened.")) == status


def test_every_code_belongs_to_one_error() -> None:
    codes = [kind.code for kind in error_classes() if kind is not SeveralErrors]

    assert len(codes) == len(set(codes))


def test_every_status_a_caller_can_see_is_described() -> None:
    # 499 is for the log alone; 405 belongs to no route.
    assert set(STATUSES.values()) - {499, 405} == set(MEANINGS)


def test_a_problem_document_is_rfc_9457_with_our_members() -> None:
    error = InvalidParameter("beam_size 99: should be at most 32.", field="beam_size")

    response = problem_response(error, "abc")

    assert response.headers["content-type"] == "application/problem+json"
    assert json.loads(bytes(response.body)) == {
        "type": "urn:problem-type:simple-asr:invalid_parameter",
        "title": "Invalid parameter",
        "status": 422,
        "detail": "beam_size 99: should be at most 32.",
        "code": "invalid_parameter",
        "request_id": "abc",
        "field": "beam_size",
    }


def test_several_errors_are_listed() -> None:
    error = SeveralErrors(
        [InvalidParameter("One.", field="a"), errors.UnknownParameter("Two.", field="b")]
    )

    document = json.loads(bytes(problem_response(error, "abc").body))

    assert document["code"] == "invalid_request"
    assert document["detail"] == "One.\nTwo."
    assert document["errors"] == [
        {"code": "invalid_parameter", "field": "a", "detail": "One."},
        {"code": "unknown_parameter", "field": "b", "detail": "Two."},
    ]


@example(["ё" * 3000] * 20)
@given(st.lists(st.text(max_size=3000), min_size=1, max_size=20))
def test_a_problem_document_is_valid_json_and_never_large(texts: list[str]) -> None:
    error = SeveralErrors([InvalidParameter(text, field=text) for text in texts])

    response = problem_response(error, "x" * 64)

    assert len(response.body) <= MAX_PROBLEM_BYTES
    assert json.loads(bytes(response.body))["code"] == "invalid_request"


def test_a_missing_key_says_how_to_authenticate() -> None:
    response = problem_response(MissingKey("No key."), "abc")

    assert response.headers["www-authenticate"] == 'Bearer realm="simple-asr"'


@pytest.mark.parametrize(("seconds", "header"), [(None, "5"), (0.0, "1"), (2.1, "3"), (60, "60")])
def test_who_is_sent_away_is_told_when_to_come_back(seconds: float | None, header: str) -> None:
    response = problem_response(Overloaded("Full.", retry_after=seconds), "abc")

    assert response.headers["retry-after"] == header


def test_a_fault_of_ours_is_told_by_its_id_alone() -> None:
    response = problem_response(internal_error("abc"), "abc")

    assert response.status_code == 500
    assert "abc" in json.loads(bytes(response.body))["detail"]
