"""Several jobs that were sent together: what is told of all of them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise

from simple_asr.service.jobs import Job, job_fields

_NUMBERS = re.compile(r"\d{1,6}(-\d{1,6})?(,\d{1,6}(-\d{1,6})?)*", re.ASCII)
MAX_NUMBER = 100_000


@dataclass(frozen=True, slots=True)
class Batch:
    """The jobs of one batch that are there still, at least one, by their numbers."""

    id: str
    jobs: tuple[Job, ...]

    @property
    def has_ended(self) -> bool:
        return all(job.has_ended for job in self.jobs)

    @property
    def progress(self) -> float:
        """From 0 to 1; a job that has ended in whatever way has nothing left to do."""
        done = sum(1.0 if job.has_ended else job.progress for job in self.jobs)
        return done / len(self.jobs)


def batch_fields(batch: Batch, root_path: str) -> dict[str, object]:
    """A batch as callers see it, without its jobs."""
    address = f"{root_path}/jobs/batch/{batch.id}"
    return {
        "id": batch.id,
        "progress": round(batch.progress, 4),
        "states": dict(Counter(job.state for job in batch.jobs)),
        "links": {"self": address, "events": f"{address}/events"},
    }


def with_jobs(batch: Batch, root_path: str, now: float) -> dict[str, object]:
    """The same with each of its jobs."""
    listed = [job_fields(job, root_path, now) for job in batch.jobs]
    return {**batch_fields(batch, root_path), "jobs": listed}


# The numbers of jobs whose end a client knows of, as the id of an event --------------------------


def written_numbers(numbers: Collection[int]) -> str:
    """As ranges: `0-4,7`. Jobs end in any order, so that a count would not say which are known."""
    runs = groupby(enumerate(sorted(numbers)), lambda place: place[1] - place[0])
    ranges = [[number for _, number in run] for _, run in runs]
    return ",".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in ranges)


def read_numbers(text: str | None) -> set[int]:
    """Those of an id of ours; an id that we have not given is taken for none."""
    if text is None or not _NUMBERS.fullmatch(text):
        return set()
    bounds = [[int(bound) for bound in part.split("-")] for part in text.split(",")]
    in_order = [bound for part in bounds for bound in part]
    if in_order[-1] > MAX_NUMBER or any(one >= two for one, two in pairwise(in_order)):
        return set()
    return {number for part in bounds for number in range(part[0], part[-1] + 1)}


def unknown_ends(jobs: Sequence[Job], known: Collection[int]) -> list[Job]:
    """Jobs that have ended, and whose end is not known yet."""
    return [job for job in jobs if job.has_ended and job.batch_number not in known]
