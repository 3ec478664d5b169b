"""Progress: how much is done, and how long the rest will take."""

from __future__ import annotations

import pytest

from simple_asr.transcript.events import Progress


def test_the_rest_takes_as_long_as_what_is_done_did() -> None:
    assert Progress(seconds_done=30, seconds_total=120).eta_seconds(elapsed=2) == pytest.approx(6)


def test_nothing_is_known_of_the_rest_before_anything_is_done() -> None:
    assert Progress(seconds_done=0, seconds_total=120).eta_seconds(elapsed=2) is None


def test_nothing_is_left_at_the_end() -> None:
    assert Progress(seconds_done=120, seconds_total=120).eta_seconds(elapsed=2) == 0


def test_a_recording_without_length_is_done() -> None:
    assert Progress(seconds_done=0, seconds_total=0).eta_seconds(elapsed=2) == 0
