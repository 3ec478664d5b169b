"""A peer that is not installed is found out before it is started."""

from __future__ import annotations

import sys

from benchmarks.peer import has_module


def test_a_module_is_looked_for_in_the_peers_own_python() -> None:
    assert has_module(sys.executable, "numpy")
    assert not has_module(sys.executable, "numpy_that_nobody_installed")
