"""Whisper's checks on a decoded window: keep it, try it warmer, or take it for silence."""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

from simple_asr.engine.options import TranscribeOptions
from simple_asr.engine.tokens import Tokenizer
from simple_asr.engine.window import Decoded, Hypothesis


@dataclass(frozen=True, slots=True)
class WindowResult:
    """What was written for a window, with the figures it is judged by (openai `DecodingResult`)."""

    tokens: tuple[int, ...]
    text: str
    temperature: float
    avg_logprob: float
    compression_ratio: float
    no_speech_prob: float


def window_result(
    tokenizer: Tokenizer, decoded: Decoded, temperature: float, length_penalty: float | None
) -> WindowResult:
    """The best hypothesis and its figures.

    Source: openai/whisper, decoding.py, end of `DecodingTask.run`.
    """
    best = best_hypothesis(decoded.hypotheses, length_penalty)
    text = tokenizer.decode(best.tokens).strip()
    return WindowResult(
        tokens=best.tokens,
        text=text,
        temperature=temperature,
        avg_logprob=best.sum_logprob / (len(best.tokens) + 1),
        compression_ratio=compression_ratio(text),
        no_speech_prob=decoded.no_speech_prob,
    )


def best_hypothesis(hypotheses: Sequence[Hypothesis], length_penalty: float | None) -> Hypothesis:
    """The likeliest for its length: the sum over the length, or over Google NMT's penalty.

    One without a token has no length and ranks last; openai-whisper raises on it.
    Source: openai/whisper, decoding.py, `MaximumLikelihoodRanker`; Wu et al. 2016, equation 14.
    """

    def score(hypothesis: Hypothesis) -> float:
        length = len(hypothesis.tokens)
        penalty = ((5 + length) / 6) ** length_penalty if length_penalty is not None else length
        return hypothesis.sum_logprob / penalty if penalty else -math.inf

    return max(hypotheses, key=score)


def compression_ratio(text: str) -> float:
    """How many times shorter zlib makes the text; above 2.4 it repeats itself.

    Source: openai/whisper, utils.py, `compression_ratio`.
    """
    encoded = text.encode()
    return len(encoded) / len(zlib.compress(encoded))


def needs_fallback(result: WindowResult, options: TranscribeOptions) -> bool:
    """Whether the window should be decoded again, one temperature warmer.

    Source: openai/whisper, transcribe.py, `decode_with_fallback`.
    """
    if _is_surely_silent(result, options):
        return False
    is_repetitive = (
        options.compression_ratio_threshold is not None
        and result.compression_ratio > options.compression_ratio_threshold
    )
    is_improbable = (
        options.logprob_threshold is not None and result.avg_logprob < options.logprob_threshold
    )
    return is_repetitive or is_improbable


def best_failure(failures: Sequence[WindowResult], options: TranscribeOptions) -> WindowResult:
    """The likeliest attempt of those that do not repeat themselves; of all, where all do.

    What repeats itself is judged by characters, not by bytes: text in an alphabet of two bytes a
    letter compresses better without repeating anything. openai-whisper keeps the last attempt,
    which is the most random one.
    """
    limit = options.compression_ratio_threshold
    calm = [result for result in failures if limit is None or repetition(result.text) <= limit]
    return max(calm or failures, key=lambda result: result.avg_logprob)


def repetition(text: str) -> float:
    """`compression_ratio` with every letter counted as one, whatever its alphabet."""
    return len(text) / len(zlib.compress(text.encode()))


def _is_surely_silent(result: WindowResult, options: TranscribeOptions) -> bool:
    return (
        options.no_speech_threshold is not None
        and result.no_speech_prob > options.no_speech_threshold
        and options.logprob_threshold is not None
        and result.avg_logprob < options.logprob_threshold
    )


def is_maybe_silent(result: WindowResult, options: TranscribeOptions) -> bool:
    """Whether the model alone takes the window for silent, however sure it is of its text."""
    threshold = options.no_speech_threshold
    return threshold is not None and result.no_speech_prob > threshold


def is_silence(result: WindowResult, options: TranscribeOptions) -> bool:
    """Whether the window is skipped as silent.

    Source: openai/whisper, transcribe.py, `should_skip`.
    """
    if options.no_speech_threshold is None:
        return False
    is_probable = (
        options.logprob_threshold is not None and result.avg_logprob > options.logprob_threshold
    )
    return result.no_speech_prob > options.no_speech_threshold and not is_probable
