"""Limits of keys: what may begin now, what must wait, and for how long."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from simple_asr.errors import ConfigurationError, QuotaExceeded
from simple_asr.service.quotas import KeyLimits, Quotas, read_limits


class Clock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def take(quotas: Quotas, name: str = "alice") -> None:
    with quotas.admission(name):
        pass


def wait_of(quotas: Quotas, name: str = "alice") -> float | None:
    with pytest.raises(QuotaExceeded) as refusal:
        take(quotas, name)
    return refusal.value.retry_after


def test_without_limits_everything_may_begin(clock: Clock) -> None:
    quotas = Quotas({}, clock)

    for _ in range(1000):
        take(quotas)


def test_no_more_requests_at_once_than_the_key_may_have(clock: Clock) -> None:
    quotas = Quotas({"alice": KeyLimits(concurrent=2)}, clock)

    with quotas.admission("alice"), quotas.admission("alice"):
        wait_of(quotas)
        take(quotas, "bob")
    take(quotas)


def test_a_request_that_is_refused_takes_no_place(clock: Clock) -> None:
    quotas = Quotas({"*": KeyLimits(concurrent=1)}, clock)

    with quotas.admission("alice"):
        wait_of(quotas)
        wait_of(quotas)
    take(quotas)


def test_requests_a_minute_come_back_evenly(clock: Clock) -> None:
    quotas = Quotas({"*": KeyLimits(requests_per_minute=3)}, clock)
    for _ in range(3):
        take(quotas)

    assert wait_of(quotas) == pytest.approx(20)
    clock.now += 20
    take(quotas)
    assert wait_of(quotas) == pytest.approx(20)


def test_audio_beyond_the_limit_must_come_back_first(clock: Clock) -> None:
    quotas = Quotas({"*": KeyLimits(audio_seconds_per_minute=60)}, clock)
    take(quotas)
    quotas.charge("alice", 150)

    assert wait_of(quotas) == pytest.approx(90)
    clock.now += 90.001
    take(quotas)


def test_the_longest_wait_is_told_and_the_limit_named(clock: Clock) -> None:
    quotas = Quotas({"*": KeyLimits(requests_per_minute=1, requests_per_day=1)}, clock)
    take(quotas)

    with pytest.raises(QuotaExceeded, match="requests_per_day of 1") as refusal:
        take(quotas)

    assert refusal.value.retry_after == pytest.approx(86_400)


def test_nothing_may_begin_where_the_limit_is_nothing(clock: Clock) -> None:
    quotas = Quotas({"*": KeyLimits(requests_per_day=0)}, clock)

    assert wait_of(quotas) == 86_400


def test_other_limits_count_from_the_next_request_on(clock: Clock) -> None:
    quotas = Quotas({"*": KeyLimits(concurrent=1)}, clock)

    with quotas.admission("alice"):
        quotas.renew({"alice": KeyLimits(concurrent=2)})
        with quotas.admission("alice"):
            wait_of(quotas)
    quotas.renew({})
    with quotas.admission("alice"), quotas.admission("alice"), quotas.admission("alice"):
        pass


@pytest.mark.parametrize(("more", "wait"), [(6, 0), (3, 20), (1, 180)])
def test_what_is_spent_stays_spent_under_other_limits(
    clock: Clock, more: float, wait: float
) -> None:
    quotas = Quotas({"*": KeyLimits(requests_per_minute=3)}, clock)
    for _ in range(3):
        take(quotas)

    quotas.renew({"*": KeyLimits(requests_per_minute=more)})

    if wait:
        assert wait_of(quotas) == pytest.approx(wait)
    else:
        take(quotas)


# The file ----------------------------------------------------------------------------------------


def test_a_section_of_its_own_overrides_everybodys(tmp_path: Path) -> None:
    file = tmp_path / "limits.ini"
    file.write_text("[*]\nconcurrent = 4\nrequests_per_day = 100\n[alice]\nconcurrent = 16\n")

    limits = read_limits(file)

    assert limits["alice"] == KeyLimits(concurrent=16, requests_per_day=100)
    assert limits["*"] == KeyLimits(concurrent=4, requests_per_day=100)


def test_without_a_file_there_are_no_limits(tmp_path: Path) -> None:
    assert read_limits(tmp_path / "none.ini") == {}
    assert KeyLimits().concurrent == math.inf


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("concurrent = 4", "no section headers"),
        ("[alice]\nrequests = 4", "no limit 'requests'"),
        ("[alice]\nconcurrent = many", "'many', which is no number"),
        ("[alice]\nconcurrent = -1", "'-1', which is no number"),
        ("[alice]\nconcurrent = nan", "'nan', which is no number"),
        ("[a]\n[a]", "already exists"),
    ],
)
def test_a_file_that_makes_no_sense_is_a_clear_error(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "limits.ini"
    file.write_text(text)

    with pytest.raises(ConfigurationError, match=said):
        read_limits(file)


# Elsewhere ----------------------------------------------------------------------------------------


def test_what_was_used_of_the_day_before_a_restart_still_counts(clock: Clock) -> None:
    limits = KeyLimits(audio_seconds_per_day=3600, audio_seconds_per_minute=60)
    quotas = Quotas({"*": limits}, clock)

    quotas.count_elsewhere("alice", requests=5, audio_seconds=3700, seconds=86_400)

    # A day gives back 3600 s, so 100 s take 100 s × 24; the minute is over.
    assert wait_of(quotas) == pytest.approx(2400)
    take(quotas, "bob")


def test_requests_at_another_server_count_as_if_they_had_come_here(clock: Clock) -> None:
    quotas = Quotas({"*": KeyLimits(requests_per_minute=3, requests_per_day=100)}, clock)
    take(quotas)
    clock.now += 600

    quotas.count_elsewhere("alice", requests=5, audio_seconds=0, seconds=2)

    # Two beyond the three, and the next one.
    assert wait_of(quotas) == pytest.approx(60)


def test_of_what_was_used_elsewhere_in_an_hour_the_last_minute_has_its_share(clock: Clock) -> None:
    quotas = Quotas({"*": KeyLimits(requests_per_minute=3, requests_per_day=1000)}, clock)

    quotas.count_elsewhere("alice", requests=60, audio_seconds=0, seconds=3600)

    take(quotas)
    take(quotas)
    assert wait_of(quotas) == pytest.approx(20)


def test_audio_counts_from_when_its_length_is_known(clock: Clock) -> None:
    quotas = Quotas({"*": KeyLimits(audio_seconds_per_minute=60)}, clock)
    with quotas.admission("alice"):
        clock.now += 600
        quotas.charge("alice", 90)

    assert wait_of(quotas) == pytest.approx(30)
