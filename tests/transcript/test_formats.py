"""How a transcript is written."""

from __future__ import annotations

import html
import io
import json
import re
from dataclasses import replace

import pytest
import webvtt
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from simple_asr.transcript.cues import cues, milliseconds, one_line
from simple_asr.transcript.formats import FORMATS, WritingOptions, segment_fields
from simple_asr.transcript.model import Effective, Processing, Segment, Transcript, Word


def transcript(*, words: tuple[Word, ...] | None = None) -> Transcript:
    segment = Segment(
        id=0,
        seek=0,
        start=0.0,
        end=2.5,
        text=" Привет, как дела?",
        tokens=(50364, 400),
        temperature=0.0,
        avg_logprob=-0.25,
        compression_ratio=0.9,
        no_speech_prob=0.01,
        words=words,
    )
    return Transcript(" Привет, как дела?", (segment,), "ru", duration=2.5, model="base")


def test_json_is_whispers_result_field_for_field() -> None:
    document = json.loads(FORMATS["json"].write(transcript()))

    assert list(document) == ["text", "segments", "language"]
    assert document["text"] == " Привет, как дела?"
    assert document["language"] == "ru"
    assert list(document["segments"][0].items()) == [
        ("id", 0),
        ("seek", 0),
        ("start", 0.0),
        ("end", 2.5),
        ("text", " Привет, как дела?"),
        ("tokens", [50364, 400]),
        ("temperature", 0.0),
        ("avg_logprob", -0.25),
        ("compression_ratio", 0.9),
        ("no_speech_prob", 0.01),
    ]


def test_json_has_words_only_when_they_were_asked_for() -> None:
    word = Word(" Привет,", 0.0, 0.5, 0.9)

    document = json.loads(FORMATS["json"].write(transcript(words=(word,))))

    assert document["segments"][0]["words"] == [
        {"word": " Привет,", "start": 0.0, "end": 0.5, "probability": 0.9}
    ]


def test_simple_is_the_text_alone() -> None:
    assert json.loads(FORMATS["simple"].write(transcript())) == {"text": "Привет, как дела?"}


def test_text_is_plain() -> None:
    assert FORMATS["text"].write(transcript()) == "Привет, как дела?\n"
    assert FORMATS["text"].media_type.startswith("text/plain")


def test_letters_of_any_alphabet_are_written_as_they_are() -> None:
    assert "Привет" in FORMATS["json"].write(transcript())


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_is_found_by_its_name_and_explained(name: str) -> None:
    assert FORMATS[name].name == name
    assert FORMATS[name].meaning


# Subtitles ---------------------------------------------------------------------------------------


def spoken(text: str, start: float = 0.0, end: float = 2.5) -> Transcript:
    [segment] = transcript().segments
    return replace(transcript(), segments=(replace(segment, text=text, start=start, end=end),))


def test_srt_numbers_its_cues() -> None:
    assert FORMATS["srt"].write(transcript()) == (
        "1\n00:00:00,000 --> 00:00:02,500\nПривет, как дела?\n\n"
    )


def test_vtt_has_a_header_and_no_hours_before_the_first_is_over() -> None:
    assert FORMATS["vtt"].write(transcript()) == (
        "WEBVTT\n\n00:00.000 --> 00:02.500\nПривет, как дела?\n\n"
    )


def test_tsv_counts_milliseconds() -> None:
    assert FORMATS["tsv"].write(transcript()) == "start\tend\ttext\n0\t2500\tПривет, как дела?\n"


def test_lrc_has_the_start_of_each_line() -> None:
    assert FORMATS["lrc"].write(spoken(" Hello.", start=62.34)) == "[01:02.34]Hello.\n"


def test_the_options_of_cues_reach_the_file() -> None:
    words = (Word(" Hello", 0.0, 0.5, 0.9), Word(" world.", 0.5, 1.0, 0.9))
    options = WritingOptions(max_line_width=6, highlight_words=True)

    lines = FORMATS["vtt"].write(transcript(words=words), options).splitlines()

    assert lines[2:9] == [
        "00:00.000 --> 00:00.500",
        "<u>Hello</u>",
        "world.",
        "",
        "00:00.500 --> 00:01.000",
        "Hello",
        "<u>world.</u>",
    ]


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("srt", "100:00:00,000 --> 100:01:02,500"),
        ("vtt", "100:00:00.000 --> 100:01:02.500"),
        ("lrc", "[6000:00.00]Late."),
        ("tsv", "360000000\t360062500\tLate."),
    ],
)
def test_time_goes_on_after_a_hundred_hours(name: str, line: str) -> None:
    written = FORMATS[name].write(spoken("Late.", start=360_000.0, end=360_062.5))

    assert line in written.splitlines()


