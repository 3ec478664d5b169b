"""Whisper's vocabulary: text to tokens and back, prompts, and timestamp tokens to segments."""

from __future__ import annotations

import json
import string
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import tokenizers

from simple_asr.engine.options import TranscribeOptions
from simple_asr.errors import InvalidParameter, ModelUnavailable
from simple_asr.transcript.languages import LANGUAGES

N_TEXT_CONTEXT = 448
"""Tokens the decoder can see: prompt and answer together."""

MAX_PROMPT_TOKENS = N_TEXT_CONTEXT // 2 - 1
# All but start, language, task and the token for no timestamps.
MAX_PREFIX_TOKENS = N_TEXT_CONTEXT - 4
SECONDS_PER_TIMESTAMP = 0.02
LAST_TIMESTAMP = 1500

# Languages written without spaces between words. Source: openai/whisper, split_to_word_tokens.
_UNSPACED_LANGUAGES = frozenset({"zh", "ja", "th", "lo", "my", "yue"})
_UNDECODABLE = "\ufffd"


class Tokenizer:
    """Whisper's tokenizer, the same for every language and task of one model.

    Follows openai/whisper, tokenizer.py. Immutable, so any thread may use it.
    """

    def __init__(self, encoding: tokenizers.Tokenizer) -> None:
        self._encoding = encoding
        # `<|…|>` in a caller's prompt is text like any other, never an instruction to the decoder.
        encoding.encode_special_tokens = True
        self.eot = self._id("<|endoftext|>")
        self.sot = self._id("<|startoftranscript|>")
        self.translate = self._id("<|translate|>")
        self.transcribe = self._id("<|transcribe|>")
        self.sot_lm = self._id("<|startoflm|>")
        self.sot_prev = self._id("<|startofprev|>")
        self.no_speech = self._id("<|nospeech|>", "<|nocaptions|>")
        self.no_timestamps = self._id("<|notimestamps|>")
        self.timestamp_begin = self.no_timestamps + 1

    @classmethod
    def from_folder(cls, folder: Path) -> Tokenizer:
        """The tokenizer beside a model's weights. Raises ModelUnavailable if it is unreadable."""
        path = folder / "tokenizer.json"
        try:
            return cls(tokenizers.Tokenizer.from_str(_with_every_merge(path.read_text("utf-8"))))
        except Exception as error:  # the library raises bare Exception
            raise ModelUnavailable(
                f"The model in {folder} has no readable tokenizer.json ({error}). "
                "Download the model again, or add the file of the model it was made from."
            ) from error

    def _id(self, *spellings: str) -> int:
        for token in spellings:
            token_id = self._encoding.token_to_id(token)
            if token_id is not None:
                return token_id
        raise ModelUnavailable(f"The tokenizer has no {spellings[0]}: it is not a Whisper model's.")

    def encode(self, text: str) -> list[int]:
        """Token ids of `text`; special tokens in it are read as plain text."""
        return list(self._encoding.encode(text, add_special_tokens=False).ids)

    def decode(self, tokens: Sequence[int]) -> str:
        """Text of `tokens`, timestamps left out."""
        text_tokens = [token for token in tokens if token < self.timestamp_begin]
        return self._encoding.decode(text_tokens, skip_special_tokens=False)

    def is_timestamp(self, token: int) -> bool:
        return token >= self.timestamp_begin

    def language_token(self, language: str) -> int | None:
        """The token of a language code; None when this model does not know the language."""
        token_id = self._encoding.token_to_id(f"<|{language}|>")
        return token_id if token_id is not None and token_id > self.eot else None

    @cached_property
    def languages(self) -> tuple[str, ...]:
        """Codes of the languages in this vocabulary: 99, or 100 since large-v3."""
        return tuple(code for code in LANGUAGES if self.language_token(code) is not None)

    @cached_property
    def non_speech_tokens(self) -> tuple[int, ...]:
        """Tokens of speaker tags, notes and brackets: things written that are not spoken.

        Source: openai/whisper, tokenizer.py, `non_speech_tokens`, with its symbols.
        """
        symbols = list('"#()*+/:;<=>@[\\]^_`{|}~「」『』')
        symbols += "<< >> <<< >>> -- --- -( -[ (' (\" (( )) ((( ))) [[ ]] {{ }} ♪♪ ♪♪♪".split()
        # Of these the first of several tokens is suppressed: U+2640 to U+267F share it, and none
        # of them is spoken.
        miscellaneous = set("♩♪♫♬♭♮♯")
        # A hyphen or quote may stand inside a word, not before one.
        result = {self.encode(" -")[0], self.encode(" '")[0]}
        for symbol in [*symbols, *miscellaneous]:
            for tokens in (self.encode(symbol), self.encode(" " + symbol)):
                if len(tokens) == 1 or symbol in miscellaneous:
                    result.add(tokens[0])
        return tuple(sorted(result))

    def split_to_word_tokens(
        self, tokens: Sequence[int], language: str
    ) -> tuple[list[str], list[list[int]]]:
        """Words and the tokens of each; in unspaced languages every character is a word.

        Source: openai/whisper, tokenizer.py, `split_to_word_tokens`.
        """
        characters, character_tokens = self._split_on_characters(tokens)
        if language in _UNSPACED_LANGUAGES:
            return characters, character_tokens
        return self._join_on_spaces(characters, character_tokens)

    def _split_on_characters(self, tokens: Sequence[int]) -> tuple[list[str], list[list[int]]]:
        """The smallest runs of tokens that decode to whole characters."""
        whole_text = self._encoding.decode(list(tokens), skip_special_tokens=False)
        words: list[str] = []
        word_tokens: list[list[int]] = []
        run: list[int] = []
        offset = 0
        for token in tokens:
            run.append(token)
            decoded = self._encoding.decode(run, skip_special_tokens=False)
            broken_at = decoded.find(_UNDECODABLE)
            # The mark may also be what was really written.
            if broken_at < 0 or whole_text[offset + broken_at : offset + broken_at + 1] == (
                _UNDECODABLE
            ):
                words.append(decoded)
                word_tokens.append(run)
                run = []
                offset += len(decoded)
        return words, word_tokens

    def _join_on_spaces(
        self, subwords: list[str], subword_tokens: list[list[int]]
    ) -> tuple[list[str], list[list[int]]]:
        words: list[str] = []
        word_tokens: list[list[int]] = []
        for subword, tokens in zip(subwords, subword_tokens, strict=True):
            is_special = tokens[0] >= self.eot
            is_punctuation = subword.strip() in string.punctuation
            if is_special or subword.startswith(" ") or is_punctuation or not words:
                words.append(subword)
                word_tokens.append(list(tokens))
            else:
                words[-1] += subword
                word_tokens[-1].extend(tokens)
        return words, word_tokens


