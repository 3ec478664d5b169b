"""Cuts a transcript into the cues of subtitles. How a cue is written is `formats.py`'s business.

Where openai-whisper has an option, it means the same here (openai/whisper v20250625, utils.py,
`SubtitlesWriter`), and the cues are the same.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, pairwise

from pydantic import BaseModel, ConfigDict, Field

from simple_asr.fields import OptionalCount, Threshold
from simple_asr.transcript.model import Segment, Transcript, Word

# Two words further apart than this, in seconds, stand in different cues. openai-whisper's number.
LONG_PAUSE = 3.0
# A line, in characters, where no width is asked for. openai-whisper's number too.
_WIDEST = 1000
# What no file of subtitles survives inside a line, and no speech holds: line breaks of any
# alphabet, tabs, and other control characters.
_CONTROL_CHARACTERS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")
_CLOSING = "\"'”’»)]}"
_SENTENCE_ENDS = tuple(".!?…。！？｡؟।۔")
_INITIAL = re.compile(r"\w\.")


class CueOptions(BaseModel):
    """How a transcript is cut into cues. Frozen; nothing set is a cue for each segment."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    max_line_width: OptionalCount = Field(
        None,
        ge=1,
        le=1000,
        description="Subtitles: most characters in a line. Needs `word_timestamps`.",
        examples=[42],
    )
    max_line_count: OptionalCount = Field(
        None,
        ge=1,
        le=100,
        description="Subtitles: most lines in a cue, which then may span segments and ends at a "
        "pause of 3 s. Needs `word_timestamps` and `max_line_width`.",
        examples=[2],
    )
    max_words_per_line: OptionalCount = Field(
        None,
        ge=1,
        le=1000,
        description="Subtitles: most words in a cue. Needs `word_timestamps`; no effect with "
        "`max_line_width` and `max_line_count` together.",
        examples=[6],
    )
    highlight_words: bool = Field(
        False,
        description="`srt`, `vtt`: a cue for each word, which it underlines in its line. Needs "
        "`word_timestamps`.",
    )
    split_at_sentences: bool = Field(
        False,
        description="Subtitles: each sentence begins a new cue. Needs `word_timestamps`.",
    )
    min_cue_gap: Threshold = Field(
        None,
        ge=0,
        le=10,
        description="Subtitles: least seconds between two cues; the earlier one ends sooner, but "
        "keeps at least half its time.",
        examples=[0.08],
    )

    @property
    def needing_words(self) -> list[str]:
        """Names of the options set that cannot act without word times."""
        return [name for name in self.given if name in _NEEDING_WORDS]

    @property
    def given(self) -> list[str]:
        """Names of the options that differ from their defaults."""
        return [name for name, value in self if value != type(self).model_fields[name].default]


_NEEDING_WORDS = frozenset(CueOptions.model_fields) - {"min_cue_gap"}


@dataclass(frozen=True, slots=True)
class SpokenWord:
    """A word's times in seconds, and the range of its cue's characters that it fills."""

    start: float
    end: float
    begin: int
    stop: int


@dataclass(frozen=True, slots=True)
class Cue:
    """Lines of text and when they are shown, in seconds.

    `text` is not escaped for any format, and holds no control character but the line breaks.
    `words` are known where word times are; `highlighted` is the one to underline.
    """

    start: float
    end: float
    text: str
    words: tuple[SpokenWord, ...] = ()
    highlighted: SpokenWord | None = None


def cues(transcript: Transcript, options: CueOptions) -> list[Cue]:
    """The cues in order, none without text. By words where their times are known."""
    if any(segment.words is not None for segment in transcript.segments):
        blocks = _blocks(transcript.segments, options)
        found = [cue for block in blocks for cue in _filled(block, options)]
    else:
        found = [
            Cue(segment.start, segment.end, text)
            for segment in transcript.segments
            if (text := one_line(segment.text))
        ]
    if options.min_cue_gap:
        found = _with_gaps(found, options.min_cue_gap)
    if options.highlight_words:
        found = [part for cue in found for part in _word_by_word(cue)]
    return found


def one_line(text: str) -> str:
    """The text without control characters and outer blanks."""
    return _printable(text).strip()


def _printable(text: str) -> str:
    return _CONTROL_CHARACTERS.sub(" ", text)


# Which words may share a cue ---------------------------------------------------------------------