@pytest.mark.parametrize(
    ("name", "text", "shown"),
    [
        ("srt", "a --> b ---> c", "a -> b -> c"),
        ("srt", "1 < 2 <b>not bold</b> {\\an8}", "1 < 2 < b>not bold< /b> { \\an8}"),
        ("vtt", "a --> b <b>&amp;", "a --&gt; b &lt;b&gt;&amp;amp;"),
        ("lrc", "[00:01.00] <00:01.00>", "[ 00:01.00] < 00:01.00>"),
        ("srt", "one\r\n\r\ntwo\u2028three", "one two three"),
        ("vtt", "one\n\ntwo\u0085three", "one two three"),
        ("tsv", "one\ttwo\nthree", "one two three"),
        ("lrc", "one\ntwo", "one two"),
    ],
)
def test_text_that_would_break_a_file_is_written_so_that_it_cannot(
    name: str, text: str, shown: str
) -> None:
    assert shown in FORMATS[name].write(spoken(text))


# What others read in our files: a thousand texts for each format ---------------------------------

hostile = st.text() | st.lists(
    st.sampled_from(
        [
            *(
                "-->",
                "--",
                ">",
                "<",
                "b>",
                "{\\an8}",
                "\n",
                "\n\n",
                "\r",
                "\t",
                " ",
                "\x85",
                "\u2028",
            ),
            *("1", "00:00:01,000 --> 00:00:02,000", "[00:01.00]", "&amp;", "WEBVTT", "NOTE", "Hi"),
        ]
    )
).map("".join)
moments = st.integers(0, 500_000_000).map(lambda milliseconds: milliseconds / 1000)
layouts = st.builds(
    WritingOptions,
    max_line_width=st.none() | st.integers(1, 20),
    max_line_count=st.none() | st.integers(1, 3),
    max_words_per_line=st.none() | st.integers(1, 4),
    highlight_words=st.booleans(),
    split_at_sentences=st.booleans(),
    min_cue_gap=st.none() | st.floats(0, 1),
)


@st.composite
def transcripts(draw: st.DrawFn) -> Transcript:
    """Segments in order, all with words or none."""
    has_words = draw(st.booleans())
    segments = []
    for text in draw(st.lists(hostile, max_size=4)):
        start, end = sorted(draw(st.tuples(moments, moments)))
        words = tuple(Word(f" {word}", start, end, 0.9) for word in draw(st.lists(hostile)))
        [segment] = transcript(words=words if has_words else None).segments
        segments.append(replace(segment, start=start, end=end, text=text))
    return replace(transcript(), segments=tuple(segments))


# Three texts and more in each.
a_thousand_texts = settings(max_examples=350, deadline=None)
ANY_BLANK = re.compile(r"[\s\x00-\x1f\x7f-\x9f]+")


def without_blanks(text: str) -> str:
    return ANY_BLANK.sub("", text)


@a_thousand_texts
@given(transcripts(), layouts)
def test_srt_is_read_as_it_was_meant(written: Transcript, options: WritingOptions) -> None:
    meant = cues(written, options)
    assume(meant)  # the reader refuses an empty file

    file = io.StringIO(FORMATS["srt"].write(written, options))
    read = webvtt.from_buffer(file, format="srt").captions

    assert [(cue.start_time.in_milliseconds(), cue.end_time.in_milliseconds()) for cue in read] == [
        (milliseconds(cue.start), milliseconds(cue.end)) for cue in meant
    ]
    for cue, intended in zip(read, meant, strict=True):
        shown = cue.raw_text
        if intended.highlighted:
            assert (shown.count("<u>"), shown.count("</u>")) == (1, 1)
            shown = shown.replace("<u>", "").replace("</u>", "")
        assert re.search(r"<[A-Za-z/]", shown) is None
        arrowless = re.sub(r"-{2,}>", "->", intended.text)
        assert without_blanks(re.sub(r"-{2,}>", "->", shown)) == without_blanks(arrowless)


@a_thousand_texts
@given(transcripts(), layouts)
def test_vtt_is_read_as_it_was_meant(written: Transcript, options: WritingOptions) -> None:
    read = webvtt.from_string(FORMATS["vtt"].write(written, options)).captions

    meant = cues(written, options)
    assert [(cue.start_time.in_milliseconds(), cue.end_time.in_milliseconds()) for cue in read] == [
        (milliseconds(cue.start), milliseconds(cue.end)) for cue in meant
    ]
    for cue, intended in zip(read, meant, strict=True):
        text = cue.raw_text
        if intended.highlighted:
            assert (text.count("<u>"), text.count("</u>")) == (1, 1)
            text = text.replace("<u>", "").replace("</u>", "")
        assert html.unescape(text) == intended.text


