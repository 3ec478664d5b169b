"""Media and options in, a transcript or its events out: the seam every door goes through."""

from __future__ import annotations

import asyncio
import logging
import math
import threading
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from simple_asr.audio import SAMPLE_RATE
from simple_asr.audio.features import FRAMES_PER_SECOND, HOP_LENGTH, N_FRAMES, LogMel, Samples
from simple_asr.audio.speech import Span, SpeechDetector, SpeechRules, chunks
from simple_asr.engine.backends.base import Backend
from simple_asr.engine.channels import ChannelMerge
from simple_asr.engine.engine import (
    Engine,
    Listener,
    OnCall,
    Queue,
    engine_lost,
    tell_no_one,
    warm_up,
)
from simple_asr.engine.hallucination import HallucinationReview
from simple_asr.engine.options import TranscribeOptions
from simple_asr.engine.parts import WHOLE, Part
from simple_asr.engine.request import Outcome, Request
from simple_asr.engine.seek_loop import FindVoiceBetween, Shortcuts
from simple_asr.engine.tuning import give_back_memory
from simple_asr.engine.watch import CallWatch
from simple_asr.engine.window import Priority
from simple_asr.errors import AsrError, ModelNotReady
from simple_asr.service.backlog import Backlog
from simple_asr.service.decoding import DecodedAudio, Decoder, Decoding
from simple_asr.service.idleness import Idleness
from simple_asr.service.receipt import effective_options
from simple_asr.service.stopwatch import Stopwatch
from simple_asr.transcript.events import Checkpoint, Done, Event, Progress, SegmentDone
from simple_asr.transcript.model import Segment, Transcript

logger = logging.getLogger(__name__)

# How often the engine is looked after.
WATCH_SECONDS = 1.0
# Long enough that who dictates sentence after sentence does not wait for memory to be had again.
IDLE_SECONDS = 10.0
WINDOW_SECONDS = N_FRAMES / FRAMES_PER_SECOND


@dataclass(frozen=True, slots=True)
class ModelState:
    """`ready` only after one real inference. `served` differs from `requested` on a fallback.

    After `ready` may come `restarting`, which nothing follows in this process: its engine answers
    no more. `reason` is a sentence for the operator: why it is what it is.
    """

    status: Literal["loading", "ready", "failed", "restarting"]
    requested: str
    served: str
    reason: str = ""

    @property
    def is_degraded(self) -> bool:
        """Another model than the one asked for is served."""
        return self.status == "ready" and self.served != self.requested


# Reasons name folders and hosts, and are for the log.
_NOT_READY = {
    "loading": "The model is being loaded. Send the request again shortly.",
    "ready": "The model is about to be ready. Send the request again shortly.",
    "failed": "The model could not be loaded; the server's log has the reason. Tell the operator.",
}


class Transcriber(Protocol):
    """What the doors know of speech recognition."""

    @property
    def model_state(self) -> ModelState:
        """The state now; never waits."""
        ...

    def events(self, media: Path, options: TranscribeOptions) -> AsyncIterator[Event]:
        """Progress and segments as they come, then Done. Closing the iterator cancels the work.

        Raises MediaError, InvalidParameter, Unavailable, StorageFull, EngineFailed.
        """
        ...

    async def transcribe(self, media: Path, options: TranscribeOptions) -> Transcript:
        """The finished transcript; raises as `events` does. Cancelling the task cancels it."""
        ...


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """Replicas of one model, ready to work; `reason` tells why it is not the one asked for."""

    backends: Sequence[Backend]
    reason: str = ""


