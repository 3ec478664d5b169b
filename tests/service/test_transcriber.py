"""From a media file to events, with a real decoder and a model that says what it is told."""

from __future__ import annotations

import asyncio
import math
import threading
import time
import wave
from collections.abc import Callable, Iterator
from contextlib import aclosing, contextmanager
from pathlib import Path

import numpy as np
import pytest

from simple_asr.audio.decode import DecodeLimits, DecodeRequest, DecoderPool
from simple_asr.audio.speech import Span, SpeechRules
from simple_asr.engine.backends.ctranslate2 import load_replicas
from simple_asr.engine.backends.fake import FakeBackend
from simple_asr.engine.options import TranscribeOptions
from simple_asr.engine.parts import Part
from simple_asr.engine.seek_loop import Shortcuts
from simple_asr.engine.tokens import Tokenizer
from simple_asr.engine.window import Decode, Decoded
from simple_asr.errors import (
    AsrError,
    EngineLost,
    InvalidParameter,
    MediaLimitExceeded,
    ModelNotReady,
    ModelUnavailable,
    Overloaded,
    UnreadableMedia,
)
from simple_asr.service import transcriber as transcribing
from simple_asr.service.backlog import Backlog, Place
from simple_asr.service.decoding import HEAD_SECONDS, DecodedAudio, Decoder
from simple_asr.service.transcriber import LoadedModel, LocalTranscriber, speech_rules
from simple_asr.transcript.events import Done, Event, Progress, SegmentDone
from simple_asr.transcript.model import Segment, Transcript
from tests.support import WAIT, Noise, hiss

ENGLISH = TranscribeOptions(language="en")


@pytest.fixture
def backend(tokenizer: Tokenizer) -> FakeBackend:
    return FakeBackend(tokenizer)


Build = Callable[..., LocalTranscriber]


@pytest.fixture
def build(tmp_path: Path, backend: FakeBackend) -> Iterator[Build]:
    """Makes transcribers, and closes them after the test."""
    spool = tmp_path / "spool"
    spool.mkdir()
    made = []

    def make(
        load: Callable[[], LoadedModel] = lambda: LoadedModel([backend]),
        max_requests: int = 8,
        min_call_timeout: float = 0,
        backlog: Backlog | None = None,
        decoder: Decoder | None = None,
    ) -> LocalTranscriber:
        transcriber = LocalTranscriber(
            decoder or DecoderPool(1, DecodeLimits(), spool),
            load,
            model_name="turbo",
            shortcuts=Shortcuts(speedup=1.25),
            max_batch_size=4,
            max_requests=max_requests,
            num_decoders=1,
            min_call_timeout=min_call_timeout,
            backlog=backlog,
        )
        made.append(transcriber)
        return transcriber

    yield make
    backend.gate.set()
    for transcriber in made:
        transcriber.close()


@pytest.fixture
def transcriber(build: Build) -> LocalTranscriber:
    transcriber = build()
    transcriber.start()
    transcriber.wait_until_loaded()
    return transcriber


def test_a_file_becomes_a_transcript(transcriber: LocalTranscriber, media: Path) -> None:
    transcript = asyncio.run(transcriber.transcribe(media, ENGLISH))

    assert transcript.text == " Hello."
    assert transcript.duration == 2.0
    assert transcript.model == "fake"


def test_where_nobody_speaks_chunks_leave_nothing_to_recognise(
    transcriber: LocalTranscriber, backend: FakeBackend, media: Path
) -> None:
    options = TranscribeOptions(language="en", chunking_strategy="auto")
    num_calls = len(backend.batches)

    transcript = asyncio.run(transcriber.transcribe(media, options))

    assert transcript.text == ""
    assert len(backend.batches) == num_calls


def test_a_callers_rules_say_what_speech_is(transcriber: LocalTranscriber, media: Path) -> None:
    anything = TranscribeOptions(language="en", chunking_strategy="auto", vad_threshold=0)

    transcript = asyncio.run(transcriber.transcribe(media, anything))

    assert transcript.text == " Hello."
    assert transcript.parameters["vad_threshold"].value == 0


