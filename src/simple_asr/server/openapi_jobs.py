"""What OpenAPI cannot read off the code of jobs: bodies, answers and problem documents."""

from __future__ import annotations

from typing import Any, get_args

from simple_asr.server.openapi import (
    FORMAT_OPERATION,
    TRANSCRIBE_OPERATION,
    JsonSchema,
    Responses,
    problem_responses,
    transcribe_operation,
)
from simple_asr.service.jobs import State, WebhookState

_TIME: JsonSchema = {"type": ["string", "null"], "format": "date-time"}
_TEXT: JsonSchema = {"type": "string"}
_SECONDS: JsonSchema = {"type": ["number", "null"], "minimum": 0}
_JOB: JsonSchema = {
    "type": "object",
    "required": ["id", "state", "progress", "eta_seconds", "created", "error", "links"],
    "properties": {
        "id": _TEXT,
        "state": {"type": "string", "enum": list(get_args(State))},
        "progress": {"type": "number", "minimum": 0, "maximum": 1},
        "eta_seconds": {**_SECONDS, "description": "Until it is done, as it went so far."},
        "duration": {**_SECONDS, "description": "Of the audio, in seconds, once it is known."},
        "created": _TIME,
        "started": {**_TIME, "description": "The work that goes on, or went on last."},
        "ended": _TIME,
        "error": {
            "type": ["object", "null"],
            "description": "Why it failed.",
            "properties": {"code": _TEXT, "title": _TEXT, "detail": _TEXT},
        },
        "webhook": {
            "type": ["object", "null"],
            "description": "How far telling its end has come, where somebody is to be told.",
            "properties": {
                "state": {"type": "string", "enum": list(get_args(WebhookState))},
                "attempts": {"type": "integer", "minimum": 0},
                "error": {"type": ["string", "null"], "description": "Why the last one failed."},
            },
        },
        "batch": {
            "type": ["object", "null"],
            "description": "Which one it was sent with, and its number and its file's name there.",
            "properties": {
                "id": _TEXT,
                "number": {"type": "integer", "minimum": 0},
                "name": {"type": ["string", "null"]},
            },
        },
        "links": {"type": "object", "additionalProperties": _TEXT},
    },
}
_EXAMPLE = {
    "id": "5e0c7b0a4d9f4b5c8f1d2a3b4c5d6e7f",
    "state": "running",
    "progress": 0.42,
    "eta_seconds": 31.0,
    "duration": 3600.0,
    "created": "2026-01-02T03:04:05.678+00:00",
    "started": "2026-01-02T03:04:06.000+00:00",
    "ended": None,
    "error": None,
    "webhook": None,
    "batch": None,
    "links": {
        "self": "/jobs/5e0c7b0a4d9f4b5c8f1d2a3b4c5d6e7f",
        "events": "/jobs/5e0c7b0a4d9f4b5c8f1d2a3b4c5d6e7f/events",
        "result": "/jobs/5e0c7b0a4d9f4b5c8f1d2a3b4c5d6e7f/result",
    },
}


def _answer(description: str, schema: JsonSchema, example: object) -> dict[str, Any]:
    return {
        "description": description,
        "content": {"application/json": {"schema": schema, "example": example}},
    }


def _by_name(responses: Responses) -> dict[str, Any]:
    return {str(status): response for status, response in responses.items()}


