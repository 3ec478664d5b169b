"""Whisper on CTranslate2: the only importer of ctranslate2.

On a CPU it hears, times words and searches with beams; else `decoder` writes the text.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ctranslate2
import numpy as np
from numpy.typing import NDArray

from simple_asr.engine.backends import BATCH_SIZES
from simple_asr.engine.backends.base import ModelInfo
from simple_asr.engine.backends.decoder import Decoder, Threads
from simple_asr.engine.generation import generate
from simple_asr.engine.machine import num_cores, physical_memory
from simple_asr.engine.search import decode_after_prefix
from simple_asr.engine.tokens import Tokenizer
from simple_asr.engine.window import (
    Align,
    Aligned,
    Decode,
    Decoded,
    Detected,
    Encoded,
    Hypothesis,
    SearchOptions,
)
from simple_asr.errors import ModelUnavailable

_log = logging.getLogger(__name__)

_HOPELESS = -100.0
"""A sum of log-probabilities below that of any text."""

# More workers would each find too few windows to share a call.
_MAX_CPU_WORKERS = 8

# A token is written as fast as weights are read from memory, and a few cores take all it gives. How
# many was not measured: two are faster than one (docs/benchmarks.md), and more were not at hand.
_MAX_WRITING_THREADS = 4

# A CPU's workers get weights of their own only where the file is this small beside all memory.
_LARGEST_SHARE_OF_MEMORY = 1 / 16

# Number formats, as CTranslate2 calls what it chose, that the decoder for CPUs has: whether its
# weights are integers.
_IS_QUANTIZED = {"int8": True, "int8_float32": True, "float32": False}

# On a GPU a worker prepares its next windows while another's are computed. Two workers with 16
# windows were best, or within a tenth of it, in both shapes measured (docs/benchmarks.md).
_WORKERS_PER_GPU = 2


def library_version() -> str:
    return str(ctranslate2.__version__)


def num_gpus() -> int:
    """GPUs this build of CTranslate2 can use: NVIDIA with CUDA, AMD with the ROCm build."""
    return int(ctranslate2.get_cuda_device_count())


def best_compute_type(device: str) -> str:
    """The fastest number format that keeps Whisper's accuracy: int8 on CPU, float16 on GPU.

    Old GPUs without float16 arithmetic get float32.
    """
    if device == "cpu":
        return "int8"
    supported = ctranslate2.get_supported_compute_types(device)
    return "float16" if "float16" in supported else "float32"


def load_replicas(
    name: str, folder: Path, *, device: str, compute_type: str, num_threads: int
) -> list[CTranslate2Backend]:
    """A replica for each worker; those of one device share its weights. Raises ModelUnavailable."""
    if compute_type == "auto":
        compute_type = best_compute_type(device)
    if device == "cuda":
        models, decoder = _gpu_models(name, folder, compute_type), None
    else:
        workers = _CpuWorkers.of(folder, num_threads or num_cores())
        model = _cpu_model(name, folder, compute_type, workers)
        models = [model] * workers.number
        with model.in_use() as loaded:
            decoder = _decoder(name, folder, loaded.compute_type, workers)
    tokenizer = Tokenizer.from_folder(folder)
    return [CTranslate2Backend(name, model, tokenizer, decoder=decoder) for model in models]


def _decoder(name: str, folder: Path, compute_type: str, workers: _CpuWorkers) -> Decoder | None:
    """The decoder that all workers share; None where CTranslate2's own is used."""
    if compute_type not in _IS_QUANTIZED:
        return None
    is_quantized = _IS_QUANTIZED[compute_type]
    try:
        return Decoder(
            folder, is_quantized=is_quantized, threads=_writing_threads(workers, is_quantized)
        )
    except ValueError as error:
        _log.warning("%s is decoded by CTranslate2, with beams of its own: %s", name, error)
        return None


def _writing_threads(workers: _CpuWorkers, is_quantized: bool) -> Threads:
    """Workers side by side share a session, so that each writes in its own thread alone.

    A second session is a second copy of the matrices, which in float32 is too much for a fifth of a
    token's time.
    """
    together = min(workers.num_threads_alone, _MAX_WRITING_THREADS)
    if workers.number == 1:
        return Threads(together, together)
    return Threads(1, together, _callers.is_one) if is_quantized else Threads()