def test_a_part_is_the_chunks_it_chooses_and_counts_with_its_share(
    build: Build, media: Path
) -> None:
    backlog = Watched()
    transcriber = build(backlog=backlog)
    transcriber.start()
    transcriber.wait_until_loaded()
    options = TranscribeOptions(language="en", chunking_strategy="auto")
    second = Part(lambda _: [Span(1.0, 2.0)], share=0.5)

    async def collect() -> list[Event]:
        return [event async for event in transcriber.events(media, options, part=second)]

    events = asyncio.run(collect())

    assert [event.segment.start for event in events if isinstance(event, SegmentDone)] == [1.0]
    assert backlog.places == [1.0]


class Watched(Backlog):
    """Remembers the seconds of each place."""

    def __init__(self) -> None:
        super().__init__(math.inf)
        self.places: list[float] = []

    @contextmanager
    def place(self, seconds: float) -> Iterator[Place]:
        self.places.append(seconds)
        with super().place(seconds) as place:
            yield place


def test_the_rules_of_voice_activity_are_those_of_who_gives_none() -> None:
    assert speech_rules(TranscribeOptions()) == SpeechRules()


def test_events_come_in_order_and_end_with_done(transcriber: LocalTranscriber, media: Path) -> None:
    async def collect() -> list[Event]:
        return [event async for event in transcriber.events(media, ENGLISH)]

    events = asyncio.run(collect())

    assert [type(event) for event in events] == [Progress, SegmentDone, Progress, Done]


def test_options_without_effect_are_remarked_on(transcriber: LocalTranscriber, media: Path) -> None:
    options = TranscribeOptions(language="en", fp16=True)

    transcript = asyncio.run(transcriber.transcribe(media, options))

    assert transcript.warnings == tuple(options.without_effect())


def test_a_transcript_tells_how_long_it_was_recognised_and_what_counted(
    transcriber: LocalTranscriber, backend: FakeBackend, media: Path
) -> None:
    held = 0.0

    async def ask() -> Transcript:
        nonlocal held
        backend.is_working.clear()
        backend.gate.clear()
        asked = asyncio.create_task(transcriber.transcribe(media, ENGLISH))
        await asyncio.to_thread(backend.is_working.wait)
        began = time.monotonic()
        await asyncio.sleep(0)
        held = time.monotonic() - began
        backend.gate.set()
        return await asked

    transcript = asyncio.run(ask())

    assert transcript.processing is not None
    assert transcript.processing.decode > 0
    assert transcript.processing.recognise > held
    assert transcript.parameters["language"].value == "en"
    assert transcript.parameters["speedup"].value == 1.25


def test_what_is_no_media_is_refused(transcriber: LocalTranscriber, tmp_path: Path) -> None:
    text = tmp_path / "letter.wav"
    text.write_text("Dear server, this is not a recording. " * 50)

    with pytest.raises(UnreadableMedia):
        asyncio.run(transcriber.transcribe(text, ENGLISH))


def test_a_caller_who_leaves_frees_the_engine(
    transcriber: LocalTranscriber, backend: FakeBackend, media: Path
) -> None:
    async def leave_midway() -> None:
        backend.is_working.clear()
        backend.gate.clear()
        task = asyncio.create_task(transcriber.transcribe(media, ENGLISH))
        await asyncio.to_thread(backend.is_working.wait)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(leave_midway())

    assert transcriber.num_requests == 0


def test_more_requests_than_allowed_are_refused(
    build: Build, backend: FakeBackend, media: Path
) -> None:
    transcriber = build(max_requests=1)
    transcriber.start()
    transcriber.wait_until_loaded()

    async def ask_twice() -> None:
        backend.is_working.clear()
        backend.gate.clear()
        first = asyncio.create_task(transcriber.transcribe(media, ENGLISH))
        await asyncio.to_thread(backend.is_working.wait)
        with pytest.raises(Overloaded):
            await transcriber.transcribe(media, ENGLISH)
        backend.gate.set()
        await first

    asyncio.run(ask_twice())


