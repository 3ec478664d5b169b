"""What this process may use of its machine: cores and memory, of a container those it was given.

A container's limits are read where Linux shows them to it (cgroup v2, /sys/fs/cgroup). `root` is
where /proc and /sys are looked for.
"""

from __future__ import annotations

import math
import os
import re
from pathlib import Path

ROOT = Path("/")


def num_cores(root: Path = ROOT) -> int:
    """Cores this process may keep busy: fewer than the machine's under taskset or a quota.

    Threads beyond a container's quota (`docker run --cpus`, `limits.cpu` of Kubernetes) would all
    stand still for the rest of each tenth of a second, once its time is used up.
    """
    return min(_allowed_cores(), _quota(_container(root)) or machine_cores())


def machine_cores() -> int:
    """All cores there are."""
    return os.cpu_count() or 1


def _allowed_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return machine_cores()


def _quota(container: Path) -> int | None:
    """Cores that its time in a period fills, rounded up; None where it is not limited."""
    try:
        time, period = map(int, (container / "cpu.max").read_text().split())
    except (OSError, ValueError):  # no container, or one without a limit ("max 100000")
        return None
    return math.ceil(time / period)


def physical_memory(root: Path = ROOT) -> int:
    """Bytes of this machine's memory, or those that its container may have."""
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return min(machine, _memory_limit(_container(root)) or machine)


def available_memory(root: Path = ROOT) -> int | None:
    """Bytes that can be had without swapping; None where the system does not tell.

    Linux's own estimate, and less where a container may have less.
    """
    told = [_available_to_machine(root), _available_to(_container(root))]
    return min((each for each in told if each is not None), default=None)


def _available_to_machine(root: Path) -> int | None:
    try:
        found = re.search(r"MemAvailable:\s+(\d+) kB", (root / "proc/meminfo").read_text())
    except OSError:
        return None
    return int(found[1]) * 1024 if found else None


def _available_to(container: Path) -> int | None:
    most = _memory_limit(container)
    if most is None:
        return None
    try:
        used = int((container / "memory.current").read_text())
        # Pages of files that nobody has touched for a while are given back at once.
        idle = re.search(r"^inactive_file (\d+)", (container / "memory.stat").read_text(), re.M)
    except (OSError, ValueError):
        return None
    return most - used + (int(idle[1]) if idle else 0)


def _memory_limit(container: Path) -> int | None:
    try:
        return int((container / "memory.max").read_text())
    except (OSError, ValueError):  # no container, or one without a limit ("max")
        return None


def _container(root: Path) -> Path:
    """The folder of this process's own limits, as a container sees it; else it holds none."""
    return root / "sys/fs/cgroup"
