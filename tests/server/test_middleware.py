"""What holds for every answer: id, model, standing headers, limits, and one line in the log."""

from __future__ import annotations

import asyncio
import logging

import httpx
import pytest
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from simple_asr.server import middleware
from simple_asr.server.middleware import (
    HeaderLimits,
    HeadLimits,
    LastResort,
    LingeringClose,
    RequestEnvelope,
    RequestsPerAddress,
)
from simple_asr.server.path_prefix import PathPrefix
from simple_asr.server.record import open_record
from simple_asr.service.fake import FakeTranscriber
from simple_asr.service.peers import OpenPerCaller, Proxies
from simple_asr.service.transcriber import ModelState

pytestmark = pytest.mark.anyio

CLIP = {"audio_file": ("clip.wav", b"RIFF", "audio/wav")}


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/health", 200), ("GET", "/nothing", 404), ("POST", "/transcribe", 401)],
)
async def test_every_answer_carries_the_standing_headers(
    stranger: httpx.AsyncClient, method: str, path: str, status: int
) -> None:
    answer = await stranger.request(method, path)

    assert answer.status_code == status
    assert answer.headers["x-asr-model"] == "turbo"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"] == "no-store"
    assert len(answer.headers["x-request-id"]) == 32


async def test_the_model_that_is_served_is_named_even_with_letters_no_header_takes(
    stranger: httpx.AsyncClient, transcriber: FakeTranscriber
) -> None:
    transcriber.state = ModelState("ready", requested="turbo", served="модель\r\nX: y")

    answer = await stranger.get("/health")

    assert answer.headers["x-asr-model"].startswith("\\u043c")
    assert "x" not in answer.headers


async def test_a_callers_own_request_id_comes_back(stranger: httpx.AsyncClient) -> None:
    answer = await stranger.get("/nothing", headers={"X-Request-Id": "job-7.a_B"})

    assert answer.headers["x-request-id"] == "job-7.a_B"
    assert answer.json()["request_id"] == "job-7.a_B"


@pytest.mark.parametrize("given", ["", "a b", "x" * 65, "é", "<script>"])
async def test_an_id_that_could_spoil_a_log_is_replaced(
    stranger: httpx.AsyncClient, given: str
) -> None:
    answer = await stranger.get("/health", headers=[(b"X-Request-Id", given.encode())])

    assert len(answer.headers["x-request-id"]) == 32


async def test_a_hundred_headers_are_taken_and_one_more_is_not(stranger: httpx.AsyncClient) -> None:
    own = len((await stranger.get("/health")).request.headers)
    extra = [(f"X-{i}", "1") for i in range(100 - own)]

    taken = await stranger.get("/health", headers=extra)
    refused = await stranger.get("/health", headers=[*extra, ("X-More", "1")])

    assert taken.status_code == 200
    assert refused.status_code == 431
    assert refused.json()["code"] == "headers_too_large"


async def test_headers_and_address_are_counted_to_the_byte() -> None:
    async def nothing_more() -> Message:
        return {"type": "http.disconnect"}

    limits = HeaderLimits(Response(), HeadLimits(max_headers=1, max_bytes=20, seconds=10))

    async def status(length: int) -> int:
        headers = [(b"x", b"a" * (length - 3))]
        scope = {"type": "http", "path": "/p", "query_string": b"", "headers": headers}
        answers: list[Message] = []

        async def send(message: Message) -> None:
            answers.append(message)

        open_record(scope)
        await limits(scope, nothing_more, send)
        return int(answers[0]["status"])

    assert [await status(length) for length in (19, 20, 21)] == [200, 200, 431]


@pytest.mark.parametrize("path", ["/health", "/health?" + "a" * 9000])
async def test_headers_and_address_together_have_a_limit(
    stranger: httpx.AsyncClient, path: str
) -> None:
    taken = await stranger.get(path, headers={"X-Long": "a" * 7000})
    refused = await stranger.get(path, headers={"X-Long": "a" * 17_000})

    assert (taken.status_code, refused.status_code) == (200, 431)


