"""What a webhook says, how it is signed, and when it is tried again. Pure: nothing is sent here.

The form is that of Standard Webhooks (standardwebhooks.com, version 1), which has libraries in most
languages.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
from dataclasses import dataclass

from simple_asr.errors import ConfigurationError
from simple_asr.service.jobs import Job, job_fields

SECRET_PREFIX = "whsec_"  # noqa: S105 - what secrets begin with
# Of secrets, in bytes: the specification's own bounds.
SECRET_BYTES = range(24, 65)
# Seconds from one attempt to the next, 19 hours in all; after the last one nobody is told any more.
DELAYS = (5.0, 60.0, 300.0, 1800.0, 7200.0, 21_600.0, 36_000.0)
# Of a delay: receivers that failed together are not all tried again at once.
JITTER = 0.2
GONE = 410


@dataclass(frozen=True, slots=True)
class Delivery:
    """The right to one attempt to tell of the end of `job`: its `webhook_attempts`th, from 1."""

    job: Job


@dataclass(frozen=True, slots=True)
class NotDelivered:
    """Why, in words for the job's owner; `status` is the receiver's, where it answered."""

    reason: str
    status: int | None = None


def read_secret(text: str) -> bytes:
    """The key of `whsec_` and base64. Raises ConfigurationError."""
    try:
        key = base64.b64decode(text.removeprefix(SECRET_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not text.startswith(SECRET_PREFIX) or len(key) not in SECRET_BYTES:
        raise ConfigurationError(
            "WEBHOOK_SECRET should be whsec_ and 24 to 64 random bytes in base64. Make one with: "
            "echo whsec_$(openssl rand -base64 32)"
        )
    return key


def body_of(job: Job, root_path: str, now: float) -> bytes:
    """What is told of a job that has ended: `GET /jobs/{id}` without its text."""
    said = {"type": f"job.{job.state}", "data": job_fields(job, root_path, now)}
    return json.dumps(said, ensure_ascii=False).encode("utf-8", "backslashreplace")


def signed_headers(key: bytes, job_id: str, body: bytes, now: float) -> dict[bytes, bytes]:
    """The id, the same for every attempt, the time in seconds, and the HMAC-SHA256 of all three."""
    stamp = str(int(now))
    signed = f"{job_id}.{stamp}.".encode() + body
    signature = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest())
    return {
        b"Content-Type": b"application/json",
        b"Webhook-Id": job_id.encode(),
        b"Webhook-Timestamp": stamp.encode(),
        b"Webhook-Signature": b"v1," + signature,
    }


def retry_delay(attempt: int, failure: NotDelivered, chance: float) -> float | None:
    """Seconds until the next attempt, None where there is none; `chance` is from 0 to 1."""
    if failure.status == GONE or attempt > len(DELAYS):
        return None
    return DELAYS[attempt - 1] * (1 - JITTER + 2 * JITTER * chance)
