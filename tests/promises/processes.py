"""What Linux knows of a server and its child processes."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path


def descendants(process_id: int) -> list[int]:
    """Ids of all processes below this one."""
    children = []
    with suppress(OSError):
        for thread in Path(f"/proc/{process_id}/task").iterdir():
            with suppress(OSError):
                children += [int(child) for child in (thread / "children").read_text().split()]
    return children + [below for child in children for below in descendants(child)]


@dataclass(frozen=True)
class Usage:
    """Of a process and all below it. `memory` is in MiB, of what is theirs: no files of programs,
    whose share (PSS) depends on who else runs.
    """

    memory: float
    descriptors: int
    threads: int
    processes: int

    @classmethod
    def of(cls, process_id: int) -> Usage:
        tree = [process_id, *descendants(process_id)]
        return cls(
            memory=sum(map(_memory, tree)),
            descriptors=sum(_num_entries(process, "fd") for process in tree),
            threads=sum(_num_entries(process, "task") for process in tree),
            processes=len(tree),
        )


def _memory(process_id: int) -> float:
    with suppress(OSError):
        rollup = Path(f"/proc/{process_id}/smaps_rollup").read_text()
        return int(rollup.split("Pss_Anon:")[1].split()[0]) / 1024
    return 0.0


def _num_entries(process_id: int, folder: str) -> int:
    with suppress(OSError):
        return len(list(Path(f"/proc/{process_id}/{folder}").iterdir()))
    return 0
