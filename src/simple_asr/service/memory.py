"""How much memory this machine, or this container, has left."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path("/")


def available_memory(root: Path = ROOT) -> int | None:
    """Bytes that can be had without swapping; None where the system does not tell.

    Linux's own estimate, and less where a container (cgroup v2) may have less. `root` is where
    /proc and /sys are looked for.
    """
    told = [_of_machine(root), _of_container(root / "sys/fs/cgroup")]
    return min((each for each in told if each is not None), default=None)


def _of_machine(root: Path) -> int | None:
    try:
        found = re.search(r"MemAvailable:\s+(\d+) kB", (root / "proc/meminfo").read_text())
    except OSError:
        return None
    return int(found[1]) * 1024 if found else None


def _of_container(folder: Path) -> int | None:
    try:
        most = int((folder / "memory.max").read_text())
        used = int((folder / "memory.current").read_text())
        # Pages of files that nobody has touched for a while are given back at once.
        idle = re.search(r"^inactive_file (\d+)", (folder / "memory.stat").read_text(), re.M)
    except (OSError, ValueError):  # no container, or one without a limit ("max")
        return None
    return most - used + (int(idle[1]) if idle else 0)
