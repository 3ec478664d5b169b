"""Writes a transcript in the format a caller asked for. To add a format, add a row to FORMATS."""

from __future__ import annotations

import html
import json
import math
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass

from pydantic import Field

from simple_asr.transcript.cues import Cue, CueOptions, cues, milliseconds, one_line
from simple_asr.transcript.languages import LANGUAGES
from simple_asr.transcript.model import Segment, Transcript


class WritingOptions(CueOptions):
    """How a transcript is written, beside its format."""

    receipt: bool = Field(
        False,
        description="JSON: the answer has also `parameters` (what counted for each, and whether it "
        "could act), `model`, `duration`, `processing` (seconds) and `warnings`.",
    )


@dataclass(frozen=True, slots=True)
class Format:
    """A way to write a transcript, the media type it is served under, and its files' ending.

    `has_cues` where options of cues act.
    """

    name: str
    media_type: str
    extension: str
    meaning: str
    writer: Callable[[Transcript, WritingOptions], str]
    has_cues: bool = False

    @property
    def is_json(self) -> bool:
        """Whether what is written is a JSON object."""
        return self.media_type == "application/json"

    def write(self, transcript: Transcript, options: WritingOptions | None = None) -> str:
        """The transcript as text."""
        return self.writer(transcript, options or WritingOptions())


# JSON ---------------------------------------------------------------------------------------------


def whisper_result(transcript: Transcript) -> dict[str, object]:
    """The dictionary `whisper.transcribe()` returns: `text`, `segments`, `language`.

    `words` stands in a segment only when word times were asked for, as in openai-whisper, and
    `channel` only when channels were split.
    """
    return {
        "text": transcript.text,
        "segments": [segment_fields(segment) for segment in transcript.segments],
        "language": transcript.language,
    }


def simple_result(transcript: Transcript) -> dict[str, object]:
    """The text alone."""
    return {"text": transcript.text.strip()}


def verbose_result(
    transcript: Transcript, *, has_segments: bool = True, has_words: bool = True
) -> dict[str, object]:
    """OpenAI's `verbose_json`; `words` stand in it where their times are known.

    Source: OpenAI's API reference, `CreateTranscriptionResponseVerboseJson`, and for translations
    `CreateTranslationResponseVerboseJson`, whose language is that of the text.
    """
    translated = transcript.task == "translate"
    document: dict[str, object] = {
        "task": transcript.task,
        "language": "english" if translated else LANGUAGES[transcript.language],
        "duration": transcript.duration,
        "text": transcript.text.strip(),
    }
    if has_segments:
        document["segments"] = [
            {name: value for name, value in segment_fields(segment).items() if name != "words"}
            for segment in transcript.segments
        ]
    if has_words and any(segment.words is not None for segment in transcript.segments):
        document["words"] = [
            {"word": word.word.strip(), "start": word.start, "end": word.end}
            for segment in transcript.segments
            for word in segment.words or ()
        ]
    if not translated:
        document["usage"] = {"type": "duration", "seconds": math.ceil(transcript.duration)}
    return document


def receipt(transcript: Transcript) -> dict[str, object]:
    """What was done for the caller, beside the result: see `WritingOptions.receipt`."""
    return {
        "parameters": {
            name: {"value": effective.value, "applied": not effective.not_applied}
            | ({"reason": effective.not_applied} if effective.not_applied else {})
            for name, effective in transcript.parameters.items()
        },
        "model": transcript.model,
        "duration": transcript.duration,
        "processing": _processing(transcript),
        "warnings": list(transcript.warnings),
    }


def _processing(transcript: Transcript) -> dict[str, object] | None:
    """Seconds to the millisecond; finer is noise."""
    processing = transcript.processing
    if processing is None:
        return None
    factor = processing.real_time_factor(transcript.duration)
    return {
        "queue_seconds": round(processing.queue, 3),
        "decode_seconds": round(processing.decode, 3),
        "recognise_seconds": round(processing.recognise, 3),
        "real_time_factor": None if factor is None else round(factor, 4),
    }


def segment_fields(segment: Segment) -> dict[str, object]:
    """One segment of `whisper_result`, without what was not asked for."""
    return {name: value for name, value in asdict(segment).items() if value is not None}


def _as_json(result: Callable[[Transcript], dict[str, object]]) -> Callable[..., str]:
    def write(transcript: Transcript, options: WritingOptions) -> str:
        document = result(transcript)
        if options.receipt:
            document |= receipt(transcript)
        return json.dumps(document, ensure_ascii=False, allow_nan=False)

    return write


# Lines of text ------------------------------------------------------------------------------------


