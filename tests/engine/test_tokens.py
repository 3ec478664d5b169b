"""Whisper's vocabulary, prompts, and segments between timestamps."""

from __future__ import annotations

import pytest

from simple_asr.engine.options import TranscribeOptions
from simple_asr.engine.tokens import (
    MAX_PROMPT_TOKENS,
    N_TEXT_CONTEXT,
    Tokenizer,
    build_prompt,
    check_prefix,
    split_at_timestamps,
    suppressed_tokens,
)
from simple_asr.errors import InvalidParameter


def at(tokenizer: Tokenizer, seconds: float) -> int:
    """The timestamp token of `seconds`."""
    return tokenizer.timestamp_begin + round(seconds / 0.02)


def test_special_tokens_have_whispers_ids(tokenizer: Tokenizer) -> None:
    assert (tokenizer.eot, tokenizer.sot) == (50257, 50258)
    assert (tokenizer.translate, tokenizer.transcribe) == (50358, 50359)
    assert (tokenizer.sot_prev, tokenizer.no_speech) == (50361, 50362)
    assert (tokenizer.no_timestamps, tokenizer.timestamp_begin) == (50363, 50364)
    assert tokenizer.language_token("en") == 50259
    assert len(tokenizer.languages) == 99


def test_text_survives_the_way_to_tokens_and_back(tokenizer: Tokenizer) -> None:
    text = " Привет, мир! 日本語 naïve 🎉"

    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_a_word_with_t_is_one_token_as_whisper_learnt_it(tokenizer: Tokenizer) -> None:
    assert tokenizer.encode(" the talk to them") == [264, 751, 281, 552]


def test_a_callers_special_token_is_plain_text(tokenizer: Tokenizer) -> None:
    tokens = tokenizer.encode(" say <|startoftranscript|> now")

    assert tokenizer.sot not in tokens
    assert tokenizer.decode(tokens) == " say <|startoftranscript|> now"


def test_words_keep_their_spaces_and_characters_stay_whole(tokenizer: Tokenizer) -> None:
    words, tokens = tokenizer.split_to_word_tokens(tokenizer.encode(" Hello, wörld 日"), "en")

    assert words == [" Hello", ",", " wörld", " 日"]
    assert [len(part) for part in tokens] == [1, 1, 3, 2]


def test_in_unspaced_languages_words_are_the_tokens_of_whole_characters(
    tokenizer: Tokenizer,
) -> None:
    words, _ = tokenizer.split_to_word_tokens(tokenizer.encode("你好世界"), "zh")

    assert words == ["你好", "世界"]


def test_non_speech_tokens_are_brackets_and_notes(tokenizer: Tokenizer) -> None:
    texts = {tokenizer.decode([token]).strip() for token in tokenizer.non_speech_tokens}

    assert {"(", "[", "#", "♪♪", "-"} <= texts
    assert not texts & {",", ".", "?", "!", "a"}


def test_a_first_prompt_names_language_and_task(tokenizer: Tokenizer) -> None:
    prompt = build_prompt(tokenizer, TranscribeOptions(task="translate"), "ru", previous=[])

    assert prompt.tokens == (tokenizer.sot, tokenizer.language_token("ru"), tokenizer.translate)
    assert (prompt.sot_position, prompt.num_task_tokens, prompt.num_prefix_tokens) == (0, 3, 0)


def test_previous_text_goes_before_the_start_and_is_cut_from_its_beginning(
    tokenizer: Tokenizer,
) -> None:
    previous = list(range(1000))

    prompt = build_prompt(tokenizer, TranscribeOptions(), "en", previous)

    assert prompt.tokens[0] == tokenizer.sot_prev
    assert prompt.tokens[1 : 1 + MAX_PROMPT_TOKENS] == tuple(range(1000 - 223, 1000))
    assert prompt.sot_position == 224


def test_an_english_only_model_gets_no_language(tokenizer: Tokenizer) -> None:
    prompt = build_prompt(tokenizer, TranscribeOptions(without_timestamps=True), None, [])

    assert prompt.tokens == (tokenizer.sot, tokenizer.no_timestamps)


