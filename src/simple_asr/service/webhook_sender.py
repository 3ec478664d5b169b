"""Tells receivers of jobs that have ended, apart from those who work on jobs."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

import anyio

from simple_asr.errors import AddressRefused, InvalidParameter, StorageFull, Unavailable
from simple_asr.service.addresses import about
from simple_asr.service.job_store import JobStore
from simple_asr.service.outgoing import CONNECTION_ERRORS, Outgoing
from simple_asr.service.webhooks import (
    Delivery,
    NotDelivered,
    body_of,
    retry_delay,
    signed_headers,
)

logger = logging.getLogger(__name__)

Answer = TypeVar("Answer")

FIELD = "webhook_url"
# For all of one attempt; a receiver should answer first and work then.
ATTEMPT_SECONDS = 15.0
# Longer than any attempt: then its server is dead, and another one tries.
CLAIM_SECONDS = 60.0
# At a time: a receiver that hangs holds up none but these.
MAX_DELIVERIES = 8
POLL_SECONDS = 1.0


class AskStore(Protocol):
    """What the store answers, asked off the event loop."""

    def __call__(self, question: Callable[[JobStore], Answer]) -> Awaitable[Answer]: ...


class WebhookSender:
    """The webhooks of one server. Without a `key` there are none.

    `default_url` is told of jobs that name no other; what is told has addresses under `root_path`.
    Owned by one event loop.
    """

    def __init__(
        self,
        outgoing: Outgoing,
        key: bytes | None = None,
        default_url: str | None = None,
        root_path: str = "",
    ) -> None:
        self._outgoing = outgoing
        self._key = key
        self._default_url = default_url
        self._root_path = root_path
        self.num_delivered = 0
        self.num_failed_attempts = 0
        self.num_dead = 0

    def url_for(self, webhook_url: str | None) -> str | None:
        """Who is told of a job that was sent with this. Raises InvalidParameter, AddressRefused."""
        if webhook_url is None:
            return self._default_url
        if self._key is None:
            raise InvalidParameter(
                "This server sends no webhooks, since it has no secret to sign them with "
                "(WEBHOOK_SECRET). Ask its operator, or read GET /jobs/{id}/events.",
                field=FIELD,
            )
        with about(FIELD):
            self._outgoing.rules.checked_url(webhook_url)
        return webhook_url

    async def run(self, ask: AskStore) -> None:
        """Until it is cancelled: an attempt that is under way then is made again after a start."""
        if self._key is None:
            return
        under_way: set[asyncio.Task[None]] = set()
        try:
            while True:
                delivery = await self._claim(ask) if len(under_way) < MAX_DELIVERIES else None
                if delivery is not None:
                    under_way.add(asyncio.create_task(self._attempt(delivery, self._key, ask)))
                    continue
                if under_way:
                    _, under_way = await asyncio.wait(under_way, timeout=POLL_SECONDS)
                else:
                    await asyncio.sleep(POLL_SECONDS)
        finally:
            for task in under_way:
                task.cancel()
            await asyncio.gather(*under_way, return_exceptions=True)

    async def _claim(self, ask: AskStore) -> Delivery | None:
        try:
            return await ask(lambda store: store.claim_delivery(time.time(), CLAIM_SECONDS))
        except (StorageFull, Unavailable):  # The store has logged why.
            return None
        except Exception:
            logger.exception("No webhook could be claimed")
            return None

    async def _attempt(self, delivery: Delivery, key: bytes, ask: AskStore) -> None:
        try:
            failure = await self._send(delivery, key)
            await self._note(delivery, failure, ask)
        except Exception:  # The claim runs out, and it is tried again.
            logger.exception("The webhook of job %s could not be dealt with", delivery.job.id)

    async def _send(self, delivery: Delivery, key: bytes) -> NotDelivered | None:
        now = time.time()
        body = body_of(delivery.job, self._root_path, now)
        headers = signed_headers(key, delivery.job.id, body, now)
        try:
            with anyio.fail_after(ATTEMPT_SECONDS):
                url = self._outgoing.rules.checked_url(delivery.job.webhook_url or "")
                asking = self._outgoing.request(
                    "POST", url, headers, body, idle_seconds=ATTEMPT_SECONDS
                )
                async with asking as response:
                    status = response.status
        except AddressRefused as error:
            return NotDelivered(error.detail)
        except TimeoutError:
            return NotDelivered(f"The receiver took longer than {ATTEMPT_SECONDS:g} s.")
        except CONNECTION_ERRORS:
            return NotDelivered("The receiver could not be reached, or broke the connection off.")
        if 200 <= status < 300:
            return None
        return NotDelivered(f"The receiver answered {status}.", status)

    async def _note(self, delivery: Delivery, failure: NotDelivered | None, ask: AskStore) -> None:
        if failure is None:
            self.num_delivered += 1
            await ask(lambda store: store.delivered(delivery))
            return
        delay = retry_delay(delivery.job.webhook_attempts, failure, random.random())  # noqa: S311 - no secret
        self.num_failed_attempts += 1
        self.num_dead += delay is None
        logger.warning(
            "The webhook of job %s is %s: %s",
            delivery.job.id,
            "given up" if delay is None else f"tried again in {delay:.0f} s",
            failure.reason,
        )
        due = None if delay is None else time.time() + delay
        await ask(lambda store: store.not_delivered(delivery, failure.reason, due))
