"""Who is charged: the key of a request, or of whoever sent a job."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import anyio
import pytest

from simple_asr.errors import QuotaExceeded
from simple_asr.service import charges as module
from simple_asr.service.charges import REVOKED, Charges
from simple_asr.service.database import sqlite_url
from simple_asr.service.keys import KeyStore
from simple_asr.service.metrics import Metrics
from simple_asr.service.quotas import KeyLimits, Quotas
from simple_asr.service.usage import Usage, Used
from simple_asr.service.usage_store import UsageStore
from tests.support import WAIT

KEY = "0123456789abcdef" * 4
LIMITS = {"*": KeyLimits(audio_seconds_per_day=100)}


@dataclass
class Server:
    """The parts of one that charge."""

    keys: KeyStore
    quotas: Quotas
    usage: Usage
    metrics: Metrics
    charges: Charges

    def used(self) -> dict[str, Used]:
        """By key, once it is written."""
        self.usage.flush()
        store = self.usage._opened()
        return {row.key_name: row.used for row in store.since(date.min)}


@pytest.fixture
def keys(tmp_path: Path) -> KeyStore:
    file = tmp_path / "keys.txt"
    file.write_text(f"{KEY}  # alice\n")
    file.chmod(0o600)
    keys = KeyStore(file)
    keys.reload()
    return keys


def start(keys: KeyStore, tmp_path: Path) -> Server:
    quotas, metrics = Quotas(LIMITS), Metrics()
    usage = Usage(lambda: UsageStore(sqlite_url(tmp_path / "jobs.sqlite3")))
    return Server(keys, quotas, usage, metrics, Charges(keys, quotas, usage, metrics))


@pytest.fixture
def server(keys: KeyStore, tmp_path: Path) -> Server:
    return start(keys, tmp_path)


def is_refused(server: Server) -> bool:
    try:
        with server.quotas.admission("alice"):
            return False
    except QuotaExceeded:
        return True


def test_a_request_is_charged_to_its_key(server: Server) -> None:
    server.charges.to_key("alice", Used(1, 101.0, 3.0))

    assert server.used() == {"alice": Used(1, 101.0, 3.0)}
    assert is_refused(server)
    assert b'asr_key_audio_seconds_total{key="alice"} 101.0' in server.metrics.exposition()


def test_a_job_is_charged_to_the_key_of_its_owner(server: Server) -> None:
    owner = server.keys.identify(KEY)

    server.charges.to_owner(owner.id, Used(0, 101.0, 3.0))

    assert server.used() == {"alice": Used(0, 101.0, 3.0)}
    assert is_refused(server)


def test_a_job_whose_key_is_gone_is_still_accounted_for(server: Server) -> None:
    server.charges.to_owner("of nobody", Used(0, 101.0))

    assert server.used() == {REVOKED: Used(0, 101.0)}
    assert not is_refused(server)


def test_a_request_counts_when_it_begins(server: Server) -> None:
    server.charges.request("alice")

    assert server.used() == {"alice": Used(1)}


@pytest.mark.anyio
async def test_quotas_go_on_after_a_restart(server: Server, keys: KeyStore, tmp_path: Path) -> None:
    async with server.charges.kept():
        server.charges.to_key("alice", Used(1, 101.0))
    again = start(keys, tmp_path)

    before = is_refused(again)
    async with again.charges.kept():
        assert not before
        assert is_refused(again)


@pytest.mark.anyio
async def test_what_is_used_at_one_server_is_soon_counted_at_another(
    server: Server, keys: KeyStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SETTLE_SECONDS", 0.01)
    other = start(keys, tmp_path)
    counted = anyio.Event()
    count = other.quotas.count_elsewhere

    def count_and_tell(*used: Any) -> None:
        count(*used)
        counted.set()

    monkeypatch.setattr(other.quotas, "count_elsewhere", count_and_tell)
    async with server.charges.kept(), other.charges.kept():
        server.charges.to_key("alice", Used(1, 101.0))
        with anyio.fail_after(WAIT):
            await counted.wait()

        assert is_refused(other)


@pytest.mark.anyio
async def test_what_nobody_foresaw_does_not_end_the_settling(
    server: Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "SETTLE_SECONDS", 0.01)
    settle, has_gone_on = server.charges.settle, anyio.Event()
    failures = iter([RuntimeError("unforeseen")])

    async def fail_once() -> None:
        for failure in failures:
            raise failure
        await settle()
        has_gone_on.set()

    monkeypatch.setattr(server.charges, "settle", fail_once)
    async with server.charges.kept():
        with anyio.fail_after(WAIT):
            await has_gone_on.wait()

    assert "unforeseen" in caplog.text


@pytest.mark.anyio
async def test_nobody_reads_what_others_used_where_there_are_no_limits(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.quotas.renew({})
    monkeypatch.setattr(server.usage, "news", lambda: pytest.fail("The store was read"))
    server.charges.to_key("alice", Used(1, 101.0))

    await server.charges.settle()

    assert server.used() == {"alice": Used(1, 101.0)}


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"
