"""Whisper's rules: what may follow what is written. `t` is the first timestamp, 500 a word."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from simple_asr.engine.rules import Rules
from simple_asr.engine.tokens import LAST_TIMESTAMP, Prompt, Tokenizer
from simple_asr.engine.window import Decode
from tests.support import decode_step

LAST_INITIAL = 50
SUPPRESSED = (11, 13)


@pytest.fixture
def step(tokenizer: Tokenizer) -> Decode:
    return decode_step(
        tokenizer, suppress_tokens=SUPPRESSED, max_initial_timestamp_index=LAST_INITIAL
    )


@pytest.fixture
def t(tokenizer: Tokenizer) -> int:
    return tokenizer.timestamp_begin


def may_follow(tokenizer: Tokenizer, step: Decode, *written: int) -> set[int]:
    logits = np.zeros(tokenizer.timestamp_begin + LAST_TIMESTAMP + 1, np.float32)
    # So that all timestamps together are not likelier than a word.
    logits[: tokenizer.timestamp_begin] = 20
    Rules(tokenizer, step).apply(logits, written)
    return set(np.flatnonzero(np.isfinite(logits)).tolist())


def test_a_window_begins_with_a_timestamp_near_its_start(
    tokenizer: Tokenizer, step: Decode, t: int
) -> None:
    assert may_follow(tokenizer, step) == set(range(t, t + LAST_INITIAL + 1))


def test_a_segment_begins_with_text(tokenizer: Tokenizer, step: Decode, t: int) -> None:
    allowed = may_follow(tokenizer, step, t + 10)

    assert max(allowed) < t
    assert {500, tokenizer.eot} <= allowed
    assert not allowed & {*SUPPRESSED, tokenizer.no_timestamps}


def test_a_segment_ends_later_than_it_begins(tokenizer: Tokenizer, step: Decode, t: int) -> None:
    allowed = may_follow(tokenizer, step, t + 10, 500)

    assert {token for token in allowed if token >= t} == set(range(t + 11, t + 1501))
    assert 501 in allowed


def test_after_a_segment_the_next_begins_or_nothing_follows(
    tokenizer: Tokenizer, step: Decode, t: int
) -> None:
    allowed = may_follow(tokenizer, step, t + 10, 500, t + 90)

    assert {token for token in allowed if token >= t} == set(range(t + 90, t + 1501))
    assert tokenizer.eot in allowed
    assert not any(token < tokenizer.eot for token in allowed)


def test_timestamps_win_where_they_are_likelier_together(
    tokenizer: Tokenizer, step: Decode, t: int
) -> None:
    logits = np.zeros(t + LAST_TIMESTAMP + 1, np.float32)
    logits[500] = 7.0  # more than any, and less than 1500 of them

    Rules(tokenizer, step).apply(logits, (t, 400))

    assert not np.isfinite(logits[:t]).any()


def test_without_timestamps_only_what_is_suppressed_may_not_follow(
    tokenizer: Tokenizer, step: Decode, t: int
) -> None:
    prompt = Prompt((*step.prompt.tokens, tokenizer.no_timestamps), 0, num_task_tokens=4)
    step = replace(step, prompt=prompt)
    everything = set(range(t + LAST_TIMESTAMP + 1))

    assert may_follow(tokenizer, step, 500) == everything - set(SUPPRESSED)
    blank = {*tokenizer.encode(" "), tokenizer.eot}
    assert may_follow(tokenizer, step) == everything - set(SUPPRESSED) - blank