def _text(transcript: Transcript, _: WritingOptions) -> str:
    return transcript.text.strip() + "\n"


def _srt(transcript: Transcript, options: WritingOptions) -> str:
    """SubRip: numbered cues."""
    return "".join(
        f"{number}\n{_srt_time(cue.start)} --> {_srt_time(cue.end)}\n{_marked(cue, _srt_text)}\n\n"
        for number, cue in enumerate(cues(transcript, options), start=1)
    )


def _srt_time(seconds: float) -> str:
    minutes, rest = divmod(milliseconds(seconds), 60_000)
    return f"{minutes // 60:02d}:{minutes % 60:02d}:{rest // 1000:02d},{rest % 1000:03d}"


def _srt_text(text: str) -> str:
    """SubRip has no escapes: what a player would take for a tag is kept apart by a blank.

    An arrow inside the text would be read as a cue's timing line, and becomes `->`, as in
    openai-whisper.
    """
    return re.sub(r"([<{])(?=[A-Za-z/!\\])", r"\1 ", re.sub(r"-{2,}>", "->", text))


def _vtt(transcript: Transcript, options: WritingOptions) -> str:
    """WebVTT, as W3C defines it."""
    return "WEBVTT\n\n" + "".join(
        f"{_vtt_time(cue.start)} --> {_vtt_time(cue.end)}\n{_marked(cue, _vtt_text)}\n\n"
        for cue in cues(transcript, options)
    )


def _vtt_time(seconds: float) -> str:
    """Hours are left out of the first one, as openai-whisper leaves them."""
    return _srt_time(seconds).replace(",", ".").removeprefix("00:")


def _vtt_text(text: str) -> str:
    return html.escape(text, quote=False)


def _marked(cue: Cue, escaped: Callable[[str], str]) -> str:
    if cue.highlighted is None:
        return escaped(cue.text)
    begin, stop = cue.highlighted.begin, cue.highlighted.stop
    before, word, after = cue.text[:begin], cue.text[begin:stop], cue.text[stop:]
    return f"{escaped(before)}<u>{escaped(word)}</u>{escaped(after)}"


def _lrc(transcript: Transcript, options: WritingOptions) -> str:
    """Lyrics: a line for each cue, with the time at which it begins."""
    unmarked = options.model_copy(update={"highlight_words": False})
    return "".join(
        f"[{_lrc_time(cue.start)}]{_lrc_text(cue.text)}\n" for cue in cues(transcript, unmarked)
    )


def _lrc_time(seconds: float) -> str:
    """Lyrics know no hours: minutes go on counting."""
    minutes, rest = divmod(round(seconds * 100), 6000)
    return f"{minutes:02d}:{rest // 100:02d}.{rest % 100:02d}"


def _lrc_text(text: str) -> str:
    """A bracket before a digit would be read as another time, and is kept apart by a blank."""
    return re.sub(r"([<\[])(?=\d)", r"\1 ", text.replace("\n", " "))


def _tsv(transcript: Transcript, _: WritingOptions) -> str:
    """A line for each segment: start and end in milliseconds, and the text."""
    return "start\tend\ttext\n" + "".join(
        f"{milliseconds(segment.start)}\t{milliseconds(segment.end)}\t{one_line(segment.text)}\n"
        for segment in transcript.segments
    )


FORMATS: dict[str, Format] = {
    format_.name: format_
    for format_ in (
        Format(
            "json",
            "application/json",
            "json",
            "openai-whisper's full result",
            _as_json(whisper_result),
        ),
        Format(
            "simple",
            "application/json",
            "json",
            'only the text: `{"text": …}`',
            _as_json(simple_result),
        ),
        Format(
            "text",
            "text/plain; charset=utf-8",
            "txt",
            "only the text, as plain text",
            _text,
        ),
        Format(
            "srt",
            "application/x-subrip; charset=utf-8",
            "srt",
            "SubRip subtitles",
            _srt,
            has_cues=True,
        ),
        Format(
            "vtt",
            "text/vtt; charset=utf-8",
            "vtt",
            "WebVTT subtitles",
            _vtt,
            has_cues=True,
        ),
        Format(
            "tsv",
            "text/tab-separated-values; charset=utf-8",
            "tsv",
            "a line a segment: start and end in milliseconds, text",
            _tsv,
        ),
        Format(
            "lrc",
            "text/plain; charset=utf-8",
            "lrc",
            "lyrics: a line a cue, with its start",
            _lrc,
            has_cues=True,
        ),
        Format(
            "verbose_json",
            "application/json",
            "json",
            "OpenAI's `verbose_json`",
            _as_json(verbose_result),
        ),
    )
}
