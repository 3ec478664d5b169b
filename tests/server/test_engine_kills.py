"""Whatever happens to the model, nobody hangs and the server comes back by itself."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import WAIT

# More: python -m tests.server.engine_kills 20
NUM_FAULTS = 3


@pytest.mark.skipif(sys.platform != "linux", reason="servers are supervised on Linux")
def test_nobody_hangs_when_the_model_does_or_dies_or_is_killed() -> None:
    command = [sys.executable, "-m", "tests.server.engine_kills", str(NUM_FAULTS)]
    done = subprocess.run(
        command,
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=WAIT,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert f"{NUM_FAULTS} faults" in done.stdout
