"""What operators are promised, in short: docs/operations.md has the commands at their length."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from simple_asr.errors import WrongKey
from tests.promises import key_timing
from tests.promises.figures import theil_sen
from tests.service.postgresql import PROGRAMS
from tests.support import WAIT

# A busy machine takes as long as it takes: what is counted must be right all the same.
PATIENCE = "inf"

takes_long = pytest.mark.skipif(
    "ASR_TEST_PROMISES" not in os.environ, reason="it takes long: set ASR_TEST_PROMISES=1"
)

takes_a_quiet_machine = pytest.mark.skipif(
    "ASR_TEST_PROMISES" not in os.environ,
    reason="it compares times, on a quiet machine: set ASR_TEST_PROMISES=1",
)

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="they look at processes in /proc")


@pytest.mark.parametrize(("name", "amount"), [("chaos", 3), ("disconnects", 6)])
def test_a_promise_is_kept(name: str, amount: int) -> None:
    check(name, amount)


@takes_long
@pytest.mark.parametrize(("name", "amount"), [("stops", 2), ("key_file", 25), ("overload", 3)])
def test_a_promise_that_takes_longer_is_kept(name: str, amount: int) -> None:
    check(name, amount)


@takes_long
@pytest.mark.skipif(not PROGRAMS, reason="PostgreSQL is not installed (apt install postgresql)")
def test_two_servers_share_their_jobs_and_one_takes_over_those_of_the_other() -> None:
    check("two_servers", 1)


@pytest.mark.skipif(not shutil.which("ffmpeg"), reason="the program ffmpeg is not installed")
def test_nothing_is_lost_without_a_word() -> None:
    check("silent_loss", 20)


def check(name: str, amount: int) -> None:
    command = [sys.executable, "-m", f"tests.promises.{name}", str(amount), PATIENCE]
    done = subprocess.run(
        command,
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=4 * WAIT,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr


@takes_a_quiet_machine
def test_the_time_of_a_refusal_tells_nothing_of_the_keys() -> None:
    leaks = key_timing.leaks(key_timing.refusing_store(), 5000)

    assert all(abs(t) < key_timing.MOST for t in leaks.values()), leaks


@takes_a_quiet_machine
def test_a_comparison_that_ends_at_the_first_difference_would_be_found_out() -> None:
    known = {key[:8].encode(): key.encode() for key in key_timing.KNOWN}

    def identify(key: bytes) -> None:
        for one, other in zip(key, known.get(key[:8], b""), strict=False):
            if one != other:
                raise WrongKey("")
        raise WrongKey("")

    leaks = key_timing.leaks(identify, 5000)

    assert abs(leaks["wrong at the end"]) > key_timing.MOST


def test_one_outlier_does_not_bend_a_slope() -> None:
    assert theil_sen([0, 1, 2, 3, 4], [0, 2, 4, 600, 8]) == 2
