"""A peer in a process of its own: one JSON question a line on standard input, one answer a line.

    PYTHON -m benchmarks.peer SYSTEM MODEL [once]

SYSTEM is one of SYSTEMS, MODEL a CTranslate2 folder; with `once` no window that fails a check is
tried again at a higher temperature. A question is `{"path": …, "beam_size": …}`,
an answer `{"seconds": …, "text": …}`. PYTHON needs the peer alone.
"""

from __future__ import annotations

import atexit
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parent.parent

Transcribe = Callable[[str, int], str]
"""Path and beam size in, text out."""


@dataclass(frozen=True)
class System:
    """A peer. `load` takes a CTranslate2 folder, and whether to try windows once.

    `module` is what its Python must have.
    """

    module: str
    load: Callable[[str, bool], Transcribe]


# What engine/tuning.py does, as the environment can say it to a process that does not call it.
TUNED = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(2**31 - 1),
    "MALLOC_TOP_PAD_": str(64 * 2**20),
    "CT2_FORCE_CPU_ISA": "AVX512",
}

ONCE = "once"
_GGML_ERROR = 4  # of ggml's levels of logging


class Peer:
    """A running peer; `ask` waits for its answer."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def ask(self, path: Path, beam_size: int) -> tuple[float, str]:
        """Seconds, as the peer measured them, and text."""
        assert self._process.stdin, "It is a pipe"
        assert self._process.stdout, "It is a pipe"
        print(json.dumps({"path": str(path), "beam_size": beam_size}), file=self._process.stdin)
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        return answer["seconds"], answer["text"]


@contextmanager
def running_peer(
    python: str, system: str, model: Path, *, is_tuned: bool = False, tries_once: bool = False
) -> Iterator[Peer]:
    """A peer that has loaded its model when the first answer comes."""
    process = subprocess.Popen(
        [python, "-m", "benchmarks.peer", system, str(model), *([ONCE] if tries_once else [])],
        cwd=REPOSITORY,
        # Of the project it reads a file of weights, which needs nothing but numpy.
        env={**os.environ, "PYTHONPATH": "src", **(TUNED if is_tuned else {})},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield Peer(process)
    finally:
        assert process.stdin, "It is a pipe"
        process.stdin.close()
        process.wait(60)


def has_module(python: str, module: str) -> bool:
    """Whether the interpreter `python` finds `module`."""
    code = f"import importlib.util, sys; sys.exit(not importlib.util.find_spec({module!r}))"
    return subprocess.run([python, "-c", code], check=False).returncode == 0


def main() -> None:
    system, model, *once = sys.argv[1:]
    assert once in ([], [ONCE]), f"{once} is not {ONCE!r}"
    transcribe = SYSTEMS[system].load(model, bool(once))
    for line in sys.stdin:
        question = json.loads(line)
        began = time.perf_counter()
        text = transcribe(question["path"], question["beam_size"])
        seconds = time.perf_counter() - began
        print(json.dumps({"seconds": seconds, "text": text}), flush=True)


def _openai(model: str, tries_once: bool) -> Transcribe:
    import faster_whisper  # noqa: PLC0415
    import torch  # noqa: PLC0415  (not installed where this is checked)
    import whisper  # noqa: PLC0415

    from benchmarks.openai_weights import checkpoint  # noqa: PLC0415

    torch.set_num_threads(os.cpu_count() or 1)
    loaded = whisper.load_model(str(checkpoint(Path(model))), device="cpu")

    def transcribe(path: str, beam_size: int) -> str:
        # openai-whisper takes beam_size=1 for a search of its own; greedy is no beam_size.
        options: dict[str, Any] = {} if beam_size == 1 else {"beam_size": beam_size}
        if tries_once:
            options["temperature"] = 0.0
        # Decoded in its process: faster than through the ffmpeg command it starts by itself.
        samples = faster_whisper.decode_audio(path)
        return str(loaded.transcribe(samples, fp16=False, **options)["text"])

    return transcribe


def _faster_whisper(model: str, tries_once: bool, *, is_batched: bool = False) -> Transcribe:
    import faster_whisper  # noqa: PLC0415  (not installed where this is checked)

    loaded = faster_whisper.WhisperModel(model, device="cpu", compute_type="int8")
    system = faster_whisper.BatchedInferencePipeline(loaded) if is_batched else loaded
    options: dict[str, Any] = {"temperature": 0.0} if tries_once else {}

    def transcribe(path: str, beam_size: int) -> str:
        segments, _ = system.transcribe(path, beam_size=beam_size, **options)
        return "".join(segment.text for segment in segments)

    return transcribe


def _whisper_cpp(model: str, tries_once: bool) -> Transcribe:
    import _pywhispercpp as library  # noqa: PLC0415  (not installed where this is checked)
    import faster_whisper  # noqa: PLC0415
    from pywhispercpp.model import Model  # noqa: PLC0415

    from benchmarks.ggml_weights import ggml_file  # noqa: PLC0415

    def write_errors(level: int, text: str) -> None:
        if level == _GGML_ERROR:
            sys.stderr.write(text)

    library.whisper_log_set(write_errors)
    atexit.register(library.whisper_log_set, None)  # it would be called after Python's own end
    loaded = Model(
        str(ggml_file(Path(model))),
        n_threads=os.cpu_count() or 1,
        language="",  # to be detected
        greedy={"best_of": 5},  # above temperature 0 alone, and whisper.cpp's command has it so
        print_progress=False,
    )
    greedy, beam_search = library.WHISPER_SAMPLING_GREEDY, library.WHISPER_SAMPLING_BEAM_SEARCH

    def transcribe(path: str, beam_size: int) -> str:
        segments = loaded.transcribe(
            faster_whisper.decode_audio(path),
            strategy=greedy if beam_size == 1 else beam_search,
            beam_search={"beam_size": beam_size, "patience": -1.0},
            temperature_inc=0.0 if tries_once else 0.2,
        )
        return " ".join(segment.text for segment in segments)

    return transcribe


SYSTEMS: dict[str, System] = {
    "openai": System("whisper", _openai),
    "faster-whisper": System("faster_whisper", _faster_whisper),
    "faster-whisper-batched": System(
        "faster_whisper",
        lambda model, tries_once: _faster_whisper(model, tries_once, is_batched=True),
    ),
    "whisper.cpp": System("pywhispercpp", _whisper_cpp),
}


if __name__ == "__main__":
    main()
