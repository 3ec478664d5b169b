"""OpenAPI says what the server does: every parameter, body, answer and error."""

from __future__ import annotations

import json
import re
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from simple_asr.server.problems import STATUSES
from simple_asr.service.parameters import PARAMETERS

pytestmark = pytest.mark.anyio


@pytest.fixture
def document(app: FastAPI) -> dict[str, Any]:
    return app.openapi()


@pytest.fixture
def operation(document: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = document["paths"]["/transcribe"]["post"]
    return found


async def test_it_is_served_without_a_key(
    stranger: httpx.AsyncClient, document: dict[str, Any]
) -> None:
    assert (await stranger.get("/openapi.json")).json() == document


@pytest.mark.parametrize("path", ["/transcribe", "/jobs", "/jobs/batch"])
async def test_a_model_that_there_is_not_is_answered_as_described(
    client: httpx.AsyncClient, document: dict[str, Any], path: str
) -> None:
    answer = await client.post(
        path, params={"model": "nobody"}, content=b"RIFF", headers={"Content-Type": "audio/wav"}
    )

    assert answer.status_code == 404, answer.text
    assert "404" in document["paths"][path]["post"]["responses"]


async def test_every_parameter_stands_in_the_query_the_form_and_the_json_document(
    document: dict[str, Any], operation: dict[str, Any]
) -> None:
    in_query = {parameter["name"] for parameter in operation["parameters"]}
    form = operation["requestBody"]["content"]["multipart/form-data"]["schema"]["properties"]
    in_json = document["components"]["schemas"]["TranscribeParameters"]["properties"]

    assert in_query == PARAMETERS | {"audio_url"}
    assert set(form) == {*PARAMETERS, "audio_file", "params", "audio_url"}
    assert set(in_json) == PARAMETERS


async def test_every_error_of_transcribe_is_a_problem_document(operation: dict[str, Any]) -> None:
    answers = {int(status): answer for status, answer in operation["responses"].items()}
    errors = {status: answer for status, answer in answers.items() if status != 200}

    # 405 belongs to no route, 409 to those of keys and models, 499 to nobody.
    assert set(errors) == set(STATUSES.values()) - {405, 409, 499}
    assert all(
        list(answer["content"]) == ["application/problem+json"] for answer in errors.values()
    )


async def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    references = set(re.findall(r'"#/components/schemas/(\w+)"', json.dumps(document)))

    assert references
    assert references <= set(document["components"]["schemas"])


async def test_what_needs_a_key_says_which_headers_take_it(
    document: dict[str, Any], operation: dict[str, Any]
) -> None:
    assert operation["security"] == [{"ApiKey": []}, {"Bearer": []}]
    assert set(document["components"]["securitySchemes"]) == {"ApiKey", "Bearer"}
    assert "security" not in document["paths"]["/health"]["get"]
