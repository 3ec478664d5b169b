"""Finds segments that Whisper is likely to have made up, by what was measured of them.

Whisper was trained on subtitles: where it hears no speech it writes what stands there in silence,
credits and thanks, or the same words over and over. Pure: spans of speech come from elsewhere.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from simple_asr.audio.speech import Span
from simple_asr.engine.fallback import repetition
from simple_asr.transcript.events import Done, Event, SegmentDone
from simple_asr.transcript.model import Segment, Transcript

# Why these values: docs/decisions/0012.
LEAST_VOICED_SHARE = 0.1
MOST_REPETITION = 2.4
LEAST_LOGPROB = -1.0
MOST_NO_SPEECH = 0.6
TIMES_IN_A_ROW = 3

# What subtitles say of themselves, by language. Whoever really says it has a voice.
CREDITS = {
    "de": ("untertitel der amara org community", "untertitel im auftrag des zdf", "untertitelung"),
    "en": ("thanks for watching", "thank you for watching", "subtitles by", "please subscribe"),
    "es": ("subtítulos realizados por la comunidad de amara org", "gracias por ver el video"),
    "fr": ("sous titres réalisés par", "sous titrage", "merci d avoir regardé"),
    "it": ("sottotitoli creati dalla comunità amara org", "sottotitoli e revisione a cura di"),
    "ja": ("ご視聴ありがとうございました",),
    "ko": ("시청해주셔서 감사합니다", "구독과 좋아요"),
    "nl": ("ondertiteld door", "ondertiteling"),
    "pl": ("napisy stworzone przez społeczność amara org", "dziękuję za uwagę"),
    "pt": ("legendas pela comunidade amara org", "obrigado por assistir"),
    "ru": ("субтитры сделал", "субтитры создавал", "редактор субтитров", "продолжение следует"),
    "tr": ("altyazı m k", "izlediğiniz için teşekkürler"),
    "uk": ("дякую за перегляд", "субтитри"),
    "zh": ("字幕由amara org社区提供", "请不吝点赞", "谢谢观看"),
}
LEAST_VOICED_SHARE_OF_CREDITS = 0.5


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a segment is judged by. `num_repeats` counts it and equal ones right before it."""

    segment: Segment
    voiced_share: float
    num_repeats: int


REASONS: dict[str, Callable[[Evidence], bool]] = {
    "no_voice": lambda evidence: evidence.voiced_share < LEAST_VOICED_SHARE,
    "repetitive": lambda evidence: repetition(evidence.segment.text) > MOST_REPETITION,
    "repeated": lambda evidence: evidence.num_repeats >= TIMES_IN_A_ROW,
    "improbable": lambda evidence: (
        evidence.segment.avg_logprob < LEAST_LOGPROB
        and evidence.segment.no_speech_prob > MOST_NO_SPEECH
    ),
    "credits": lambda evidence: (
        evidence.voiced_share < LEAST_VOICED_SHARE_OF_CREDITS
        and _holds_credits(evidence.segment.text)
    ),
}
"""Each by itself makes a segment suspect. To add one, add a row."""


class HallucinationReview:
    """Flags or drops suspect segments among the events of one request."""

    def __init__(self, spans: Sequence[Span], action: Literal["flag", "drop"]) -> None:
        """`spans` of speech, in order. `flag` puts reasons into every segment, mostly none."""
        self._spans = spans
        self._action = action
        self._previous = ""
        self._num_repeats = 0
        self._kept: list[Segment] = []

    def receive(self, event: Event) -> list[Event]:
        """Takes an event; returns what is left of it."""
        if isinstance(event, SegmentDone):
            return self._review(event.segment)
        if isinstance(event, Done):
            return [Done(self._reviewed(event.transcript))]
        return [event]

    def _review(self, segment: Segment) -> list[Event]:
        found = self._reasons(segment)
        if self._action == "drop" and found:
            return []
        if self._action == "flag":
            segment = replace(segment, hallucination=found)
        self._kept.append(replace(segment, id=len(self._kept)))
        return [SegmentDone(self._kept[-1])]

    def _reasons(self, segment: Segment) -> tuple[str, ...]:
        """Names of REASONS that hold. An emptied segment says nothing that could be made up."""
        plain = _plain(segment.text)
        if not plain and not segment.text.strip():
            return ()
        self._num_repeats = self._num_repeats + 1 if plain == self._previous else 1
        self._previous = plain
        evidence = Evidence(segment, voiced_share(segment, self._spans), self._num_repeats)
        return tuple(name for name, holds in REASONS.items() if holds(evidence))

    def _reviewed(self, transcript: Transcript) -> Transcript:
        if len(self._kept) == len(transcript.segments):
            return replace(transcript, segments=tuple(self._kept))
        text = "".join(segment.text for segment in self._kept)
        return replace(transcript, text=text, segments=tuple(self._kept))


def voiced_share(segment: Segment, spans: Sequence[Span]) -> float:
    """The share of a segment's time in which somebody speaks, 0 to 1; 1 where it takes no time."""
    duration = segment.end - segment.start
    if duration <= 0:
        return 1.0
    voiced = (min(segment.end, span.end) - max(segment.start, span.start) for span in spans)
    return min(1.0, sum(max(0.0, seconds) for seconds in voiced) / duration)


def _holds_credits(text: str) -> bool:
    plain = f" {_plain(text)} "
    return any(phrase in plain for phrases in CREDITS.values() for phrase in phrases)


def _plain(text: str) -> str:
    """Words alone, in lower case, with one space between them."""
    letters = unicodedata.normalize("NFC", text).casefold()
    return " ".join("".join(c if c.isalnum() else " " for c in letters).split())
