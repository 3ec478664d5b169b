"""Compares our answers with openai-whisper's: same weights in float32, same samples, same options.

Run from the repository's root, see benchmarks/README.md:

    python -m benchmarks.parity --recordings FOLDER --json parity.json

Every window that was decoded differently is looked at again: how much more likely, in natural log,
openai-whisper finds its own token than ours at the first token that differs. Below 0.01 the two
are a tie that rounding decides; that is what a difference in the order of float32 additions does.
"""

from __future__ import annotations

import argparse
import contextlib
import difflib
import hashlib
import json
import platform
import queue
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
import whisper
from numpy.typing import NDArray

from benchmarks import openai_weights
from simple_asr.audio.decode import DecodeLimits, DecoderPool
from simple_asr.audio.features import LogMel
from simple_asr.audio.recording import SAMPLE_RATE, Recording
from simple_asr.engine.backends.base import Backend, ModelInfo
from simple_asr.engine.backends.ctranslate2 import load_replicas
from simple_asr.engine.engine import Engine
from simple_asr.engine.fallback import window_result
from simple_asr.engine.models import ModelStore
from simple_asr.engine.options import TranscribeOptions
from simple_asr.engine.request import Request
from simple_asr.engine.tokens import Tokenizer
from simple_asr.engine.window import Align, Aligned, Decode, Decoded, Detected, Encoded
from simple_asr.errors import AsrError
from simple_asr.transcript.events import Done, Event
from simple_asr.transcript.model import Transcript

TIE = 0.01
"""Natural log; two tokens nearer than this are a tie."""

CLOSE = 0.06
"""Seconds; word times this near count as the same."""


# What is compared --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Clip:
    """A recording, or its first `seconds`. `language` None: to be detected."""

    path: str
    language: str | None = None
    seconds: float | None = None

    @property
    def name(self) -> str:
        return self.path if self.seconds is None else f"{self.path}[:{self.seconds:g}]"


@dataclass(frozen=True)
class Case:
    """One set of options on one set of clips.

    `sampling` "likeliest" puts the likeliest token in place of a random one on both sides, which
    makes the temperature ladder repeatable: what is compared is when and with what it retries.
    """

    name: str
    options: dict[str, Any] = field(default_factory=dict)
    clips: str = "varied"
    model: str = "base"
    detects_language: bool = False
    sampling: str = "random"


@dataclass(frozen=True)
class Question:
    """One case on one clip: what both sides are asked. Whoever made it closes the recording."""

    case: Case
    clip: Clip
    recording: Recording

    @property
    def options(self) -> dict[str, Any]:
        """Keyword arguments of `whisper.transcribe()`."""
        language = None if self.case.detects_language else self.clip.language
        return {"language": language, **self.case.options}


# Written out: of a ladder that is not asked for, we keep the best failure, not the last.
LADDER = {"temperature": (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)}
GREEDY = {"temperature": 0.0}

PROMPT = "The talk that Kennedy gave. Пушкин, 東京."

