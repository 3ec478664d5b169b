"""TranscribeOptions: every parameter of `whisper.transcribe()`, validated once, at the door.

Meaning and defaults follow openai/whisper v20250625, `transcribe()` and `DecodingOptions`; what
Whisper would raise on is refused here. How the values arrive (query, form, JSON) is the server's
business; text is understood for every parameter, since forms carry nothing else.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from simple_asr.audio.decoder_protocol import (
    MAX_CHANNELS,
    MAX_RATE,
    MIN_RATE,
    DecodeRequest,
    PcmFormat,
    SampleFormat,
)
from simple_asr.fields import (
    MAX_SECONDS,
    Finite,
    OptionalCount,
    OptionalFlag,
    Threshold,
    no_boolean,
    null_from_text,
)
from simple_asr.transcript.languages import language_code

TEMPERATURE_LADDER = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
PREPEND_PUNCTUATIONS = "\"'“¿([{-"
APPEND_PUNCTUATIONS = "\"'.。,，!！?？:：”)]}、"

# Whisper's text context is 448 tokens, half of it for what it writes.
MAX_SAMPLE_LEN = 224
# More only burns time and memory of everybody: Whisper's command line takes 5 of each, patience 1.
MAX_HYPOTHESES = 16
MAX_PATIENCE = 4
# Below this the logits overflow when they are divided by it.
LEAST_TEMPERATURE = 0.01
MAX_TEMPERATURES = 16
MAX_LIST_ITEMS = 1000
# Seconds. A pause or a padding as long as a window leaves voice activity nothing to cut.
MAX_PAUSE = 30
MAX_PROMPT_CHARACTERS = 10_000
# The largest vocabulary, large-v3's, has 51,866 tokens. CTranslate2 writes out of bounds for an id
# beyond the model's own: 2,000,000,000 ended the process with SIGSEGV (4.8.5).
MAX_TOKEN_ID = 51_865


def _list_from_text(value: Any) -> Any:
    """`0.0,0.4` or `[0.0, 0.4]` as a list; anything that is not text passes unchanged."""
    if not isinstance(value, str):
        return value
    text = value.strip()
    if text.startswith("["):
        try:
            return json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ValueError("is not a JSON list") from error
    return [item.strip() for item in text.split(",")] if text else []


def _single_item_list(value: Any) -> Any:
    """A number alone is a list of one."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return [value]
    return value


Number = Annotated[Finite, BeforeValidator(no_boolean)]
Numbers = Annotated[
    tuple[Number, ...],
    Field(max_length=MAX_LIST_ITEMS),
    BeforeValidator(_single_item_list),
    BeforeValidator(_list_from_text),
]
LanguageNames = Annotated[
    tuple[str, ...], Field(max_length=MAX_LIST_ITEMS), BeforeValidator(_list_from_text)
]
TokenIds = Annotated[
    tuple[Annotated[int, BeforeValidator(no_boolean)], ...],
    Field(max_length=MAX_LIST_ITEMS),
    BeforeValidator(_single_item_list),
    BeforeValidator(_list_from_text),
]


def _known_code(language: str) -> str:
    code = language_code(language)
    if code is None:
        raise ValueError(
            "is not a language Whisper knows; give a code such as 'en' or a name such as "
            "'english', or leave it out to have it detected"
        )
    return code


# Who sets one of these wants Whisper's ladder to the letter.
_LADDER_FIELDS = frozenset(
    {
        "temperature",
        "compression_ratio_threshold",
        "logprob_threshold",
        "no_speech_threshold",
    }
)


# Unless they are left as they are by default: see `early_start`.
_NEED_ALL_FIRST = (
    "chunking_strategy",
    "channels",
    "on_hallucination",
    "hallucination_silence_threshold",
    "clip_timestamps",
)