async def test_a_request_is_one_line_in_the_log_with_neither_key_nor_query(
    client: httpx.AsyncClient, key: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="simple_asr")

    answer = await client.post("/transcribe", files=CLIP, params={"initial_prompt": "secret"})

    [line] = [
        record.getMessage() for record in caplog.records if record.name == "simple_asr.access"
    ]
    assert line.startswith(
        f"request id={answer.headers['x-request-id']} method=POST path=/transcribe status=200 "
        "key=alice audio_s=2.50 queue_ms=250 decode_ms=500 total_ms="
    )
    assert "secret" not in caplog.text
    assert key not in caplog.text


async def test_a_path_cannot_forge_a_line_in_the_log(
    stranger: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="simple_asr.access")

    await stranger.get("/a%0Arequest%20id=forged")

    assert "path=/a\\nrequest id=forged" in caplog.messages[-1]


async def test_probes_that_succeed_do_not_fill_the_log(
    stranger: httpx.AsyncClient, transcriber: FakeTranscriber, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="simple_asr.access")

    await stranger.get("/health")
    transcriber.state = ModelState("failed", requested="turbo", served="turbo")
    await stranger.get("/health")

    assert [record.args[3] for record in caplog.records if isinstance(record.args, tuple)] == [503]


async def test_a_fault_of_ours_is_500_to_the_caller_and_a_traceback_to_the_operator(
    client: httpx.AsyncClient, transcriber: FakeTranscriber, caplog: pytest.LogCaptureFixture
) -> None:
    transcriber.error = RuntimeError("the inside")

    answer = await client.post("/transcribe", files=CLIP)

    assert answer.status_code == 500
    assert answer.json()["code"] == "internal_error"
    assert answer.json()["request_id"] in answer.json()["detail"]
    assert "the inside" not in answer.text
    assert "RuntimeError: the inside" in caplog.text


async def test_a_request_given_up_while_the_server_stops_is_answered(
    transcriber: FakeTranscriber,
) -> None:
    sent: list[Message] = []
    begun = asyncio.Event()

    async def endless(scope: Scope, receive: Receive, send: Send) -> None:
        begun.set()
        await asyncio.Event().wait()

    serving = asyncio.create_task(_call(RequestEnvelope(LastResort(endless), transcriber), sent))
    await begun.wait()
    serving.cancel()
    await serving  # Not as cancelled: uvicorn would log that as a failure.

    assert sent[0]["status"] == 503
    assert b'"code": "shutting_down"' in sent[1]["body"]


