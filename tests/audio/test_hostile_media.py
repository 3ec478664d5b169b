"""Every file of the hostile collection has the outcome its list expects, at what it may cost."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from simple_asr.audio.decode import DecodeLimits, DecoderPool
from simple_asr.errors import MediaError

HOSTILE = Path(__file__).parents[2].parent / "shared" / "hostile"
if not HOSTILE.exists():
    pytest.skip(
        "the folder `shared` with hostile media is not beside this checkout",
        allow_module_level=True,
    )
if sys.platform != "linux":
    pytest.skip("these tests look at processes through /proc", allow_module_level=True)

EXPECTED: dict[str, Any] = json.loads((HOSTILE / "expected.json").read_text())
FILES: dict[str, dict[str, Any]] = EXPECTED["files"]


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DecoderPool]:
    """One process for all files: none may spoil the next."""
    limits = DecodeLimits(max_seconds=EXPECTED["assumes"]["max_audio_seconds"], timeout=240)
    spool = tmp_path_factory.mktemp("spool")
    with contextlib.closing(DecoderPool(1, limits, spool)) as pool:
        pool.decode(HOSTILE / "files" / "sig_10ms.wav").close()
        yield pool
    assert list(spool.iterdir()) == []


def names(group_is_ssrf: bool) -> list[str]:
    return [name for name, row in FILES.items() if (row["group"] == "ssrf") == group_is_ssrf]


@pytest.mark.parametrize("name", names(group_is_ssrf=False))
def test_the_outcome_is_the_expected_one(pool: DecoderPool, name: str) -> None:
    check_outcome(pool, name)


def check_outcome(pool: DecoderPool, name: str) -> None:
    row = FILES[name]
    (process_id,) = pool.process_ids
    with contextlib.suppress(OSError):
        Path(f"/proc/{process_id}/clear_refs").write_text("5")  # Peak memory counts from here.
    cpu_before = cpu_seconds(process_id)
    try:
        with pool.decode(HOSTILE / "files" / name) as recording:
            duration = recording.duration
        outcome = "ok"
    except MediaError as error:
        outcome = "hang" if "took longer" in error.detail else "4xx"

    assert outcome == row["expect"], row["why"]
    if "dur_s" in row:
        assert duration == pytest.approx(row["dur_s"], abs=row.get("dur_tol", 0.3))
    assert pool.process_ids == (process_id,), "the file has cost a process"
    # Its own time: that of the clock would be longer on a busy machine.
    assert cpu_seconds(process_id) - cpu_before < row.get("max_wall_s", 5)
    assert peak_mib(process_id) < row.get("max_rss_mib", 200)


def cpu_seconds(process_id: int) -> float:
    """What the process has used of the processor since its start."""
    fields = Path(f"/proc/{process_id}/stat").read_text().split()
    return (int(fields[13]) + int(fields[14])) / os.sysconf("SC_CLK_TCK")


def peak_mib(process_id: int) -> float:
    """The most memory the process has held."""
    status = Path(f"/proc/{process_id}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


# Files that refer to others --------------------------------------------------------------------


@pytest.mark.parametrize("name", names(group_is_ssrf=True))
def test_what_a_file_refers_to_is_not_touched(
    pool: DecoderPool, listener: socket.socket, canary: Path, name: str
) -> None:
    check_outcome(pool, name)

    with pytest.raises(BlockingIOError):
        listener.accept()
    assert {path.stat().st_atime for path in canary.iterdir()} == {0.0}