def _blocks(segments: Sequence[Segment], options: CueOptions) -> Iterator[Sequence[Word]]:
    """Words that stand together: no cue reaches from one block into the next."""
    blocks: Iterable[Sequence[Word]] = [_shown(segment.words or ()) for segment in segments]
    if _fills_lines(options):
        blocks = [list(chain.from_iterable(blocks))]
    if options.split_at_sentences:
        blocks = chain.from_iterable(map(_sentences, blocks))
    if options.max_words_per_line is None or _fills_lines(options):
        return iter(blocks)
    most = options.max_words_per_line
    return (block[index : index + most] for block in blocks for index in range(0, len(block), most))


def _fills_lines(options: CueOptions) -> bool:
    """Lines are filled one after the other, whatever the segments were."""
    return options.max_line_width is not None and options.max_line_count is not None


def _shown(words: Sequence[Word]) -> list[Word]:
    """The words without control characters; none that is blank, which would end its cue."""
    printable = (replace(word, word=_printable(word.word)) for word in words)
    return [word for word in printable if word.word.strip()]


def _sentences(words: Sequence[Word]) -> Iterator[list[Word]]:
    sentence: list[Word] = []
    for word in words:
        if sentence and _ends_sentence(sentence[-1].word, before=word.word):
            yield sentence
            sentence = []
        sentence.append(word)
    yield sentence


def _ends_sentence(word: str, before: str) -> bool:
    """Whether a sentence ends between two words. An initial ends none, nor what goes on small."""
    word = word.strip().rstrip(_CLOSING)
    if not word.endswith(_SENTENCE_ENDS) or _INITIAL.fullmatch(word):
        return False
    return not before.strip()[0].islower()


# Lines and cues ----------------------------------------------------------------------------------


def _filled(words: Sequence[Word], options: CueOptions) -> Iterator[Cue]:
    """Cues with lines as wide, and as many, as the options allow."""
    lines = _Lines()
    for word in words:
        is_late = _fills_lines(options) and lines.seconds_before(word) > LONG_PAUSE
        width = lines.width + len(word.word)
        if lines.words and width <= (options.max_line_width or _WIDEST) and not is_late:
            lines.go_on(word)
            continue
        is_full = options.max_line_count is not None and lines.num >= options.max_line_count
        if lines.words and (is_full or is_late):
            yield lines.cue()
            lines = _Lines()
        lines.begin(word)
    if lines.words:
        yield lines.cue()


class _Lines:
    """The lines of a cue that is being filled."""

    def __init__(self) -> None:
        self.words: list[SpokenWord] = []
        self.num = 0
        self.width = 0
        self._text = ""

    def seconds_before(self, word: Word) -> float:
        """From the start of the last word to that of `word`, as openai-whisper counts."""
        return word.start - self.words[-1].start if self.words else 0.0

    def begin(self, word: Word) -> None:
        """Puts the word on a line of its own."""
        self._text += "\n" if self.words else ""
        self.num += 1
        self.width = len(word.word.strip())
        self._add(word)

    def go_on(self, word: Word) -> None:
        """Puts the word on the last line."""
        self._text += word.word[: len(word.word) - len(word.word.lstrip())]
        self.width += len(word.word)
        self._add(word)

    def cue(self) -> Cue:
        """What was filled."""
        return Cue(self.words[0].start, self.words[-1].end, self._text, tuple(self.words))

    def _add(self, word: Word) -> None:
        begin = len(self._text)
        self._text += word.word.strip()
        self.words.append(SpokenWord(word.start, word.end, begin, len(self._text)))


def _with_gaps(found: Sequence[Cue], gap: float) -> list[Cue]:
    """Cues that are followed too soon end sooner, by at most half their time."""
    shortened = [
        replace(cue, end=max((cue.start + cue.end) / 2, min(cue.end, after.start - gap)))
        for cue, after in pairwise(found)
    ]
    return [*shortened, *found[-1:]]


def _word_by_word(cue: Cue) -> Iterator[Cue]:
    """The cue once for each of its words, which is highlighted, and between them without."""
    shown_until = cue.start
    for word in cue.words:
        if milliseconds(word.start) > milliseconds(shown_until):
            yield replace(cue, start=shown_until, end=word.start)
        shown_until = min(word.end, cue.end)
        yield replace(cue, start=word.start, end=shown_until, highlighted=word)


def milliseconds(seconds: float) -> int:
    """As subtitles count."""
    return round(seconds * 1000)