CASES = (
    Case("greedy", GREEDY, "short", detects_language=True),
    Case("greedy, no speech", GREEDY, "nospeech", detects_language=True),
    Case("greedy, long", GREEDY, "long"),
    Case("greedy, tiny.en", GREEDY, "english", model="tiny.en"),
    Case("ladder", LADDER, "short", sampling="likeliest"),
    Case("ladder, no speech", LADDER, "nospeech", sampling="likeliest"),
    Case("ladder, long", LADDER, "long", sampling="likeliest"),
    Case("ladder, thresholds off", {**LADDER, "compression_ratio_threshold": None,
         "logprob_threshold": None, "no_speech_threshold": None}, "nospeech",
         sampling="likeliest"),
    Case("ladder, strict", {**LADDER, "compression_ratio_threshold": 1.3,
         "logprob_threshold": -0.2, "no_speech_threshold": 0.1}, "several windows",
         sampling="likeliest"),
    Case("words", {**GREEDY, "word_timestamps": True}, "short"),
    Case("words, long", {**GREEDY, "word_timestamps": True}, "long"),
    Case("words, tiny.en", {**GREEDY, "word_timestamps": True}, "english", model="tiny.en"),
    Case("words, own punctuation", {**GREEDY, "word_timestamps": True,
         "prepend_punctuations": "", "append_punctuations": ""}),
    Case("silence skipped", {**GREEDY, "word_timestamps": True,
         "hallucination_silence_threshold": 2.0}, "several windows"),
    Case("silence skipped, long", {**GREEDY, "word_timestamps": True,
         "hallucination_silence_threshold": 2.0}, "long"),
    Case("silence skipped, no speech", {**GREEDY, "word_timestamps": True,
         "no_speech_threshold": None, "hallucination_silence_threshold": 0.5}, "nospeech"),
    Case("clips, as text", {**GREEDY, "clip_timestamps": "2,5.5,6"}, "several windows"),
    Case("clips, as a list", {**GREEDY, "clip_timestamps": [0.0, 3.3, 2.0, 8.0]},
         "several windows"),
    Case("clips, words", {**GREEDY, "clip_timestamps": "1,4,5,9.99",
         "word_timestamps": True}, "several windows"),
    Case("initial prompt", {**GREEDY, "initial_prompt": PROMPT}),
    Case("initial prompt carried", {**GREEDY, "initial_prompt": PROMPT,
         "carry_initial_prompt": True}, "several windows"),
    Case("long prompt carried", {**GREEDY, "initial_prompt": "A talk about many things. " * 60,
         "carry_initial_prompt": True}, "several windows"),
    Case("windows independent", {**GREEDY, "condition_on_previous_text": False},
         "several windows"),
    Case("prefix", {**GREEDY, "prefix": "Well,"}),
    Case("prefix, prompt", {**GREEDY, "prefix": "And so", "initial_prompt": PROMPT}),
    Case("prefix, no timestamps", {**GREEDY, "prefix": "Well,", "without_timestamps": True}),
    Case("prefix, sample_len 20", {**GREEDY, "prefix": "And so my fellow", "sample_len": 20}),
    Case("prefix, any start", {**GREEDY, "prefix": "Well,", "max_initial_timestamp": None,
         "suppress_blank": False}),
    Case("prefix, several windows", {**GREEDY, "prefix": "So"}, "several windows"),
    Case("no timestamps", {**GREEDY, "without_timestamps": True}, "several windows"),
    Case("no timestamps, words", {**GREEDY, "without_timestamps": True, "word_timestamps": True}),
    Case("max_initial_timestamp 0", {**GREEDY, "max_initial_timestamp": 0.0}),
    Case("max_initial_timestamp null", {**GREEDY, "max_initial_timestamp": None}),
    Case("max_initial_timestamp 0.2", {**GREEDY, "max_initial_timestamp": 0.2}),
    Case("nothing suppressed", {**GREEDY, "suppress_tokens": []}),
    Case("tokens suppressed", {**GREEDY, "suppress_tokens": [11, 13, 30]}),
    Case("tokens suppressed too", {**GREEDY, "suppress_tokens": [-1, 11, 13, 30]}),
    Case("blank allowed", {**GREEDY, "suppress_blank": False}),
    *(Case(f"sample_len {n}", {**GREEDY, "sample_len": n}) for n in (1, 3, 20)),
    Case("sample_len 100", {**GREEDY, "sample_len": 100}, "several windows"),
    Case("beams", {**GREEDY, "beam_size": 5}, "short"),
    Case("beams, patience 2", {**GREEDY, "beam_size": 5, "patience": 2.0}),
    Case("beams, length_penalty 0.6", {**GREEDY, "beam_size": 5, "length_penalty": 0.6}),
    Case("beams, length_penalty 1", {**GREEDY, "beam_size": 5, "length_penalty": 1.0}),
    Case("beams, prefix", {**GREEDY, "beam_size": 5, "prefix": "Well,"}),
    Case("translate", {**GREEDY, "task": "translate"}),
)  # fmt: skip


