"""`simple-asr usage`: what each key has used."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import date, datetime, timedelta, timezone
from pathlib import Path

import pytest
from typer.testing import Result

from simple_asr.service.database import sqlite_url
from simple_asr.service.usage import Used, UsedInDay
from simple_asr.service.usage_store import UsageStore
from tests.support import free_port

Run = Callable[..., Result]

DATABASE = Path("data/jobs/jobs.sqlite3")
TODAY = datetime.now(timezone.utc).date()


@pytest.fixture
def used(home: Path) -> None:
    DATABASE.parent.mkdir(parents=True)
    store = UsageStore(sqlite_url(DATABASE))
    store.add(
        [
            UsedInDay(TODAY, "alice", Used(3, 90.0, 12.25)),
            UsedInDay(TODAY, "bob", Used(1, 5.0, 1.0)),
            UsedInDay(TODAY - timedelta(days=40), "alice", Used(7, 1.0, 1.0)),
        ]
    )
    store.close()


@pytest.mark.usefixtures("used")
def test_it_shows_a_row_a_key_and_day_of_the_last_month(run: Run) -> None:
    result = run("usage")

    _, *rows = [line.split() for line in result.stdout.splitlines()]
    assert rows == [
        [TODAY.isoformat(), "alice", "3", "90.0", "12.2"],
        [TODAY.isoformat(), "bob", "1", "5.0", "1.0"],
    ]


@pytest.mark.usefixtures("used")
def test_json_is_a_list_of_days_and_can_go_further_back_for_one_key(run: Run) -> None:
    result = run("usage", "--json", "--since", "2020-01-01", "--key", "alice")

    days = json.loads(result.stdout)
    assert [day["requests"] for day in days] == [7, 3]
    assert days[1] == {
        "day": TODAY.isoformat(),
        "key": "alice",
        "requests": 3,
        "audio_seconds": 90.0,
        "compute_seconds": 12.25,
    }
    assert date.fromisoformat(days[0]["day"]) < TODAY


def test_where_no_server_has_run_nothing_is_shown_and_nothing_made(run: Run) -> None:
    result = run("usage", "--json")

    assert (result.exit_code, json.loads(result.stdout)) == (0, [])
    assert not DATABASE.exists()


def test_a_database_that_is_down_is_told_in_a_sentence_with_what_to_do(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed_port = free_port()
    monkeypatch.setenv("DATABASE_URL", f"postgresql://asr:secret@127.0.0.1:{closed_port}/asr")

    result = run("usage")

    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == (
        f"The database postgresql://127.0.0.1:{closed_port}/asr cannot be used: it cannot be "
        "reached (Connection refused). See that it runs, and that DATABASE_URL is right.\n"
    )
