"""What this process may use of its machine: cores and memory, or those it was given of them.

A container and a unit of systemd are given them as limits of control groups, which are read where
Linux shows them (docs.kernel.org/admin-guide/cgroup-v2.html). `root` is where /proc and /sys are
looked for.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable
from pathlib import Path, PurePosixPath

ROOT = Path("/")


def num_cores(root: Path = ROOT) -> int:
    """Cores this process may keep busy: fewer than the machine's under taskset or a quota.

    Threads beyond a quota (`docker run --cpus`, `limits.cpu` of Kubernetes, `CPUQuota=` of systemd)
    would all stand still for the rest of each tenth of a second, once its time is used up.
    """
    return _least(_quota, root, otherwise=_allowed_cores())


def machine_cores() -> int:
    """All cores there are."""
    return os.cpu_count() or 1


def _allowed_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return machine_cores()


def _quota(group: Path) -> int | None:
    """Cores that its time in a period fills; None where it is not limited.

    Rounded up: of 1.5 cores a single thread would leave a third unused, while two stand still for a
    quarter of each period and use all.
    """
    try:
        time, period = map(int, (group / "cpu.max").read_text().split())
    except (OSError, ValueError):  # no such group, or one without a limit ("max 100000")
        return None
    return math.ceil(time / period)


def physical_memory(root: Path = ROOT) -> int:
    """Bytes of this machine's memory, or those that this process may have.

    The machine's are asked of the system, which macOS tells too, whatever `root` is.
    """
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return _least(_memory_limit, root, otherwise=machine)


def available_memory(root: Path = ROOT) -> int | None:
    """Bytes that can be had without swapping; None where the system does not tell.

    Linux's own estimate, and less where this process may have less.
    """
    machine = _available_to_machine(root)
    return None if machine is None else _least(_available_to, root, otherwise=machine)


def _available_to_machine(root: Path) -> int | None:
    try:
        found = re.search(r"MemAvailable:\s+(\d+) kB", (root / "proc/meminfo").read_text())
    except OSError:
        return None
    return int(found[1]) * 1024 if found else None


def _available_to(group: Path) -> int | None:
    most = _memory_limit(group)
    if most is None:
        return None
    try:
        used = int((group / "memory.current").read_text())
        # Pages of files that nobody has touched for a while are given back at once.
        idle = re.search(r"^inactive_file (\d+)", (group / "memory.stat").read_text(), re.M)
    except (OSError, ValueError):
        return None
    return most - used + (int(idle[1]) if idle else 0)


def _memory_limit(group: Path) -> int | None:
    try:
        return int((group / "memory.max").read_text())
    except (OSError, ValueError):  # no such group, or one without a limit ("max")
        return None


def _least(limit: Callable[[Path], int | None], root: Path, *, otherwise: int) -> int:
    """Each group has what it is given, and no more than any around it."""
    limits = (limit(group) for group in _groups(root))
    return min([otherwise, *(each for each in limits if each is not None)])


def _groups(root: Path) -> list[Path]:
    """The folders of this process's control group and of those around it.

    A container sees its own as the only one; a unit of systemd lies within a slice. On version 1 of
    control groups, and where there are none, nothing is found there.
    """
    try:
        found = re.search(r"^0::/(.*)$", (root / "proc/self/cgroup").read_text(), re.MULTILINE)
    except OSError:
        found = None
    own = PurePosixPath(found[1] if found else "")
    if ".." in own.parts:  # The process was moved to one that its container does not see.
        own = PurePosixPath()
    return [root / "sys/fs/cgroup" / group for group in (own, *own.parents)]
