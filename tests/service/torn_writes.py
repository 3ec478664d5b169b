"""Cuts and changes what a store has on disk, as a power cut may, and looks at what is told then.

python -m tests.service.torn_writes 2000
"""

from __future__ import annotations

import random
import shutil
import sqlite3
import sys
import tempfile
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Literal

from simple_asr.errors import AsrError
from simple_asr.service.database import sqlite_url
from simple_asr.service.fake import TRANSCRIPT
from simple_asr.service.job_store import JobStore
from simple_asr.service.jobs import NewJob
from tests.service.kill_cycles import said_in

OWNER = "alice"
NUM_JOBS = 20
DATABASE = "jobs.sqlite3"
LOG = f"{DATABASE}-wal"
KINDS = ("log cut", "log changed", "database cut")
Outcome = Literal["refused at the start", "failed when asked", "all there", "a part there"]


def main(num_variants: int, seed: int = 1) -> Counter[tuple[str, Outcome]]:
    """What became of each kind of damage. Raises AssertionError where anything false is told."""
    chance = random.Random(seed)  # noqa: S311 - no secret
    outcomes: Counter[tuple[str, Outcome]] = Counter()
    with tempfile.TemporaryDirectory() as name:
        logged, checkpointed = Path(name, "logged"), Path(name, "checkpointed")
        fill(logged)
        shutil.copytree(logged, checkpointed)
        checkpoint(checkpointed)
        for number in range(num_variants):
            damaged = Path(name, str(number))
            kind = KINDS[number % len(KINDS)]
            shutil.copytree(checkpointed if kind == "database cut" else logged, damaged)
            damage(damaged, kind, chance)
            outcomes[kind, outcome(damaged)] += 1
            shutil.rmtree(damaged)
    return outcomes


def fill(folder: Path) -> None:
    """Finished jobs, each in transactions of its own, copied with the log of writes beside it."""
    with tempfile.TemporaryDirectory() as name:
        store = JobStore(sqlite_url(Path(name, DATABASE)))
        for number in range(NUM_JOBS):
            store.add(NewJob(str(number), OWNER, "{}"), now=number)
            lease = store.claim(now=number)
            assert lease is not None
            segments = said_in(str(number))
            text = "".join(segment.text for segment in segments)
            store.finish(lease, segments, replace(TRANSCRIPT, text=text), now=number)
        # Before the store is closed, which would write the log into the database.
        folder.mkdir()
        for file in (DATABASE, LOG):
            shutil.copy(Path(name, file), folder / file)
        store.close()


def checkpoint(folder: Path) -> None:
    connection = sqlite3.connect(folder / DATABASE)
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()


def damage(folder: Path, kind: str, chance: random.Random) -> None:
    file = folder / (DATABASE if kind == "database cut" else LOG)
    content = bytearray(file.read_bytes())
    place = chance.randrange(len(content))
    if kind == "log changed":
        content[place] ^= 1 << chance.randrange(8)
    else:
        del content[place:]
    file.write_bytes(content)


def outcome(folder: Path) -> Outcome:
    """Raises AssertionError where jobs are there that were not, or say what they did not."""
    try:
        store = JobStore(sqlite_url(folder / DATABASE))
    except AsrError:
        return "refused at the start"
    try:
        found = {job.id: job for job in store.page(OWNER, NUM_JOBS + 1)}
        for job in found.values():
            if job.state == "done":
                assert store.transcript(job.id).segments == said_in(job.id)
    except AsrError:
        return "failed when asked"
    finally:
        store.close()
    # What was written first is there if anything after it is.
    assert sorted(found, key=int) == [str(number) for number in range(len(found))]
    states = [found[str(number)].state for number in range(len(found))]
    assert set(states[:-1]) <= {"done"}
    return "all there" if states == NUM_JOBS * ["done"] else "a part there"


if __name__ == "__main__":
    for (kind, end), count in sorted(main(int(sys.argv[1])).items()):
        print(f"{kind}: {end}: {count}")  # noqa: T201
