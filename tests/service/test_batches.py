"""What is told of jobs that were sent together."""

from __future__ import annotations

from dataclasses import replace

import pytest

from simple_asr.service.batches import (
    Batch,
    batch_fields,
    read_numbers,
    unknown_ends,
    with_jobs,
    written_numbers,
)
from tests.service.test_webhooks import JOB

DONE = replace(JOB, batch_id="b", batch_number=0, name="a.wav")
RUNNING = replace(DONE, id="5e0d", state="running", seconds_done=30, batch_number=1, name=None)


def test_progress_is_that_of_all_jobs() -> None:
    failed = replace(DONE, state="failed", seconds_done=0)

    assert Batch("b", (DONE, RUNNING)).progress == pytest.approx(0.625)
    assert Batch("b", (DONE, failed)).progress == 1.0


def test_a_batch_is_told_with_its_states_and_jobs() -> None:
    batch = Batch("b", (DONE, RUNNING))

    fields = with_jobs(batch, "/asr", now=200)

    assert fields["states"] == {"done": 1, "running": 1}
    assert fields["links"] == {
        "self": "/asr/jobs/batch/b",
        "events": "/asr/jobs/batch/b/events",
    }
    jobs = fields["jobs"]
    assert isinstance(jobs, list)
    assert [job["batch"] for job in jobs] == [
        {"id": "b", "number": 0, "name": "a.wav"},
        {"id": "b", "number": 1, "name": None},
    ]
    assert "jobs" not in batch_fields(batch, "")


@pytest.mark.parametrize(
    ("numbers", "text"),
    [(set(), ""), ({3}, "3"), ({0, 1, 2}, "0-2"), ({0, 1, 5, 7, 8}, "0-1,5,7-8")],
)
def test_numbers_are_written_as_ranges(numbers: set[int], text: str) -> None:
    assert written_numbers(numbers) == text
    assert read_numbers(text) == numbers


@pytest.mark.parametrize(
    "text", [None, "x", "1,", "-1", "1--2", "5-999999", "１", "1 ", "5-3", "0-9,0-9"]
)
def test_an_id_that_is_none_of_ours_is_taken_for_none(text: str | None) -> None:
    assert read_numbers(text) == set()


def test_an_end_is_told_once() -> None:
    other = replace(DONE, batch_number=2)

    assert unknown_ends([DONE, RUNNING, other], {0}) == [other]
