"""Whatever is torn: the store is refused, or tells what was written before, and nothing else."""

from __future__ import annotations

from tests.service import torn_writes


def test_a_torn_store_tells_nothing_false() -> None:
    # Thousands: python -m tests.service.torn_writes 2000
    outcomes = torn_writes.main(60)

    assert outcomes["log cut", "a part there"] > 0
    assert outcomes["database cut", "refused at the start"] > 0
    assert sum(outcomes.values()) == 60
