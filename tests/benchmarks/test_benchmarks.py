"""Each benchmark runs, on one short recording and without peers, and prints its figures."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.local_server import REPOSITORY
from tests.support import Clip

pytestmark = pytest.mark.weights


@pytest.fixture(scope="module")
def recordings(speech: list[Clip], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one recording of 1.5 to 15 s, as the benchmarks want it."""
    folder = tmp_path_factory.mktemp("recordings")
    clip = next(clip for clip in speech if clip.path.stem == "quick_brown_fox")
    shutil.copy(clip.path, folder / "clip.wav")
    line = {"path": "clip.wav", "language": "en", "text": clip.text, "duration_s": 3.0}
    (folder / "manifest.jsonl").write_text(json.dumps(line) + "\n")
    return folder


@pytest.mark.parametrize(
    ("command", "figures"),
    [
        ("encoder --rounds 1", ["as shipped", "both", " ms"]),
        ("accuracy {folder} --speedup 1", ["en", "1 recordings", " %"]),
        ("keywords {folder} --keywords fox dog", ["nothing", "keywords[]", "found", " %"]),
        ("throughput {folder} --clients 2 --rounds 1", ["exact", "reduced", "p95"]),
        ("latency {folder}/clip.wav --rounds 1 --beam-size 1", ["exact", "reduced context", " s"]),
        ("long {folder} clip.wav", ["chunks, reduced", "times real time", "word error rate"]),
        ("word_times {folder}", ["en", "equal", "all", "at the median"]),
        ("writing --before 0 --beams 1 --rounds 1", ["ours", "CTranslate2", "ms a token"]),
        ("jobs {folder}/clip.wav {folder}/clip.wav --jobs 2 --requests 1", ["alone", "2 jobs"]),
        ("memory {folder}/clip.wav --minutes 0.05", ["at rest", "peak", "MiB"]),
    ],
)
def test_a_benchmark_prints_its_figures(recordings: Path, command: str, figures: list[str]) -> None:
    name, *arguments = command.format(folder=recordings).split()

    run = subprocess.run(
        [sys.executable, "-m", f"benchmarks.{name}", *arguments],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )

    assert run.returncode == 0, run.stderr
    assert all(figure in run.stdout for figure in figures), run.stdout
