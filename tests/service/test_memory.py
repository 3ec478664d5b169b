"""Memory that is left: of the machine, or of the container where that is less."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from simple_asr.service.memory import available_memory

GIB = 1 << 30


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """One with 8 GiB available, and no container."""
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/meminfo").write_text(f"MemTotal: 9 kB\nMemAvailable:  {8 * GIB // 1024} kB\n")
    return tmp_path


def limit(machine: Path, most: str, used: int, idle: int) -> None:
    folder = machine / "sys/fs/cgroup"
    folder.mkdir(parents=True)
    (folder / "memory.max").write_text(f"{most}\n")
    (folder / "memory.current").write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"anon 5\ninactive_file {idle}\n")


def test_it_is_what_linux_says_is_available(machine: Path) -> None:
    assert available_memory(machine) == 8 * GIB


def test_a_container_may_have_less(machine: Path) -> None:
    limit(machine, str(4 * GIB), used=3 * GIB, idle=GIB)

    assert available_memory(machine) == 2 * GIB


def test_a_container_without_a_limit_has_the_machines(machine: Path) -> None:
    limit(machine, "max", used=3 * GIB, idle=GIB)

    assert available_memory(machine) == 8 * GIB


def test_elsewhere_nobody_knows(tmp_path: Path) -> None:
    assert available_memory(tmp_path) is None


@pytest.mark.skipif(sys.platform != "linux", reason="Linux tells")
def test_this_machine_has_some() -> None:
    assert (available_memory() or 0) > 1_000_000
