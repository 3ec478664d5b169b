"""Search after a prefix, by Whisper's rules for timestamps.

CTranslate2 knows these rules, but after a prefix it begins them a token late: it does not make the
first token a timestamp, and forgets that one in what follows. Here the first tokens are chosen one
by one, each in a call of its own, until the library's rules say the same as Whisper's; from there
it writes the rest. It tells the likeliest of the tokens it may write, and no other probability:
that suffices. Pure but for `decode`, which is the model.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from simple_asr.engine.rules import Rules
from simple_asr.engine.tokens import Tokenizer
from simple_asr.engine.window import Decode, Decoded, Hypothesis, SearchOptions

DecodeOne = Callable[[Decode], Decoded]
"""The model on one window, its rules for timestamps blind to all that the prompt holds."""


@dataclass(frozen=True, slots=True)
class _Drawn:
    """A token, and the log of its probability among those allowed."""

    token: int
    logprob: float


def decode_after_prefix(decode: DecodeOne, tokenizer: Tokenizer, step: Decode) -> Decoded:
    """What follows the prefix of `step`, with timestamps.

    Exact for greedy search and for sampling. Beams begin at the first word: the tokens before it
    are the likeliest, while openai-whisper searches them too.
    """
    search = _Search(decode, tokenizer, step)
    is_sampling = step.search.temperature > 0
    runs = [search.run() for _ in range(step.search.num_hypotheses if is_sampling else 1)]
    return Decoded(
        hypotheses=tuple(hypothesis for run in runs for hypothesis in run),
        no_speech_prob=search.no_speech_prob,
    )


class _Search:
    """Asks the model about one window."""

    def __init__(self, decode: DecodeOne, tokenizer: Tokenizer, step: Decode) -> None:
        self._decode = decode
        self._step = step
        self._rules = Rules(tokenizer, step)
        self.no_speech_prob = 0.0

    def run(self) -> list[Hypothesis]:
        """One sample, or at temperature 0 every beam that ended."""
        written: list[int] = []
        sum_logprob = 0.0
        while len(written) < self._step.max_new_tokens:
            forbidden = self._forbidden(written)
            must_be_timestamp = self._rules.weigh_timestamps(
                written
            ) and self._timestamps_outweigh_text(written, forbidden)
            if must_be_timestamp:
                forbidden = [*forbidden, *self._rules.text]
            drawn = self._draw(written, forbidden, self._step.search.temperature)
            follows_text = bool(written) and self._rules.is_text(written[-1])
            if follows_text and self._rules.is_text(drawn.token):
                # Text after text: from here on the library's rules are Whisper's.
                return [
                    Hypothesis((*written, *rest.tokens), sum_logprob + rest.sum_logprob)
                    for rest in self._rest(written, forbidden)
                ]
            sum_logprob += drawn.logprob
            if drawn.token == self._rules.eot:
                break
            written.append(drawn.token)
        return [Hypothesis(tuple(written), sum_logprob)]

    def _forbidden(self, written: Sequence[int]) -> list[int]:
        """What may not follow, before timestamps are weighed against text."""
        logits = np.zeros(self._rules.timestamps.stop, np.float32)
        self._rules.forbid(logits, written)
        return [int(token) for token in np.flatnonzero(np.isneginf(logits))]

    def _timestamps_outweigh_text(self, written: Sequence[int], forbidden: list[int]) -> bool:
        """Whether all timestamps together are likelier than the likeliest other token.

        Source: openai/whisper, decoding.py, end of `ApplyTimestampRules.apply`. The share of text
        is known by how much likelier its likeliest token becomes when there are no timestamps.
        """
        likeliest = self._draw(written, forbidden, temperature=0.0)
        if not self._rules.is_text(likeliest.token):
            return True
        no_timestamps = [*forbidden, *self._rules.timestamps]
        among_text = self._draw(written, no_timestamps, temperature=0.0)
        share_of_timestamps = -math.expm1(likeliest.logprob - among_text.logprob)
        return share_of_timestamps > math.exp(likeliest.logprob)

    def _draw(self, written: Sequence[int], forbidden: Sequence[int], temperature: float) -> _Drawn:
        """One allowed token: the likeliest, or above temperature 0 any."""
        search = replace(
            self._step.search,
            max_new_tokens=1,
            temperature=temperature,
            beam_size=1,
            patience=1.0,
            num_hypotheses=1,
        )
        (hypothesis,) = self._go_on(written, forbidden, search)
        token = hypothesis.tokens[0] if hypothesis.tokens else self._rules.eot
        return _Drawn(token, hypothesis.sum_logprob)

    def _rest(self, written: Sequence[int], forbidden: Sequence[int]) -> list[Hypothesis]:
        """What follows, given that it begins with text: the library cannot follow up a timestamp.

        A sample that does not is drawn again, most often once: text outweighs timestamps here.
        """
        is_sampling = self._step.search.temperature > 0
        search = replace(
            self._step.search,
            max_new_tokens=self._step.max_new_tokens - len(written),
            num_hypotheses=1 if is_sampling else self._step.search.num_hypotheses,
        )
        while True:
            ends = self._go_on(written, forbidden, search)
            fitting = [end for end in ends if not end.tokens or self._rules.is_text(end.tokens[0])]
            if fitting or not is_sampling:
                return fitting or list(ends)

    def _go_on(
        self, written: Sequence[int], forbidden: Sequence[int], search: SearchOptions
    ) -> Sequence[Hypothesis]:
        """What the model writes after `written`, without the tokens forbidden."""
        prompt = replace(self._step.prompt, tokens=(*self._step.prompt.tokens, *written))
        # Its rule for blanks is for a window's first token, which is a timestamp here anyway.
        search = replace(search, suppress_tokens=tuple(forbidden), suppress_blank=False)
        decoded = self._decode(Decode(prompt, search))
        self.no_speech_prob = decoded.no_speech_prob
        return decoded.hypotheses
