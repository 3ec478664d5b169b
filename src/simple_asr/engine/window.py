"""The unit of work: one step on one window of one request, and what the model answers to it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from simple_asr.audio.features import FRAMES_PER_SECOND, N_FRAMES
from simple_asr.engine.tokens import N_TEXT_CONTEXT, Prompt

Encoded: TypeAlias = Any
"""A backend's own form of what its encoder heard; only the backend looks inside."""


@dataclass(slots=True, eq=False)
class WindowAudio:
    """One window's sound, kept for language detection, retries and word alignment.

    `log_mel` computes the spectrogram, shape (n_mels, context), when it is wanted; `encoded` is
    set by the worker after the first step, so that a window is encoded once. `num_frames` frames
    of the spectrogram hold sound; one of its seconds is `speed` seconds of the recording.
    `find_voice` tells how sure voice activity is of speech in it; the worker keeps it in `voice`.
    """

    log_mel: Callable[[], NDArray[np.float32]]
    num_frames: int
    context: int = N_FRAMES
    speed: float = 1.0
    encoded: Encoded | None = None
    find_voice: Callable[[], float] | None = None
    voice: float = 1.0

    @property
    def duration(self) -> float:
        """Seconds of the spectrogram that hold sound."""
        return self.num_frames / FRAMES_PER_SECOND

    @property
    def is_exact(self) -> bool:
        """Heard as openai-whisper hears it: at true speed, and in a context of 30 s."""
        return self.speed == 1.0 and self.context == N_FRAMES


@dataclass(frozen=True, slots=True)
class SearchOptions:
    """How the decoder searches; all windows of one model call share them.

    `num_hypotheses` are returned ranked by nothing in particular: at temperature 0 the finished
    beams, above it the samples. Greedy is one beam at temperature 0.
    """

    temperature: float
    beam_size: int
    patience: float
    num_hypotheses: int
    max_new_tokens: int
    suppress_tokens: tuple[int, ...]
    suppress_blank: bool
    max_initial_timestamp_index: int


@dataclass(frozen=True, slots=True)
class DetectLanguage:
    """Which language is spoken."""


@dataclass(frozen=True, slots=True)
class Decode:
    """Write what is said."""

    prompt: Prompt
    search: SearchOptions

    @property
    def max_new_tokens(self) -> int:
        """Those of `search`, as far as the prompt leaves room: with much text before, 222 of 224.

        The last token is written and not read, so it needs no room. Source: openai/whisper,
        decoding.py, `_main_loop`: `tokens.shape[-1] > self.n_ctx`.
        """
        return min(self.search.max_new_tokens, N_TEXT_CONTEXT + 1 - len(self.prompt.tokens))


@dataclass(frozen=True, slots=True)
class Align:
    """When each of `text_tokens` was said, after the tokens that started the transcript."""

    start_sequence: tuple[int, ...]
    text_tokens: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class FindVoice:
    """Whether anybody speaks at all; asked of voice activity, not of the model."""


Step: TypeAlias = DetectLanguage | Decode | Align | FindVoice


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """`tokens` without prompt, prefix and end; `sum_logprob` counts the end if written."""

    tokens: tuple[int, ...]
    sum_logprob: float


@dataclass(frozen=True, slots=True)
class Detected:
    """Probability of each language code; they add up to 1."""

    probabilities: dict[str, float]


@dataclass(frozen=True, slots=True)
class Decoded:
    """At least one hypothesis, and the probability that nobody speaks in the window."""

    hypotheses: tuple[Hypothesis, ...]
    no_speech_prob: float


@dataclass(frozen=True, slots=True)
class Aligned:
    """The path through (token, encoder frame of 20 ms), and each token's probability."""

    token_indices: NDArray[np.int64]
    frame_indices: NDArray[np.int64]
    token_probabilities: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Voice:
    """How sure voice activity is that somebody speaks in the window, 0 to 1."""

    probability: float


Answer: TypeAlias = Detected | Decoded | Aligned | Voice


class Priority(IntEnum):
    """Whose windows go first: somebody speaks, somebody waits, nobody waits."""

    LIVE = 0
    INTERACTIVE = 1
    BACKGROUND = 2


class Rank(IntEnum):
    """Which windows pass which between two tokens: a voice note, say, those of a meeting.

    An opening is a recording's first window, or any of a recording that is no longer than one.
    """

    LIVE = 0
    OPENING = 1
    LATER = 2
    BACKGROUND = 3


@dataclass(frozen=True, slots=True)
class BatchKey:
    """Windows with equal keys may share one model call. `context` is that of their audio.

    In CTranslate2 a `generate` call shares its search options, needs start-of-transcript at one
    position and as many task tokens in every row; an `align` call shares its start sequence.
    Language and task may differ between the rows of a `generate` call.
    """

    kind: type[Step]
    context: int
    shared: tuple[object, ...] = ()


@dataclass(slots=True, eq=False)
class Window:
    """One step to take on one window. `owner` is the request, told apart by identity.

    All windows of one owner have one priority.
    """

    owner: object
    audio: WindowAudio
    step: Step
    priority: Priority = Priority.INTERACTIVE
    is_opening: bool = False
    key: BatchKey = field(init=False)

    def __post_init__(self) -> None:
        self.key = BatchKey(type(self.step), self.audio.context, shared_by_batch(self.step))

    @property
    def rank(self) -> Rank:
        if self.priority == Priority.INTERACTIVE:
            return Rank.OPENING if self.is_opening else Rank.LATER
        return Rank.LIVE if self.priority == Priority.LIVE else Rank.BACKGROUND


def shared_by_batch(step: Step) -> tuple[object, ...]:
    """What a step must have in common with the others of its model call."""
    match step:
        case DetectLanguage() | FindVoice():
            return ()
        case Decode(prompt, search):
            return (
                search,
                prompt.sot_position,
                # Their number also tells whether timestamps are written.
                prompt.num_task_tokens,
                prompt.num_prefix_tokens,
            )
        case Align(start_sequence, _):
            return (start_sequence,)