def test_until_the_model_is_loaded_callers_are_told_to_wait(
    build: Build, backend: FakeBackend, media: Path
) -> None:
    may_load = threading.Event()

    def load() -> LoadedModel:
        may_load.wait()
        return LoadedModel([backend])

    transcriber = build(load)
    transcriber.start()

    assert transcriber.model_state.status == "loading"
    with pytest.raises(ModelNotReady) as refusal:
        asyncio.run(transcriber.transcribe(media, ENGLISH))
    assert refusal.value.retry_after
    may_load.set()
    assert transcriber.wait_until_loaded().status == "ready"


def test_a_fallback_is_told(build: Build, backend: FakeBackend) -> None:
    transcriber = build(lambda: LoadedModel([backend], reason="turbo cannot be had"))
    transcriber.start()

    state = transcriber.wait_until_loaded()

    assert state.is_degraded
    assert (state.requested, state.served) == ("turbo", "fake")
    assert state.reason == "turbo cannot be had"


def test_a_model_that_cannot_be_had_is_a_failed_state_and_no_crash(
    build: Build, media: Path
) -> None:
    def load() -> LoadedModel:
        raise ModelUnavailable("There is no such model.")

    transcriber = build(load)
    transcriber.start()

    state = transcriber.wait_until_loaded()

    assert (state.status, state.reason) == ("failed", "There is no such model.")
    with pytest.raises(ModelNotReady, match="could not be loaded"):
        asyncio.run(transcriber.transcribe(media, ENGLISH))


def test_a_failure_is_told_unless_the_transcriber_was_closed_meanwhile(build: Build) -> None:
    may_load = threading.Event()
    told: list[str] = []

    def load() -> LoadedModel:
        may_load.wait()
        raise ModelUnavailable("There is no such model.")

    staying, closed = build(load), build(load)
    staying.start(on_failure=lambda: told.append("staying"))
    closed.start(on_failure=lambda: told.append("closed"))
    closed.close()
    may_load.set()
    staying.wait_until_loaded()
    closed.wait_until_loaded()

    assert told == ["staying"]


def test_a_model_that_fails_its_first_inference_is_never_ready(
    build: Build, tokenizer: Tokenizer
) -> None:
    def fail(_: Decode) -> Decoded:
        raise RuntimeError("no kernel image for this GPU")

    transcriber = build(lambda: LoadedModel([FakeBackend(tokenizer, fail)]))
    transcriber.start()

    assert transcriber.wait_until_loaded().status == "failed"


def test_a_caller_who_leaves_while_the_file_is_decoded_leaves_nothing_open(
    backend: FakeBackend, media: Path
) -> None:
    decoder = HeldDecoder()
    transcriber = LocalTranscriber(
        decoder,
        lambda: LoadedModel([backend]),
        model_name="turbo",
        shortcuts=Shortcuts(speedup=1.25),
        max_batch_size=4,
        max_requests=8,
        num_decoders=1,
    )
    transcriber.start()
    transcriber.wait_until_loaded()

    async def leave() -> None:
        task = asyncio.create_task(transcriber.transcribe(media, ENGLISH))
        await asyncio.to_thread(decoder.is_working.wait)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(leave())
    decoder.gate.set()

    assert decoder.recording.is_closed.wait(WAIT)
    transcriber.close()


class HeldDecoder:
    """Decodes when the gate opens."""

    def __init__(self) -> None:
        self.is_working = threading.Event()
        self.gate = threading.Event()
        self.recording = HeldRecording(1.0)

    def decode(
        self,
        media: Path,
        on_progress: Callable[[float], None],
        request: DecodeRequest,
        on_head: Callable[[DecodedAudio], None] | None,
    ) -> HeldRecording:
        self.is_working.set()
        self.gate.wait()
        return self.recording

    def close(self) -> None:
        pass


class HeldRecording(Noise):
    """Tells when it is closed."""

    warnings: tuple[str, ...] = ()

    def __init__(self, seconds: float) -> None:
        super().__init__(seconds)
        self.is_closed = threading.Event()

    def __enter__(self) -> HeldRecording:
        return self

    def __exit__(self, *_: object) -> None:
        self.is_closed.set()


