"""A server that stops has stopped: no library's thread holds up the end."""

from __future__ import annotations

import sys

import pytest

from tests.server import start_stop

# More: python -m tests.server.start_stop 200
NUM_CYCLES = 3


@pytest.mark.weights
@pytest.mark.usefixtures("base_model", "speech")
@pytest.mark.skipif(sys.platform != "linux", reason="servers are supervised on Linux")
def test_a_server_that_has_worked_ends_when_it_is_told_to_and_leaves_nothing() -> None:
    for _ in range(NUM_CYCLES):
        start_stop.cycle()
