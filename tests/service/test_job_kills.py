"""Whatever is killed: no acknowledged job is lost, none is done twice."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.support import WAIT

# A night's worth: python -m tests.service.kill_cycles 500
NUM_KILLS = 50


def test_no_kill_loses_a_job_that_was_acknowledged() -> None:
    # A process of its own forks the servers: this one has threads of other tests.
    command = [sys.executable, "-m", "tests.service.kill_cycles", str(NUM_KILLS)]
    done = subprocess.run(
        command,
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=WAIT,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert f"{NUM_KILLS} kills" in done.stdout
