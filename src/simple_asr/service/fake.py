"""A transcriber without a model: answers at once, and remembers what it was asked."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator
from dataclasses import dataclass, replace
from pathlib import Path

from simple_asr.engine.options import TranscribeOptions
from simple_asr.engine.window import Priority
from simple_asr.errors import (
    AsrError,
    EmptyMedia,
    ModelInUse,
    ModelNotFound,
    ModelNotReady,
    Overloaded,
)
from simple_asr.service.labels import label
from simple_asr.service.models import PLACES, ListedModel, ModelPlace, goes_by
from simple_asr.service.transcriber import ModelState
from simple_asr.transcript.events import Checkpoint, Done, Event, Progress, SegmentDone
from simple_asr.transcript.model import Effective, Processing, Segment, Transcript

TRANSCRIPT = Transcript(
    text=" Привет, как дела?",
    segments=(
        Segment(
            id=0,
            seek=0,
            start=0.0,
            end=2.5,
            text=" Привет, как дела?",
            tokens=(50364, 21404, 11, 3014, 35596, 30, 50489),
            temperature=0.0,
            avg_logprob=-0.25,
            compression_ratio=0.9,
            no_speech_prob=0.01,
        ),
    ),
    language="ru",
    duration=2.5,
    model="turbo",
)
# What goes with it when it was asked of a transcriber.
PROCESSING = Processing(queue=0.25, decode=0.5, recognise=0.75)
EFFECTIVE = {"language": Effective("ru")}


@dataclass(frozen=True, slots=True)
class Asked:
    """One call: where the media lay, what was in it, and the options."""

    media: Path
    content: bytes
    options: TranscribeOptions


class FakeTranscriber:
    """Behaves as a Transcriber should, with `transcript` for every answer.

    Set `error` to have it raised, `is_full` to have no room, `is_stuck` to have no answer ever
    come; `late_error` and `is_stuck_late` are the same after the first segment. `started` and
    `ended` tell of the last call, across threads; `checkpoints` are what each was to go on from,
    `priorities` whose turn it was. Refuses what the real one refuses before it decodes.
    """

    def __init__(self, transcript: Transcript = TRANSCRIPT) -> None:
        self.transcript = transcript
        self.others = {
            "tiny": ListedModel("tiny", "local", 75_538_270),
            "small": ListedModel("small", "known", 483_546_902, is_here=False),
        }
        self.state = ModelState("ready", requested="turbo", served="turbo")
        self.is_full = False
        self.error: AsrError | Exception | None = None
        self.late_error: AsrError | Exception | None = None
        self.is_stuck = False
        self._stuck: tuple[asyncio.AbstractEventLoop, asyncio.Event] | None = None
        self.is_stuck_late = False
        self.asked: list[Asked] = []
        self.can_go_on = True
        self.checkpoints: list[Checkpoint | None] = []
        self.priorities: list[Priority] = []
        self.started = threading.Event()
        self.ended = threading.Event()

    def free(self) -> None:
        """Lets a call that is stuck go on, from any thread."""
        assert self._stuck is not None, "A call is stuck"
        loop, event = self._stuck
        loop.call_soon_threadsafe(event.set)

    @property
    def model_state(self) -> ModelState:
        return self.state

    async def events(
        self,
        media: Path,
        options: TranscribeOptions,
        checkpoint: Checkpoint | None = None,
        priority: Priority = Priority.INTERACTIVE,
    ) -> AsyncGenerator[Event, None]:
        self.started.set()
        try:
            self.checkpoints.append(checkpoint)
            self.priorities.append(priority)
            await self._admit(media, options)
            if self.is_stuck:
                self._stuck = asyncio.get_running_loop(), asyncio.Event()
                await self._stuck[1].wait()
            duration = self.transcript.duration
            known = checkpoint.segments if checkpoint and self.can_go_on else ()
            if not known:
                yield Progress(0.0, duration)
            for segment in self.transcript.segments[len(known) :]:
                yield SegmentDone(segment)
                yield Progress(min(segment.end, duration), duration)
                if self.is_stuck_late:
                    await asyncio.Event().wait()
                if self.late_error is not None:
                    raise self.late_error
            warnings = (*self.transcript.warnings, *options.without_effect())
            yield Done(
                replace(
                    self.transcript,
                    warnings=warnings,
                    processing=PROCESSING,
                    parameters=EFFECTIVE,
                )
            )
        finally:
            self.ended.set()

    async def transcribe(self, media: Path, options: TranscribeOptions) -> Transcript:
        async for event in self.events(media, options):
            if isinstance(event, Done):
                return event.transcript
        raise AssertionError("events ends with Done")

    def check_room(self) -> None:
        if self.is_full:
            raise Overloaded("There is no room.", retry_after=5)

    def models(self) -> list[ListedModel]:
        state = PLACES[self.state.status]
        default = ListedModel(self.state.served, state, 1_617_884_929, is_default=True)
        return [default, *self.others.values()]

    def find(self, name: str) -> ListedModel:
        if goes_by(name, self.state):
            return self.models()[0]
        if name in self.others:
            return self.others[name]
        raise ModelNotFound(f"There is no model '{label(name)}'.", field="model")

    def load(self, name: str) -> ListedModel:
        return self._put(name, "loading")

    def unload(self, name: str) -> ListedModel:
        if goes_by(name, self.state):
            raise ModelInUse("The default model stays loaded.")
        return self._put(name, "local")

    def _put(self, name: str, state: ModelPlace) -> ListedModel:
        found = self.find(name)
        if not found.is_default:
            self.others[name] = found = replace(found, state=state)
        return found

    async def _admit(self, media: Path, options: TranscribeOptions) -> None:
        content = await asyncio.to_thread(media.read_bytes)
        self.asked.append(Asked(media, content, options))
        if self.error is not None:
            raise self.error
        if options.model is not None:
            self.find(options.model)
        if self.state.status != "ready":
            raise ModelNotReady(f"The model {self.state.served} is not ready.", retry_after=5)
        if not content:
            raise EmptyMedia("The file is empty.")