def clip_sets(recordings: Path) -> dict[str, list[Clip]]:
    """Clips by what they are good for, from the manifest of a folder of recordings."""
    lines = (recordings / "manifest.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    codes = {row["path"]: row["language"] for row in rows}

    def clip(path: str, seconds: float | None = None) -> Clip:
        code = codes[path]
        return Clip(path, None if code in ("mixed", "nospeech") else code, seconds)

    longs = [row["path"] for row in rows if row["duration_s"] > 120]
    speech = [row for row in rows if row["language"] != "nospeech" and row["path"] not in longs]
    first_of_language = {row["language"]: row["path"] for row in reversed(speech)}
    several = [row["path"] for row in speech if row["duration_s"] > 30]
    return {
        "short": [clip(row["path"]) for row in speech],
        "nospeech": [clip(path) for path, code in codes.items() if code == "nospeech"],
        "long": [clip(path) for path in longs],
        "english": [clip(row["path"]) for row in speech if row["language"] == "en"],
        "several windows": [*map(clip, several), *(clip(path, 65) for path in longs)],
        "varied": [clip(path) for path in first_of_language.values() if path not in several],
    }


# What both sides answer --------------------------------------------------------------------------


@dataclass(frozen=True)
class Call:
    """One window decoded once."""

    prompt: tuple[int, ...]
    temperature: float
    tokens: tuple[int, ...]
    avg_logprob: float
    no_speech_prob: float


@dataclass(frozen=True)
class Answer:
    """A transcript as openai-whisper's dictionaries, and the calls it took."""

    language: str
    segments: list[dict[str, Any]]
    calls: list[Call]
    seconds: float


class Ours:
    """Our engine, in this process."""

    def __init__(self, folder: Path, name: str) -> None:
        (backend,) = load_replicas(
            name, folder, device="cpu", compute_type="float32", num_threads=1
        )
        self._backend = _Recorder(backend)
        self._engine = Engine([self._backend], max_batch_size=1, max_requests=1)

    def transcribe(self, question: Question) -> Answer:
        self._backend.start(is_sampling_likeliest=question.case.sampling == "likeliest")
        options = TranscribeOptions.model_validate(question.options)
        log_mel = LogMel(question.recording, self._backend.info.n_mels)
        request = Request(options, log_mel, self._backend.info, self._backend.tokenizer)
        ends: queue.Queue[Transcript | AsrError] = queue.Queue()

        def listen(event: Event | AsrError) -> None:
            if isinstance(event, AsrError):
                ends.put(event)
            elif isinstance(event, Done):
                ends.put(event.transcript)

        began = time.perf_counter()
        self._engine.submit(request, listen)
        end = ends.get()
        seconds = time.perf_counter() - began
        if isinstance(end, AsrError):
            raise end
        segments = [asdict(segment) for segment in end.segments]
        return Answer(end.language, segments, self._backend.calls, seconds)

    def close(self) -> None:
        self._engine.close()


class _Recorder:
    """A backend that remembers what it was asked. The engine's worker thread calls it."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._is_sampling_likeliest = False
        self.calls: list[Call] = []

    def start(self, *, is_sampling_likeliest: bool) -> None:
        self.calls = []
        self._is_sampling_likeliest = is_sampling_likeliest

    @property
    def info(self) -> ModelInfo:
        return self._backend.info

    @property
    def tokenizer(self) -> Tokenizer:
        return self._backend.tokenizer

    def encode(self, log_mels: Sequence[NDArray[np.float32]]) -> list[Encoded]:
        return self._backend.encode(log_mels)

    def detect_language(self, encoded: Sequence[Encoded]) -> list[Detected]:
        return self._backend.detect_language(encoded)

    def decode(
        self, encoded: Sequence[Encoded], steps: Sequence[Decode]
    ) -> Iterator[dict[int, Decoded]]:
        asked = steps
        if self._is_sampling_likeliest and steps[0].search.temperature > 0:
            greedy = replace(steps[0].search, temperature=0.0, num_hypotheses=1)
            asked = [replace(step, search=greedy) for step in steps]
        for answers in self._backend.decode(encoded, asked):
            for row, answer in answers.items():
                step = steps[row]
                result = window_result(self.tokenizer, answer, step.search.temperature, None)
                self.calls.append(
                    Call(
                        step.prompt.tokens,
                        step.search.temperature,
                        result.tokens,
                        result.avg_logprob,
                        result.no_speech_prob,
                    )
                )
            yield answers

    def align(
        self, encoded: Sequence[Encoded], steps: Sequence[Align], num_frames: Sequence[int]
    ) -> list[Aligned]:
        return self._backend.align(encoded, steps, num_frames)

    def close(self) -> None:
        self._backend.close()


class Theirs:
    """openai-whisper. Its answers are kept in `cache`, since it takes ten times as long as we."""

    def __init__(self, folder: Path, cache: Path) -> None:
        self._folder = folder
        self._cache = cache
        cache.mkdir(parents=True, exist_ok=True)
        self._model: whisper.Whisper | None = None
        self._calls: list[Call] = []
        self._windows: list[tuple[torch.Tensor, whisper.DecodingOptions]] = []

    def transcribe(self, question: Question) -> Answer:
        kept = self._cache / f"{self._key(question)}.json"
        if kept.exists():
            return _answer_from_json(kept.read_text(encoding="utf-8"))
        answer = self._transcribe(question)
        kept.write_text(json.dumps(asdict(answer)), encoding="utf-8")
        return answer

    def margin(self, question: Question, number: int, ours: Sequence[int]) -> tuple[int, float]:
        """The first token at which call `number` departs from `ours`, and how much likelier it is.

        Natural log. Where a rule keeps the two apart, it is that of the two sides of the one rule
        that rounding can turn: all timestamps together against the likeliest text.
        """
        theirs = self._transcribe(question).calls[number].tokens
        position = _common_length(theirs, ours)
        mel, options = self._windows[number]
        task = whisper.decoding.DecodingTask(self._loaded, options)
        tokens = torch.tensor([[*task.initial_tokens, *theirs[:position]]])
        with torch.no_grad():
            logits = self._loaded.logits(tokens, self._loaded.embed_audio(mel[None]))[:, -1]

        *others, last_filter = task.logit_filters
        for logit_filter in others:
            logit_filter.apply(logits, tokens)
        begin = task.tokenizer.timestamp_begin
        text, timestamps = logits[0, :begin].max(), logits[0, begin:].logsumexp(-1)
        last_filter.apply(logits, tokens)
        their_token, our_token = (
            side[position] if position < len(side) else task.tokenizer.eot
            for side in (theirs, ours)
        )
        if logits[0, our_token] > -np.inf:
            return position, float(logits[0, their_token] - logits[0, our_token])
        return position, float((timestamps - text).abs())

    @property
    def _loaded(self) -> whisper.Whisper:
        if self._model is None:
            self._model = openai_weights.load(self._folder)
            self._model.decode = self._decode
        return self._model

    def _transcribe(self, question: Question) -> Answer:
        self._calls, self._windows = [], []
        waveform = question.recording.read(0, question.recording.num_samples)
        began = time.perf_counter()
        with _sampling(question.case), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            result = whisper.transcribe(self._loaded, waveform, fp16=False, **question.options)
        seconds = time.perf_counter() - began
        return Answer(result["language"], result["segments"], self._calls, seconds)

    def _decode(
        self, mel: torch.Tensor, options: whisper.DecodingOptions
    ) -> whisper.DecodingResult:
        """In place of the model's own `decode`, which it calls."""
        task = whisper.decoding.DecodingTask(self._loaded, options)
        (result,) = task.run(mel[None])
        self._windows.append((mel, options))
        self._calls.append(
            Call(
                tuple(task.initial_tokens),
                options.temperature,
                tuple(result.tokens),
                float(result.avg_logprob),
                float(result.no_speech_prob),
            )
        )
        return result

    def _key(self, question: Question) -> str:
        case, clip = question.case, question.clip
        asked = [self._folder.name, asdict(clip), case.sampling, question.options]
        return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:16]


