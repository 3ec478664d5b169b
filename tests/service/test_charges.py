"""Who is charged: the key of a request, or of whoever sent a job."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from pathlib import Path

import pytest

from simple_asr.errors import QuotaExceeded
from simple_asr.service.charges import REVOKED, Charges
from simple_asr.service.database import sqlite_url
from simple_asr.service.keys import KeyStore
from simple_asr.service.metrics import Metrics
from simple_asr.service.quotas import KeyLimits, Quotas
from simple_asr.service.usage import Usage, Used
from simple_asr.service.usage_store import UsageStore

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


def test_quotas_go_on_after_a_restart(server: Server, keys: KeyStore, tmp_path: Path) -> None:
    server.charges.to_key("alice", Used(1, 101.0))
    server.usage.flush()
    again = start(keys, tmp_path)

    before = is_refused(again)
    again.charges.restore()

    assert not before
    assert is_refused(again)
