"""Guessing of keys: counted by address, and stopped for a while."""

from __future__ import annotations

import tracemalloc

import pytest

from simple_asr.errors import QuotaExceeded
from simple_asr.service import wrong_keys
from simple_asr.service.wrong_keys import WrongKeys


class Clock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_an_address_that_guesses_is_stopped_until_its_guesses_are_old() -> None:
    clock = Clock()
    guesses = WrongKeys(2, clock)
    guesses.note("a")
    clock.now += 10
    guesses.note("a")

    with pytest.raises(QuotaExceeded) as refusal:
        guesses.check("a")
    guesses.check("b")
    clock.now += 50
    guesses.check("a")

    assert refusal.value.retry_after == 50


def test_nobody_is_stopped_or_remembered_where_no_limit_is_set() -> None:
    guesses = WrongKeys(0, Clock())
    tracemalloc.start()
    for _ in range(1000):
        guesses.note("a")
    num_bytes, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    guesses.check("a")
    assert num_bytes < 1000


def test_only_so_many_addresses_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wrong_keys, "MAX_ADDRESSES", 2)
    guesses = WrongKeys(1, Clock())
    for address in "abc":
        guesses.note(address)

    guesses.check("a")
    with pytest.raises(QuotaExceeded):
        guesses.check("c")
