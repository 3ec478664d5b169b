"""Keys: from either header, as bytes, and before a byte of the body is read; and shared work."""

from __future__ import annotations

import httpx
import pytest
from fastapi import FastAPI

from simple_asr.engine.options import TEMPERATURE_LADDER, TranscribeOptions
from simple_asr.server.dependencies import WorkKey
from simple_asr.service.fake import FakeTranscriber

pytestmark = pytest.mark.anyio

Headers = list[tuple[bytes, bytes]]


def test_a_default_that_is_given_is_other_work_than_one_left_out() -> None:
    left_out, given = TranscribeOptions(), TranscribeOptions(temperature=TEMPERATURE_LADDER)

    assert left_out == given
    assert WorkKey.of("alice", b"", left_out) != WorkKey.of("alice", b"", given)
    assert WorkKey.of("alice", b"", given) == WorkKey.of("alice", b"", given.model_copy())


async def asked(app: FastAPI, headers: Headers) -> httpx.Response:
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app), base_url="http://asr"
    ) as client:
        return await client.post("/keys/reload", headers=headers)


@pytest.mark.parametrize(
    "header", ["X-API-Key: {}", "Authorization: Bearer {}", "authorization: bearer  {} "]
)
async def test_a_key_is_taken_from_either_header(app: FastAPI, key: str, header: str) -> None:
    name, _, value = header.format(key).encode().partition(b": ")

    assert (await asked(app, [(name, value)])).status_code == 200


async def test_the_same_key_in_both_headers_is_taken(app: FastAPI, key: str) -> None:
    both = [(b"X-API-Key", key.encode()), (b"Authorization", b"Bearer " + key.encode())]

    assert (await asked(app, both)).status_code == 200


@pytest.mark.parametrize(
    "more",
    [
        [(b"Authorization", b"Bearer other")],
        [(b"X-API-Key", b"other")],
        [(b"Authorization", b"Bearer a"), (b"Authorization", b"Bearer a")],
    ],
)
async def test_a_second_key_beside_the_right_one_is_refused(
    app: FastAPI, key: str, more: Headers
) -> None:
    answer = await asked(app, [(b"X-API-Key", key.encode()), *more])

    assert answer.status_code == 401


async def test_another_scheme_beside_the_key_is_left_to_whoever_reads_it(
    app: FastAPI, key: str
) -> None:
    headers = [(b"X-API-Key", key.encode()), (b"Authorization", b"Basic dXNlcjpwYXNz")]

    assert (await asked(app, headers)).status_code == 200


@pytest.mark.parametrize("value", [b"", b"Bearer", b"Bearer ", b"Basic dXNlcjpwYXNz"])
async def test_a_header_without_a_key_is_a_missing_key(app: FastAPI, value: bytes) -> None:
    assert (await asked(app, [(b"Authorization", value)])).status_code == 401


@pytest.mark.parametrize("value", ["éé".encode(), b"\xff\xfe", b"a" * 10_000, b"\t"])
async def test_any_bytes_whatsoever_are_at_most_a_wrong_key(app: FastAPI, value: bytes) -> None:
    as_key = await asked(app, [(b"X-API-Key", value)])
    as_token = await asked(app, [(b"Authorization", b"Bearer " + value)])

    assert {as_key.status_code, as_token.status_code} <= {401, 403}


async def test_a_stranger_is_refused_before_the_body_is_read(
    app: FastAPI, transcriber: FakeTranscriber
) -> None:
    is_read = False

    async def receive() -> dict[str, object]:
        nonlocal is_read
        is_read = True
        return {"type": "http.disconnect"}

    statuses: list[int] = []

    async def send(message: dict[str, object]) -> None:
        if message["type"] == "http.response.start":
            assert not is_read, "the answer must not wait for the body"
            statuses.append(int(str(message["status"])))

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/transcribe",
        "raw_path": b"/transcribe",
        "query_string": b"",
        "headers": [(b"content-type", b"audio/wav"), (b"content-length", b"1000")],
    }
    await app(scope, receive, send)  # type: ignore[arg-type]  # plain dicts for ASGI's mappings

    assert statuses == [401]
    assert transcriber.asked == []
