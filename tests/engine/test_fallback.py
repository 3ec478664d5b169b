"""Whisper's checks on a decoded window."""

from __future__ import annotations

import pytest

from simple_asr.engine.fallback import (
    WindowResult,
    best_failure,
    best_hypothesis,
    compression_ratio,
    is_silence,
    needs_fallback,
    window_result,
)
from simple_asr.engine.options import TranscribeOptions
from simple_asr.engine.tokens import Tokenizer
from simple_asr.engine.window import Decoded, Hypothesis


def result(logprob: float = -0.3, ratio: float = 1.2, silence: float = 0.1) -> WindowResult:
    return WindowResult((1,), "text", 0.0, logprob, ratio, silence)


@pytest.mark.parametrize(
    ("figures", "expected"),
    [
        (result(), False),
        (result(logprob=-1.1), True),
        (result(logprob=-1.0), False),
        (result(ratio=2.5), True),
        (result(ratio=2.4), False),
        # Improbable and probably silent: taken for silence, not tried again.
        (result(logprob=-1.1, silence=0.7), False),
        (result(logprob=-1.1, ratio=2.5, silence=0.7), False),
        (result(ratio=2.5, silence=0.7), True),
    ],
)
def test_a_window_is_tried_warmer_when_repetitive_or_improbable(
    figures: WindowResult, expected: bool
) -> None:
    assert needs_fallback(figures, TranscribeOptions()) is expected


def test_a_threshold_of_none_switches_its_check_off() -> None:
    options = TranscribeOptions(compression_ratio_threshold=None, logprob_threshold=None)

    assert not needs_fallback(result(logprob=-9, ratio=9), options)


@pytest.mark.parametrize(
    ("figures", "expected"),
    [
        (result(silence=0.7, logprob=-1.1), True),
        (result(silence=0.7, logprob=-0.5), False),
        (result(silence=0.5, logprob=-1.1), False),
        (result(silence=0.6, logprob=-1.1), False),
    ],
)
def test_a_window_is_silence_when_probably_so_and_not_surely_spoken(
    figures: WindowResult, expected: bool
) -> None:
    assert is_silence(figures, TranscribeOptions()) is expected


def test_without_logprob_threshold_the_no_speech_probability_decides_alone() -> None:
    options = TranscribeOptions(logprob_threshold=None)

    assert is_silence(result(silence=0.7, logprob=-0.1), options)


def test_the_best_hypothesis_is_the_likeliest_for_its_length() -> None:
    short = Hypothesis((1, 2), sum_logprob=-1.0)
    long = Hypothesis(tuple(range(10)), sum_logprob=-4.0)

    assert best_hypothesis([short, long], length_penalty=None) is long
    assert best_hypothesis([short, long], length_penalty=0.0) is short


def test_the_mean_log_probability_counts_the_end_token(tokenizer: Tokenizer) -> None:
    decoded = Decoded((Hypothesis((400, 370, 11), sum_logprob=-2.0),), no_speech_prob=0.2)

    figures = window_result(tokenizer, decoded, temperature=0.4, length_penalty=None)

    assert figures.avg_logprob == pytest.approx(-0.5)
    assert figures.temperature == 0.4
    assert figures.no_speech_prob == 0.2


VOICE_MENU = (
    "Для прослушивания следующего сообщения нажмите 6. Для повторного прослушивания сообщения "
    "нажмите 5. Для прослушивания предыдущего сообщения нажмите 4. Для удаления или "
    "восстановления сообщения нажмите 0."
)


def attempt(text: str, logprob: float) -> WindowResult:
    return WindowResult((1,), text, 0.0, logprob, compression_ratio(text), 0.1)


def test_the_best_failure_is_the_likeliest_that_does_not_repeat_itself() -> None:
    loop = attempt("and so on " * 30, logprob=-0.05)
    likely, unlikely = attempt("Hello there.", logprob=-1.2), attempt("Hullo dear.", logprob=-1.9)

    assert best_failure([loop, unlikely, likely], TranscribeOptions()) is likely
    assert best_failure([loop], TranscribeOptions()) is loop


def test_an_alphabet_of_two_bytes_a_letter_is_no_repetition() -> None:
    menu, noise = attempt(VOICE_MENU, logprob=-0.17), attempt("Для нажмите", logprob=-1.2)

    assert menu.compression_ratio > 2.4
    assert best_failure([menu, noise], TranscribeOptions()) is menu


def test_repetition_compresses_and_speech_does_not() -> None:
    assert compression_ratio("and so on " * 30) > 2.4
    assert compression_ratio("Ask not what your country can do for you.") < 1.5
    assert compression_ratio("") == 0.0