def _gpu_models(name: str, folder: Path, compute_type: str) -> list[SharedModel]:
    """An entry a worker. All GPUs have a first worker before any has a second."""
    models = [
        SharedModel(
            _load(
                name,
                folder,
                "cuda",
                compute_type,
                device_index=index,
                inter_threads=_WORKERS_PER_GPU,
            )
        )
        for index in range(num_gpus())
    ]
    return models * _WORKERS_PER_GPU


@dataclass(frozen=True, slots=True)
class _CpuWorkers:
    """`number` workers of `num_threads` each; one that is alone has `num_threads_alone`.

    Workers of one thread each serve many requests fastest, all threads together serve one. Both
    are had by loading the weights twice, where memory allows; else there is one worker with all
    threads. Figures: docs/benchmarks.md, "Workers on a CPU".
    """

    number: int
    num_threads: int
    num_threads_alone: int

    @classmethod
    def of(cls, folder: Path, num_threads: int) -> _CpuWorkers:
        number = min(num_threads, _MAX_CPU_WORKERS) if _fits_twice(folder) else 1
        return cls(number, num_threads // number, num_threads)


def _cpu_model(name: str, folder: Path, compute_type: str, workers: _CpuWorkers) -> SharedModel:
    together = _load(name, folder, "cpu", compute_type, intra_threads=workers.num_threads_alone)
    if workers.number == 1:
        return SharedModel(together)
    side_by_side = _load(
        name,
        folder,
        "cpu",
        compute_type,
        intra_threads=workers.num_threads,
        inter_threads=workers.number,
    )
    return SharedModel(side_by_side, together)


def _fits_twice(folder: Path) -> bool:
    try:
        size = (folder / "model.bin").stat().st_size
    except OSError:
        return False  # What is wrong with it, its loading will tell.
    return size <= _LARGEST_SHARE_OF_MEMORY * physical_memory()


def _load(
    name: str,
    folder: Path,
    device: str,
    compute_type: str,
    *,
    device_index: int = 0,
    intra_threads: int = 0,
    inter_threads: int = 1,
) -> ctranslate2.models.Whisper:
    try:
        return ctranslate2.models.Whisper(
            str(folder),
            device=device,
            device_index=device_index,
            compute_type=compute_type,
            intra_threads=intra_threads,
            inter_threads=inter_threads,
        )
    except (RuntimeError, ValueError) as error:
        raise ModelUnavailable(
            f"The model {name!r} cannot be loaded on {device} as {compute_type}: {error}. "
            "Download it again with `simple-asr models download`, or choose another "
            "COMPUTE_TYPE or MODEL_DEVICE."
        ) from error


class _Callers:
    """How many are at work on the models of this process, whose threads have the same cores."""

    def __init__(self) -> None:
        self._number = 0
        self._lock = threading.Lock()

    @contextmanager
    def one_more(self) -> Iterator[None]:
        with self._lock:
            self._number += 1
        try:
            yield
        finally:
            with self._lock:
                self._number -= 1

    def is_one(self) -> bool:
        """Read without the lock: who comes in that moment might as well have come after it."""
        return self._number == 1


_callers = _Callers()


class SharedModel:
    """Weights that several workers call at once, and perhaps the same with all threads together.

    Who is alone, on this model and on all others, gets the threads together.
    """

    def __init__(
        self,
        model: ctranslate2.models.Whisper,
        together: ctranslate2.models.Whisper | None = None,
    ) -> None:
        self._model = model
        self._together = together or model

    @contextmanager
    def in_use(self) -> Iterator[ctranslate2.models.Whisper]:
        """The model to call now: both answer the same, to the last bit."""
        with _callers.one_more():
            yield self._together if _callers.is_one() else self._model

    def unload(self) -> None:
        self._model.unload_model()
        self._together.unload_model()


@dataclass(frozen=True, slots=True)
class _Row:
    """What the encoder heard in one window: a row of the output of a call for several."""

    output: ctranslate2.StorageView
    index: int


@contextmanager
def _together(rows: Sequence[_Row]) -> Iterator[ctranslate2.StorageView]:
    """The windows of one call as CTranslate2 takes them, shape (windows, frames, width).

    Windows that were encoded together, and are all that were, stay where they are. Others are
    copied into one array, which lives as long as the block: a `StorageView` does not keep it.
    """
    output = rows[0].output
    if [row.index for row in rows] == list(range(output.shape[0])) and all(
        row.output is output for row in rows
    ):
        yield output
        return
    arrays = {id(row.output): _in_main_memory(row.output) for row in rows}  # each moved once
    array = np.stack([arrays[id(row.output)][row.index] for row in rows])
    yield ctranslate2.StorageView.from_array(array)


def _in_main_memory(output: ctranslate2.StorageView) -> NDArray[Any]:
    """An encoder call's output, shape (windows, frames, width); valid as long as `output`."""
    if output.device == "cpu":
        return np.asarray(output)
    moved = output.to_device(ctranslate2.Device.cpu)
    if moved.dtype == ctranslate2.DataType.bfloat16:  # which numpy does not know
        moved = moved.to(ctranslate2.DataType.float32)
    return np.array(moved)


class CTranslate2Backend:
    """One worker's view of a model. Encoder output stays on the device where there is only one."""

    def __init__(
        self,
        name: str,
        model: SharedModel,
        tokenizer: Tokenizer,
        *,
        encode_batch_size: int | None = None,
        decoder: Decoder | None = None,
    ) -> None:
        """`encode_batch_size` None is what suits the device; `decoder` None is CTranslate2's."""
        self.model = model
        self._tokenizer = tokenizer
        self._decoder = decoder
        with model.in_use() as loaded:
            is_on_gpu = loaded.device == "cuda"
            self._info = ModelInfo(
                name=name,
                is_multilingual=loaded.is_multilingual,
                n_mels=loaded.n_mels,
                device=loaded.device,
                compute_type=loaded.compute_type,
                encode_batch_size=encode_batch_size or (BATCH_SIZES["cuda"] if is_on_gpu else 1),
                batch_size=BATCH_SIZES[loaded.device],
            )
            # The next step on a window may fall to a worker of another GPU.
            self._must_travel = is_on_gpu and num_gpus() > 1

    @property
    def info(self) -> ModelInfo:
        return self._info

    @property
    def tokenizer(self) -> Tokenizer:
        return self._tokenizer

    def encode(self, log_mels: Sequence[NDArray[np.float32]]) -> list[Encoded]:
        features = np.stack(log_mels)
        with self.model.in_use() as model:
            output = model.encode(
                ctranslate2.StorageView.from_array(features), to_cpu=self._must_travel
            )
        return [_Row(output, index) for index in range(len(log_mels))]

    def detect_language(self, encoded: Sequence[Encoded]) -> list[Detected]:
        with self.model.in_use() as model, _together(encoded) as rows:
            answers = model.detect_language(rows)
        return [
            Detected({token.strip("<|>"): probability for token, probability in answer})
            for answer in answers
        ]

    def decode(
        self, encoded: Sequence[Encoded], steps: Sequence[Decode]
    ) -> Iterator[dict[int, Decoded]]:
        if self._decoder and not _is_plain_beam_search(steps[0]):
            yield from self._write(self._decoder, encoded, steps)
        elif steps[0].prompt.num_prefix_tokens and self._writes_timestamps(steps[0]):
            for row, (heard, step) in enumerate(zip(encoded, steps, strict=True)):
                yield {row: self._decode_after_prefix(heard, step)}
        else:
            yield dict(enumerate(self._generate(encoded, steps)))

    def _write(
        self, decoder: Decoder, encoded: Sequence[Encoded], steps: Sequence[Decode]
    ) -> Iterator[dict[int, Decoded]]:
        """Is a caller only while a token is written, so that `Threads` sees who else is at work."""
        with self.model.in_use(), _together(encoded) as rows:
            reading = decoder.hear(np.asarray(rows))
        writing = generate(reading, self._tokenizer, steps)
        while True:
            with self.model.in_use():
                ended = next(writing, None)
            if ended is None:
                return
            yield ended

    def _writes_timestamps(self, step: Decode) -> bool:
        last_task_token = step.prompt.sot_position + step.prompt.num_task_tokens - 1
        return step.prompt.tokens[last_task_token] != self._tokenizer.no_timestamps

    def _decode_after_prefix(self, encoded: Encoded, step: Decode) -> Decoded:
        def decode(step: Decode) -> Decoded:
            (decoded,) = self._generate([encoded], [step])
            return decoded

        return decode_after_prefix(decode, self._tokenizer, step)

    def _generate(self, encoded: Sequence[Encoded], steps: Sequence[Decode]) -> list[Decoded]:
        search = steps[0].search
        is_sampling = search.temperature > 0
        with self.model.in_use() as model, _together(encoded) as rows:
            results = model.generate(
                rows,
                [list(step.prompt.tokens) for step in steps],
                beam_size=search.beam_size,
                patience=search.patience,
                num_hypotheses=search.num_hypotheses,
                # At 0, beam search would stop at the first finished beam; the engine ranks them.
                length_penalty=_score_exponent(search),
                max_length=_max_length(steps[0]),
                return_scores=True,
                return_no_speech_prob=True,
                max_initial_timestamp_index=search.max_initial_timestamp_index,
                suppress_blank=search.suppress_blank,
                suppress_tokens=list(search.suppress_tokens) or None,
                sampling_topk=0 if is_sampling else 1,
                sampling_temperature=search.temperature if is_sampling else 1,
            )
        return [_decoded(result, step) for result, step in zip(results, steps, strict=True)]

    def align(
        self, encoded: Sequence[Encoded], steps: Sequence[Align], num_frames: Sequence[int]
    ) -> list[Aligned]:
        with self.model.in_use() as model, _together(encoded) as rows:
            results = model.align(
                rows,
                list(steps[0].start_sequence),
                [list(step.text_tokens) for step in steps],
                list(num_frames),
            )
        return [_aligned(result) for result in results]

    def close(self) -> None:
        self.model.unload()
        self._decoder = None


def _is_plain_beam_search(step: Decode) -> bool:
    """Whether CTranslate2 searches as openai-whisper does, and faster than our decoder.

    It is told by the options alone: the answer must not depend on who shares the call.
    """
    search = step.search
    return search.beam_size > 1 and search.patience == 1 and not step.prompt.num_prefix_tokens


def _max_length(step: Decode) -> int:
    """The `max_length` that lets CTranslate2 write `max_new_tokens` and no more.

    It writes at most min(max_length / 2, max_length - start), where `start` counts the prompt up to
    its last task token, and counts the prefix as written. Source: CTranslate2, whisper.cc,
    `WhisperReplica::generate`.
    """
    prompt = step.prompt
    start = prompt.sot_position + prompt.num_task_tokens - 1
    wanted = step.max_new_tokens + prompt.num_prefix_tokens
    return wanted + max(wanted, start)


def _score_exponent(search: SearchOptions) -> int:
    """CTranslate2's `length_penalty`: scores are sums over the tokens divided by length to this."""
    return 1 if search.beam_size > 1 else 0


def _decoded(result: Any, step: Decode) -> Decoded:
    num_prefix = step.prompt.num_prefix_tokens
    return Decoded(
        hypotheses=tuple(
            Hypothesis(tuple(tokens[num_prefix:]), _sum_logprob(score, len(tokens), step.search))
            for tokens, score in zip(result.sequences_ids, result.scores, strict=True)
        ),
        no_speech_prob=float(result.no_speech_prob),
    )


def _sum_logprob(score: float, num_tokens: int, search: SearchOptions) -> float:
    """The sum over the tokens, from a score that may be divided by their number.

    Where a beam ends without a token, the sum is lost by a division by zero, on which
    openai-whisper raises. Such a beam ranks last.
    """
    if not num_tokens and _score_exponent(search):
        return _HOPELESS
    return float(score * num_tokens ** _score_exponent(search))


def _aligned(result: Any) -> Aligned:
    path = np.array(result.alignments, dtype=np.int64).reshape(-1, 2)
    return Aligned(path[:, 0], path[:, 1], np.array(result.text_token_probs, dtype=np.float32))
