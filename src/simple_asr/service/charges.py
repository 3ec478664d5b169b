"""Whom to charge what was used: one place for quotas, usage and figures."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from simple_asr.service.keys import KeyStore
from simple_asr.service.metrics import Metrics
from simple_asr.service.quotas import Quotas
from simple_asr.service.usage import Usage, Used

logger = logging.getLogger(__name__)

# Whose usage the rest of a job is, once its key is out of the file: no key can have such a name.
REVOKED = "(revoked)"

# How often what was used is written, and what was used at other servers is read.
SETTLE_SECONDS = 2.0


class Charges:
    """Owned by the event loop, as the quotas are."""

    def __init__(self, keys: KeyStore, quotas: Quotas, usage: Usage, metrics: Metrics) -> None:
        self._keys = keys
        self._quotas = quotas
        self._usage = usage
        self._metrics = metrics

    def request(self, key_name: str) -> None:
        """A request has begun: quotas have counted it, and other servers are to hear of it soon."""
        self._usage.note(key_name, Used(1))

    def to_key(self, key_name: str, used: Used) -> None:
        """What a request took, to the key it was sent with."""
        self._quotas.charge(key_name, used.audio_seconds)
        self._usage.note(key_name, used)
        self._metrics.key_used(key_name, used)

    def to_owner(self, owner: str, used: Used) -> None:
        """What a part of a job took, to the key of the caller with this id."""
        key_name = self._keys.name_of(owner)
        if key_name is None:
            self._usage.note(REVOKED, used)
        else:
            self.to_key(key_name, used)

    @asynccontextmanager
    async def kept(self) -> AsyncIterator[None]:
        """Quotas go on where an earlier server left them; meanwhile what is used is written, and
        what keys use at other servers with this database counts as well. The rest is written last.
        """
        await self._count_news()
        settling = asyncio.create_task(self._keep_settling())
        try:
            yield
        finally:
            settling.cancel()
            await asyncio.gather(settling, return_exceptions=True)
            await asyncio.to_thread(self._usage.close)

    async def _keep_settling(self) -> None:
        while True:
            await asyncio.sleep(SETTLE_SECONDS)
            try:
                await self.settle()
            except Exception:  # What was noted is noted still.
                logger.exception("What keys use could not be settled")

    async def settle(self) -> None:
        """Counts what was used elsewhere, and writes what was used here."""
        if self._quotas.are_limited:
            await self._count_news()
        await asyncio.to_thread(self._usage.flush)

    async def _count_news(self) -> None:
        news, seconds = await asyncio.to_thread(self._usage.news)
        for key_name, used in news.items():
            self._quotas.count_elsewhere(key_name, used.requests, used.audio_seconds, seconds)