def _answer_from_json(text: str) -> Answer:
    fields = json.loads(text)
    calls = [Call(**call) for call in fields.pop("calls")]
    calls = [replace(call, prompt=(*call.prompt,), tokens=(*call.tokens,)) for call in calls]
    return Answer(calls=calls, **fields)


class _Likeliest:
    """Stands for torch's `Categorical`: draws the likeliest."""

    def __init__(self, logits: torch.Tensor) -> None:
        self._logits = logits

    def sample(self) -> torch.Tensor:
        return self._logits.argmax(dim=-1)


@contextlib.contextmanager
def _sampling(case: Case) -> Iterator[None]:
    """Within, openai-whisper samples as the case wants it."""
    original = whisper.decoding.Categorical
    if case.sampling == "likeliest":
        whisper.decoding.Categorical = _Likeliest
    try:
        yield
    finally:
        whisper.decoding.Categorical = original


# How they differ ---------------------------------------------------------------------------------


@dataclass
class Comparison:
    """One clip, both answers. Times in seconds."""

    clip: str
    languages: tuple[str, str]
    num_segments: int
    num_equal_segments: int
    num_calls: int
    num_equal_calls: int
    num_words: int = 0
    num_equal_words: int = 0
    num_close_words: int = 0
    avg_logprob_gap: float = 0.0
    no_speech_prob_gap: float = 0.0
    speed_ratio: float = 0.0
    first_difference: str = ""