class TranscribeOptions(BaseModel):
    """What to recognise and how. Frozen.

    Equal are options of equal values, whichever were given (`model_fields_set`); that one was given
    counts for `keeps_best_failure` and `skips_non_speech`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    model: Annotated[str | None, BeforeValidator(null_from_text)] = Field(
        None,
        max_length=200,
        description="Model to use, by its name in `GET /models`; loaded where it is not. Absent: "
        "the default one.",
        examples=["base"],
    )
    language: Annotated[str | None, BeforeValidator(null_from_text)] = Field(
        None,
        description="Language of the speech, as a code (`en`) or an English name (`english`). "
        "Absent: detected from the first 30 seconds.",
        examples=["ru"],
    )
    languages: LanguageNames = Field(
        (),
        description="Languages the speech may be in: the one detected is the likeliest of these. "
        "Empty: any.",
        examples=["ru,en"],
    )
    task: Literal["transcribe", "translate"] = Field(
        "transcribe",
        description="`transcribe` writes the language that is spoken, `translate` writes English.",
    )
    temperature: Numbers = Field(
        TEMPERATURE_LADDER,
        min_length=1,
        max_length=MAX_TEMPERATURES,
        description="Sampling temperature. A list is tried in order until a window passes the "
        "compression and log-probability checks; one number is that number alone.",
        examples=[0.2],
    )
    beam_size: OptionalCount = Field(
        None,
        ge=1,
        le=MAX_HYPOTHESES,
        description="Beams at temperature 0. Absent: greedy decoding.",
        examples=[5],
    )
    best_of: OptionalCount = Field(
        None,
        ge=1,
        le=MAX_HYPOTHESES,
        description="Samples at temperatures above 0, of which the likeliest is kept. Absent: one.",
        examples=[5],
    )
    patience: Threshold = Field(
        None,
        gt=0,
        le=MAX_PATIENCE,
        description="Beam search goes on until `beam_size × patience` hypotheses are finished. "
        "Needs `beam_size`. Absent: 1.",
        examples=[1.0],
    )
    length_penalty: Threshold = Field(
        None,
        ge=0,
        le=1,
        description="Exponent of the length penalty by which finished hypotheses are ranked "
        "(Wu et al. 2016, equation 14). Absent: mean log-probability per token.",
        examples=[1.0],
    )
    compression_ratio_threshold: Threshold = Field(
        2.4,
        description="A window whose text compresses better than this (zlib) repeats itself and is "
        "decoded again, one temperature warmer. `null` switches the check off.",
    )
    logprob_threshold: Threshold = Field(
        -1.0,
        description="A window whose mean token log-probability is below this is decoded again, one "
        "temperature warmer. `null` switches the check off.",
    )
    no_speech_threshold: Threshold = Field(
        0.6,
        description="A window is silence when its no-speech probability is above this and its mean "
        "log-probability is not above `logprob_threshold`. `null` switches the rule off.",
    )
    condition_on_previous_text: bool = Field(
        True,
        description="Each window is given the text before it. Off: windows are independent, less "
        "consistent and less prone to loops.",
    )
    initial_prompt: str | None = Field(
        None,
        max_length=MAX_PROMPT_CHARACTERS,
        description="Text given to the first window as if it had been said before: names, terms, "
        "style. The last 223 tokens count.",
        examples=["A presentation about AI"],
    )
    carry_initial_prompt: bool = Field(
        False,
        description="Every window is given `initial_prompt`, not only the first.",
    )
    prefix: str | None = Field(
        None,
        max_length=MAX_PROMPT_CHARACTERS,
        description="Text every window's transcript is taken to begin with. It conditions the "
        "model and is not repeated in the result.",
        examples=["Well,"],
    )
    word_timestamps: bool = Field(
        False,
        description="Times and probability of each word, by cross-attention alignment.",
    )
    prepend_punctuations: str = Field(
        PREPEND_PUNCTUATIONS,
        max_length=200,
        description="With `word_timestamps`: punctuation that joins the word after it.",
    )
    append_punctuations: str = Field(
        APPEND_PUNCTUATIONS,
        max_length=200,
        description="With `word_timestamps`: punctuation that joins the word before it.",
    )
    clip_timestamps: Numbers = Field(
        (0.0,),
        description="Clips to recognise, in seconds: start,end,start,end,…; the last end may be "
        "left out and is then the end of the audio.",
        examples=["0,12.5,60,90"],
    )
    hallucination_silence_threshold: Threshold = Field(
        None,
        gt=0,
        description="With `word_timestamps`: silence longer than this many seconds around words "
        "that look invented is skipped, and they with it.",
        examples=[2.0],
    )
    suppress_tokens: TokenIds = Field(
        (-1,),
        description="Token ids never written; -1 stands for the set of non-speech symbols. "
        "Empty: nothing is suppressed.",
        examples=["-1"],
    )
    suppress_blank: bool = Field(True, description="A window may not begin with a blank.")
    sample_len: OptionalCount = Field(
        None,
        ge=1,
        le=MAX_SAMPLE_LEN,
        description="Most tokens written for one window. Absent: 224.",
    )
    without_timestamps: bool = Field(
        False,
        description="Decode without timestamp tokens: one segment per window.",
    )
    max_initial_timestamp: Threshold = Field(
        1.0,
        ge=0,
        le=30,
        description="A window's first segment starts at most this many seconds into it. "
        "`null` or 0: anywhere.",
    )
    keep_when_all_fail: Annotated[
        Literal["best", "last"] | None, BeforeValidator(null_from_text)
    ] = Field(
        None,
        description="What is kept of a window that fails its checks at every temperature: the "
        "`last` attempt, as in openai-whisper, or the `best`, the likeliest of those that do not "
        "repeat themselves. Absent: `last` where `temperature` or a threshold is given, else "
        "`best`.",
        examples=["last"],
    )
    skip_non_speech: OptionalFlag = Field(
        None,
        description="Whether windows are left out in which nobody speaks: those that are inaudible "
        "to the model, and those that fail a check or look silent to it where voice activity "
        "finds no speech at all. Absent: `false` where `temperature` or a threshold is given, "
        "else `true`.",
    )
    fp16: OptionalFlag = Field(
        None,
        description="Accepted for compatibility. The number format is chosen when the model is "
        "loaded (`COMPUTE_TYPE`); a warning says so.",
    )
    verbose: OptionalFlag = Field(
        None,
        description="Accepted for compatibility. It prints to a console in openai-whisper and has "
        "no effect here.",
    )
    speedup: Threshold = Field(
        None,
        ge=1,
        le=2,
        description="How much faster than recorded long audio is fed to the model, 1 to 2. Used "
        "only where it saves a window. Absent: the server's `AUDIO_SPEEDUP`.",
        examples=[1.25],
    )
    audio_context: Annotated[Literal["full", "auto"] | None, BeforeValidator(null_from_text)] = (
        Field(
            None,
            description="`full`: the model hears 30 s at a time, as openai-whisper does. `auto`: "
            "short windows are heard in a context of their own length, about twice as fast, and "
            "again in full where they fail a check. Absent: the server's `AUDIO_CONTEXT`.",
            examples=["auto"],
        )
    )
    chunking_strategy: Annotated[Literal["auto"] | None, BeforeValidator(null_from_text)] = Field(
        None,
        description="`auto`: the recording is cut into chunks of speech at pauses, by voice "
        "activity, and all of them are recognised side by side; silence is left out. Absent: one "
        "window after the other, as Whisper does.",
        examples=["auto"],
    )
    vad_threshold: Number = Field(
        0.5,
        ge=0,
        le=1,
        description="With `chunking_strategy`: speech begins where voice activity is this "
        "probable, and ends where it is 0.15 less so.",
        examples=[0.6],
    )
    vad_min_speech: Number = Field(
        0.25,
        ge=0,
        le=MAX_PAUSE,
        description="With `chunking_strategy`: what is shorter than so many seconds is no speech.",
        examples=[0.1],
    )
    vad_min_silence: Number = Field(
        0.3,
        ge=0,
        le=MAX_PAUSE,
        description="With `chunking_strategy`: seconds of silence that end speech.",
        examples=[0.5],
    )
    vad_padding: Number = Field(
        0.2,
        ge=0,
        le=MAX_PAUSE,
        description="With `chunking_strategy`: seconds left before and after speech.",
        examples=[0.3],
    )
    early_start: bool = Field(
        False,
        description="The first ten minutes of a longer recording are recognised while the rest is "
        "still being decoded, which an hour takes some seconds for. They are heard as if nothing "
        "louder came after them, where openai-whisper measures the whole recording first. No "
        "effect on jobs.",
    )
    on_hallucination: Literal["keep", "flag", "drop"] = Field(
        "keep",
        description="What becomes of segments that look made up: no voice, words over and over, "
        "credits of subtitles. `keep`: they stay, as in openai-whisper. `flag`: each segment has "
        "`hallucination`, a list of reasons, mostly empty. `drop`: they are left out.",
        examples=["flag"],
    )
    channels: Literal["mix", "split"] = Field(
        "mix",
        description="`mix`: channels are mixed down to one. `split`: each is recognised by itself, "
        "at most 8, and segments say which `channel` they are of, from 0, in the order of time. "
        "Each counts as audio of its own.",
        examples=["split"],
    )
    pcm_rate: OptionalCount = Field(
        None,
        ge=MIN_RATE,
        le=MAX_RATE,
        description="The media is raw samples (PCM) without a header: so many a second.",
        examples=[16000],
    )
    pcm_format: SampleFormat | None = Field(
        None,
        description="Of raw samples: how each is written, by FFmpeg's names. Needs `pcm_rate`. "
        "Absent: `s16le`.",
        examples=["s16le"],
    )
    pcm_channels: OptionalCount = Field(
        None,
        ge=1,
        le=MAX_CHANNELS,
        description="Of raw samples: how many channels are interleaved. Needs `pcm_rate`. "
        "Absent: 1.",
        examples=[2],
    )

    @field_validator("language")
    @classmethod
    def _known_language(cls, value: str | None) -> str | None:
        return None if value is None else _known_code(value)

    @field_validator("languages")
    @classmethod
    def _known_languages(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(dict.fromkeys(_known_code(language) for language in value))

    @field_validator("temperature")
    @classmethod
    def _not_negative(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if any(not 0 <= temperature <= 1 for temperature in value):
            raise ValueError("must lie between 0 and 1")
        if any(0 < temperature < LEAST_TEMPERATURE for temperature in value):
            raise ValueError(f"must be 0 or at least {LEAST_TEMPERATURE}")
        return value

    @field_validator("clip_timestamps")
    @classmethod
    def _clips_with_length(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if any(time < 0 for time in value):
            raise ValueError("must not be negative")
        if any(time > MAX_SECONDS for time in value):
            raise ValueError(f"must not be over {MAX_SECONDS} seconds")
        for start, end in zip(value[::2], value[1::2], strict=False):
            if end <= start:
                raise ValueError(f"clip {start:g},{end:g} ends before it begins")
        return value

    @field_validator("suppress_tokens")
    @classmethod
    def _token_ids(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if any(token < -1 for token in value):
            raise ValueError("holds token ids, or -1 for the non-speech set; not other negatives")
        if any(token > MAX_TOKEN_ID for token in value):
            raise ValueError(f"holds an id over {MAX_TOKEN_ID}, which no Whisper model has")
        return value

    @model_validator(mode="after")
    def _as_whisper_verifies(self) -> TranscribeOptions:
        """What openai-whisper raises on (decoding.py, `_verify_options`), and no more.

        `transcribe()` drops `beam_size` and `patience` above temperature 0 and `best_of` at 0.
        """
        if 0 in self.temperature and self.patience is not None:
            if self.beam_size is None:
                raise ValueError(
                    "patience needs beam_size, since it says how long beam search goes on; "
                    "give beam_size too, or leave patience out"
                )
            if round(self.beam_size * self.patience) < 1:
                raise ValueError("beam_size times patience must round to 1 or more")
        return self

    @model_validator(mode="after")
    def _raw_samples_have_a_rate(self) -> TranscribeOptions:
        if self.pcm_rate is None and (self.pcm_format is not None or self.pcm_channels is not None):
            raise ValueError(
                "raw samples do not say how many of them make a second; give pcm_rate, or rate in "
                "the Content-Type (audio/pcm;rate=16000)"
            )
        return self

    @property
    def decode_request(self) -> DecodeRequest:
        """What the decoder is asked for."""
        pcm = None
        if self.pcm_rate is not None:
            pcm = PcmFormat(self.pcm_format or "s16le", self.pcm_rate, self.pcm_channels or 1)
        return DecodeRequest(splits_channels=self.channels == "split", pcm=pcm)

    @property
    def keeps_best_failure(self) -> bool:
        """Whether `best` counts for `keep_when_all_fail`; see docs/decisions/0008."""
        if self.keep_when_all_fail is not None:
            return self.keep_when_all_fail == "best"
        return not self.model_fields_set & _LADDER_FIELDS

    @property
    def skips_non_speech(self) -> bool:
        """What counts for `skip_non_speech`; see docs/decisions/0011."""
        if self.skip_non_speech is not None:
            return self.skip_non_speech
        return not self.model_fields_set & _LADDER_FIELDS

    @property
    def starts_early(self) -> bool:
        """Whether `early_start` counts: what needs all of the recording is not asked for."""
        return self.early_start and not self._needs_all_first

    @property
    def _needs_all_first(self) -> bool:
        defaults = {name: type(self).model_fields[name].default for name in _NEED_ALL_FIRST}
        return any(getattr(self, name) not in (default, ()) for name, default in defaults.items())

    def without_effect(self) -> list[str]:
        """A sentence for each given option that cannot change the result."""
        defaults = {name: field.default for name, field in type(self).model_fields.items()}
        return [
            f"{name} {reason}"
            for name, reason in self.unused()
            if getattr(self, name) != defaults[name]
        ]

    def unused(self) -> Iterator[tuple[str, str]]:
        """The options that cannot act, given or not, each with the reason; whatever the model."""
        searches_beams = self.beam_size is not None and 0 in self.temperature
        if not any(self.temperature):
            yield "best_of", "has no effect at temperature 0 alone."
        if 0 not in self.temperature:
            yield "beam_size", "has no effect above temperature 0."
        if not searches_beams:
            yield "patience", "has no effect without beam_size at temperature 0."
        if not searches_beams and not (self.best_of and any(self.temperature)):
            yield "length_penalty", "has no effect on a single hypothesis."
        if not self.word_timestamps:
            needs_words = "has no effect without word_timestamps."
            yield "prepend_punctuations", needs_words
            yield "append_punctuations", needs_words
            yield "hallucination_silence_threshold", needs_words
        if self.chunking_strategy is None:
            for name in ("vad_threshold", "vad_min_speech", "vad_min_silence", "vad_padding"):
                yield name, "has no effect without chunking_strategy."
        if self._needs_all_first:
            needs_all = ", ".join(_NEED_ALL_FIRST)
            yield "early_start", f"has no effect with what needs all of the recording: {needs_all}."
        if self.language is not None:
            yield "languages", "has no effect with language."
        if not self.initial_prompt:
            yield "carry_initial_prompt", "has no effect without initial_prompt."
        if self.without_timestamps:
            yield "max_initial_timestamp", "has no effect without timestamps."
        yield "fp16", "is not applicable: the server's COMPUTE_TYPE decides."
        yield "verbose", "has no effect on a server: it prints to a console."

    def clips(self, content_frames: int) -> list[tuple[int, int]]:
        """Clips as (start, end) in frames of 10 ms; the whole audio when none is given.

        Source: openai/whisper, transcribe.py, `seek_clips`.
        """
        points = [round(time * 100) for time in self.clip_timestamps] or [0]
        if len(points) % 2 == 1:
            points.append(content_frames)
        return list(zip(points[::2], points[1::2], strict=True))
