"""Our answers beside openai-whisper's own on a few short clips: the quick part of a benchmark."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from simple_asr.audio.decode import DecoderPool
from simple_asr.engine.tokens import Tokenizer
from tests.support import Clip as SpokenClip

if TYPE_CHECKING:
    from benchmarks.parity import Answer, Question

for package in ("torch", "whisper"):
    pytest.importorskip(package, reason=f"{package} is not installed: see benchmarks/README.md")

pytestmark = pytest.mark.weights

Both = tuple["Question", "Answer", "Answer"]
AskBoth = Callable[..., Both]


@pytest.fixture(scope="module")
def ask_both(
    base_model: Path,
    speech: list[SpokenClip],
    decoder: DecoderPool,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[AskBoth]:
    """Has the first clip of a language transcribed by both: the question, their answer, ours."""
    from benchmarks.parity import Case, Clip, Ours, Question, Theirs

    theirs = Theirs(base_model, cache=tmp_path_factory.mktemp("answers"))
    ours = Ours(base_model, "base")

    def ask(language: str, options: dict[str, Any], sampling: str = "random") -> Both:
        path = next(clip.path for clip in speech if clip.language == language)
        with decoder.decode(path) as recording:
            case = Case("", {"temperature": 0.0, **options}, sampling=sampling)
            question = Question(case, Clip(str(path), language), recording)
            return question, theirs.transcribe(question), ours.transcribe(question)

    yield ask
    ours.close()


@pytest.mark.parametrize("language", ["en", "hi"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"prefix": "Well,"},
        {"sample_len": 3},
        {"suppress_tokens": [13], "max_initial_timestamp": None},
        {"clip_timestamps": "0.5,2", "initial_prompt": "The tale of the fox."},
    ],
    ids=lambda options: ", ".join(options) or "defaults",
)
def test_segments_are_openai_whispers(
    ask_both: AskBoth, language: str, options: dict[str, Any]
) -> None:
    from benchmarks.parity import compare

    question, theirs, ours = ask_both(language, options)

    result = compare(question.clip, theirs, ours)
    assert result.num_equal_segments == result.num_segments > 0
    assert result.avg_logprob_gap < 1e-3
    assert result.no_speech_prob_gap < 1e-3


def test_word_times_are_openai_whispers(ask_both: AskBoth) -> None:
    from benchmarks.parity import compare

    question, theirs, ours = ask_both("en", {"word_timestamps": True})

    result = compare(question.clip, theirs, ours)
    assert result.num_words > 3
    assert result.num_close_words >= 0.95 * result.num_words


def test_the_ladder_is_climbed_as_openai_whisper_climbs_it(ask_both: AskBoth) -> None:
    never_content = {"temperature": (0.0, 0.4, 1.0), "logprob_threshold": 0.0}

    _, theirs, ours = ask_both("en", never_content, sampling="likeliest")

    climbed = [call.temperature for call in ours.calls]
    assert climbed == [call.temperature for call in theirs.calls] == [0.0, 0.4, 1.0]
    assert [segment["temperature"] for segment in ours.segments] == [1.0]


def test_prompts_are_tokenized_as_openai_whisper_tokenizes_them(tokenizer: Tokenizer) -> None:
    import whisper

    texts = [
        " The talk to them, that time.",
        " Это текст о том, что там.",
        " 東京の天気",
        " naïve 🎉",
    ]

    theirs = whisper.tokenizer.get_tokenizer(multilingual=True)
    assert [tokenizer.encode(text) for text in texts] == [theirs.encode(text) for text in texts]
    assert tokenizer.non_speech_tokens == theirs.non_speech_tokens