def compare(clip: Clip, theirs: Answer, ours: Answer) -> Comparison:
    has_words = any(segment.get("words") for segment in theirs.segments)
    tolerance = CLOSE if has_words else 1e-6
    equal_calls = [
        (their, our)
        for their, our in zip(theirs.calls, ours.calls, strict=False)
        if (their.prompt, their.tokens) == (our.prompt, our.tokens)
    ]
    result = Comparison(
        clip.name,
        (theirs.language, ours.language),
        max(len(theirs.segments), len(ours.segments)),
        sum(
            _is_same(their, our, tolerance)
            for their, our in _pairs(theirs.segments, ours.segments, lambda s: s["text"])
        ),
        max(len(theirs.calls), len(ours.calls)),
        len(equal_calls),
        avg_logprob_gap=max(
            (abs(a.avg_logprob - b.avg_logprob) for a, b in equal_calls), default=0
        ),
        no_speech_prob_gap=max(
            (abs(a.no_speech_prob - b.no_speech_prob) for a, b in equal_calls), default=0
        ),
        speed_ratio=theirs.seconds / ours.seconds,
    )
    if has_words:
        their_words, our_words = _words(theirs), _words(ours)
        result.num_words = max(len(their_words), len(our_words))
        for their, our in _pairs(their_words, our_words, lambda w: w["word"]):
            gap = max(abs(their["start"] - our["start"]), abs(their["end"] - our["end"]))
            result.num_equal_words += int(gap < 1e-6)
            result.num_close_words += int(gap <= CLOSE + 1e-6)
    return result


def _is_same(their: dict[str, Any], our: dict[str, Any], tolerance: float) -> bool:
    return (
        their["text"] == our["text"]
        and list(their["tokens"]) == list(our["tokens"])
        and their["temperature"] == our["temperature"]
        and abs(their["start"] - our["start"]) <= tolerance
        and abs(their["end"] - our["end"]) <= tolerance
        and abs(their["compression_ratio"] - our["compression_ratio"]) < 1e-6
    )


def _pairs(theirs: list[Any], ours: list[Any], key: Any) -> Iterator[tuple[Any, Any]]:
    """Items in the same place of both lists, by their text."""
    matcher = difflib.SequenceMatcher(None, [*map(key, theirs)], [*map(key, ours)], autojunk=False)
    for block in matcher.get_matching_blocks():
        for offset in range(block.size):
            yield theirs[block.a + offset], ours[block.b + offset]


def _words(answer: Answer) -> list[dict[str, Any]]:
    return [word for segment in answer.segments for word in segment["words"]]


def _common_length(first: Sequence[int], second: Sequence[int]) -> int:
    same = (i for i, pair in enumerate(zip(first, second, strict=False)) if pair[0] != pair[1])
    return next(same, min(len(first), len(second)))


def first_difference(theirs: Theirs, question: Question, their: Answer, our: Answer) -> str:
    """In words, the first thing that differs; all the rest may follow from it. Empty: nothing."""
    if their.language != our.language:
        return f"language {their.language}, ours {our.language}"
    for number, (a, b) in enumerate(zip(their.calls, our.calls, strict=False)):
        if a.prompt != b.prompt or a.temperature != b.temperature:
            return f"call {number}: another prompt or temperature ({a.temperature:g})"
        if a.tokens != b.tokens and question.case.options.get("beam_size"):
            return f"call {number}: avg_logprob {a.avg_logprob:.4f}, ours {b.avg_logprob:.4f}"
        if a.tokens != b.tokens:
            position, margin = theirs.margin(question, number, b.tokens)
            kind = "a tie" if abs(margin) < TIE else "NOT A TIE"
            return f"call {number}: token {position} of {len(a.tokens)}, {margin:+.4f}, {kind}"
    if len(their.calls) != len(our.calls):
        return f"{len(their.calls)} calls, ours {len(our.calls)}"
    return next(
        (
            f"{a['start']:.2f}-{a['end']:.2f}{a['text']!r}, "
            f"ours {b['start']:.2f}-{b['end']:.2f}{b['text']!r}"
            for a, b in zip(their.segments, our.segments, strict=False)
            if not _is_same(a, b, 1e-6)
        ),
        "",
    )


# The run -----------------------------------------------------------------------------------------