class LongDecoder(HeldDecoder):
    """Decodes the head of a recording at once, and the rest when the gate opens."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.head = HeldRecording(HEAD_SECONDS)
        self.recording = HeldRecording(seconds)
        self.failure: AsrError | None = None
        self.has_ended = threading.Event()

    def decode(
        self,
        media: Path,
        on_progress: Callable[[float], None],
        request: DecodeRequest,
        on_head: Callable[[DecodedAudio], None] | None,
    ) -> HeldRecording:
        if on_head is not None:
            on_head(self.head)
        recording = super().decode(media, on_progress, request, on_head)
        if self.failure is not None:
            threading.Timer(0.05, self.has_ended.set).start()
            raise self.failure
        return recording


EARLY = TranscribeOptions(early_start=True)


@pytest.fixture
def long_decoder() -> LongDecoder:
    return LongDecoder(HEAD_SECONDS + 100 + 107 / 16_000)  # No whole number of frames.


@pytest.fixture
def long_transcriber(build: Build, long_decoder: LongDecoder) -> Iterator[LocalTranscriber]:
    transcriber = build(decoder=long_decoder)
    transcriber.start()
    transcriber.wait_until_loaded()
    yield transcriber
    long_decoder.gate.set()


def test_an_early_start_tells_segments_before_the_rest_is_decoded(
    long_transcriber: LocalTranscriber, long_decoder: LongDecoder, media: Path
) -> None:
    early: list[Segment] = []

    async def listen() -> Transcript:
        async for event in long_transcriber.events(media, EARLY):
            if isinstance(event, SegmentDone):
                early.append(event.segment)
                if event.segment.end > HEAD_SECONDS - 60:
                    long_decoder.gate.set()  # Nothing would follow if all had to be decoded first.
            if isinstance(event, Done):
                return event.transcript
        raise AssertionError("no Done")

    transcript = asyncio.run(asyncio.wait_for(listen(), WAIT))

    exact = asyncio.run(long_transcriber.transcribe(media, TranscribeOptions()))
    assert tuple(early) == transcript.segments == exact.segments
    assert transcript.text == exact.text
    assert transcript.duration == exact.duration == HEAD_SECONDS + 100
    assert transcript.language_probability == exact.language_probability == 0.9
    assert long_decoder.head.is_closed.is_set()
    assert long_decoder.recording.is_closed.is_set()


def test_a_recording_that_cannot_be_decoded_to_its_end_is_given_up_in_its_beginning(
    long_transcriber: LocalTranscriber, long_decoder: LongDecoder, media: Path
) -> None:
    told: list[Event] = []

    async def listen() -> None:
        async for event in long_transcriber.events(media, EARLY):
            told.append(event)
            long_decoder.failure = MediaLimitExceeded("Too long.")
            long_decoder.gate.set()
            await asyncio.to_thread(long_decoder.has_ended.wait, WAIT)

    with pytest.raises(MediaLimitExceeded):
        asyncio.run(listen())

    assert 0 < len(told) < 5, "of sixteen windows"
    assert long_decoder.head.is_closed.wait(WAIT)


def test_who_leaves_after_an_early_start_leaves_nothing_open(
    long_transcriber: LocalTranscriber, long_decoder: LongDecoder, media: Path
) -> None:
    async def leave() -> None:
        async with aclosing(long_transcriber.events(media, EARLY)) as events:
            await anext(events)

    asyncio.run(leave())
    long_decoder.gate.set()

    assert long_decoder.head.is_closed.wait(WAIT)
    assert long_decoder.recording.is_closed.wait(WAIT)
    assert long_transcriber.num_requests == 0


@pytest.mark.parametrize(
    "needs_all",
    [
        {"channels": "split"},
        {"chunking_strategy": "auto"},
        {"on_hallucination": "flag"},
        {"hallucination_silence_threshold": 2.0, "word_timestamps": True},
        {"clip_timestamps": (10.0,)},
    ],
    ids=str,
)
def test_what_needs_all_of_the_recording_waits_for_it_and_says_so(
    long_transcriber: LocalTranscriber,
    long_decoder: LongDecoder,
    media: Path,
    needs_all: dict[str, object],
) -> None:
    long_decoder.gate.set()
    options = EARLY.model_copy(update=needs_all)

    transcript = asyncio.run(long_transcriber.transcribe(media, options))

    assert any(warning.startswith("early_start has no effect") for warning in transcript.warnings)
    assert not long_decoder.head.is_closed.is_set(), "nobody took it"


def test_more_callers_than_allowed_are_refused_before_their_files_are_decoded(
    backend: FakeBackend, media: Path
) -> None:
    decoder = HeldDecoder()
    transcriber = LocalTranscriber(
        decoder,
        lambda: LoadedModel([backend]),
        model_name="turbo",
        shortcuts=Shortcuts(),
        max_batch_size=4,
        max_requests=1,
        num_decoders=1,
    )
    transcriber.start()
    transcriber.wait_until_loaded()

    async def ask_twice() -> None:
        first = asyncio.create_task(transcriber.transcribe(media, ENGLISH))
        await asyncio.to_thread(decoder.is_working.wait)
        with pytest.raises(Overloaded):
            await transcriber.transcribe(media, ENGLISH)
        decoder.gate.set()
        await first

    asyncio.run(ask_twice())

    assert transcriber.num_requests == 0
    transcriber.close()


def test_waiting_for_a_decoder_counts_as_waiting(backend: FakeBackend, media: Path) -> None:
    decoder = HeldDecoder()
    transcriber = LocalTranscriber(
        decoder,
        lambda: LoadedModel([backend]),
        model_name="turbo",
        shortcuts=Shortcuts(),
        max_batch_size=4,
        max_requests=2,
        num_decoders=1,
    )
    transcriber.start()
    transcriber.wait_until_loaded()

    async def ask_twice() -> tuple[Transcript, float]:
        first = asyncio.create_task(transcriber.transcribe(media, ENGLISH))
        await asyncio.to_thread(decoder.is_working.wait)
        second = asyncio.create_task(transcriber.transcribe(media, ENGLISH))
        await asyncio.sleep(0)  # The second waits now.
        began = time.monotonic()
        await asyncio.sleep(0.01)
        waited = time.monotonic() - began
        decoder.gate.set()
        await first
        return await second, waited

    transcript, waited = asyncio.run(ask_twice())

    assert transcript.processing is not None
    assert transcript.processing.queue > waited
    transcriber.close()


def test_a_request_that_is_refused_gives_its_place_back(
    build: Build, backend: FakeBackend, media: Path
) -> None:
    transcriber = build(max_requests=1)
    transcriber.start()
    transcriber.wait_until_loaded()
    unknown_here = TranscribeOptions(language="yue")

    for _ in range(3):
        with pytest.raises(InvalidParameter, match="yue"):
            asyncio.run(transcriber.transcribe(media, unknown_here))

    assert asyncio.run(transcriber.transcribe(media, ENGLISH)).text == " Hello."


@pytest.mark.weights
def test_where_nobody_speaks_nothing_is_written(
    build: Build, base_model: Path, shared: Path
) -> None:
    """Silence, noise, keypad tones and music, by the real model with its own defaults."""
    replicas = load_replicas("base", base_model, device="cpu", compute_type="int8", num_threads=0)
    transcriber = build(lambda: LoadedModel(replicas))
    transcriber.start()
    transcriber.wait_until_loaded()
    clips = sorted((shared / "data" / "audio" / "nospeech").iterdir())

    transcripts = [asyncio.run(transcriber.transcribe(clip, TranscribeOptions())) for clip in clips]

    assert len(clips) == 6
    assert [(t.text, t.segments) for t in transcripts] == [("", ())] * len(clips)


# Channels, and raw samples ----------------------------------------------------------------------


def write_stereo(path: Path) -> Path:
    """Two seconds of different hiss in each of two channels."""
    left, right = np.frombuffer(hiss(2), "<i2"), np.frombuffer(hiss(2)[::-1], "<i2")
    with wave.open(str(path), "wb") as file:
        file.setparams((2, 2, 16_000, 0, "NONE", ""))
        file.writeframes(np.stack([left, right], axis=1).tobytes())
    return path


def test_split_channels_are_recognised_together_and_told_apart(
    transcriber: LocalTranscriber, backend: FakeBackend, tmp_path: Path
) -> None:
    options = TranscribeOptions(language="en", channels="split")

    transcript = asyncio.run(transcriber.transcribe(write_stereo(tmp_path / "call.wav"), options))

    assert [(segment.id, segment.channel) for segment in transcript.segments] == [(0, 0), (1, 1)]
    assert transcript.text == " Hello. Hello."
    assert transcript.duration == 2.0


def test_mixed_channels_have_no_label(transcriber: LocalTranscriber, tmp_path: Path) -> None:
    transcript = asyncio.run(transcriber.transcribe(write_stereo(tmp_path / "call.wav"), ENGLISH))

    assert [segment.channel for segment in transcript.segments] == [None]


def test_raw_samples_are_decoded_as_the_options_say(
    transcriber: LocalTranscriber, tmp_path: Path
) -> None:
    path = tmp_path / "upload"
    path.write_bytes(hiss(2))
    options = TranscribeOptions(language="en", pcm_rate=8000, pcm_channels=2)

    transcript = asyncio.run(transcriber.transcribe(path, options))

    assert transcript.duration == 2.0
    with pytest.raises(UnreadableMedia):
        asyncio.run(transcriber.transcribe(path, ENGLISH))


@pytest.mark.weights
def test_who_speaks_on_which_channel_is_heard(build: Build, base_model: Path, shared: Path) -> None:
    replicas = load_replicas("base", base_model, device="cpu", compute_type="int8", num_threads=0)
    transcriber = build(lambda: LoadedModel(replicas))
    transcriber.start()
    transcriber.wait_until_loaded()
    call = shared / "data" / "audio" / "en" / "fw_stereo_diarization.wav"

    transcript = asyncio.run(
        transcriber.transcribe(call, TranscribeOptions(language="en", channels="split"))
    )

    said = {segment.channel: segment.text for segment in transcript.segments}
    assert set(said) == {0, 1}
    assert "wizard" in said[0]
    assert "horizon" in said[1]


@pytest.mark.weights
def test_what_is_made_up_is_flagged_and_what_is_said_is_not(
    build: Build, base_model: Path, shared: Path
) -> None:
    replicas = load_replicas("base", base_model, device="cpu", compute_type="int8", num_threads=0)
    transcriber = build(lambda: LoadedModel(replicas))
    transcriber.start()
    transcriber.wait_until_loaded()
    audio = shared / "data" / "audio"
    options = TranscribeOptions(
        language="en", temperature=(0.0,), no_speech_threshold=None, on_hallucination="flag"
    )

    noise = asyncio.run(transcriber.transcribe(audio / "nospeech" / "dev_white_20s.wav", options))
    speech = asyncio.run(transcriber.transcribe(audio / "en" / "fw_jfk.flac", options))

    assert noise.segments
    assert all("no_voice" in (segment.hallucination or ()) for segment in noise.segments)
    assert [segment.hallucination for segment in speech.segments] == [()] * len(speech.segments)


# An engine that is lost -------------------------------------------------------------------------


def test_a_model_that_hangs_is_given_up_and_everybody_is_told(
    build: Build, backend: FakeBackend, media: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transcribing, "WATCH_SECONDS", 0.01)
    is_lost = threading.Event()
    transcriber = build(min_call_timeout=0.2)
    transcriber.start(on_loss=is_lost.set)
    transcriber.wait_until_loaded()
    backend.gate.clear()

    with pytest.raises(EngineLost):
        asyncio.run(transcriber.transcribe(media, ENGLISH))

    assert is_lost.wait(WAIT)
    assert transcriber.model_state.status == "restarting"
    assert "has not returned" in transcriber.model_state.reason
    with pytest.raises(EngineLost):
        asyncio.run(transcriber.transcribe(media, ENGLISH))


def test_memory_is_given_back_when_nobody_asks_for_anything(
    build: Build, media: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given_back = threading.Semaphore(0)
    monkeypatch.setattr(transcribing, "WATCH_SECONDS", 0.01)
    monkeypatch.setattr(transcribing, "IDLE_SECONDS", 0.05)
    monkeypatch.setattr(transcribing, "give_back_memory", given_back.release)

    transcriber = build()
    transcriber.start()
    transcriber.wait_until_loaded()

    assert given_back.acquire(timeout=WAIT), "not after the model was loaded"
    asyncio.run(transcriber.transcribe(media, ENGLISH))
    assert given_back.acquire(timeout=WAIT), "not after a transcription"