@a_thousand_texts
@given(transcripts())
def test_tsv_is_read_as_it_was_meant(written: Transcript) -> None:
    head, *rows = FORMATS["tsv"].write(written).split("\n")[:-1]

    assert head == "start\tend\ttext"
    assert [row.split("\t") for row in rows] == [
        [str(milliseconds(one.start)), str(milliseconds(one.end)), one_line(one.text)]
        for one in written.segments
    ]


@a_thousand_texts
@given(transcripts(), layouts)
def test_lrc_is_read_as_it_was_meant(written: Transcript, options: WritingOptions) -> None:
    lines = FORMATS["lrc"].write(written, options).split("\n")[:-1]

    meant = cues(written, options.model_copy(update={"highlight_words": False}))
    read = [re.fullmatch(r"\[(\d+):(\d\d\.\d\d)\](?!\[\d)(.*)", line) for line in lines]
    for match, cue in zip(read, meant, strict=True):
        assert match is not None
        assert int(match[1]) * 60 + float(match[2]) == pytest.approx(cue.start, abs=0.006)
        assert without_blanks(match[3]) == without_blanks(cue.text)


@a_thousand_texts
@given(transcripts())
def test_json_of_each_kind_is_read_as_it_was_meant(written: Transcript) -> None:
    whole, verbose = (json.loads(FORMATS[name].write(written)) for name in ("json", "verbose_json"))

    texts = [segment.text for segment in written.segments]
    assert [segment["text"] for segment in whole["segments"]] == texts
    assert [segment["text"] for segment in verbose["segments"]] == texts


# OpenAI's verbose_json ----------------------------------------------------------------------------


def test_verbose_json_is_openais() -> None:
    words = (Word(" Привет,", 0.0, 0.5, 0.9),)

    document = json.loads(FORMATS["verbose_json"].write(transcript(words=words)))

    assert list(document) == [
        *("task", "language", "duration", "text", "segments", "words", "usage")
    ]
    assert document["task"] == "transcribe"
    assert document["language"] == "russian"
    assert document["text"] == "Привет, как дела?"
    assert document["words"] == [{"word": "Привет,", "start": 0.0, "end": 0.5}]
    assert document["usage"] == {"type": "duration", "seconds": 3}
    assert set(document["segments"][0]) == {
        *("id", "seek", "start", "end", "text", "tokens", "temperature"),
        *("avg_logprob", "compression_ratio", "no_speech_prob"),
    }


def test_verbose_json_has_words_only_when_they_were_asked_for() -> None:
    assert "words" not in json.loads(FORMATS["verbose_json"].write(transcript()))


def test_a_translation_is_english_and_has_no_usage() -> None:
    translated = replace(transcript(), task="translate")

    document = json.loads(FORMATS["verbose_json"].write(translated))

    assert (document["task"], document["language"]) == ("translate", "english")
    assert "usage" not in document


# The receipt --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["json", "simple", "verbose_json"])
def test_a_receipt_stands_in_json_beside_the_result(name: str) -> None:
    measured = replace(
        transcript(),
        processing=Processing(queue=1.0, decode=0.5, recognise=2.0),
        parameters={
            "language": Effective("ru"),
            "best_of": Effective(None, "It is for temperatures above 0."),
        },
        warnings=("The file is cut short.",),
    )

    plain = json.loads(FORMATS[name].write(measured))
    document = json.loads(FORMATS[name].write(measured, WritingOptions(receipt=True)))

    assert {key: document.pop(key) for key in plain if key != "duration"} == {
        key: value for key, value in plain.items() if key != "duration"
    }
    assert document == {
        "parameters": {
            "language": {"value": "ru", "applied": True},
            "best_of": {
                "value": None,
                "applied": False,
                "reason": "It is for temperatures above 0.",
            },
        },
        "model": "base",
        "duration": 2.5,
        "processing": {
            "queue_seconds": 1.0,
            "decode_seconds": 0.5,
            "recognise_seconds": 2.0,
            "real_time_factor": 1.0,
        },
        "warnings": ["The file is cut short."],
    }


def test_of_no_audio_there_is_no_real_time_factor() -> None:
    nothing = replace(transcript(), duration=0.0, processing=Processing(0, 1, 0))

    document = json.loads(FORMATS["json"].write(nothing, WritingOptions(receipt=True)))

    assert document["processing"]["real_time_factor"] is None


def test_a_channel_stands_in_segments_of_split_channels_alone() -> None:
    segment = Segment(0, 0, 0.0, 1.0, " Hello.", (), 0.0, -0.2, 1.0, 0.0, channel=1)

    assert segment_fields(segment)["channel"] == 1
    assert "channel" not in segment_fields(replace(segment, channel=None))
