"""What is kept of usage, on SQLite and, where it is installed, on PostgreSQL."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from pathlib import Path

import pytest

from simple_asr.errors import ConfigurationError, Unavailable
from simple_asr.service import usage_store
from simple_asr.service.database import sqlite_url
from simple_asr.service.job_store import JobStore
from simple_asr.service.usage import Used, UsedInDay
from simple_asr.service.usage_store import UsageStore
from tests.service.postgresql import Database, running

MONDAY, TUESDAY = date(2026, 11, 23), date(2026, 11, 24)
ALICE = UsedInDay(MONDAY, "alice", Used(1, 2.5, 0.25))


@pytest.fixture(scope="module")
def postgresql() -> Iterator[Database]:
    with running() as database:
        yield database


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "sqlite":
        yield sqlite_url(tmp_path / "jobs.sqlite3")
        return
    database: Database = request.getfixturevalue("postgresql")
    with database.fresh() as address:
        yield address


@pytest.fixture
def store(url: str) -> Iterator[UsageStore]:
    store = UsageStore(url)
    yield store
    store.close()


def test_what_is_added_adds_up_by_key_and_day(store: UsageStore) -> None:
    store.add([ALICE, UsedInDay(MONDAY, "bob", Used(1))])
    store.add([ALICE, UsedInDay(TUESDAY, "alice", Used(1, 1.0))])

    assert store.since(MONDAY) == [
        UsedInDay(MONDAY, "alice", Used(2, 5.0, 0.5)),
        UsedInDay(MONDAY, "bob", Used(1)),
        UsedInDay(TUESDAY, "alice", Used(1, 1.0)),
    ]
    assert [row.day for row in store.since(TUESDAY)] == [TUESDAY]


def test_servers_that_share_a_database_add_to_the_same_rows(url: str) -> None:
    rows = [UsedInDay(MONDAY, f"key {number}", Used(1, 1.0)) for number in range(5)]

    def serve(number: int) -> None:
        store = UsageStore(url)
        for _ in range(10):
            store.add(rows if number % 2 else rows[::-1])
        store.close()

    with ThreadPoolExecutor(4) as servers:
        list(servers.map(serve, range(4)))

    store = UsageStore(url)
    assert {row.used for row in store.since(MONDAY)} == {Used(40, 40.0)}
    store.close()


def test_it_shares_the_database_with_the_jobs_whichever_was_first(url: str) -> None:
    first = UsageStore(url)
    first.add([ALICE])
    JobStore(url).close()

    assert first.since(MONDAY) == [ALICE]
    first.close()


def test_a_database_that_is_locked_is_unavailable_soon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(usage_store, "BUSY_SECONDS", 0.05)
    file = tmp_path / "jobs.sqlite3"
    store = UsageStore(sqlite_url(file))
    with sqlite3.connect(file, isolation_level=None) as other:
        other.execute("BEGIN IMMEDIATE")

        with pytest.raises(Unavailable, match="locked"):
            store.add([ALICE])

    store.close()


def test_what_postgresql_says_is_told_with_its_code(postgresql: Database) -> None:
    with postgresql.fresh() as address:
        pass

    with pytest.raises(
        ConfigurationError, match=r'database "asr_\w+" does not exist \(3D000\)\. See'
    ):
        UsageStore(address)
