"""The OpenAPI document holds: requests generated from it are answered as it says, and never 5xx."""

from __future__ import annotations

import os
from typing import Any

import pytest
import schemathesis
from fastapi import FastAPI
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.server.conftest import KEY

# Of each operation. A night's worth: SCHEMA_EXAMPLES=2000.
NUM_EXAMPLES = int(os.environ.get("SCHEMA_EXAMPLES", "5"))
HELD = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]


def test_what_the_document_describes_is_what_is_answered(app: FastAPI) -> None:
    described = schemathesis.openapi.from_asgi("/openapi.json", app)
    operations = list(described.get_all_operations())

    for operation in operations:
        assert isinstance(operation, Ok), operation
        check_generated(operation.ok())

    assert len(operations) > 10


@pytest.mark.parametrize(
    ("path", "fields", "headers"),
    [
        ("/transcribe", {}, {"Accept": "text/event-stream"}),
        ("/v1/audio/transcriptions", {"stream": "true"}, {}),
        ("/v1/audio/translations", {"stream": "true"}, {}),
    ],
)
def test_a_stream_is_of_events_as_described(
    app: FastAPI, path: str, fields: dict[str, str], headers: dict[str, str]
) -> None:
    operation = schemathesis.openapi.from_asgi("/openapi.json", app)[path]["POST"]
    file = "audio_file" if path == "/transcribe" else "file"

    answer = operation.Case(
        body={file: "RIFF", **fields},
        media_type="multipart/form-data",
    ).call_and_validate(checks=HELD, headers={"X-API-Key": KEY, **headers})

    assert answer.headers["content-type"][0].startswith("text/event-stream")


def check_generated(operation: schemathesis.APIOperation[Any, Any, Any, Any]) -> None:
    """Sends NUM_EXAMPLES requests of one operation; raises where an answer is not as described."""

    @settings(max_examples=NUM_EXAMPLES, suppress_health_check=list(HealthCheck), deadline=None)
    @given(case=operation.as_strategy())
    def answers_as_described(case: schemathesis.Case[Any]) -> None:
        case.headers.pop("Authorization", None)
        case.headers["X-API-Key"] = KEY

        case.call_and_validate(checks=HELD)

    answers_as_described()
