"""Our subtitle files beside those that openai-whisper's own writers make of the same transcript."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simple_asr.audio.decode import DecoderPool
from simple_asr.audio.features import LogMel
from simple_asr.engine.backends import BACKENDS, LoadOptions
from simple_asr.engine.engine import Engine
from simple_asr.engine.options import TranscribeOptions
from simple_asr.engine.request import Request
from simple_asr.transcript.formats import FORMATS, WritingOptions, whisper_result
from simple_asr.transcript.model import Segment, Transcript, Word
from tests.support import Caller, Clip

if TYPE_CHECKING:
    from whisper.utils import ResultWriter

for package in ("torch", "whisper"):
    pytest.importorskip(package, reason=f"{package} is not installed: see benchmarks/README.md")

LAYOUTS: list[dict[str, Any]] = [
    {},
    {"max_line_width": 12},
    {"max_line_count": 2},
    {"max_line_width": 12, "max_line_count": 1},
    {"max_line_width": 20, "max_line_count": 2},
    {"max_words_per_line": 3},
    {"max_words_per_line": 2, "max_line_width": 10},
    {"highlight_words": True},
    {"highlight_words": True, "max_line_width": 16, "max_line_count": 2},
    {"highlight_words": True, "max_words_per_line": 4},
]


def theirs(name: str, transcript: Transcript, options: dict[str, Any]) -> str:
    """What openai-whisper writes."""
    from whisper.utils import get_writer

    writer: ResultWriter = get_writer(name, output_dir="")
    file = io.StringIO()
    writer.write_result(whisper_result(transcript), file, options)
    return file.getvalue()


@st.composite
def transcripts(draw: st.DrawFn, has_words: bool) -> Transcript:
    """Words in any alphabet, in order, with pauses; nothing that means something to a format."""
    spelling = st.text(st.characters(categories=["L", "N"]), min_size=1, max_size=9)
    pause = st.sampled_from([0.0, 0.0, 0.02, 1.0, 3.5])
    now, segments = 0.0, []
    for index in range(draw(st.integers(1, 4))):
        words = []
        for text in draw(st.lists(spelling, min_size=1, max_size=8)):
            start = now + draw(pause)
            now = start + draw(st.integers(1, 90)) / 100
            blank = draw(st.sampled_from([" ", " ", ""]))
            words.append(Word(blank + text, round(start, 2), round(now, 2), 0.9))
        text = "".join(word.word for word in words)
        segments.append(
            Segment(
                index, 0, words[0].start, words[-1].end, text, (), 0.0, -0.2, 1.0, 0.1,
                tuple(words) if has_words else None,
            )
        )  # fmt: skip
    return Transcript("", tuple(segments), "en", now, "base")


@pytest.mark.parametrize("name", ["srt", "vtt"])
@pytest.mark.parametrize("options", LAYOUTS, ids=str)
@settings(max_examples=50, deadline=None)
@given(transcript=transcripts(has_words=True))
def test_for_equal_options_the_file_is_theirs(
    name: str, options: dict[str, Any], transcript: Transcript
) -> None:
    ours = FORMATS[name].write(transcript, WritingOptions(**options))

    assert ours == theirs(name, transcript, options)


@pytest.mark.parametrize("name", ["srt", "vtt", "tsv"])
@settings(max_examples=50, deadline=None)
@given(transcript=transcripts(has_words=False))
def test_without_words_the_file_is_theirs(name: str, transcript: Transcript) -> None:
    assert FORMATS[name].write(transcript) == theirs(name, transcript, {})


@pytest.mark.weights
@pytest.mark.parametrize("language", ["en", "es", "zh", "hi"])
def test_of_real_speech_every_file_is_theirs(
    base_model: Path, speech: list[Clip], decoder: DecoderPool, language: str
) -> None:
    backends = BACKENDS["ctranslate2"]("base", base_model, LoadOptions("cpu"))
    engine = Engine(backends, max_batch_size=1, max_requests=1)
    backend = backends[0]
    options = TranscribeOptions(language=language, word_timestamps=True)
    [path, *_] = [clip.path for clip in speech if clip.language == language]
    caller = Caller()
    with decoder.decode(path) as recording:
        log_mel = LogMel(recording, backend.info.n_mels)
        engine.submit(Request(options, log_mel, backend.info, backend.tokenizer), caller)
        transcript = caller.transcript()
    engine.close()

    for name in ("srt", "vtt", "tsv"):
        for layout in LAYOUTS:
            ours = FORMATS[name].write(transcript, WritingOptions(**layout))
            assert ours == theirs(name, transcript, layout)
