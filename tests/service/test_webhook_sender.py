"""Receivers of every kind, over real sockets: the internet is 127.0.0.2, our network the rest."""

from __future__ import annotations

import asyncio
import json
import re
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from simple_asr.errors import AddressRefused, InvalidParameter
from simple_asr.service import webhook_sender, webhooks
from simple_asr.service.addresses import AddressRules, read_networks
from simple_asr.service.fake import FakeTranscriber
from simple_asr.service.job_store import JobStore
from simple_asr.service.job_workers import JobLimits, Jobs
from simple_asr.service.jobs import Job
from simple_asr.service.outgoing import Outgoing
from simple_asr.service.parameters import read_parameters
from simple_asr.service.webhook_sender import WebhookSender
from simple_asr.service.webhooks import Delivery, read_secret
from tests.listener import Listener, listening, redirect, status
from tests.support import NO_DOWNLOADS, WAIT, database_in

pytestmark = pytest.mark.anyio

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
KEY = read_secret(SECRET)
JOBS_PAGE = Path(__file__).parents[2] / "docs" / "jobs.md"
OK = status("204 No Content")


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(autouse=True)
def _in_haste(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhook_sender, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(webhooks, "DELAYS", (0.0, 0.0))


@pytest.fixture
async def receiver() -> AsyncIterator[Listener]:
    async with listening() as listener:
        yield listener


def url_of(receiver: Listener) -> str:
    return f"http://{receiver.address}:{receiver.port}/hook?token=secret"


def sender_to(receiver: Listener, default_url: str | None = None) -> WebhookSender:
    rules = AddressRules(frozenset({receiver.port}), read_networks(f"{receiver.address}/32"))
    return WebhookSender(Outgoing(rules), KEY, default_url)


def jobs_in(folder: Path, sender: WebhookSender, transcriber: FakeTranscriber) -> Jobs:
    database, limits = database_in(folder), JobLimits()
    return Jobs(transcriber, folder, database, limits, downloads=NO_DOWNLOADS, webhooks=sender)


@pytest.fixture
def jobs(tmp_path: Path, receiver: Listener) -> Jobs:
    return jobs_in(tmp_path, sender_to(receiver), FakeTranscriber())


async def submit(jobs: Jobs, webhook_url: str | None) -> Job:
    media = jobs.folder / "an.upload"
    media.write_bytes(b"RIFF")
    also = [] if webhook_url is None else [("webhook_url", webhook_url)]
    parameters = read_parameters(b"", also, also=["webhook_url"])
    return await jobs.submit(media, parameters, "alice")


async def until(jobs: Jobs, job: Job, is_so: Callable[[Job], bool]) -> Job:
    for _ in range(WAIT * 100):
        found = await jobs.ask(lambda store: store.get(job.id, "alice"))
        if is_so(found):
            return found
        await asyncio.sleep(0.01)
    raise AssertionError(f"the job is {found}")


def is_delivered(job: Job) -> bool:
    return job.webhook_state == "delivered"


def is_dead(job: Job) -> bool:
    return job.webhook_state == "dead"


def verifier_of_the_document() -> Callable[[dict[str, str], bytes, str], Any]:
    """What docs/jobs.md gives receivers."""
    [code] = re.findall(r"```python\n(.*?)```", JOBS_PAGE.read_text(encoding="utf-8"), re.DOTALL)
    names: dict[str, Any] = {}
    exec(code, names)  # noqa: S102 - our own document
    verified: Callable[[dict[str, str], bytes, str], Any] = names["verified"]
    return verified


async def test_a_receiver_is_told_once_and_can_tell_who_tells_it(
    jobs: Jobs, receiver: Listener
) -> None:
    receiver.answers["/hook"] = OK
    verified = verifier_of_the_document()

    async with jobs.working():
        job = await submit(jobs, url_of(receiver))
        await until(jobs, job, is_delivered)

    [heard] = receiver.heard
    event = verified(heard.headers, heard.body, SECRET)
    assert heard.line == "POST /hook?token=secret HTTP/1.1"
    assert (event["type"], event["data"]["id"]) == ("job.done", job.id)
    assert heard.headers["webhook-id"] == job.id


async def test_what_was_changed_on_the_way_or_is_old_is_not_verified(
    jobs: Jobs, receiver: Listener
) -> None:
    receiver.answers["/hook"] = OK
    verified = verifier_of_the_document()
    async with jobs.working():
        job = await submit(jobs, url_of(receiver))
        await until(jobs, job, is_delivered)
    [heard] = receiver.heard

    forgeries = [
        (heard.headers, heard.body + b" ", SECRET),
        (heard.headers, heard.body, "whsec_" + 32 * "A"),
        ({**heard.headers, "webhook-id": "another"}, heard.body, SECRET),
        ({**heard.headers, "webhook-timestamp": "1000"}, heard.body, SECRET),
        ({**heard.headers, "webhook-signature": "v1,AAAA"}, heard.body, SECRET),
    ]

    for forged in forgeries:
        with pytest.raises(ValueError, match="webhook"):
            verified(*forged)


async def test_a_receiver_that_fails_is_told_again_under_the_same_id(
    jobs: Jobs, receiver: Listener
) -> None:
    answers = iter([status("500 Oh"), b"nonsense\r\n\r\n", OK])

    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(next(answers))

    receiver.answers["/hook"] = answer

    async with jobs.working():
        job = await submit(jobs, url_of(receiver))
        told = await until(jobs, job, is_delivered)

    assert [heard.headers["webhook-id"] for heard in receiver.heard] == 3 * [job.id]
    assert (told.webhook_attempts, told.webhook_failure) == (3, None)


async def test_a_receiver_that_always_fails_is_given_up_and_listed(
    jobs: Jobs, receiver: Listener
) -> None:
    receiver.answers["/hook"] = status("500 Oh")

    async with jobs.working():
        job = await submit(jobs, url_of(receiver))
        dead = await until(jobs, job, is_dead)
        listed = await jobs.ask(lambda store: store.page("alice", 9, only_dead_webhooks=True))
        others = await jobs.ask(lambda store: store.page("bob", 9, only_dead_webhooks=True))

    assert (dead.webhook_attempts, dead.webhook_failure) == (3, "The receiver answered 500.")
    assert (listed, others) == ([dead], [])


async def hangs(_: asyncio.StreamWriter) -> None:
    await asyncio.Event().wait()


async def drips(writer: asyncio.StreamWriter) -> None:
    """A header without an end, byte by byte."""
    writer.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
    while True:
        writer.write(b"a")
        await writer.drain()
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("answer", [hangs, drips])
async def test_a_receiver_that_does_not_come_to_an_end_has_its_time(
    jobs: Jobs,
    receiver: Listener,
    answer: Callable[[asyncio.StreamWriter], Awaitable[None]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(webhook_sender, "ATTEMPT_SECONDS", 0.1)
    receiver.answers["/hook"] = answer

    async with jobs.working():
        job = await submit(jobs, url_of(receiver))
        dead = await until(jobs, job, is_dead)

    assert dead.webhook_failure is not None
    assert dead.webhook_failure.startswith("The receiver took longer than 0.1 s")


async def test_what_nobody_foresaw_of_the_store_does_not_end_the_sending(
    jobs: Jobs, receiver: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim, has_failed = JobStore.claim_delivery, threading.Event()

    def fail_once(store: JobStore, now: float, seconds: float) -> Delivery | None:
        if not has_failed.is_set():
            has_failed.set()
            raise ValueError("damaged")
        return claim(store, now, seconds)

    monkeypatch.setattr(JobStore, "claim_delivery", fail_once)
    receiver.answers["/hook"] = status("204 No Content")

    async with jobs.working():
        job = await submit(jobs, url_of(receiver))
        await until(jobs, job, is_delivered)

    assert has_failed.is_set()


async def test_receivers_that_hang_hold_up_no_job(jobs: Jobs, receiver: Listener) -> None:
    receiver.answers["/hook"] = hangs

    async with jobs.working():
        hanging = [await submit(jobs, url_of(receiver)) for _ in range(20)]
        for job in hanging:
            await until(jobs, job, lambda found: found.state == "done")
        last = await submit(jobs, None)
        await until(jobs, last, lambda found: found.state == "done")

        states = {(await until(jobs, job, bool)).webhook_state for job in hanging}

    assert states == {"waiting"}
    assert receiver.num_connections <= webhook_sender.MAX_DELIVERIES


async def test_a_redirect_into_our_own_network_is_not_followed(
    jobs: Jobs, receiver: Listener
) -> None:
    async with listening("127.0.0.1", receiver.port) as canary:
        canary.answers["/hook"] = OK
        receiver.answers["/hook"] = redirect(f"http://127.0.0.1:{receiver.port}/hook")

        async with jobs.working():
            job = await submit(jobs, url_of(receiver))
            dead = await until(jobs, job, is_dead)

    assert canary.num_connections == 0
    assert dead.webhook_failure == "The receiver answered 302."


async def test_an_address_of_our_own_network_is_not_connected_to(
    jobs: Jobs, receiver: Listener
) -> None:
    async with listening("127.0.0.1", receiver.port) as canary, jobs.working():
        job = await submit(jobs, f"http://localhost:{receiver.port}/hook")
        dead = await until(jobs, job, is_dead)

    assert canary.num_connections == 0
    assert "not one of the public internet" in (dead.webhook_failure or "")


async def test_a_receiver_is_told_after_a_restart(tmp_path: Path, receiver: Listener) -> None:
    asked = asyncio.Event()

    async def hang(_: asyncio.StreamWriter) -> None:
        asked.set()
        await asyncio.Event().wait()

    receiver.answers["/hook"] = hang
    first = jobs_in(tmp_path, sender_to(receiver), FakeTranscriber())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(webhook_sender, "CLAIM_SECONDS", 0.1)
        async with first.working():
            job = await submit(first, url_of(receiver))
            await asyncio.wait_for(asked.wait(), WAIT)
    receiver.answers["/hook"] = OK

    second = jobs_in(tmp_path, sender_to(receiver), FakeTranscriber())
    async with second.working():
        told = await until(second, job, is_delivered)

    assert told.webhook_attempts > 1


async def test_a_job_that_is_cancelled_is_told_of(jobs: Jobs, receiver: Listener) -> None:
    receiver.answers["/hook"] = OK
    job = await submit(jobs, url_of(receiver))
    await jobs.cancel(job.id, "alice")

    async with jobs.working():
        await until(jobs, job, is_delivered)

    assert json.loads(receiver.heard[0].body)["type"] == "job.cancelled"


async def test_jobs_that_name_nobody_are_told_of_at_the_servers_own_address(
    tmp_path: Path, receiver: Listener
) -> None:
    receiver.answers["/hook"] = OK
    jobs = jobs_in(tmp_path, sender_to(receiver, url_of(receiver)), FakeTranscriber())

    async with jobs.working():
        job = await submit(jobs, None)
        await until(jobs, job, is_delivered)

    assert len(receiver.heard) == 1


@pytest.mark.parametrize("url", ["ftp://example.com/", "http://2130706433/", "nonsense"])
async def test_an_address_that_breaks_the_rules_is_no_job(jobs: Jobs, url: str) -> None:
    with pytest.raises(AddressRefused) as refused:
        await submit(jobs, url)

    assert refused.value.field == "webhook_url"


async def test_a_server_without_a_secret_sends_none(tmp_path: Path, receiver: Listener) -> None:
    sender = WebhookSender(sender_to(receiver)._outgoing)
    jobs = jobs_in(tmp_path, sender, FakeTranscriber())

    with pytest.raises(InvalidParameter, match="WEBHOOK_SECRET"):
        await submit(jobs, url_of(receiver))


async def test_a_failure_is_logged_and_counted_without_the_secrets_of_its_address(
    tmp_path: Path, receiver: Listener, caplog: pytest.LogCaptureFixture
) -> None:
    receiver.answers["/hook"] = status("410 Gone")
    sender = sender_to(receiver)
    jobs = jobs_in(tmp_path, sender, FakeTranscriber())

    async with jobs.working():
        job = await submit(jobs, url_of(receiver))
        await until(jobs, job, is_dead)

    assert f"The webhook of job {job.id} is given up: The receiver answered 410." in caplog.text
    assert "secret" not in caplog.text
    assert (sender.num_delivered, sender.num_failed_attempts, sender.num_dead) == (0, 1, 1)
