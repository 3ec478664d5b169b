"""POST /jobs and what follows."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from simple_asr.errors import UnreadableMedia
from simple_asr.server.app import create_app
from simple_asr.service.fake import TRANSCRIPT, FakeTranscriber
from simple_asr.service.keys import KeyStore
from simple_asr.settings import Settings
from simple_asr.transcript.formats import FORMATS
from tests.support import WAIT

pytestmark = pytest.mark.anyio

OTHER_KEY = "f" * 64
FORM: dict[str, Any] = {"files": {"audio_file": b"RIFF"}}


@pytest.fixture
async def working(app: FastAPI) -> AsyncIterator[None]:
    """The app works on jobs."""
    async with app.router.lifespan_context(app):
        yield


async def until(client: httpx.AsyncClient, address: str, state: str) -> dict[str, Any]:
    for _ in range(WAIT * 100):
        job: dict[str, Any] = (await client.get(address)).json()
        if job["state"] == state:
            return job
        await asyncio.sleep(0.01)
    raise AssertionError(f"the job is {job['state']}, not {state}")


async def until_something_is_said(client: httpx.AsyncClient, address: str) -> str:
    for _ in range(WAIT * 100):
        text: str = (await client.get(address)).json()["text"]
        if text:
            return text
        await asyncio.sleep(0.01)
    raise AssertionError("nothing is said")


def events_of(stream: str) -> list[tuple[str, str, Any]]:
    """Name, id and data of each event."""
    told = []
    for block in stream.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if line[:1] not in ":{")
        if "event" in fields:
            told.append((fields["event"], fields.get("id", ""), json.loads(fields["data"])))
    return told


@pytest.mark.usefixtures("working")
async def test_a_job_is_taken_in_done_and_read(client: httpx.AsyncClient) -> None:
    taken = await client.post("/jobs?format=srt", **FORM)
    address = taken.headers["Location"]
    done = await until(client, address, "done")

    as_sent = await client.get(f"{address}/result")
    as_json = await client.get(f"{address}/result?format=json")

    assert taken.status_code == 202
    assert taken.json()["links"]["self"] == address
    assert (done["progress"], done["text"], done["error"]) == (1.0, TRANSCRIPT.text.strip(), None)
    assert as_sent.text == FORMATS["srt"].write(TRANSCRIPT)
    assert as_sent.headers["Content-Type"] == FORMATS["srt"].media_type
    assert as_json.text == FORMATS["json"].write(TRANSCRIPT)


async def test_a_job_nobody_works_on_yet_has_no_result(client: httpx.AsyncClient) -> None:
    address = (await client.post("/jobs", **FORM)).headers["Location"]

    whole = await client.get(f"{address}/result")
    partial = await client.get(f"{address}/result?partial=true&format=text")

    assert (whole.status_code, whole.json()["code"]) == (409, "job_not_done")
    assert (partial.status_code, partial.text) == (200, "\n")


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("partial=yes", 200),
        ("partial=ON", 200),
        ("partial=true&partial=1", 200),
        ("partial=off", 409),
        ("partial=", 422),
        ("partial=NaN", 422),
        ("partial=true&partial=false", 422),
    ],
)
async def test_whether_a_part_will_do_is_read_as_any_truth(
    client: httpx.AsyncClient, query: str, status: int
) -> None:
    address = (await client.post("/jobs", **FORM)).headers["Location"]

    answer = await client.get(f"{address}/result?{query}")

    assert answer.status_code == status


async def test_a_job_of_a_model_there_is_not_is_refused_at_once(client: httpx.AsyncClient) -> None:
    job = await client.post("/jobs?model=nope", **FORM)
    batch = await client.post("/jobs/batch?model=nope&audio_urls=http://example.com/a", **FORM)

    assert (job.status_code, job.json()["code"]) == (404, "model_not_found")
    assert batch.status_code in (404, 422)
    assert (await client.get("/jobs")).json()["jobs"] == []


@pytest.mark.usefixtures("working")
async def test_what_is_recognised_can_be_read_before_the_end(
    client: httpx.AsyncClient, transcriber: FakeTranscriber
) -> None:
    transcriber.is_stuck_late = True
    address = (await client.post("/jobs", **FORM)).headers["Location"]

    text = await until_something_is_said(client, address)
    partial = await client.get(f"{address}/result?partial=true&format=simple")

    assert text == TRANSCRIPT.text.strip()
    assert partial.json() == {"text": TRANSCRIPT.text.strip()}


@pytest.mark.usefixtures("working")
async def test_a_failed_job_says_why(
    client: httpx.AsyncClient, transcriber: FakeTranscriber
) -> None:
    transcriber.error = UnreadableMedia("This is no audio.")
    address = (await client.post("/jobs", **FORM)).headers["Location"]

    failed = await until(client, address, "failed")
    result = await client.get(f"{address}/result")

    assert failed["error"]["code"] == "unreadable_media"
    assert result.status_code == 409
    assert "This is no audio." in result.json()["detail"]


@pytest.mark.usefixtures("working")
async def test_a_stream_tells_what_is_known_and_what_comes(client: httpx.AsyncClient) -> None:
    address = (await client.post("/jobs?format=text", **FORM)).headers["Location"]

    stream = await client.get(f"{address}/events")
    told = events_of(stream.text)

    assert stream.headers["Content-Type"].startswith("text/event-stream")
    assert [name for name, _, _ in told if name != "progress"] == ["segment", "done"]
    assert ("segment", "1", json.loads(FORMATS["json"].write(TRANSCRIPT))["segments"][0]) in told
    assert told[-1][2]["content"] == FORMATS["text"].write(TRANSCRIPT)
    assert [data["fraction"] for name, _, data in told if name == "progress"][-1] == 1.0


@pytest.mark.usefixtures("working")
async def test_a_stream_goes_on_after_the_last_event_its_client_had(
    client: httpx.AsyncClient,
) -> None:
    address = (await client.post("/jobs", **FORM)).headers["Location"]
    await until(client, address, "done")

    anew = await client.get(f"{address}/events", headers={"Last-Event-ID": "1"})
    of_no_id_of_ours = await client.get(f"{address}/events", headers={"Last-Event-ID": "x"})

    assert [name for name, _, _ in events_of(anew.text)] == ["progress", "done"]
    assert "segment" in [name for name, _, _ in events_of(of_no_id_of_ours.text)]


@pytest.mark.usefixtures("working")
async def test_the_stream_of_a_job_that_is_cancelled_ends_with_an_error(
    client: httpx.AsyncClient, transcriber: FakeTranscriber
) -> None:
    transcriber.is_stuck_late = True
    address = (await client.post("/jobs", **FORM)).headers["Location"]
    await until_something_is_said(client, address)

    reading = asyncio.ensure_future(client.get(f"{address}/events"))
    await client.delete(address)
    told = events_of((await reading).text) or [("error", "", reading.result().json())]

    name, _, problem = told[-1]
    assert (name, problem["code"]) == ("error", "job_not_done")


async def test_a_job_belongs_to_its_key(
    settings: Settings, transcriber: FakeTranscriber, make_key_store: Callable[..., KeyStore]
) -> None:
    # Two keys of one name: it is the key that counts.
    with settings.keys_file.open("a") as file:
        file.write(f"{OTHER_KEY}  # alice\n")
    app = create_app(settings, transcriber, make_key_store(settings))
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://asr") as client:
        key = settings.keys_file.read_text().split()[0]
        mine, theirs = {"X-API-Key": key}, {"X-API-Key": OTHER_KEY}
        address = (await client.post("/jobs", headers=mine, **FORM)).headers["Location"]

        statuses = [
            (await client.request(method, path, headers=theirs)).status_code
            for method, path in (
                ("GET", address),
                ("GET", f"{address}/result"),
                ("DELETE", address),
                ("GET", f"/jobs?before={address.rpartition('/')[2]}"),
            )
        ]
        listed = (await client.get("/jobs", headers=theirs)).json()

        assert statuses == [404, 404, 404, 404]
        assert listed == {"jobs": [], "next": None}
        assert (await client.get(address, headers=mine)).json()["state"] == "queued"


async def test_pages_lead_from_one_to_the_next(client: httpx.AsyncClient) -> None:
    sent = [(await client.post("/jobs", **FORM)).json()["id"] for _ in range(3)]

    first = (await client.get("/jobs?limit=2")).json()
    second = (await client.get(first["next"])).json()

    listed = [job["id"] for page in (first, second) for job in page["jobs"]]
    assert listed == sent[::-1]
    assert second["next"] is None


async def test_the_same_request_sent_again_is_the_same_job(client: httpx.AsyncClient) -> None:
    headers = {"Idempotency-Key": "3f0c"}

    first = await client.post("/jobs", headers=headers, **FORM)
    second = await client.post("/jobs", headers=headers, **FORM)
    other = await client.post("/jobs?language=ru", headers=headers, **FORM)

    assert (first.status_code, second.status_code) == (202, 202)
    assert second.json() == first.json()
    assert (other.status_code, other.json()["code"]) == (409, "idempotency_mismatch")


async def test_a_job_is_found_by_the_key_it_was_sent_with(client: httpx.AsyncClient) -> None:
    sent = [
        (await client.post("/jobs", headers={"Idempotency-Key": key}, **FORM)).json()
        for key in ("3f0c", "3f0d")
    ]

    found = (await client.get("/jobs?idempotency_key=3f0c")).json()
    nothing = (await client.get("/jobs?idempotency_key=3f0")).json()

    assert found == {"jobs": sent[:1], "next": None}
    assert nothing["jobs"] == []


@pytest.mark.parametrize("key", ["", "a b", "x" * 256])
async def test_an_idempotency_key_that_is_none_is_refused(
    client: httpx.AsyncClient, key: str
) -> None:
    answer = await client.post("/jobs", headers={"Idempotency-Key": key}, **FORM)

    assert (answer.status_code, answer.json()["field"]) == (422, "Idempotency-Key")


async def test_a_job_is_cancelled_and_then_removed(
    client: httpx.AsyncClient, settings: Settings
) -> None:
    address = (await client.post("/jobs", **FORM)).headers["Location"]

    cancelled = await client.delete(address)
    removed = await client.delete(address)
    gone = await client.delete(address)

    assert (cancelled.status_code, cancelled.json()["state"]) == (200, "cancelled")
    assert (removed.status_code, gone.status_code) == (204, 404)
    assert list(settings.jobs_dir.glob("*.media")) == []


@pytest.mark.parametrize("query", ["language=ru", "nonsense=1", "format=nonsense"])
async def test_of_a_result_only_its_writing_can_be_chosen(
    client: httpx.AsyncClient, query: str
) -> None:
    address = (await client.post("/jobs", **FORM)).headers["Location"]

    answer = await client.get(f"{address}/result?partial=true&{query}")

    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_parameter")


@pytest.mark.parametrize("query", ["beam_size=0", "nonsense=1"])
async def test_what_transcribe_refuses_is_no_job(client: httpx.AsyncClient, query: str) -> None:
    answer = await client.post(f"/jobs?{query}", **FORM)

    assert answer.status_code == 422
    assert (await client.get("/jobs")).json()["jobs"] == []


async def test_a_stranger_has_no_jobs(stranger: httpx.AsyncClient) -> None:
    assert (await stranger.post("/jobs", **FORM)).status_code == 401
    assert (await stranger.get("/jobs")).status_code == 401


async def test_a_server_without_a_secret_takes_no_webhook(client: httpx.AsyncClient) -> None:
    answer = await client.post("/jobs?webhook_url=https://example.com/", **FORM)

    assert (answer.status_code, answer.json()["field"]) == (422, "webhook_url")
    assert "WEBHOOK_SECRET" in answer.json()["detail"]


async def test_who_is_told_of_a_job_is_not_shown_but_how_that_goes(
    make_settings: Callable[..., Settings],
    transcriber: FakeTranscriber,
    make_key_store: Callable[[Settings], KeyStore],
) -> None:
    settings = make_settings(webhook_secret="whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    app = create_app(settings, transcriber, make_key_store(settings))
    transport = httpx.ASGITransport(app)
    headers = {"X-API-Key": settings.keys_file.read_text().split()[0]}
    async with httpx.AsyncClient(
        transport=transport, base_url="http://asr", headers=headers
    ) as client:
        url = "https://example.com/hook?token=secret"
        answer = await client.post("/jobs", params={"webhook_url": url}, **FORM)
        listed = await client.get("/jobs?webhook=dead")
        refused = await client.get("/jobs?webhook=alive")

    assert answer.json()["webhook"] == {"state": "waiting", "attempts": 0, "error": None}
    assert "secret" not in answer.text
    assert listed.json() == {"jobs": [], "next": None}
    assert refused.status_code == 422


async def test_transcribe_tells_nobody(client: httpx.AsyncClient) -> None:
    answer = await client.post("/transcribe?webhook_url=https://example.com/", **FORM)

    assert (answer.status_code, answer.json()["field"]) == (422, "webhook_url")