def test_a_prefix_comes_last_and_shrinks_with_sample_len(tokenizer: Tokenizer) -> None:
    words = " ".join(["hello"] * 50)
    whole = build_prompt(tokenizer, TranscribeOptions(prefix=words), "en", [])
    cut = build_prompt(tokenizer, TranscribeOptions(prefix=words, sample_len=214), "en", [])

    assert whole.num_prefix_tokens == 50
    assert cut.num_prefix_tokens == 10


def test_text_before_gives_way_to_a_long_prefix(tokenizer: Tokenizer) -> None:
    options = TranscribeOptions(prefix=" ".join(["hello"] * 300))

    prompt = build_prompt(tokenizer, options, "en", previous=range(1000))

    assert len(prompt.tokens) == N_TEXT_CONTEXT
    assert prompt.num_prefix_tokens == 300
    assert prompt.tokens[prompt.sot_position - 1] == 999


def test_a_prefix_that_fills_the_context_leaves_no_text_before_it(tokenizer: Tokenizer) -> None:
    options = TranscribeOptions(prefix=" ".join(["hello"] * 444))

    check_prefix(tokenizer, options)
    prompt = build_prompt(tokenizer, options, "en", previous=[1, 2, 3])

    assert prompt.tokens[0] == tokenizer.sot
    assert prompt.num_prefix_tokens == 444


def test_a_longer_prefix_is_refused(tokenizer: Tokenizer) -> None:
    with pytest.raises(InvalidParameter, match="445 tokens"):
        check_prefix(tokenizer, TranscribeOptions(prefix=" ".join(["hello"] * 445)))


def test_suppressed_tokens_always_include_those_that_steer(tokenizer: Tokenizer) -> None:
    chosen = suppressed_tokens(tokenizer, TranscribeOptions(suppress_tokens=(11,)))
    default = suppressed_tokens(tokenizer, TranscribeOptions())

    assert set(chosen) == {11, 50258, 50358, 50359, 50360, 50361, 50362}
    assert set(tokenizer.non_speech_tokens) < set(default)
    assert suppressed_tokens(tokenizer, TranscribeOptions(suppress_tokens=())) == ()


def test_segments_lie_between_pairs_of_timestamps(tokenizer: Tokenizer) -> None:
    tokens = [at(tokenizer, 0), 400, at(tokenizer, 2), at(tokenizer, 3), 401, at(tokenizer, 5)]
    tokens += [at(tokenizer, 5), 402]

    cut = split_at_timestamps(tokenizer, tokens, window_duration=30.0)

    assert [(piece.start, piece.end) for piece in cut.slices] == [(0.0, 2.0), (3.0, 5.0)]
    assert cut.slices[0].tokens == tuple(tokens[:3])
    assert cut.advance == 5.0


def test_a_single_timestamp_at_the_end_says_that_no_speech_follows(tokenizer: Tokenizer) -> None:
    tokens = [at(tokenizer, 0), 400, at(tokenizer, 2), at(tokenizer, 2), 401, at(tokenizer, 4)]

    cut = split_at_timestamps(tokenizer, tokens, window_duration=30.0)

    assert [(piece.start, piece.end) for piece in cut.slices] == [(0.0, 2.0), (2.0, 4.0)]
    assert cut.advance is None
    assert cut.ends_with_single_timestamp


@pytest.mark.parametrize(
    ("seconds", "end"), [((0.0, 4.0), 4.0), ((0.0,), 30.0), ((), 30.0), ((0.0, 0.0), 30.0)]
)
def test_without_pairs_the_window_is_one_segment(
    tokenizer: Tokenizer, seconds: tuple[float, ...], end: float
) -> None:
    stamps = [at(tokenizer, second) for second in seconds]
    tokens = [*stamps[:1], 400, 401, *stamps[1:]]

    cut = split_at_timestamps(tokenizer, tokens, window_duration=30.0)

    assert [(piece.start, piece.end) for piece in cut.slices] == [(0.0, end)]
    assert cut.advance is None