ACCEPTED = _answer("The job is on disk.", _JOB, {**_EXAMPLE, "state": "queued"})
JOB_OPERATION: dict[str, Any] = {
    **transcribe_operation("audio_url", "webhook_url"),
    "responses": {
        "202": ACCEPTED,
        **_by_name(
            problem_responses(
                400, 401, 403, 404, 408, 409, 413, 415, 422, 429, 431, 500, 503, 504, 507
            )
        ),
    },
}
JOBS_RESPONSES: Responses = {
    200: _answer(
        "A page of them.",
        {
            "type": "object",
            "required": ["jobs", "next"],
            "properties": {
                "jobs": {"type": "array", "items": _JOB},
                "next": {"type": ["string", "null"]},
            },
        },
        {"jobs": [_EXAMPLE], "next": None},
    ),
    **problem_responses(401, 403, 404, 422, 503),
}
JOB_RESPONSES: Responses = {
    200: _answer(
        "The job.",
        {**_JOB, "properties": {**_JOB["properties"], "text": _TEXT}},
        {**_EXAMPLE, "text": "So far"},
    ),
    **problem_responses(401, 403, 404, 422, 503),
}
EVENTS_RESPONSES: Responses = {
    200: {
        "description": "The events `progress`, `segment`, and at the end `done` or `error`.",
        "content": {
            "text/event-stream": TRANSCRIBE_OPERATION["responses"]["200"]["content"][
                "text/event-stream"
            ]
        },
    },
    **problem_responses(401, 403, 404, 409, 422, 503),
}
CANCEL_RESPONSES: Responses = {
    200: _answer("It was cancelled.", _JOB, {**_EXAMPLE, "state": "cancelled"}),
    204: {"description": "It had ended, and is removed."},
    **problem_responses(401, 403, 404, 422, 503),
}
RESULT_OPERATION: dict[str, Any] = {
    "parameters": [
        {
            "name": "partial",
            "in": "query",
            "required": False,
            "description": "What is recognised so far, where it is not done.",
            "schema": {"type": "boolean"},
        },
        *FORMAT_OPERATION["parameters"],
    ],
    "responses": {
        "200": FORMAT_OPERATION["responses"]["200"],
        **_by_name(problem_responses(401, 403, 404, 409, 413, 422, 503)),
    },
}

_BATCH: JsonSchema = {
    "type": "object",
    "required": ["id", "progress", "states", "jobs", "links"],
    "properties": {
        "id": _TEXT,
        "progress": {"type": "number", "minimum": 0, "maximum": 1},
        "states": {
            "type": "object",
            "description": "How many of its jobs are in each state.",
            "additionalProperties": {"type": "integer"},
        },
        "jobs": {"type": "array", "items": _JOB},
        "links": {"type": "object", "additionalProperties": _TEXT},
    },
}
_BATCH_EXAMPLE = {
    "id": "0d4f9b4c5d6e7f5e0c7b0a4b5c8f1d2a",
    "progress": 0.42,
    "states": {"running": 1},
    "jobs": [
        {
            **_EXAMPLE,
            "batch": {"id": "0d4f9b4c5d6e7f5e0c7b0a4b5c8f1d2a", "number": 0, "name": "talk.mp3"},
        }
    ],
    "links": {
        "self": "/jobs/batch/0d4f9b4c5d6e7f5e0c7b0a4b5c8f1d2a",
        "events": "/jobs/batch/0d4f9b4c5d6e7f5e0c7b0a4b5c8f1d2a/events",
    },
}
BATCH_OPERATION: dict[str, Any] = {
    **transcribe_operation("audio_urls", "webhook_url"),
    "responses": {
        "202": _answer("Its jobs are on disk.", _BATCH, _BATCH_EXAMPLE),
        **_by_name(
            problem_responses(
                400, 401, 403, 404, 408, 409, 413, 415, 422, 429, 431, 500, 503, 504, 507
            )
        ),
    },
}
BATCH_RESPONSES: Responses = {
    200: _answer("The batch.", _BATCH, _BATCH_EXAMPLE),
    **problem_responses(401, 403, 404, 422, 503),
}
BATCH_EVENTS_RESPONSES: Responses = {
    200: {
        "description": "The events `job`, `progress`, and at the end `done`.",
        "content": {
            "text/event-stream": {
                "schema": {"type": "string"},
                "example": 'event: progress\ndata: {"fraction": 0.42}\n\n',
            }
        },
    },
    **problem_responses(401, 403, 404, 422, 503),
}
CANCEL_BATCH_RESPONSES: Responses = {
    200: _answer("What had not ended was cancelled.", _BATCH, _BATCH_EXAMPLE),
    204: {"description": "All its jobs had ended, and are removed."},
    **problem_responses(401, 403, 404, 422, 503),
}
