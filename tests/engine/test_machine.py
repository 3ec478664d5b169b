"""Cores and memory: of the machine, or of the container or unit where that is less."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from simple_asr.engine.machine import available_memory, num_cores, physical_memory

GIB = 1 << 30


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """One with 64 cores, of which 8 are for this process, 8 GiB available, and no container."""
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/meminfo").write_text(f"MemTotal: 9 kB\nMemAvailable:  {8 * GIB // 1024} kB\n")
    return tmp_path


UNIT = "system.slice/asr.service"


def limit(machine: Path, group: str = "", **files: str) -> None:
    """Gives a control group these limits; the outermost one is what a container sees of its own."""
    folder = machine / "sys/fs/cgroup" / group
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name.replace("_", ".")).write_text(f"{content}\n")


def limit_memory(machine: Path, most: str, used: int, idle: int, group: str = "") -> None:
    stat = f"anon 5\ninactive_file {idle}"
    limit(machine, group, memory_max=most, memory_current=str(used), memory_stat=stat)


def run_in(machine: Path, group: str) -> None:
    """Has the process belong to it, as Linux tells (man 7 cgroups)."""
    (machine / "proc/self").mkdir()
    (machine / "proc/self/cgroup").write_text(f"1:name=systemd:/elsewhere\n0::/{group}\n")


# Cores --------------------------------------------------------------------------------------------


def test_cores_are_those_the_process_is_let_run_on(machine: Path) -> None:
    assert num_cores(machine) == 8


@pytest.mark.parametrize(
    ("quota", "expected"),
    [
        ("200000 100000", 2),
        ("250000 100000", 3),  # as `docker run --cpus 2.5` writes it
        ("50000 100000", 1),
        ("20000 10000", 2),
        ("1600000 100000", 8),  # more than it is let run on
        ("max 100000", 8),
    ],
)
def test_a_container_has_the_cores_of_its_quota(machine: Path, quota: str, expected: int) -> None:
    limit(machine, cpu_max=quota)

    assert num_cores(machine) == expected


def test_a_unit_of_systemd_has_the_cores_of_its_quota(machine: Path) -> None:
    run_in(machine, UNIT)
    limit(machine, UNIT, cpu_max="200000 100000")

    assert num_cores(machine) == 2


@pytest.mark.parametrize("group", ["", "system.slice"])
def test_the_least_quota_around_a_group_counts(machine: Path, group: str) -> None:
    run_in(machine, UNIT)
    limit(machine, UNIT, cpu_max="400000 100000")
    limit(machine, group, cpu_max="300000 100000")

    assert num_cores(machine) == 3


def test_a_group_out_of_the_containers_sight_is_not_looked_for(machine: Path) -> None:
    run_in(machine, "../other")
    limit(machine, "../other", cpu_max="100000 100000")
    limit(machine, cpu_max="300000 100000")

    assert num_cores(machine) == 3


def test_a_quota_counts_where_the_system_knows_no_affinity(
    machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)

    everywhere = num_cores(machine)
    limit(machine, cpu_max="300000 100000")

    assert (everywhere, num_cores(machine)) == (64, 3)


# Memory -------------------------------------------------------------------------------------------


def test_memory_of_a_container_is_its_limit(machine: Path) -> None:
    limit(machine, memory_max="1000000")

    assert physical_memory(machine) == 1_000_000


def test_memory_of_a_unit_of_systemd_is_the_least_limit_around_it(machine: Path) -> None:
    run_in(machine, UNIT)
    limit(machine, UNIT, memory_max="1000000")
    without = physical_memory(machine)
    limit(machine, "system.slice", memory_max="900000")

    assert (without, physical_memory(machine)) == (1_000_000, 900_000)


@pytest.mark.parametrize("most", ["max", str(1 << 60)])
def test_a_container_has_no_more_memory_than_its_machine(machine: Path, most: str) -> None:
    without = physical_memory(machine)

    limit(machine, memory_max=most)

    assert physical_memory(machine) == without > 1_000_000


def test_available_is_what_linux_says_is(machine: Path) -> None:
    assert available_memory(machine) == 8 * GIB


def test_less_is_available_to_a_container_that_may_have_less(machine: Path) -> None:
    limit_memory(machine, str(4 * GIB), used=3 * GIB, idle=GIB)

    assert available_memory(machine) == 2 * GIB


def test_available_to_a_unit_is_what_is_left_to_any_group_around_it(machine: Path) -> None:
    run_in(machine, UNIT)
    limit_memory(machine, str(4 * GIB), used=GIB, idle=0, group=UNIT)
    limit_memory(machine, str(6 * GIB), used=5 * GIB, idle=0, group="system.slice")

    assert available_memory(machine) == GIB


def test_to_a_container_without_a_limit_the_machines_is_available(machine: Path) -> None:
    limit_memory(machine, "max", used=3 * GIB, idle=GIB)

    assert available_memory(machine) == 8 * GIB


def test_elsewhere_nobody_knows_what_is_available(tmp_path: Path) -> None:
    assert available_memory(tmp_path) is None


@pytest.mark.skipif(sys.platform != "linux", reason="Linux tells")
def test_this_machine_has_some() -> None:
    assert (available_memory() or 0) > 1_000_000
