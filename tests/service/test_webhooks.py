"""What a webhook says, how it is signed, and when it is tried again."""

from __future__ import annotations

import base64
import json
from dataclasses import replace

import pytest

from simple_asr.errors import ConfigurationError
from simple_asr.service.jobs import Failure, Job
from simple_asr.service.webhooks import (
    DELAYS,
    NotDelivered,
    body_of,
    read_secret,
    retry_delay,
    signed_headers,
)

JOB = Job(
    id="5e0c",
    owner="alice",
    state="done",
    created=0,
    parameters='{"initial_prompt": "secret"}',
    digest="",
    audio_url=None,
    attempts=1,
    seconds_done=120,
    seconds_before=0,
    duration=120,
    language="en",
    model="fake",
    started=100,
    ended=200,
    failure=None,
    webhook_url="https://example.com/hook?token=secret",
    webhook_due=200,
    webhook_attempts=1,
)


def test_a_job_is_told_of_without_what_its_caller_sent() -> None:
    body = body_of(JOB, "/asr", now=300)

    told = json.loads(body)
    assert (told["type"], told["data"]["id"]) == ("job.done", "5e0c")
    assert told["data"]["links"]["result"] == "/asr/jobs/5e0c/result"
    assert told["data"]["webhook"] == {"state": "waiting", "attempts": 1, "error": None}
    assert b"secret" not in body


def test_a_failure_is_told_with_its_reason() -> None:
    failed = replace(JOB, state="failed", failure=Failure("no_audio_track", "Title", "Détail"))

    told = json.loads(body_of(failed, "", now=300))

    assert told["type"] == "job.failed"
    assert told["data"]["error"] == {
        "code": "no_audio_track",
        "title": "Title",
        "detail": "Détail",
    }


def test_the_signature_is_that_of_standard_webhooks() -> None:
    # The example of the specification's own library (standard-webhooks, v1).
    key = read_secret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    body = b'{"test": 2432232314}'

    headers = signed_headers(key, "msg_p5jXN8AQM9LWM0D4loKWxJek", body, now=1614265330.7)

    assert headers[b"Webhook-Timestamp"] == b"1614265330"
    assert headers[b"Webhook-Signature"] == b"v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


@pytest.mark.parametrize("num_bytes", [24, 32, 64])
def test_a_secret_has_24_to_64_bytes(num_bytes: int) -> None:
    key = bytes(range(num_bytes))

    assert read_secret("whsec_" + base64.b64encode(key).decode()) == key


@pytest.mark.parametrize(
    "text",
    [
        "",
        "whsec_",
        "hunter2",
        "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLa",
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLa!!",
        "whsec_" + 88 * "A",
    ],
)
def test_what_is_no_secret_stops_the_start_and_is_not_repeated(text: str) -> None:
    with pytest.raises(ConfigurationError, match="WEBHOOK_SECRET") as refused:
        read_secret(text)

    assert "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLa" not in refused.value.detail


def test_attempts_lie_further_and_further_apart_for_most_of_a_day() -> None:
    failure = NotDelivered("The receiver answered 500.", 500)
    attempts = range(1, len(DELAYS) + 2)

    delays = [retry_delay(attempt, failure, chance=0.5) for attempt in attempts]

    assert delays == [*DELAYS, None]
    assert list(DELAYS) == sorted(DELAYS)
    assert 12 * 3600 < sum(DELAYS) < 24 * 3600


@pytest.mark.parametrize(("chance", "factor"), [(0.0, 0.8), (1.0, 1.2)])
def test_receivers_that_failed_together_are_not_tried_again_together(
    chance: float, factor: float
) -> None:
    delay = retry_delay(1, NotDelivered("Hung up."), chance)

    assert delay == pytest.approx(DELAYS[0] * factor)


def test_a_receiver_that_is_gone_is_asked_no_more() -> None:
    assert retry_delay(1, NotDelivered("The receiver answered 410.", 410), chance=0.5) is None
