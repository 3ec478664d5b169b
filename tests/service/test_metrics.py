"""Figures: what is told is what a scrape reads."""

from __future__ import annotations

import subprocess
import sys
from typing import get_args

import pytest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from simple_asr.engine.engine import Queue
from simple_asr.engine.request import Outcome
from simple_asr.service.metrics import Metrics, children_resident_bytes
from simple_asr.service.usage import Used
from simple_asr.transcript.model import Processing

OUTCOMES = get_args(Outcome)


class Clock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def metrics(clock: Clock) -> Metrics:
    return Metrics(clock)


def figures(metrics: Metrics) -> dict[str, float]:
    """Each sample, named as in a query: `name{label=value}`."""
    families = text_string_to_metric_families(metrics.exposition().decode())
    return {_written(sample): sample.value for family in families for sample in family.samples}


def _written(sample: Sample) -> str:
    labels = ",".join(f"{name}={value}" for name, value in sample.labels.items())
    return f"{sample.name}{{{labels}}}"


def test_a_transcription_is_counted_by_route_status_and_key(metrics: Metrics, clock: Clock) -> None:
    metrics.request_began(1)
    clock.now += 3.0
    metrics.request_ended(
        1,
        route="/transcribe",
        status=200,
        key_name="alice",
        audio_seconds=30.0,
        processing=Processing(queue=1.0, decode=0.5, recognise=1.0),
    )

    seen = figures(metrics)
    assert seen["asr_requests_total{route=/transcribe,status=200}"] == 1
    assert seen["asr_request_seconds_sum{route=/transcribe}"] == 3.0
    assert seen["asr_key_requests_total{key=alice}"] == 1
    assert seen["asr_stage_seconds_sum{stage=queue}"] == 1.0
    assert seen["asr_real_time_factor_sum{}"] == 1.5 / 30


def test_what_a_key_used_is_added_up(metrics: Metrics) -> None:
    metrics.key_used("alice", Used(1, 30.0, 2.0))
    metrics.key_used("alice", Used(0, 5.0, 1.0))

    seen = figures(metrics)
    assert seen["asr_key_audio_seconds_total{key=alice}"] == 35.0
    assert seen["asr_key_compute_seconds_total{key=alice}"] == 3.0


def test_a_caller_who_left_before_the_answer_has_no_status(metrics: Metrics) -> None:
    metrics.request_began(1)
    metrics.request_ended(1, route="/transcribe", status=None)

    assert figures(metrics)["asr_requests_total{route=/transcribe,status=none}"] == 1


def test_the_oldest_request_is_seen_while_it_lasts(metrics: Metrics, clock: Clock) -> None:
    metrics.request_began("first")
    clock.now += 5
    metrics.request_began("second")
    clock.now += 1

    during = figures(metrics)
    metrics.request_ended("first", route="/x", status=200)
    metrics.request_ended("second", route="/x", status=200)
    after = figures(metrics)

    name = "asr_oldest_request_seconds{}"
    assert (during["asr_requests_in_progress{}"], during[name]) == (2, 6.0)
    assert (after["asr_requests_in_progress{}"], after[name]) == (0, 0.0)


def test_model_calls_are_counted_by_step_and_outcome(metrics: Metrics) -> None:
    metrics.model_called("Decode", 8, 0.5, has_failed=False)
    metrics.model_called("Decode", 2, 0.1, has_failed=True)

    seen = figures(metrics)
    assert seen["asr_windows_total{outcome=answered,step=Decode}"] == 8
    assert seen["asr_windows_total{outcome=failed,step=Decode}"] == 2
    assert seen["asr_batch_windows_bucket{le=2.0}"] == 1
    assert seen["asr_model_call_seconds_count{}"] == 2


def test_windows_are_counted_by_what_became_of_them(metrics: Metrics) -> None:
    for outcome in OUTCOMES:
        metrics.window_ended(outcome)
    metrics.window_ended("accepted")

    seen = figures(metrics)
    assert seen["asr_window_outcomes_total{outcome=accepted}"] == 2
    assert seen["asr_window_outcomes_total{outcome=retried}"] == 1
    assert seen["asr_window_outcomes_total{outcome=silent}"] == 1


def test_what_waits_is_asked_at_each_scrape(metrics: Metrics) -> None:
    before = figures(metrics)
    metrics.queue = lambda: Queue(num_windows=3, age=1.5)
    after = figures(metrics)

    names = ("asr_queue_windows{}", "asr_queue_age_seconds{}")
    assert [before[name] for name in names] == [0, 0]
    assert [after[name] for name in names] == [3, 1.5]


def test_what_others_count_is_asked_at_each_scrape(metrics: Metrics) -> None:
    deaths: list[int] = []
    metrics.count("asr_decoder_deaths", "Of decoders.", lambda: len(deaths))

    before = figures(metrics)
    deaths.append(9)
    after = figures(metrics)

    name = "asr_decoder_deaths_total{}"
    assert (before[name], after[name]) == (0, 1)


@pytest.mark.skipif(sys.platform != "linux", reason="Linux tells of children")
def test_the_memory_of_children_is_seen() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", "print(1, flush=True); input()"], stdin=-1, stdout=-1
    ) as child:
        assert child.stdout is not None
        child.stdout.readline()
        seen = children_resident_bytes()
        child.communicate(b"\n")

    assert seen > 1_000_000