def _with_every_merge(tokenizer_json: str) -> str:
    """The tokenizer with the merge that its file has lost.

    In the files published for multilingual models the first merge, of a space and `t`, is missing:
    there are 49,999 for 50,000 tokens. By them ` the` is written as ` ` and `the`, two tokens the
    model has hardly ever seen in a row, so a prompt in English confuses it.
    """
    document = json.loads(tokenizer_json)
    merges = document["model"]["merges"]
    # The format writes a merge as a pair or, before tokenizers 0.20, as a string.
    lost_merge = ["Ġ", "t"] if isinstance(merges[0], list) else "Ġ t"
    if lost_merge in merges:
        return tokenizer_json
    merges.insert(0, lost_merge)
    return json.dumps(document)


def sot_sequence(tokenizer: Tokenizer, language: str | None, task: str) -> tuple[int, ...]:
    """The tokens that start a transcript. `language` None: an English-only model.

    Source: openai/whisper, tokenizer.py, `sot_sequence`.
    """
    if language is None:
        return (tokenizer.sot,)
    language_token = tokenizer.language_token(language)
    assert language_token is not None, f"The door let through the language {language!r}"
    task_token = tokenizer.translate if task == "translate" else tokenizer.transcribe
    return (tokenizer.sot, language_token, task_token)


@dataclass(frozen=True, slots=True)
class Prompt:
    """What the decoder is given before it writes.

    `tokens` are previous text, start of transcript, and prefix; `sot_position` is the index of
    `<|startoftranscript|>`, `num_task_tokens` counts it and what follows up to the prefix.
    """

    tokens: tuple[int, ...]
    sot_position: int
    num_task_tokens: int

    @property
    def num_prefix_tokens(self) -> int:
        return len(self.tokens) - self.sot_position - self.num_task_tokens


def build_prompt(
    tokenizer: Tokenizer,
    options: TranscribeOptions,
    language: str | None,
    previous: Sequence[int],
) -> Prompt:
    """The prompt of one window, given the tokens said before it.

    Source: openai/whisper, decoding.py, `_get_initial_tokens`; where text before and prefix exceed
    the context, openai-whisper raises in the middle of a file, and here the former gives way.
    """
    task = list(sot_sequence(tokenizer, language, options.task))
    if options.without_timestamps:
        task.append(tokenizer.no_timestamps)
    prefix = prefix_tokens(tokenizer, options)
    room = min(MAX_PROMPT_TOKENS, N_TEXT_CONTEXT - len(task) - len(prefix) - 1)
    said = previous[max(0, len(previous) - room) :] if room > 0 else ()
    context = [tokenizer.sot_prev, *said] if said else []
    return Prompt(
        tokens=(*context, *task, *prefix),
        sot_position=len(context),
        num_task_tokens=len(task),
    )


