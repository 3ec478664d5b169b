"""Small parts that several tests are made of."""

from __future__ import annotations

import queue
import secrets
import socket
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simple_asr.engine.tokens import Prompt, Tokenizer
from simple_asr.engine.window import Decode, SearchOptions
from simple_asr.errors import AsrError
from simple_asr.service.addresses import AddressRules
from simple_asr.service.database import DATABASE_FILE, sqlite_url
from simple_asr.service.downloads import Downloads
from simple_asr.service.outgoing import DownloadLimits, Outgoing
from simple_asr.service.webhook_sender import WebhookSender
from simple_asr.transcript.events import Done, Event
from simple_asr.transcript.model import Transcript

WAIT = 120
"""Seconds after which a test gives up on an event: far more than any of them takes."""


# Downloads of nothing, from nowhere, and nobody to be told.
NO_DOWNLOADS = Downloads(Outgoing(AddressRules()), DownloadLimits(max_bytes=0), is_enabled=False)
NO_WEBHOOKS = WebhookSender(Outgoing(AddressRules()))


def free_port() -> int:
    """A port of loopback that nobody has, and that the system gives nobody who asks for any.

    Those it gives begin at 32768 on Linux and at 49152 elsewhere. What asks for a port must have it
    still when it has started, however many tests run beside it.
    """
    while True:
        port = secrets.choice(range(20_000, 32_768))
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


def database_in(folder: Path) -> str:
    """The address of the database that a server has in this folder of its jobs."""
    return sqlite_url(folder / DATABASE_FILE)


@dataclass(frozen=True)
class Clip:
    """A recording and what is said in it."""

    path: Path
    language: str
    text: str


class Silence:
    """So many seconds of it, as samples."""

    def __init__(self, seconds: float) -> None:
        self.num_samples = int(seconds * 16_000)

    def read(self, start: int, stop: int) -> NDArray[np.float32]:
        return np.zeros(stop - start, np.float32)


class Noise:
    """So many seconds of hiss, but for the stretches of `silent`, in seconds."""

    def __init__(self, seconds: float, silent: Sequence[tuple[float, float]] = ()) -> None:
        self.num_samples = int(seconds * 16_000)
        self.channels = [self]
        self._waveform = np.random.default_rng(1).normal(0, 0.05, self.num_samples)
        for start, end in silent:
            self._waveform[int(start * 16_000) : int(end * 16_000)] = 0

    def read(self, start: int, stop: int) -> NDArray[np.float32]:
        read = np.zeros(stop - start, np.float32)
        found = self._waveform[max(0, start) : stop]
        read[max(0, -start) : max(0, -start) + len(found)] = found
        return read


def hiss(seconds: float) -> bytes:
    """As long, as 16-bit samples at 16 kHz: sound in which a fake model may hear things."""
    samples = np.random.default_rng(1).integers(-2000, 2000, int(seconds * 16_000))
    return samples.astype("<i2").tobytes()


def decode_step(tokenizer: Tokenizer, language: int = 0, prefix: str = "", **search: Any) -> Decode:
    """Greedy decoding of a window in a language by its number, with `search` in place of that."""
    prompt = (tokenizer.sot, tokenizer.sot + 1 + language, tokenizer.transcribe)
    greedy = SearchOptions(
        temperature=0.0,
        beam_size=1,
        patience=1.0,
        num_hypotheses=1,
        max_new_tokens=30,
        suppress_tokens=(),
        suppress_blank=True,
        max_initial_timestamp_index=50,
    )
    tokens = (*prompt, *tokenizer.encode(prefix))
    return Decode(Prompt(tokens, sot_position=0, num_task_tokens=3), replace(greedy, **search))


@dataclass
class Caller:
    """A listener that keeps what it is told."""

    events: list[Event] = field(default_factory=list)
    ends: queue.Queue[Transcript | AsrError] = field(default_factory=queue.Queue)

    def __call__(self, event: Event | AsrError) -> None:
        if isinstance(event, AsrError):
            self.ends.put(event)
            return
        self.events.append(event)
        if isinstance(event, Done):
            self.ends.put(event.transcript)

    def transcript(self) -> Transcript:
        """Waits for it; raises the error that came instead."""
        end = self.ends.get(timeout=WAIT)
        if isinstance(end, AsrError):
            raise end
        return end