class LocalTranscriber:
    """Decodes in child processes and recognises on this machine's model replicas.

    Loading runs in a thread of its own, so that the doors answer meanwhile. That thread sets
    `_engine`, `_model`, `_speech` and `_state`, each once, as whole objects; `_lock` orders that
    against `close`. Then it looks after the engine: a state of `restarting` is its last word.
    """

    def __init__(
        self,
        decoder: Decoder,
        load: Callable[[], LoadedModel],
        *,
        model_name: str,
        shortcuts: Shortcuts,
        max_batch_size: int,
        max_requests: int,
        num_decoders: int,
        backlog: Backlog | None = None,
        on_call: OnCall = tell_no_one,
        on_outcome: Callable[[Outcome], None] = lambda _: None,
        min_call_timeout: float = 0,
    ) -> None:
        """`load` is called once by `start`; `shortcuts` count where a request names none.

        `num_decoders` files are decoded at a time; `backlog` bounds the audio in work; `on_call` is
        told of each model call, which may take `min_call_timeout` seconds at least (0: for ever),
        `on_outcome` what became of each window.
        """
        self._backlog = backlog or Backlog(math.inf)
        self._on_call, self._on_outcome = on_call, on_outcome
        self._decoder = decoder
        self._load = load
        self._shortcuts_by_default = shortcuts
        self._speech: SpeechDetector | None = None
        self._is_closed = threading.Event()
        self._lock = threading.Lock()
        self._is_decided = threading.Event()
        self._min_call_timeout = min_call_timeout
        self._max_batch_size = max_batch_size
        self._max_requests = max_requests
        self._state = ModelState("loading", model_name, model_name, "The model is being loaded.")
        self._on_failure: Callable[[], None] = lambda: None
        self._on_loss: Callable[[], None] = lambda: None
        self._engine: Engine | None = None
        self._model: Backend | None = None
        self._loader = threading.Thread(target=self._load_model, name="asr-loader", daemon=True)
        # Two pools, so that short work on samples never queues behind files yet to be decoded.
        self._decoding = ThreadPoolExecutor(num_decoders, thread_name_prefix="asr-decode")
        self._threads = ThreadPoolExecutor(4, thread_name_prefix="asr-samples")

    @property
    def model_state(self) -> ModelState:
        return self._state

    @property
    def num_requests(self) -> int:
        """Requests admitted and not ended."""
        return 0 if self._engine is None else self._engine.num_admitted

    @property
    def queue(self) -> Queue:
        """Windows that wait for the model."""
        return Queue() if self._engine is None else self._engine.queue

    def start(
        self,
        on_failure: Callable[[], None] = lambda: None,
        on_loss: Callable[[], None] = lambda: None,
    ) -> None:
        """Begins to load the model and returns at once.

        From the loader's thread, `on_failure` is called where that fails, and `on_loss` when the
        engine later answers no more: only another process can then.
        """
        self._on_failure, self._on_loss = on_failure, on_loss
        self._loader.start()

    def wait_until_loaded(self) -> ModelState:
        """Waits for `start`'s outcome, ready or failed."""
        self._is_decided.wait()
        return self._state

    def close(self) -> None:
        """Fails what is in work and ends threads and child processes. Nobody is told any more."""
        with self._lock:
            self._is_closed.set()
        if self._engine is not None:
            self._engine.close()
        self._decoding.shutdown(wait=False, cancel_futures=True)
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._decoder.close()

    async def transcribe(self, media: Path, options: TranscribeOptions) -> Transcript:
        transcript = None
        async for event in self.events(media, options):
            if isinstance(event, Done):
                transcript = event.transcript
        assert transcript is not None, "A stream of events ends with Done or an error"
        return transcript

    async def events(
        self,
        media: Path,
        options: TranscribeOptions,
        checkpoint: Checkpoint | None = None,
        priority: Priority = Priority.INTERACTIVE,
        part: Part = WHOLE,
    ) -> AsyncGenerator[Event, None]:
        engine, model = self._ready()
        stopwatch = Stopwatch()
        if priority is not Priority.INTERACTIVE:
            # A job is gone on with from its own checkpoints, and nobody waits for its beginning.
            options = options.model_copy(update={"early_start": False})
        with (
            engine.admission(),
            Decoding(
                self._decoder,
                self._decoding,
                media,
                options.decode_request,
                stopwatch,
                wants_head=options.starts_early,
            ) as decoding,
        ):
            head = await decoding.head()
            known = await decoding.whole() if head is None else head
            with self._backlog.place(_seconds(known) * part.share) as place:
                if head is not None:
                    early = self._recognise_head(
                        head, decoding, options, engine=engine, model=model, stopwatch=stopwatch
                    )
                    async with aclosing(early):
                        async for told in early:
                            if isinstance(told, Checkpoint):
                                checkpoint = told
                            else:
                                yield told
                recording = await decoding.whole()
                place.seconds = _seconds(recording) * part.share
                rest = self._recognise_whole(
                    recording,
                    options,
                    engine=engine,
                    model=model,
                    stopwatch=stopwatch,
                    checkpoint=checkpoint,
                    priority=priority,
                    part=part,
                )
                async with aclosing(rest):
                    async for event in rest:
                        yield event

    async def _recognise_head(
        self,
        head: DecodedAudio,
        decoding: Decoding,
        options: TranscribeOptions,
        *,
        engine: Engine,
        model: Backend,
        stopwatch: Stopwatch,
    ) -> AsyncGenerator[SegmentDone | Checkpoint, None]:
        """Segments of a long recording's beginning, then from where to go on with all of it.

        As far as windows are whole: the next would reach beyond the head. Tells no progress, since
        nobody knows how long the recording is.
        """
        segments: list[Segment] = []
        progress = Progress(0, 0)
        last_start = _seconds(head) - WINDOW_SECONDS * self._shortcuts(options).speedup
        request = await asyncio.get_running_loop().run_in_executor(
            self._threads,
            lambda: self._prepare_channel(
                head, (), options, model, stopwatch=stopwatch, checkpoint=None
            ),
        )
        stopwatch.submitted()
        answers = self._answers(engine, [request])
        async with aclosing(answers):
            async for _, event in answers:
                if isinstance(event, SegmentDone):
                    segments.append(event.segment)
                    yield event
                elif isinstance(event, Progress):
                    progress = event
                if progress.seconds_done > last_start or decoding.has_failed:
                    break
        # In whole frames, as the request counts them.
        frames = (await decoding.whole()).num_samples // HOP_LENGTH
        total = frames / FRAMES_PER_SECOND
        yield Checkpoint(tuple(segments), replace(progress, seconds_total=total))

    async def _recognise_whole(
        self,
        recording: DecodedAudio,
        options: TranscribeOptions,
        *,
        engine: Engine,
        model: Backend,
        stopwatch: Stopwatch,
        checkpoint: Checkpoint | None,
        priority: Priority,
        part: Part,
    ) -> AsyncGenerator[Event, None]:
        """Everything, or what comes after a checkpoint: channels put together, doubts reviewed."""
        prepared = await asyncio.get_running_loop().run_in_executor(
            self._threads,
            lambda: self._prepare(
                recording,
                options,
                model,
                stopwatch,
                checkpoint=checkpoint,
                priority=priority,
                part=part,
            ),
        )
        requests = [request for request, _ in prepared]
        merge = ChannelMerge(len(requests), options) if options.channels == "split" else None
        stopwatch.submitted()
        answers = self._answers(engine, requests)
        async with aclosing(answers):
            async for channel, event in answers:
                _, review = prepared[channel]
                kept = [event] if review is None else review.receive(event)
                if merge is not None:
                    kept = [told for one in kept for told in merge.receive(channel, one)]
                for told in kept:
                    if isinstance(told, Done):
                        yield self._measured(told, options, model, stopwatch)
                        return
                    yield told

    async def _answers(
        self, engine: Engine, requests: Sequence[Request]
    ) -> AsyncGenerator[tuple[int, Event], None]:
        """What each request tells, with its place among them. Closing it cancels them all."""
        loop = asyncio.get_running_loop()
        events: asyncio.Queue[tuple[int, Event | AsrError]] = asyncio.Queue()

        def listener(place: int) -> Listener:
            def listen(event: Event | AsrError) -> None:
                loop.call_soon_threadsafe(events.put_nowait, (place, event))

            return listen

        try:
            for place, request in enumerate(requests):
                await loop.run_in_executor(self._threads, engine.submit, request, listener(place))
            while True:
                place, event = await events.get()
                if isinstance(event, AsrError):
                    raise event
                yield place, event
        finally:
            for request in requests:
                engine.cancel(request)

    def _measured(
        self, done: Done, options: TranscribeOptions, model: Backend, stopwatch: Stopwatch
    ) -> Done:
        """The transcript with what it took, and with what counted for each option."""
        parameters = effective_options(
            options,
            language=done.transcript.language,
            shortcuts=self._shortcuts(options),
            model=model.info,
        )
        return Done(
            replace(done.transcript, processing=stopwatch.processing(), parameters=parameters)
        )

    def _prepare(
        self,
        recording: DecodedAudio,
        options: TranscribeOptions,
        model: Backend,
        stopwatch: Stopwatch,
        *,
        checkpoint: Checkpoint | None,
        priority: Priority,
        part: Part,
    ) -> list[tuple[Request, HallucinationReview | None]]:
        """A request for each channel, and who reviews what it tells.

        A `checkpoint` is known of a mix alone, and of segments nobody has reviewed.
        """
        if options.channels == "split" or options.on_hallucination != "keep":
            checkpoint = None
        return [
            (
                self._prepare_channel(
                    samples,
                    recording.warnings,
                    options,
                    model,
                    stopwatch=stopwatch,
                    checkpoint=checkpoint,
                    priority=priority,
                    part=part,
                ),
                self._review(samples, options),
            )
            for samples in recording.channels
        ]

    def _review(self, samples: Samples, options: TranscribeOptions) -> HallucinationReview | None:
        if options.on_hallucination == "keep":
            return None
        assert self._speech is not None, "It is loaded before the first request is taken"
        spans = self._speech.spans(samples, is_levelled=True)
        return HallucinationReview(spans, options.on_hallucination)

    def _prepare_channel(
        self,
        samples: Samples,
        warnings: Sequence[str],
        options: TranscribeOptions,
        model: Backend,
        *,
        stopwatch: Stopwatch,
        checkpoint: Checkpoint | None,
        priority: Priority = Priority.INTERACTIVE,
        part: Part = WHOLE,
    ) -> Request:
        """What takes time before the model is needed: loudness, speech, prompts."""
        log_mel = _WatchedLogMel(samples, model.info.n_mels, stopwatch.heard)
        log_mel.peak()
        return Request(
            options,
            log_mel,
            model.info,
            model.tokenizer,
            shortcuts=self._shortcuts(options),
            chunks=self._find_chunks(samples, options, part),
            find_voice=self._voice_finder(samples) if options.skips_non_speech else None,
            warnings=(*warnings, *options.without_effect()),
            checkpoint=checkpoint,
            priority=priority,
        )

    def _find_chunks(
        self, samples: Samples, options: TranscribeOptions, part: Part
    ) -> Sequence[Span] | None:
        if options.chunking_strategy is None:
            return None
        speech = self._speech
        assert speech is not None, "It is loaded before the first request is taken"
        return part.choose(lambda: chunks(speech.spans(samples, speech_rules(options))))

    def _voice_finder(self, samples: Samples) -> FindVoiceBetween:
        speech = self._speech
        assert speech is not None, "It is loaded before the first request is taken"
        return lambda start, stop: speech.surest(samples, start * HOP_LENGTH, stop * HOP_LENGTH)

    def _shortcuts(self, options: TranscribeOptions) -> Shortcuts:
        """The request's, and the server's where it names none."""
        reduces = self._shortcuts_by_default.reduces_context
        if options.audio_context is not None:
            reduces = options.audio_context == "auto"
        return Shortcuts(options.speedup or self._shortcuts_by_default.speedup, reduces)

    def _ready(self) -> tuple[Engine, Backend]:
        engine, model = self._engine, self._model
        if self._state.status == "restarting":
            raise engine_lost()
        if engine is None or model is None:
            raise ModelNotReady(_NOT_READY[self._state.status], retry_after=5)
        return engine, model

    def _load_model(self) -> None:
        started = time.monotonic()
        try:
            self._speech = SpeechDetector()
            loaded = self._load()
            window_seconds = max(_seconds_of(warm_up, backend) for backend in loaded.backends)
        except AsrError as error:
            logger.error("The model could not be loaded: %s", error.detail)
            self._fail(error.detail)
        except Exception as error:
            logger.exception("The model could not be loaded")
            self._fail(f"The model could not be loaded: {type(error).__name__}: {error}")
        else:
            self._open(loaded, window_seconds, time.monotonic() - started)
        finally:
            self._is_decided.set()
        self._look_after_engine()

    def _fail(self, reason: str) -> None:
        with self._lock:
            self._state = replace(self._state, status="failed", reason=reason)
        if not self._is_closed.is_set():
            self._on_failure()

    def _look_after_engine(self) -> None:
        """Until the end, or until there is nothing left to look after."""
        engine = self._engine
        idleness = Idleness(IDLE_SECONDS, time.monotonic())
        while engine is not None and not self._is_closed.wait(WATCH_SECONDS):
            num_calls = engine.statistics.num_batches
            if idleness.begins(engine.num_admitted, num_calls, time.monotonic()):
                give_back_memory()
            fault = engine.fault()
            if fault is not None:
                logger.critical("Speech recognition is given up. %s", fault)
                self._state = replace(self._state, status="restarting", reason=fault)
                engine.give_up()
                self._on_loss()
                return

    def _open(self, loaded: LoadedModel, window_seconds: float, seconds: float) -> None:
        info = loaded.backends[0].info
        with self._lock:
            if self._is_closed.is_set():
                return
            self._model = loaded.backends[0]
            self._engine = Engine(
                loaded.backends,
                max_batch_size=self._max_batch_size or info.batch_size,
                max_requests=self._max_requests,
                watch=CallWatch(self._min_call_timeout, window_seconds),
                on_call=self._on_call,
                on_outcome=self._on_outcome,
            )
            self._state = replace(
                self._state, status="ready", served=info.name, reason=loaded.reason
            )
        logger.info(
            "Model %s is ready on %s (%s) after %.1f s",
            info.name,
            info.device,
            info.compute_type,
            seconds,
        )


class _WatchedLogMel(LogMel):
    """Tells when the model turns to a recording, which is when it asks for a spectrogram."""

    def __init__(self, samples: Samples, n_mels: int, on_heard: Callable[[], None]) -> None:
        super().__init__(samples, n_mels)
        self._on_heard = on_heard

    def window(
        self,
        start_frame: int,
        num_frames: int,
        context: int = N_FRAMES,
        *,
        hop_length: int = HOP_LENGTH,
    ) -> NDArray[np.float32]:
        self._on_heard()
        return super().window(start_frame, num_frames, context, hop_length=hop_length)

    def opening(self) -> NDArray[np.float32]:
        self._on_heard()
        return super().opening()


def speech_rules(options: TranscribeOptions) -> SpeechRules:
    """By which a recording is cut into chunks."""
    return SpeechRules(
        threshold=options.vad_threshold,
        min_speech=options.vad_min_speech,
        min_silence=options.vad_min_silence,
        padding=options.vad_padding,
    )


def _seconds(recording: DecodedAudio) -> float:
    return recording.num_samples / SAMPLE_RATE


def _seconds_of(work: Callable[[Backend], None], backend: Backend) -> float:
    began = time.monotonic()
    work(backend)
    return time.monotonic() - began