def run(
    cases: Sequence[Case],
    recordings: Path,
    models: ModelStore,
    cache: Path,
    only_clip: str = "",
) -> Iterator[tuple[Case, list[Comparison]]]:
    """Compares case by case."""
    sets = clip_sets(recordings)
    with contextlib.ExitStack() as stack:
        spool = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        pool = DecoderPool(1, DecodeLimits(), spool)
        stack.callback(pool.close)
        sides: dict[str, tuple[Theirs, Ours]] = {}
        for case in cases:
            if case.model not in sides:
                folder = models.resolve(case.model).folder
                sides[case.model] = Theirs(folder, cache), Ours(folder, case.model)
                stack.callback(sides[case.model][1].close)
            comparisons = []
            for clip in sets[case.clips]:
                if only_clip not in clip.name:
                    continue
                with _open(pool, recordings, clip) as recording:
                    question = Question(case, clip, recording)
                    comparisons.append(ask_both(*sides[case.model], question))
            if comparisons:
                yield case, comparisons


def _open(pool: DecoderPool, recordings: Path, clip: Clip) -> Recording:
    recording = pool.decode(recordings / clip.path)
    if clip.seconds is None:
        return recording
    with recording:
        samples = recording.read(0, int(clip.seconds * SAMPLE_RATE))
    return Recording.from_samples(samples)


def ask_both(theirs: Theirs, ours: Ours, question: Question) -> Comparison:
    their, our = theirs.transcribe(question), ours.transcribe(question)
    comparison = compare(question.clip, their, our)
    comparison.first_difference = first_difference(theirs, question, their, our)
    return comparison


HEADER = (
    "| Case | Clips | Segments | Equal | Calls | Equal | Words | Equal | ≤ 60 ms | Languages "
    "| Δ avg_logprob | Δ no_speech_prob |\n" + "|---" * 12 + "|"
)


def row(case: Case, comparisons: Sequence[Comparison]) -> str:
    """A line of the table."""

    def total(name: str) -> int:
        return sum(getattr(comparison, name) for comparison in comparisons)

    def share(part: str, whole: str) -> str:
        return f"{100 * total(part) / total(whole):.1f} %" if total(whole) else "–"

    languages = sum(len(set(comparison.languages)) == 1 for comparison in comparisons)
    cells = [
        case.name,
        len(comparisons),
        total("num_segments"),
        share("num_equal_segments", "num_segments"),
        total("num_calls"),
        share("num_equal_calls", "num_calls"),
        total("num_words") or "–",
        share("num_equal_words", "num_words"),
        share("num_close_words", "num_words"),
        f"{languages} of {len(comparisons)}",
        f"{max(comparison.avg_logprob_gap for comparison in comparisons):.1e}",
        f"{max(comparison.no_speech_prob_gap for comparison in comparisons):.1e}",
    ]
    return f"| {' | '.join(map(str, cells))} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recordings", type=Path, required=True, help="holds manifest.jsonl")
    parser.add_argument("--models", type=Path, default=Path(".cache/models"))
    parser.add_argument("--cache", type=Path, default=Path(".cache/parity"))
    parser.add_argument("--json", type=Path, help="where to write every figure")
    parser.add_argument("--case", action="append", default=[], help="only cases named so")
    parser.add_argument("--clip", default="", help="only clips whose path holds this")
    parser.add_argument("--without-long", action="store_true", help="leave the long files out")
    arguments = parser.parse_args()

    cases = [
        case
        for case in CASES
        if (not arguments.case or case.name in arguments.case)
        and not (arguments.without_long and case.clips == "long")
    ]
    names = ("openai-whisper", "torch", "ctranslate2", "numpy")
    machine = f"{platform.machine()}, Python {platform.python_version()}, " + ", ".join(
        f"{name} {version(name)}" for name in names
    )
    print(f"{machine}\n\n{HEADER}", flush=True)
    report: dict[str, Any] = {"machine": machine, "cases": []}
    models = ModelStore(arguments.models, offline=True)
    for case, comparisons in run(
        cases, arguments.recordings, models, arguments.cache, arguments.clip
    ):
        print(row(case, comparisons), flush=True)
        for comparison in comparisons:
            if comparison.first_difference:
                print(f"  {comparison.clip}: {comparison.first_difference}", file=sys.stderr)
        report["cases"].append({**asdict(case), "results": [asdict(c) for c in comparisons]})
        if arguments.json:
            arguments.json.write_text(json.dumps(report, indent=1, ensure_ascii=False))


if __name__ == "__main__":
    main()
