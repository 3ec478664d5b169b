"""POST /jobs/batch and what follows."""

from __future__ import annotations

import asyncio
import io
import json
import zipfile
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from simple_asr.server.app import create_app
from simple_asr.service.fake import FakeTranscriber
from simple_asr.service.keys import KeyStore
from simple_asr.settings import Settings
from tests.listener import Listener, listening, ok
from tests.server.routes.test_jobs_route import OTHER_KEY, events_of
from tests.support import WAIT

pytestmark = pytest.mark.anyio


@pytest.fixture
async def internet() -> AsyncIterator[Listener]:
    async with listening() as listener:
        listener.answers = {"/a.wav": ok(b"RIFF a"), "/b.wav": ok(b"RIFF b")}
        yield listener


@pytest.fixture
def settings(make_settings: Callable[..., Settings], internet: Listener) -> Settings:
    return make_settings(
        audio_urls=True,
        allowed_addresses=f"{internet.address}/32",
        allowed_ports=str(internet.port),
        max_batch_jobs=5,
    )


@pytest.fixture
async def working(app: FastAPI) -> AsyncIterator[None]:
    """The app works on jobs."""
    async with app.router.lifespan_context(app):
        yield


def packed(*members: tuple[str, bytes]) -> dict[str, bytes]:
    """A form with a zip."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in members:
            archive.writestr(name, content)
    return {"audio_file": buffer.getvalue()}


TWO = packed(("one.wav", b"RIFF 1"), ("../two.wav", b"RIFF 2"))


def media_in(settings: Settings) -> list[str]:
    return [path.suffix for path in settings.jobs_dir.iterdir() if "sqlite" not in path.name]


async def until_ended(client: httpx.AsyncClient, address: str) -> dict[str, Any]:
    for _ in range(WAIT * 100):
        batch: dict[str, Any] = (await client.get(address)).json()
        if all(job["ended"] for job in batch["jobs"]):
            return batch
        await asyncio.sleep(0.01)
    raise AssertionError(batch)


@pytest.mark.usefixtures("working")
async def test_a_zip_and_addresses_become_jobs_in_their_order(
    client: httpx.AsyncClient,
    transcriber: FakeTranscriber,
    internet: Listener,
    settings: Settings,
) -> None:
    origin = f"http://{internet.address}:{internet.port}"
    urls = json.dumps({"audio_urls": [f"{origin}/a.wav?s=secret", f"{origin}/b.wav?s=secret"]})

    taken = await client.post("/jobs/batch?language=ru", files=TWO, data={"params": urls})
    done = await until_ended(client, taken.headers["Location"])

    assert taken.status_code == 202
    assert (done["id"], done["progress"], done["states"]) == (taken.json()["id"], 1.0, {"done": 4})
    assert [job["batch"]["name"] for job in done["jobs"]] == ["one.wav", "../two.wav", None, None]
    contents = {asked.content for asked in transcriber.asked}
    assert contents == {b"RIFF 1", b"RIFF 2", b"RIFF a", b"RIFF b"}
    assert {asked.options.language for asked in transcriber.asked} == {"ru"}
    assert "secret" not in taken.text
    assert media_in(settings) == []


async def test_addresses_alone_come_as_json(client: httpx.AsyncClient, internet: Listener) -> None:
    url = f"http://{internet.address}:{internet.port}/a.wav"

    taken = await client.post("/jobs/batch", json={"audio_urls": [url, url], "language": "ru"})

    assert (taken.status_code, taken.json()["states"]) == (202, {"queued": 2})


async def test_the_jobs_of_a_batch_are_jobs_like_others(client: httpx.AsyncClient) -> None:
    batch = (await client.post("/jobs/batch", files=TWO)).json()
    first = batch["jobs"][0]

    listed = (await client.get("/jobs")).json()["jobs"]
    cancelled = await client.delete(first["links"]["self"])

    assert {job["id"] for job in listed} == {job["id"] for job in batch["jobs"]}
    assert cancelled.json()["state"] == "cancelled"


@pytest.mark.usefixtures("working")
async def test_one_stream_tells_of_all_and_goes_on_where_its_client_was(
    client: httpx.AsyncClient,
) -> None:
    batch = (await client.post("/jobs/batch", files=TWO)).json()

    whole = events_of((await client.get(batch["links"]["events"])).text)
    jobs = [(event_id, data) for name, event_id, data in whole if name == "job"]
    anew = await client.get(batch["links"]["events"], headers={"Last-Event-ID": jobs[0][0]})
    resumed = [data["id"] for name, _, data in events_of(anew.text) if name == "job"]

    assert jobs[-1][0] == "0-1"
    assert {data["id"] for _, data in jobs} == {job["id"] for job in batch["jobs"]}
    assert resumed == [jobs[1][1]["id"]]
    assert [name for name, _, _ in whole][-1] == "done"
    assert whole[-1][2]["states"] == {"done": 2}
    assert [data["fraction"] for name, _, data in whole if name == "progress"][-1] == 1.0


@pytest.mark.usefixtures("working")
async def test_a_batch_is_cancelled_while_it_is_worked_on_and_then_removed(
    client: httpx.AsyncClient, transcriber: FakeTranscriber, settings: Settings
) -> None:
    transcriber.is_stuck = True
    address = (await client.post("/jobs/batch", files=TWO)).headers["Location"]
    await asyncio.to_thread(transcriber.started.wait, WAIT)

    cancelled = await client.delete(address)
    ended = await asyncio.to_thread(transcriber.ended.wait, WAIT)
    removed = await client.delete(address)
    gone = await client.get(address)

    assert (cancelled.status_code, cancelled.json()["states"]) == (200, {"cancelled": 2})
    assert ended
    assert (removed.status_code, gone.status_code) == (204, 404)
    assert (await client.get("/jobs")).json()["jobs"] == []
    assert media_in(settings) == []


async def test_the_same_batch_sent_again_is_the_same_batch(
    client: httpx.AsyncClient, settings: Settings
) -> None:
    headers = {"Idempotency-Key": "once"}

    first = await client.post("/jobs/batch", files=TWO, headers=headers)
    again = await client.post("/jobs/batch", files=TWO, headers=headers)
    other = await client.post("/jobs/batch?language=ru", files=TWO, headers=headers)
    single = await client.post("/jobs", files=TWO, headers=headers)

    assert (first.status_code, again.status_code) == (202, 202)
    assert again.json() == first.json()
    assert [answer.json()["code"] for answer in (other, single)] == 2 * ["idempotency_mismatch"]
    assert media_in(settings) == [".media", ".media"]


async def test_a_batch_belongs_to_its_key(
    settings: Settings, transcriber: FakeTranscriber, make_key_store: Callable[..., KeyStore]
) -> None:
    with settings.keys_file.open("a") as file:
        file.write(f"{OTHER_KEY}  # bob\n")
    app = create_app(settings, transcriber, make_key_store(settings))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://a") as client:
        mine = {"X-API-Key": settings.keys_file.read_text().split()[0]}
        theirs = {"X-API-Key": OTHER_KEY}
        taken = await client.post("/jobs/batch", files=TWO, headers=mine)
        address = taken.headers["Location"]

        statuses = [
            (await client.request(method, path, headers=theirs)).status_code
            for method, path in (
                ("GET", address),
                ("GET", f"{address}/events"),
                ("DELETE", address),
            )
        ]

        assert statuses == [404, 404, 404]
        assert (await client.get(address, headers=mine)).json()["states"] == {"queued": 2}


@pytest.mark.parametrize(
    ("request_", "status", "code"),
    [
        ({}, 422, "invalid_parameter"),
        ({"json": {"audio_urls": []}}, 422, "invalid_parameter"),
        ({"json": {"audio_urls": 6 * ["https://example.com/"]}}, 422, "invalid_parameter"),
        ({"json": {"audio_urls": ["http://127.1/"]}}, 422, "address_refused"),
        ({"json": {"audio_urls": [5]}}, 422, "invalid_parameter"),
        ({"json": {"audio_url": "https://example.com/"}}, 422, "unknown_parameter"),
        ({"files": {"audio_file": b"RIFF"}}, 422, "invalid_archive"),
        ({"files": packed()}, 422, "invalid_archive"),
        ({"files": packed(*((f"{n}.wav", b"RIFF") for n in range(6)))}, 413, "payload_too_large"),
        ({"files": packed(("a.wav", b"RIFF"), ("b.zip", b"PK\3\4"))}, 422, "invalid_archive"),
        ({"files": TWO, "params": {"beam_size": 0}}, 422, "invalid_parameter"),
    ],
)
async def test_a_batch_is_taken_whole_or_not_at_all(
    client: httpx.AsyncClient, settings: Settings, request_: Any, status: int, code: str
) -> None:
    answer = await client.post("/jobs/batch", **request_)

    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert (await client.get("/jobs")).json()["jobs"] == []
    assert media_in(settings) == []


async def test_a_zip_and_addresses_together_keep_to_the_number_of_jobs(
    client: httpx.AsyncClient, settings: Settings, internet: Listener
) -> None:
    urls = json.dumps({"audio_urls": 4 * [f"http://{internet.address}:{internet.port}/a.wav"]})

    answer = await client.post("/jobs/batch", files=TWO, data={"params": urls})

    assert (answer.status_code, answer.json()["code"]) == (413, "payload_too_large")
    assert "MAX_BATCH_JOBS" in answer.json()["detail"]
    assert media_in(settings) == []


async def test_a_batch_keeps_to_the_number_of_jobs_that_may_wait(
    make_settings: Callable[..., Settings],
    transcriber: FakeTranscriber,
    make_key_store: Callable[..., KeyStore],
) -> None:
    settings = make_settings(max_waiting_jobs=1)
    app = create_app(settings, transcriber, make_key_store(settings))
    headers = {"X-API-Key": settings.keys_file.read_text().split()[0]}
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://a") as client:
        answer = await client.post("/jobs/batch", files=TWO, headers=headers)

    assert (answer.status_code, answer.json()["code"]) == (503, "overloaded")
    assert media_in(settings) == []