def initial_prompt_tokens(tokenizer: Tokenizer, options: TranscribeOptions) -> list[int]:
    """Tokens of `initial_prompt`; none without it. Source: openai/whisper, transcribe.py."""
    if options.initial_prompt is None:
        return []
    return tokenizer.encode(" " + options.initial_prompt.strip())


def prefix_tokens(tokenizer: Tokenizer, options: TranscribeOptions) -> list[int]:
    """Tokens of `prefix`. With `sample_len` S only the last 224 - S count; with 224, all of them.

    Source: openai/whisper, decoding.py, `_get_initial_tokens`: `prefix_tokens[-max_prefix_len:]`,
    where a length of 0 keeps everything.
    """
    if not options.prefix:
        return []
    tokens = tokenizer.encode(" " + options.prefix.strip())
    longest = N_TEXT_CONTEXT // 2 - (options.sample_len or N_TEXT_CONTEXT // 2)
    return tokens[-longest:]


def check_prefix(tokenizer: Tokenizer, options: TranscribeOptions) -> None:
    """Raises InvalidParameter for a prefix that fills the context, where openai-whisper fails."""
    num_tokens = len(prefix_tokens(tokenizer, options))
    if num_tokens > MAX_PREFIX_TOKENS:
        raise InvalidParameter(
            f"prefix is {num_tokens} tokens long, and the model takes {MAX_PREFIX_TOKENS}. "
            "Shorten it, or give text said before as initial_prompt.",
            field="prefix",
        )


def suppressed_tokens(tokenizer: Tokenizer, options: TranscribeOptions) -> tuple[int, ...]:
    """Token ids that may not be written.

    Source: openai/whisper, decoding.py, `_get_suppress_tokens`; an empty list suppresses nothing.
    Ids beyond this model's vocabulary, which cannot be written anyhow, are left out: CTranslate2
    would write out of bounds.
    """
    if not options.suppress_tokens:
        return ()
    last_token = tokenizer.timestamp_begin + LAST_TIMESTAMP
    suppressed = {token for token in options.suppress_tokens if 0 <= token <= last_token}
    if -1 in options.suppress_tokens:
        suppressed.update(tokenizer.non_speech_tokens)
    suppressed.update(
        (
            tokenizer.transcribe,
            tokenizer.translate,
            tokenizer.sot,
            tokenizer.sot_prev,
            tokenizer.sot_lm,
            tokenizer.no_speech,
        )
    )
    return tuple(sorted(suppressed))


@dataclass(frozen=True, slots=True)
class Slice:
    """A segment in its window: `start` and `end` in seconds of the window's spectrogram."""

    start: float
    end: float
    tokens: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Slices:
    """How a window's tokens fall into segments, and how far the next window is.

    `advance` is in seconds of the window's spectrogram; None means the whole window.
    """

    slices: tuple[Slice, ...]
    advance: float | None
    ends_with_single_timestamp: bool


def split_at_timestamps(
    tokenizer: Tokenizer, tokens: Sequence[int], window_duration: float
) -> Slices:
    """Segments between pairs of timestamp tokens; `window_duration` is in seconds.

    Text after the last pair is unfinished and left to the next window, unless the window ends with
    a single timestamp, which says that no speech follows it. Source: openai/whisper,
    transcribe.py, from `timestamp_tokens` on.
    """
    begin = tokenizer.timestamp_begin
    are_timestamps = [tokenizer.is_timestamp(token) for token in tokens]
    single_ending = are_timestamps[-2:] == [False, True]
    cuts = [
        index
        for index in range(1, len(tokens))
        if are_timestamps[index - 1] and are_timestamps[index]
    ]
    if not cuts:
        return Slices((_whole_window(tokenizer, tokens, window_duration),), None, single_ending)
    if single_ending:
        cuts.append(len(tokens))
    slices = tuple(
        Slice(
            start=(tokens[first] - begin) * SECONDS_PER_TIMESTAMP,
            end=(tokens[last - 1] - begin) * SECONDS_PER_TIMESTAMP,
            tokens=tuple(tokens[first:last]),
        )
        for first, last in zip([0, *cuts[:-1]], cuts, strict=True)
    )
    advance = None if single_ending else (tokens[cuts[-1] - 1] - begin) * SECONDS_PER_TIMESTAMP
    return Slices(slices, advance, single_ending)


def _whole_window(tokenizer: Tokenizer, tokens: Sequence[int], window_duration: float) -> Slice:
    """One segment from the window's start to its last timestamp, or to its end."""
    timestamps = [token for token in tokens if tokenizer.is_timestamp(token)]
    end = window_duration
    if timestamps and timestamps[-1] != tokenizer.timestamp_begin:
        end = (timestamps[-1] - tokenizer.timestamp_begin) * SECONDS_PER_TIMESTAMP
    return Slice(0.0, end, tuple(tokens))
