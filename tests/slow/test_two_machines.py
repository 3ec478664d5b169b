"""A cluster of two machines under load: one that dies, a new version, more audio, jobs.

Minutes long, so asked for by name (CONTRIBUTING.md): `pytest tests/slow`.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import threading
import time
import wave
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import httpx
import numpy as np
import pytest

from simple_asr.service.charges import SETTLE_SECONDS
from tests.slow.machines import (
    HEAD,
    PATIENCE,
    WORKER,
    TwoMachines,
    cpu_seconds,
    missing,
    two_machines,
    wait_until,
)
from tests.support import WAIT, Clip

pytest.importorskip("ray", reason="Ray is not installed (requirements/cluster.txt)")

pytestmark = [pytest.mark.weights, pytest.mark.skipif(bool(missing()), reason=missing())]


@pytest.fixture(scope="module")
def machines(base_model: Path) -> Iterator[TwoMachines]:
    with two_machines(base_model) as machines:
        yield machines


@pytest.fixture(scope="module")
def both(machines: TwoMachines) -> TwoMachines:
    """With a replica on each."""
    machines.deploy()
    wait_until(machines.has_a_replica_on_each, "a replica and a proxy of each machine answer")
    return machines


@pytest.fixture
def clip(speech: list[Clip]) -> Clip:
    return next(clip for clip in speech if clip.language == "en")


class Load:
    """Callers who ask again and again through one machine, until they are told to stop."""

    def __init__(self, machines: TwoMachines, clip: Clip) -> None:
        self.answers: list[httpx.Response] = []
        self._machines, self._clip = machines, clip
        self._is_over = threading.Event()
        self._grown = threading.Condition()

    @property
    def statuses(self) -> Counter[int]:
        return Counter(answer.status_code for answer in self.answers)

    def wait_for_more(self, num_answers: int) -> None:
        """Until so many more have come."""
        with self._grown:
            wanted = len(self.answers) + num_answers
            assert self._grown.wait_for(lambda: len(self.answers) >= wanted, WAIT), self.statuses

    def _ask(self) -> None:
        while not self._is_over.is_set():
            answer = self._machines.transcribe(self._clip)
            with self._grown:
                self.answers.append(answer)
                self._grown.notify_all()

    @contextmanager
    def of(self, num_callers: int) -> Iterator[Load]:
        with ThreadPoolExecutor(num_callers) as callers:
            asked = [callers.submit(self._ask) for _ in range(num_callers)]
            try:
                yield self
            finally:
                self._is_over.set()
        for one in asked:
            one.result()


def test_replicas_follow_the_audio_that_waits(
    machines: TwoMachines, clip: Clip, tmp_path: Path
) -> None:
    """The first test: for ten minutes after it there are two."""
    long = Clip(repeated(clip.path, 120, tmp_path / "long.wav"), clip.language, "")
    machines.deploy(min_replicas=1, max_replicas=2, audio_seconds_per_replica=200)
    wait_until(machines.is_running, "the application runs")
    assert machines.num_replicas() == 1

    with ThreadPoolExecutor(4) as callers:
        asked = [callers.submit(machines.transcribe, long, timeout=PATIENCE) for _ in range(4)]
        seconds = wait_until(lambda: machines.num_replicas() == 2, "a second one runs")
        answers = [one.result() for one in asked]

    print(f"480 s of audio waited: a second replica after {seconds:.0f} s")
    assert [answer.status_code for answer in answers] == [200] * 4


def repeated(clip: Path, seconds: int, to: Path) -> Path:
    """A recording in 32-bit floats, again and again, as 16-bit PCM."""
    read = clip.read_bytes()
    rate = int.from_bytes(read[24:28], "little")
    samples = np.frombuffer(read[read.index(b"data") + 8 :], "<f4")
    with wave.open(str(to), "wb") as written:
        written.setparams((1, 2, rate, 0, "NONE", ""))
        written.writeframes((np.resize(samples, seconds * rate) * 32_000).astype("<i2").tobytes())
    return to


def test_either_machine_serves_the_api(both: TwoMachines, clip: Clip) -> None:
    texts = {both.transcribe(clip, machine).json()["text"] for machine in (HEAD, WORKER)}

    assert len(texts) == 1
    assert texts.pop().strip()


def test_chunks_of_one_recording_are_recognised_on_both_machines(
    both: TwoMachines, clip: Clip, tmp_path: Path
) -> None:
    long = Clip(repeated(clip.path, 240, tmp_path / "long.wav"), clip.language, "")
    in_chunks = {"chunking_strategy": "auto", "temperature": "0"}
    # What may be made up is judged by one replica.
    alone = both.transcribe(long, timeout=PATIENCE, on_hallucination="flag", **in_chunks)
    before = {process: cpu_seconds(process) for (process,) in both.replicas().values()}

    divided = both.transcribe(long, timeout=PATIENCE, **in_chunks)

    used = {process: cpu_seconds(process) - seconds for process, seconds in before.items()}
    print(f"processor seconds of each replica: {used}")
    assert divided.json()["text"] == alone.json()["text"]
    assert min(used.values()) > max(used.values()) / 3


def test_hostile_media_are_refused_and_both_replicas_live(
    both: TwoMachines, clip: Clip, shared: Path
) -> None:
    expected = json.loads((shared / "hostile" / "expected.json").read_text())["files"]
    before = both.replicas()
    names = sorted(expected)[::6]

    statuses = {}
    for name in names:
        sent = (shared / "hostile" / "files" / name).read_bytes()
        statuses[name] = httpx.post(
            f"{both.url()}/transcribe",
            headers={"X-API-Key": both.key},
            files={"audio_file": sent},
            timeout=WAIT,
        ).status_code

    assert {name: status for name, status in statuses.items() if status >= 500} == {}
    assert both.transcribe(clip).status_code == 200
    assert both.replicas() == before


def test_a_job_taken_in_by_one_machine_is_answered_by_the_other(
    both: TwoMachines, clip: Clip
) -> None:
    key = {"X-API-Key": both.key}
    taken = httpx.post(
        f"{both.url(HEAD)}/jobs",
        headers=key,
        files={"audio_file": clip.path.read_bytes()},
        params={"language": clip.language},
        timeout=WAIT,
    )
    assert taken.status_code == 202, taken.text
    there = f"{both.url(WORKER)}/jobs/{taken.json()['id']}"

    wait_until(
        lambda: httpx.get(there, headers=key, timeout=WAIT).json()["state"] == "done",
        "the job is done",
    )
    result = httpx.get(f"{there}/result", headers=key, timeout=WAIT)

    assert result.json()["text"] == both.transcribe(clip).json()["text"]


def test_a_replica_that_is_killed_costs_its_own_requests_alone(
    both: TwoMachines, clip: Clip
) -> None:
    text = both.transcribe(clip).json()["text"]
    (victim,) = both.replicas()[WORKER]

    with Load(both, clip).of(8) as load:
        load.wait_for_more(4)
        os.kill(victim, signal.SIGKILL)
        load.wait_for_more(16)
    wait_until(lambda: len(both.replicas()[WORKER]) == 1, "Ray has started another")

    check_that_only_in_flight_requests_failed(load, text, at_most=8)
    assert both.transcribe(clip).json()["text"] == text


def check_that_only_in_flight_requests_failed(load: Load, text: str, at_most: int) -> None:
    """Those with 503 and `Retry-After`, so that whoever sends them again is right to."""
    print(f"{load.statuses}")
    failed = [answer for answer in load.answers if answer.status_code != 200]
    assert 1 <= len(failed) <= at_most, load.statuses
    assert {answer.status_code for answer in failed} == {503}
    assert all("retry-after" in answer.headers for answer in failed)
    assert {answer.json()["text"] for answer in load.answers if answer not in failed} == {text}


def test_a_new_version_is_rolled_out_without_a_lost_request(both: TwoMachines, clip: Clip) -> None:
    wait_until(both.has_a_replica_on_each, "both replicas run")
    before = both.replicas()

    with Load(both, clip).of(4) as load:
        load.wait_for_more(2)
        both.deploy({"LOG_LEVEL": "debug"})
        seconds = wait_until(
            lambda: both.is_running() and not have_in_common(before, both.replicas()),
            "the new version runs",
        )
        load.wait_for_more(4)

    print(f"rolled out in {seconds:.0f} s: {load.statuses}")
    assert set(load.statuses) == {200}


def test_a_keys_limit_holds_for_both_machines_together(both: TwoMachines, clip: Clip) -> None:
    limited = replace(both, key=secrets.token_hex(32))
    with (both.folder / "keys.txt").open("a") as keys:
        keys.write(f"{limited.key}  # limited\n")
    limits = both.folder / "limits.ini"
    limits.write_text("[limited]\nrequests_per_day = 3\n")
    before = both.replicas()
    both.deploy({"LIMITS_FILE": str(limits)})
    wait_until(
        lambda: both.is_running() and not have_in_common(before, both.replicas()),
        "the ingresses have the limit",
    )

    first = [limited.transcribe(clip).status_code for _ in range(3)]
    # An ingress tells no one when it has heard of the others' requests.
    time.sleep(3 * SETTLE_SECONDS)
    then = [limited.transcribe(clip, machine).status_code for machine in (HEAD, WORKER) * 4]

    assert first == [200] * 3
    assert then == [429] * 8


def have_in_common(before: dict[str, list[int]], after: dict[str, list[int]]) -> bool:
    return any(set(after[machine]) & set(before[machine]) for machine in before)


def test_a_machine_that_dies_costs_its_own_requests_alone(both: TwoMachines, clip: Clip) -> None:
    """The last test: the second machine is gone after it."""
    wait_until(both.has_a_replica_on_each, "both replicas run")
    text = both.transcribe(clip).json()["text"]

    with Load(both, clip).of(8) as load:
        load.wait_for_more(4)
        both.kill_worker()
        began = time.monotonic()
        load.wait_for_more(16)

    print(f"{time.monotonic() - began:.0f} s")
    check_that_only_in_flight_requests_failed(load, text, at_most=8)
    assert both.transcribe(clip).json()["text"] == text
