"""Speed on one GPU: a model by batch size, the engine by its settings, and faster-whisper.

    python -m benchmarks.gpu FOLDER [--tokens 60] [--without-peer]

FOLDER holds a CTranslate2 model; random weights do (`benchmarks.random_weights`). Every window gets
the same number of tokens, greedy, without timestamps, so all systems do equal work on equal noise.
"""

from __future__ import annotations

import argparse
import itertools
import queue
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import ctranslate2
import numpy as np
from numpy.typing import NDArray

from simple_asr.audio import SAMPLE_RATE
from simple_asr.audio.features import N_FRAMES, LogMel
from simple_asr.audio.speech import Span
from simple_asr.engine.backends.ctranslate2 import CTranslate2Backend, SharedModel
from simple_asr.engine.engine import Engine
from simple_asr.engine.options import TranscribeOptions
from simple_asr.engine.request import Request
from simple_asr.engine.tokens import Tokenizer
from simple_asr.engine.tuning import tune
from simple_asr.errors import AsrError
from simple_asr.transcript.events import Done, Event

WINDOW_SECONDS = 30
LONG_SECONDS = 600


@dataclass(frozen=True)
class Policy:
    """How the engine is set up: workers a GPU, windows an encoder call, windows a decoder call."""

    workers: int
    encode_batch_size: int
    max_batch_size: int


POLICIES = [
    Policy(*values)
    for values in (
        (1, 1, 8),
        (1, 8, 8),
        (1, 16, 16),
        (2, 4, 4),
        (2, 8, 8),
        (2, 16, 16),
        (3, 8, 8),
        (4, 4, 4),
    )
]


class Noise:
    """So many seconds of it, as samples."""

    def __init__(self, seconds: float) -> None:
        generator = np.random.default_rng(0)
        self.samples = generator.normal(0, 0.1, int(seconds * SAMPLE_RATE)).astype(np.float32)
        self.num_samples = len(self.samples)

    def read(self, start: int, stop: int) -> NDArray[np.float32]:
        block = np.zeros(stop - start, np.float32)
        inside = self.samples[max(start, 0) : max(stop, 0)]
        offset = max(-start, 0)
        block[offset : offset + len(inside)] = inside
        return block


def main() -> None:
    arguments = _arguments()
    tune()
    model = ctranslate2.models.Whisper(
        str(arguments.folder), device="cuda", compute_type="float16", inter_threads=4
    )
    tokenizer = Tokenizer.from_folder(arguments.folder)
    print(f"{arguments.folder.name}, float16, CTranslate2 {ctranslate2.__version__}")
    if not arguments.without_parts:
        _measure_parts(model, tokenizer, arguments.tokens)
    print(
        "\nworkers, encoder batch, decoder batch: audio s/s of 64 clips of 30 s at once; long file"
    )
    for policy in arguments.policy or POLICIES:
        clips, long = _measure_engine(model, tokenizer, policy, arguments.tokens)
        print(
            f"{policy.workers} {policy.encode_batch_size:3} {policy.max_batch_size:3}"
            f"   {clips:7.0f}   {long:7.0f}",
            flush=True,
        )
    if not arguments.without_peer:
        _measure_peer(arguments.folder, arguments.tokens)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--tokens", type=int, default=60)
    parser.add_argument("--policy", type=_policy, nargs="+", help="as 2,8,8; all by default")
    parser.add_argument("--without-parts", action="store_true")
    parser.add_argument("--without-peer", action="store_true")
    return parser.parse_args()


def _policy(text: str) -> Policy:
    return Policy(*map(int, text.split(",")))


def _median_seconds(call: Callable[[], object], rounds: int = 5) -> float:
    call()
    times = []
    for _ in range(rounds):
        began = time.perf_counter()
        call()
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def _measure_parts(model: Any, tokenizer: Tokenizer, num_tokens: int) -> None:
    print("windows   encode ms/window   decode ms/window   decode ms/token")
    prompt = [tokenizer.sot, tokenizer.sot + 1, tokenizer.transcribe, tokenizer.no_timestamps]
    generator = np.random.default_rng(0)
    for size in (1, 2, 4, 8, 16, 32):
        mel = generator.normal(0, 0.5, (size, model.n_mels, N_FRAMES)).astype(np.float32)
        features = ctranslate2.StorageView.from_array(mel)
        encode = _median_seconds(partial(model.encode, features, to_cpu=True))
        decode = _median_seconds(
            partial(
                model.generate,
                model.encode(features, to_cpu=True),
                [prompt] * size,
                beam_size=1,
                max_length=2 * num_tokens,
                suppress_tokens=[-1, tokenizer.eot],
            )
        )
        print(
            f"{size:7}   {encode / size * 1000:16.1f}   {decode / size * 1000:16.1f}"
            f"   {decode / num_tokens * 1000:15.2f}",
            flush=True,
        )