async def test_a_request_that_outlasts_the_deadline_is_given_up(
    transcriber: FakeTranscriber,
) -> None:
    sent: list[Message] = []
    has_ended = False

    async def endless(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal has_ended
        try:
            await asyncio.Event().wait()
        finally:
            has_ended = True

    await _call(RequestEnvelope(LastResort(endless, timeout=0.01), transcriber), sent)

    assert sent[0]["status"] == 504
    assert b"0.01 s (REQUEST_TIMEOUT_SECONDS)" in sent[1]["body"]
    assert has_ended


async def test_an_answer_already_begun_is_broken_off_rather_than_mended(
    transcriber: FakeTranscriber,
) -> None:
    sent: list[Message] = []

    async def failing_midway(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise RuntimeError("midway")

    with pytest.raises(RuntimeError, match="midway"):
        await _call(RequestEnvelope(LastResort(failing_midway), transcriber), sent)

    assert [message["type"] for message in sent] == ["http.response.start"]


async def test_other_scopes_pass_untouched(transcriber: FakeTranscriber) -> None:
    seen: list[str] = []

    async def inner(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope["type"])

    limits = HeadLimits(max_headers=100, max_bytes=10_000, seconds=10)
    for layer in (
        RequestEnvelope(inner, transcriber),
        PathPrefix(inner, "/asr"),
        LastResort(inner),
        RequestsPerAddress(inner, OpenPerCaller(1, Proxies(""))),
        LingeringClose(inner),
        HeaderLimits(inner, limits),
    ):
        await layer({"type": "lifespan"}, _never, _never_send)

    assert seen == ["lifespan"] * 6


# RequestsPerAddress -----------------------------------------------------------------------------


async def test_an_address_has_so_many_requests_in_work_and_a_proxy_any_number() -> None:
    finish, refused = asyncio.Event(), asyncio.Event()
    statuses: list[int] = []

    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        await finish.wait()
        await Response("done")(scope, receive, send)

    limited = RequestsPerAddress(slow, OpenPerCaller(1, Proxies("10.0.0.1")))

    async def ask(address: str) -> None:
        async def send(message: Message) -> None:
            if message["type"] == "http.response.start":
                statuses.append(message["status"])
                refused.set()

        scope = {"type": "http", "path": "/x", "headers": [], "client": (address, 1)}
        open_record(scope)
        await limited(scope, _never, send)

    callers = ["192.0.2.1", "192.0.2.1", "192.0.2.2", "10.0.0.1", "10.0.0.1"]
    asking = [asyncio.create_task(ask(address)) for address in callers]
    await refused.wait()
    finish.set()
    await asyncio.gather(*asking, ask("192.0.2.1"))

    assert sorted(statuses) == [200, 200, 200, 200, 200, 429]


# LingeringClose ----------------------------------------------------------------------------------


async def answer_at_once(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 413, "headers": []})
    await send({"type": "http.response.body", "body": b"no"})


async def read_then_answer(scope: Scope, receive: Receive, send: Send) -> None:
    while (await receive())["more_body"]:
        pass
    await answer_at_once(scope, receive, send)


WITH_BODY = [(b"content-length", b"5000000")]


async def test_an_answer_before_the_body_is_read_is_out_before_the_rest_is_dropped() -> None:
    sent: list[Message] = []
    num_sent_at: list[int] = []

    async def receive() -> Message:
        num_sent_at.append(len(sent))
        return {"type": "http.request", "body": b"x" * 1000, "more_body": len(num_sent_at) < 3}

    await _call(LingeringClose(answer_at_once), sent, WITH_BODY, receive)

    assert (b"connection", b"close") in sent[0]["headers"]
    assert [message.get("body") for message in sent[1:]] == [b"no", b""]
    assert num_sent_at == [2, 2, 2]


async def test_only_so_much_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(middleware, "LINGER_BYTES", 2500)
    waits: list[float] = []

    async def wait(seconds: float) -> None:
        waits.append(seconds)

    monkeypatch.setattr(asyncio, "sleep", wait)
    num_chunks = 0

    async def receive() -> Message:
        nonlocal num_chunks
        num_chunks += 1
        return {"type": "http.request", "body": b"x" * 1000, "more_body": True}

    await _call(LingeringClose(answer_at_once), [], WITH_BODY, receive)

    assert num_chunks == 3
    # A reset at once could destroy the answer on its way.
    assert waits == [pytest.approx(middleware.LINGER_SECONDS, abs=1)]


async def test_a_silent_sender_is_not_waited_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(middleware, "LINGER_SECONDS", 0.01)
    sent: list[Message] = []

    await asyncio.wait_for(_call(LingeringClose(answer_at_once), sent, WITH_BODY, _never), 10)

    assert sent[-1] == {"type": "http.response.body", "body": b"", "more_body": False}


async def test_a_connection_whose_body_was_read_is_kept() -> None:
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": b"x", "more_body": False}

    await _call(LingeringClose(read_then_answer), sent, WITH_BODY, receive)

    assert sent[0]["headers"] == []
    assert len(sent) == 2


async def _call(
    app: RequestEnvelope | LingeringClose,
    sent: list[Message],
    headers: list[tuple[bytes, bytes]] | None = None,
    receive: Receive | None = None,
) -> None:
    async def send(message: Message) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/x", "headers": headers or []}
    await app(scope, receive or _never, send)


async def _never() -> Message:
    await asyncio.Event().wait()
    raise AssertionError("nothing ever comes")


async def _never_send(message: Message) -> None:
    raise AssertionError("nothing is to be sent")
