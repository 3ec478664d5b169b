"""What keys use is noted at once, written later, and never lost while the store fails."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime, timezone
from itertools import count

import pytest

from simple_asr.errors import Unavailable
from simple_asr.service.usage import Usage, Used, UsedInDay
from simple_asr.transcript.model import Processing

MONDAY, TUESDAY, WEDNESDAY = date(2026, 11, 23), date(2026, 11, 24), date(2026, 11, 25)


class Clock:
    def __init__(self, moment: str) -> None:
        self.now = datetime.fromisoformat(moment).replace(tzinfo=timezone.utc).timestamp()

    def __call__(self) -> float:
        return self.now


class FakeStore:
    """Keeps rows in memory, and fails while `is_broken`."""

    def __init__(self) -> None:
        self.rows: dict[tuple[date, str], Used] = {}
        self.is_broken = False
        self.is_closed = False
        self.num_writes = 0

    def add(self, rows: Sequence[UsedInDay]) -> None:
        if self.is_broken:
            raise Unavailable("the database says it is locked")
        self.num_writes += 1
        for row in rows:
            place = (row.day, row.key_name)
            self.rows[place] = self.rows.get(place, Used()) + row.used

    def since(self, day: date) -> list[UsedInDay]:
        if self.is_broken:
            raise Unavailable("the database says it is locked")
        return [UsedInDay(*place, used) for place, used in self.rows.items() if place[0] >= day]

    def close(self) -> None:
        self.is_closed = True


@pytest.fixture
def clock() -> Clock:
    return Clock("2026-11-24T06:00:00")


@pytest.fixture
def store() -> FakeStore:
    return FakeStore()


@pytest.fixture
def usage(store: FakeStore, clock: Clock) -> Usage:
    return Usage(lambda: store, clock)


def test_what_is_noted_of_a_key_and_day_becomes_one_row(
    usage: Usage, store: FakeStore, clock: Clock
) -> None:
    clock.now -= 24 * 3600
    usage.note("alice", Used(1, 30.0, 2.0))
    usage.note("alice", Used(1, 60.0, 3.0))
    usage.note("bob", Used(1))
    clock.now += 24 * 3600
    usage.note("alice", Used(0, 5.0))

    usage.flush()

    assert store.rows == {
        (MONDAY, "alice"): Used(2, 90.0, 5.0),
        (MONDAY, "bob"): Used(1),
        (TUESDAY, "alice"): Used(0, 5.0),
    }
    assert store.num_writes == 1


def test_a_day_begins_at_midnight_in_utc(usage: Usage, store: FakeStore, clock: Clock) -> None:
    clock.now = Clock("2026-11-23T23:59:59").now
    usage.note("alice", Used(1))
    clock.now += 1
    usage.note("alice", Used(1))

    usage.flush()

    assert set(store.rows) == {(MONDAY, "alice"), (TUESDAY, "alice")}


def test_nothing_noted_is_nothing_written(usage: Usage, store: FakeStore) -> None:
    usage.flush()

    assert store.num_writes == 0


def test_what_could_not_be_written_is_written_later_and_warned_of_once(
    usage: Usage, store: FakeStore, caplog: pytest.LogCaptureFixture
) -> None:
    store.is_broken = True
    for _ in range(3):
        usage.note("alice", Used(1, 10.0))
        usage.flush()
    store.is_broken = False

    usage.flush()

    assert store.rows == {(TUESDAY, "alice"): Used(3, 30.0)}
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "locked" in caplog.text


def test_what_nobody_foresaw_loses_nothing(
    usage: Usage, store: FakeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: Sequence[UsedInDay]) -> None:
        raise RuntimeError

    usage.note("alice", Used(1, 10.0))
    with monkeypatch.context() as broken:
        broken.setattr(store, "add", fail)
        with pytest.raises(RuntimeError):
            usage.flush()

    usage.flush()

    assert store.rows == {(TUESDAY, "alice"): Used(1, 10.0)}


def test_a_store_that_cannot_be_opened_is_tried_again(clock: Clock, store: FakeStore) -> None:
    num_tries = count()

    def open_store() -> FakeStore:
        if next(num_tries) == 0:
            raise Unavailable("the database says no")
        return store

    usage = Usage(open_store, clock)
    usage.note("alice", Used(1))

    usage.flush()
    usage.flush()

    assert store.rows == {(TUESDAY, "alice"): Used(1)}


def test_at_first_the_last_day_is_told_which_is_today_and_the_rest_of_yesterday(
    usage: Usage, store: FakeStore
) -> None:
    store.add(
        [
            UsedInDay(MONDAY, "alice", Used(100, 1000.0)),
            UsedInDay(TUESDAY, "alice", Used(7, 50.0)),
            UsedInDay(date(2026, 11, 22), "bob", Used(1, 9.0)),
        ]
    )

    news, seconds = usage.news()

    # At six o'clock, three quarters of yesterday are less than a day ago.
    assert news == {"alice": Used(82, 800.0)}
    assert seconds == 24 * 3600


def test_then_what_other_servers_added_is_told_and_not_ones_own(
    usage: Usage, store: FakeStore, clock: Clock
) -> None:
    store.add([UsedInDay(TUESDAY, "alice", Used(7, 50.0))])
    usage.news()
    usage.note("alice", Used(1, 0.5))
    usage.flush()
    store.add([UsedInDay(TUESDAY, "alice", Used(2, 60.0)), UsedInDay(TUESDAY, "bob", Used(1))])
    clock.now += 2

    news, seconds = usage.news()
    again, _ = usage.news()

    assert news == {"alice": Used(2, 60.0), "bob": Used(1)}
    assert seconds == 2
    assert again == {}


def test_what_others_added_while_the_store_failed_is_told_later(
    usage: Usage, store: FakeStore, clock: Clock
) -> None:
    usage.news()
    store.is_broken = True
    failed, _ = usage.news()
    store.is_broken = False
    store.add([UsedInDay(TUESDAY, "alice", Used(2))])
    clock.now += 3600

    told = usage.news()

    assert failed == {}
    assert told == ({"alice": Used(2)}, 3600)


def test_what_was_added_before_midnight_and_after_is_told_together(
    usage: Usage, store: FakeStore, clock: Clock
) -> None:
    usage.news()
    store.add([UsedInDay(TUESDAY, "alice", Used(1)), UsedInDay(WEDNESDAY, "alice", Used(2))])
    clock.now += 18 * 3600

    news, _ = usage.news()

    assert news == {"alice": Used(3)}


def test_what_is_noted_last_is_written_at_the_end(usage: Usage, store: FakeStore) -> None:
    usage.note("alice", Used(1))

    usage.close()

    assert set(store.rows) == {(TUESDAY, "alice")}
    assert store.is_closed


def test_work_counts_with_the_time_it_took_and_without_the_waiting() -> None:
    processing = Processing(queue=10.0, decode=0.5, recognise=2.0)

    assert Used.by_work(30.0, processing) == Used(0, 30.0, 2.5)
    assert Used.by_work(None, None) == Used()