def _measure_engine(
    model: Any, tokenizer: Tokenizer, policy: Policy, num_tokens: int
) -> tuple[float, float]:
    shared = SharedModel(model)
    backends = [
        CTranslate2Backend("model", shared, tokenizer, encode_batch_size=policy.encode_batch_size)
        for _ in range(policy.workers)
    ]
    engine = Engine(backends, max_batch_size=policy.max_batch_size, max_requests=1000)
    clip, long = Noise(WINDOW_SECONDS), Noise(LONG_SECONDS)
    chunks = [
        Span(start, start + WINDOW_SECONDS) for start in range(0, LONG_SECONDS, WINDOW_SECONDS)
    ]

    def run(samples: Noise, times: int, chunks: Sequence[Span] | None = None) -> None:
        ends: queue.Queue[object] = queue.Queue()

        def listen(event: Event | AsrError) -> None:
            if isinstance(event, Done | AsrError):
                ends.put(event)

        def submit(_: int) -> None:
            log_mel = LogMel(samples, backends[0].info.n_mels)
            log_mel.peak()
            request = Request(
                _options(num_tokens), log_mel, backends[0].info, tokenizer, chunks=chunks
            )
            engine.submit(request, listen)

        with ThreadPoolExecutor(4) as threads:  # as many as the transcriber has
            list(threads.map(submit, range(times)))
        for _ in range(times):
            end = ends.get()
            assert isinstance(end, Done), end

    run(clip, 8)
    clips = 64 * WINDOW_SECONDS / _median_seconds(lambda: run(clip, 64), rounds=2)
    in_chunks = LONG_SECONDS / _median_seconds(lambda: run(long, 1, chunks), rounds=2)
    return clips, in_chunks


def _options(num_tokens: int) -> TranscribeOptions:
    return TranscribeOptions(
        language="en",
        temperature=(0.0,),
        compression_ratio_threshold=None,
        logprob_threshold=None,
        no_speech_threshold=None,
        without_timestamps=True,
        sample_len=num_tokens,
    )


def _measure_peer(folder: Path, num_tokens: int) -> None:
    from faster_whisper import (  # noqa: PLC0415  (not installed where this is checked)
        BatchedInferencePipeline,
        WhisperModel,
        __version__,
    )

    print(f"\nfaster-whisper {__version__}: audio s/s")
    model = WhisperModel(str(folder), device="cuda", compute_type="float16")
    options: dict[str, Any] = {
        "language": "en",
        "beam_size": 1,
        "temperature": 0.0,
        "max_new_tokens": num_tokens,
        "compression_ratio_threshold": None,
        "log_prob_threshold": None,
        "no_speech_threshold": None,
        "without_timestamps": True,
        "suppress_tokens": [-1],
    }
    samples = Noise(LONG_SECONDS).samples
    spans = [
        {"start": start, "end": start + WINDOW_SECONDS}
        for start in range(0, LONG_SECONDS, WINDOW_SECONDS)
    ]
    pipeline = BatchedInferencePipeline(model)
    for size in (8, 16, 32):

        def batched(size: int = size) -> None:
            segments, _ = pipeline.transcribe(
                samples, clip_timestamps=spans, vad_filter=False, batch_size=size, **options
            )
            list(segments)

        print(f"long file, batched {size:2}   {LONG_SECONDS / _median_seconds(batched, 2):7.0f}")

    def sequential() -> None:
        list(model.transcribe(samples, condition_on_previous_text=False, **options)[0])

    print(f"long file, sequential   {LONG_SECONDS / _median_seconds(sequential, 1):7.0f}")

    def one_by_one() -> None:
        clip = samples[: WINDOW_SECONDS * SAMPLE_RATE]
        for _ in itertools.repeat(None, 16):
            list(model.transcribe(clip, condition_on_previous_text=False, **options)[0])

    print(
        f"clips, one at a time   {16 * WINDOW_SECONDS / _median_seconds(one_by_one, 1):7.0f}",
        flush=True,
    )


if __name__ == "__main__":
    main()
