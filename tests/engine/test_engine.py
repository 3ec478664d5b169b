"""Requests on replicas: shared calls, admission, cancel, failures, the end."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from typing import ClassVar

import numpy as np
import pytest
from numpy.typing import NDArray

from simple_asr.audio.features import LogMel
from simple_asr.audio.speech import Span
from simple_asr.engine.backends.fake import FakeBackend
from simple_asr.engine.engine import Engine, Queue
from simple_asr.engine.options import TranscribeOptions
from simple_asr.engine.request import Request
from simple_asr.engine.scheduler import MOST_PASSED_OVER
from simple_asr.engine.tokens import Tokenizer
from simple_asr.engine.watch import CallWatch
from simple_asr.engine.window import Decode, Decoded, Encoded, Priority, Rank
from simple_asr.errors import EngineFailed, EngineLost, Overloaded, ShuttingDown
from simple_asr.transcript.events import Done, Progress, SegmentDone
from tests.support import WAIT, Caller, Silence


@pytest.fixture
def backend(tokenizer: Tokenizer) -> FakeBackend:
    return FakeBackend(tokenizer)


@pytest.fixture
def engine(backend: FakeBackend) -> Iterator[Engine]:
    engine = Engine([backend], max_batch_size=4, max_requests=10)
    yield engine
    backend.gate.set()
    engine.close()


def request(
    backend: FakeBackend,
    seconds: float = 2.0,
    priority: Priority = Priority.INTERACTIVE,
    **options: object,
) -> Request:
    return request_of(Silence(seconds), backend, priority, **options)


def request_of(
    recording: Silence,
    backend: FakeBackend,
    priority: Priority = Priority.INTERACTIVE,
    **options: object,
) -> Request:
    chosen = TranscribeOptions.model_validate({"language": "en", **options})
    log_mel = LogMel(recording, 80)
    return Request(chosen, log_mel, backend.info, backend.tokenizer, priority=priority)


def hold(engine: Engine, backend: FakeBackend) -> Caller:
    """Keeps the model busy with a request until the gate opens."""
    backend.gate.clear()
    first = Caller()
    engine.submit(request(backend, seconds=1.0), first)
    assert backend.is_working.wait(WAIT)
    return first


def test_a_request_ends_with_its_transcript(engine: Engine, backend: FakeBackend) -> None:
    caller = Caller()

    engine.submit(request(backend), caller)

    assert caller.transcript().text == " Hello."
    assert [type(event) for event in caller.events] == [Progress, SegmentDone, Progress, Done]


def test_requests_that_wait_share_the_next_call(engine: Engine, backend: FakeBackend) -> None:
    first = hold(engine, backend)
    others = [Caller() for _ in range(3)]
    for other in others:
        engine.submit(request(backend), other)

    backend.gate.set()

    assert all(caller.transcript().text == " Hello." for caller in [first, *others])
    assert [len(batch) for batch in backend.batches] == [1, 3]


def test_a_long_file_does_not_hold_up_a_short_one(engine: Engine, backend: FakeBackend) -> None:
    first = hold(engine, backend)
    long, short = Caller(), Caller()
    engine.submit(request(backend, seconds=600), long)
    engine.submit(request(backend, seconds=2), short)

    backend.gate.set()

    first.transcript()
    short.transcript()
    assert len(backend.batches) <= 4
    assert long.transcript().duration == 600


def test_a_newcomer_waits_for_one_window_of_a_file_in_chunks_and_not_for_all(
    tokenizer: Tokenizer,
) -> None:
    backend = HeldEncoder(tokenizer)
    engine = Engine([backend], max_batch_size=8, max_requests=10)
    chunks = [Span(start, start + 20.0) for start in range(0, 160, 20)]
    long, short = Caller(), Caller()
    options = TranscribeOptions(language="en")
    log_mel = LogMel(Silence(160.0), 80)
    engine.submit(Request(options, log_mel, backend.info, tokenizer, chunks=chunks), long)
    assert backend.is_encoding.wait(WAIT)

    engine.submit(request(backend), short)
    backend.may_encode.set()

    assert short.transcript().text == " Hello."
    assert long.transcript().text == " Hello." * 8
    assert len(backend.batches[0]) == 1
    engine.close()


class HeldEncoder(FakeBackend):
    """Encodes when it is let."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        super().__init__(tokenizer)
        self.is_encoding = threading.Event()
        self.may_encode = threading.Event()

    def encode(self, log_mels: Sequence[NDArray[np.float32]]) -> list[Encoded]:
        self.is_encoding.set()
        self.may_encode.wait(WAIT)
        return super().encode(log_mels)


def test_on_a_cpu_who_waits_shares_no_call_with_the_background(
    engine: Engine, backend: FakeBackend
) -> None:
    hold(engine, backend)
    job, caller = Caller(), Caller()
    engine.submit(request(backend, priority=Priority.BACKGROUND), job)
    engine.submit(request(backend), caller)

    backend.gate.set()

    caller.transcript()
    job.transcript()
    assert [len(batch) for batch in backend.batches] == [1, 1, 1]


@pytest.mark.parametrize(
    ("seconds", "ranks"),
    [(30.0, [Rank.OPENING, Rank.OPENING]), (31.0, [Rank.OPENING, Rank.LATER])],
)
def test_all_windows_of_a_short_recording_are_openings_and_the_first_of_a_long_one(
    backend: FakeBackend, seconds: float, ranks: list[Rank]
) -> None:
    options = TranscribeOptions(language="en")
    log_mel = LogMel(Silence(seconds), 80)
    chunks = [Span(0.0, 10.0), Span(15.0, 25.0)]

    _, windows = Request(options, log_mel, backend.info, backend.tokenizer, chunks=chunks).start()

    assert [window.rank for window in windows] == ranks


def test_options_that_cannot_share_a_call_do_not(engine: Engine, backend: FakeBackend) -> None:
    hold(engine, backend)
    greedy, beams = Caller(), Caller()
    engine.submit(request(backend), greedy)
    engine.submit(request(backend, beam_size=5), beams)

    backend.gate.set()

    greedy.transcript()
    beams.transcript()
    assert [len(batch) for batch in backend.batches] == [1, 1, 1]


def test_one_caller_too_many_is_refused_at_once(tokenizer: Tokenizer) -> None:
    engine = Engine([FakeBackend(tokenizer)], max_batch_size=4, max_requests=1)

    with engine.admission():
        with pytest.raises(Overloaded) as refusal, engine.admission():
            pass
        assert engine.num_admitted == 1

    assert refusal.value.retry_after
    with engine.admission():
        pass
    engine.close()


class Broken(Silence):
    """A recording that was closed while the model wanted to hear it."""

    def read(self, start: int, stop: int) -> NDArray[np.float32]:
        raise ValueError("I/O operation on closed file")


def test_a_window_that_cannot_be_heard_costs_nobody_else_the_answer(
    engine: Engine, backend: FakeBackend
) -> None:
    first = hold(engine, backend)
    gone, broken, sound = Caller(), Caller(), Caller()
    leaving, failing = (request_of(Broken(2.0), backend) for _ in range(2))
    engine.submit(leaving, gone)
    engine.submit(failing, broken)
    engine.submit(request(backend), sound)
    engine.cancel(leaving)

    backend.gate.set()

    first.transcript()
    assert sound.transcript().text == " Hello."
    with pytest.raises(EngineFailed):
        broken.transcript()
    assert gone.ends.empty()


def test_windows_are_encoded_in_calls_as_large_as_suits_the_model(tokenizer: Tokenizer) -> None:
    backend = FakeBackend(tokenizer, encode_batch_size=3)
    engine = Engine([backend], max_batch_size=8, max_requests=10)
    first = hold(engine, backend)
    others = [Caller() for _ in range(4)]
    for other in others:
        engine.submit(request(backend), other)

    backend.gate.set()

    assert all(caller.transcript().text == " Hello." for caller in [first, *others])
    assert backend.encoded_together == [1, 3, 1]
    assert [len(batch) for batch in backend.batches] == [1, 4]
    engine.close()


def test_a_window_that_cannot_be_heard_costs_those_encoded_with_it_nothing(
    tokenizer: Tokenizer,
) -> None:
    backend = FakeBackend(tokenizer, encode_batch_size=3)
    engine = Engine([backend], max_batch_size=8, max_requests=10)
    hold(engine, backend)
    broken, sound = Caller(), Caller()
    engine.submit(request_of(Broken(2.0), backend), broken)
    engine.submit(request(backend), sound)

    backend.gate.set()

    assert sound.transcript().text == " Hello."
    with pytest.raises(EngineFailed):
        broken.transcript()
    engine.close()


def test_a_listener_that_fails_does_not_end_the_worker(
    engine: Engine, backend: FakeBackend
) -> None:
    def fail(_: object) -> None:
        raise RuntimeError("Event loop is closed")

    engine.submit(request(backend), fail)
    caller = Caller()
    engine.submit(request(backend), caller)

    assert caller.transcript().text == " Hello."


def test_replicas_share_the_requests(tokenizer: Tokenizer) -> None:
    backends = [FakeBackend(tokenizer) for _ in range(2)]
    engine = Engine(backends, max_batch_size=1, max_requests=10)
    for backend in backends:
        backend.gate.clear()
    callers = [Caller() for _ in range(2)]

    for caller in callers:
        engine.submit(request(backends[0]), caller)

    assert all(backend.is_working.wait(WAIT) for backend in backends)
    for backend in backends:
        backend.gate.set()
    assert [caller.transcript().text for caller in callers] == [" Hello."] * 2
    engine.close()


def test_a_cancelled_request_never_reaches_the_model(engine: Engine, backend: FakeBackend) -> None:
    first = hold(engine, backend)
    gone, staying = Caller(), Caller()
    leaving = request(backend, seconds=3)
    engine.submit(leaving, gone)
    engine.submit(request(backend), staying)

    engine.cancel(leaving)
    backend.gate.set()

    first.transcript()
    staying.transcript()
    assert [len(batch) for batch in backend.batches] == [1, 1]
    assert gone.ends.empty()


def test_who_leaves_while_being_heard_is_not_written_for(tokenizer: Tokenizer) -> None:
    backend = HeldEncoder(tokenizer)
    engine = Engine([backend], max_batch_size=8, max_requests=10)
    leaving, staying = request(backend), Caller()
    engine.submit(leaving, Caller())
    assert backend.is_encoding.wait(WAIT)

    engine.cancel(leaving)
    engine.submit(request(backend), staying)
    backend.may_encode.set()

    assert staying.transcript().text == " Hello."
    assert [len(batch) for batch in backend.batches] == [1]
    engine.close()


def test_who_leaves_is_not_written_for_any_more(writer: Writer) -> None:
    engine = Engine([writer], max_batch_size=8, max_requests=10)
    leaving, staying = request(writer, language="de"), Caller()
    engine.submit(leaving, Caller())
    assert writer.is_working.wait(WAIT)

    engine.cancel(leaving)
    engine.submit(request(writer), staying)
    writer.may_write.release(1 + Writer.NUM_TOKENS["en"])

    assert staying.transcript().text == " Hello."
    assert writer.ended == ["en"]
    engine.close()


def test_whose_text_has_ended_does_not_wait_for_the_longest_of_the_call(writer: Writer) -> None:
    engine = Engine([writer], max_batch_size=8, max_requests=10)
    german, english = together(engine, writer)

    writer.may_write.release(Writer.NUM_TOKENS["en"])
    first = english.transcript()
    has_german_ended = not german.ends.empty()
    writer.may_write.release(Writer.NUM_TOKENS["de"])

    assert not has_german_ended
    assert first.text == german.transcript().text == " Hello."
    assert [len(batch) for batch in writer.batches] == [1, 2]
    engine.close()


def test_when_a_call_fails_only_who_has_no_answer_is_asked_for_again(writer: Writer) -> None:
    engine = Engine([writer], max_batch_size=8, max_requests=10)
    german, english = together(engine, writer)
    writer.fails_together_after = Writer.NUM_TOKENS["en"]

    writer.may_write.release(Writer.NUM_TOKENS["en"] + 1 + Writer.NUM_TOKENS["de"])

    assert english.transcript().text == german.transcript().text == " Hello."
    assert [len(batch) for batch in writer.batches] == [1, 2, 1]
    engine.close()


def test_a_caller_passes_between_two_tokens_of_the_background(writer: Writer) -> None:
    engine = Engine([writer], max_batch_size=8, max_requests=10)
    job, caller = Caller(), Caller()
    engine.submit(request(writer, priority=Priority.BACKGROUND, language="de"), job)
    assert writer.is_working.wait(WAIT)

    engine.submit(request(writer), caller)
    writer.may_write.release(1 + Writer.NUM_TOKENS["en"])
    caller.transcript()
    has_job_ended = not job.ends.empty()
    writer.may_write.release(Writer.NUM_TOKENS["de"])

    assert not has_job_ended
    assert job.transcript().text == " Hello."
    engine.close()


def test_a_voice_note_passes_between_two_tokens_of_a_meeting(writer: Writer) -> None:
    engine = Engine([writer], max_batch_size=8, max_requests=10)
    meeting, note = Caller(), Caller()
    engine.submit(request(writer, seconds=40, language="de"), meeting)
    assert writer.is_working.wait(WAIT)
    writer.is_working.clear()
    writer.may_write.release(Writer.NUM_TOKENS["de"])
    assert writer.is_working.wait(WAIT), "no second window"

    engine.submit(request(writer), note)
    writer.may_write.release(1 + Writer.NUM_TOKENS["en"])
    note.transcript()
    has_meeting_ended = not meeting.ends.empty()
    writer.may_write.release(1000)

    assert not has_meeting_ended
    assert meeting.transcript().duration == 40
    engine.close()


def test_a_caller_passes_between_two_windows_that_the_background_has_heard(
    tokenizer: Tokenizer,
) -> None:
    backend = HeldEncoder(tokenizer)
    engine = Engine([backend], max_batch_size=8, max_requests=10)
    jobs = [Caller() for _ in range(3)]
    for job in jobs:
        engine.submit(request(backend, language="de", priority=Priority.BACKGROUND), job)
    assert backend.is_encoding.wait(WAIT)
    caller = Caller()

    engine.submit(request(backend, language="en"), caller)
    backend.may_encode.set()

    assert [each.transcript().text for each in (caller, *jobs)] == [" Hello."] * 4
    [first] = backend.batches[0]
    assert isinstance(first, Decode)
    assert tokenizer.language_token("en") in first.prompt.tokens
    engine.close()


def test_a_call_of_the_background_gives_way_so_often_and_then_goes_on(writer: Writer) -> None:
    engine = Engine([writer], max_batch_size=2, max_requests=50)
    job, callers = Caller(), [Caller() for _ in range(20)]
    engine.submit(request(writer, priority=Priority.BACKGROUND, language="de"), job)
    assert writer.is_working.wait(WAIT)

    for caller in callers:
        engine.submit(request(writer), caller)
    writer.may_write.release(1000)

    for each in (job, *callers):
        each.transcript()
    assert writer.ended.index("de") == MOST_PASSED_OVER
    engine.close()


def test_a_call_gives_way_as_often_as_suits_the_windows_that_could_be_heard(
    writer: Writer,
) -> None:
    engine = Engine([writer], max_batch_size=4, max_requests=50)
    first, job, callers = Caller(), Caller(), [Caller() for _ in range(20)]
    engine.submit(request(writer), first)
    assert writer.is_working.wait(WAIT)
    engine.submit(request(writer, priority=Priority.BACKGROUND, language="de"), job)
    for _ in range(2):
        broken = request_of(Broken(2.0), writer, Priority.BACKGROUND, language="de")
        engine.submit(broken, Caller())
    writer.is_working.clear()
    writer.may_write.release(Writer.NUM_TOKENS["en"])
    assert writer.is_working.wait(WAIT), "the job is not written"

    for caller in callers:
        engine.submit(request(writer), caller)
    writer.may_write.release(1000)

    for each in (first, job, *callers):
        each.transcript()
    assert writer.ended.index("de") == 1 + MOST_PASSED_OVER
    engine.close()


def test_those_count_too_who_pass_those_who_pass(writer: Writer) -> None:
    engine = Engine([writer], max_batch_size=4, max_requests=50)
    job = Caller()
    engine.submit(request(writer, priority=Priority.BACKGROUND, language="de"), job)
    assert writer.is_working.wait(WAIT)

    callers = [Caller() for _ in range(8)]
    speakers = [Caller() for _ in range(20)]
    for caller in callers:
        engine.submit(request(writer), caller)
    writer.is_working.clear()
    writer.may_write.release(1)
    assert writer.is_working.wait(WAIT), "no caller passes"
    for speaker in speakers:
        engine.submit(request(writer, priority=Priority.LIVE), speaker)
    writer.may_write.release(1000)

    for each in (job, *callers, *speakers):
        each.transcript()
    assert writer.ended.index("de") == MOST_PASSED_OVER
    engine.close()


def test_a_call_that_passes_and_fails_costs_the_one_it_passes_nothing(writer: Writer) -> None:
    engine = Engine([writer], max_batch_size=8, max_requests=10)
    job, callers = Caller(), [Caller() for _ in range(2)]
    engine.submit(request(writer, priority=Priority.BACKGROUND, language="de"), job)
    assert writer.is_working.wait(WAIT)
    writer.fails_together_after = 1

    for caller in callers:
        engine.submit(request(writer), caller)
    writer.may_write.release(1000)

    assert [each.transcript().text for each in (*callers, job)] == [" Hello."] * 3
    assert engine.statistics.num_failed_batches == 1
    engine.close()


def test_closing_ends_a_call_that_stands_still_and_the_one_that_passes(writer: Writer) -> None:
    engine = Engine([writer], max_batch_size=8, max_requests=10)
    job, caller = Caller(), Caller()
    engine.submit(request(writer, priority=Priority.BACKGROUND, language="de"), job)
    assert writer.is_working.wait(WAIT)
    writer.is_working.clear()
    engine.submit(request(writer), caller)
    writer.may_write.release(1)
    assert writer.is_working.wait(WAIT), "nobody passes"

    ending = threading.Thread(target=engine.close)
    ending.start()
    for each in (job, caller):
        with pytest.raises(ShuttingDown):
            each.transcript()
    writer.may_write.release(2)  # a token of each
    ending.join(WAIT)

    assert writer.is_closed


def test_a_window_that_the_model_forgets_fails_its_request(tokenizer: Tokenizer) -> None:
    class Forgetful(FakeBackend):
        def decode(
            self, encoded: Sequence[Encoded], steps: Sequence[Decode]
        ) -> Iterator[dict[int, Decoded]]:
            yield {}

    backend = Forgetful(tokenizer)
    engine = Engine([backend], max_batch_size=8, max_requests=10)
    caller = Caller()

    engine.submit(request(backend), caller)

    with pytest.raises(EngineFailed):
        caller.transcript()
    engine.close()


class Writer(FakeBackend):
    """Writes a token as often as it may: so many, and a window in its language has ended."""

    NUM_TOKENS: ClassVar = {"en": 2, "de": 10}

    def __init__(self, tokenizer: Tokenizer) -> None:
        super().__init__(tokenizer)
        self.may_write = threading.Semaphore(0)
        self.ended: list[str] = []
        self.fails_together_after: int | None = None

    def decode(
        self, encoded: Sequence[Encoded], steps: Sequence[Decode]
    ) -> Iterator[dict[int, Decoded]]:
        for answers in super().decode(encoded, steps):
            languages = [self._language(step) for step in steps]
            for num_tokens in range(1, 1 + max(self.NUM_TOKENS.values())):
                assert self.may_write.acquire(timeout=WAIT)
                if len(steps) > 1 and self.fails_together_after == num_tokens - 1:
                    raise RuntimeError("out of memory")
                ended = [
                    row
                    for row, language in enumerate(languages)
                    if self.NUM_TOKENS[language] == num_tokens
                ]
                self.ended += [languages[row] for row in ended]
                yield {row: answers[row] for row in ended}

    def _language(self, step: Decode) -> str:
        tokens = step.prompt.tokens
        return next(
            code for code in self.NUM_TOKENS if self.tokenizer.language_token(code) in tokens
        )


@pytest.fixture
def writer(tokenizer: Tokenizer) -> Writer:
    return Writer(tokenizer)


def together(engine: Engine, writer: Writer) -> tuple[Caller, Caller]:
    """Who waits for German and who for English, in one call that may begin."""
    first, german, english = Caller(), Caller(), Caller()
    engine.submit(request(writer), first)
    assert writer.is_working.wait(WAIT)
    engine.submit(request(writer, language="de"), german)
    engine.submit(request(writer), english)
    writer.may_write.release(Writer.NUM_TOKENS["en"])
    first.transcript()
    return german, english


def test_a_failing_call_costs_its_own_requests_and_the_engine_goes_on(
    tokenizer: Tokenizer,
) -> None:
    def fail_on_beams(step: Decode) -> Decoded:
        if step.search.beam_size > 1:
            raise RuntimeError("out of memory")
        return FakeBackend(tokenizer).say_hello(step)

    backend = FakeBackend(tokenizer, fail_on_beams)
    engine = Engine([backend], max_batch_size=4, max_requests=10)
    failing, sound = Caller(), Caller()
    engine.submit(request(backend, beam_size=5), failing)
    engine.submit(request(backend), sound)

    with pytest.raises(EngineFailed):
        failing.transcript()
    assert sound.transcript().text == " Hello."
    engine.close()


def test_a_window_on_which_the_model_fails_costs_those_beside_it_nothing(
    tokenizer: Tokenizer,
) -> None:
    def fail_in_french(step: Decode) -> Decoded:
        if tokenizer.language_token("fr") in step.prompt.tokens:
            raise RuntimeError("out of memory")
        return FakeBackend(tokenizer).say_hello(step)

    backend = FakeBackend(tokenizer, fail_in_french)
    engine = Engine([backend], max_batch_size=4, max_requests=10)
    hold(engine, backend)
    french = Caller()
    others = {language: Caller() for language in ("de", "es", "it")}
    engine.submit(request(backend, language="fr"), french)
    for language, caller in others.items():
        engine.submit(request(backend, language=language), caller)

    backend.gate.set()

    assert [caller.transcript().text for caller in others.values()] == [" Hello."] * 3
    with pytest.raises(EngineFailed):
        french.transcript()
    assert [len(batch) for batch in backend.batches[:2]] == [1, 4]
    engine.close()


def test_closing_tells_those_who_wait(tokenizer: Tokenizer) -> None:
    backend = FakeBackend(tokenizer)
    engine = Engine([backend], max_batch_size=4, max_requests=10)
    hold(engine, backend)
    waiting = Caller()
    engine.submit(request(backend), waiting)
    backend.gate.set()

    engine.close()

    with pytest.raises(ShuttingDown):
        waiting.transcript()
    with pytest.raises(ShuttingDown):
        engine.submit(request(backend), Caller())
    assert backend.is_closed


def test_every_model_call_is_reported_with_its_windows(backend: FakeBackend) -> None:
    calls: list[tuple[str, int, bool]] = []

    def on_call(step: str, num_windows: int, seconds: float, *, has_failed: bool) -> None:
        calls.append((step, num_windows, has_failed))

    engine = Engine([backend], max_batch_size=4, max_requests=10, on_call=on_call)
    first = hold(engine, backend)
    others = [Caller() for _ in range(2)]
    for other in others:
        engine.submit(request(backend), other)
    backend.gate.set()

    for caller in (first, *others):
        caller.transcript()
    engine.close()

    assert calls == [("Decode", 1, False), ("Decode", 2, False)]


def test_what_becomes_of_each_window_is_told(backend: FakeBackend) -> None:
    outcomes: list[str] = []
    engine = Engine([backend], max_batch_size=4, max_requests=10, on_outcome=outcomes.append)
    caller = Caller()

    engine.submit(request(backend), caller)

    caller.transcript()
    engine.close()
    assert outcomes == ["accepted"]


def test_what_waits_for_the_model_is_seen_until_it_is_its_turn_or_gone(
    engine: Engine, backend: FakeBackend
) -> None:
    first = hold(engine, backend)
    empty = engine.queue
    waiting, leaving = Caller(), request(backend)
    engine.submit(leaving, Caller())
    engine.submit(request(backend), waiting)
    both = engine.queue
    engine.cancel(leaving)
    one = engine.queue

    backend.gate.set()

    first.transcript()
    waiting.transcript()
    assert empty == Queue(0, 0.0)
    assert (both.num_windows, one.num_windows) == (2, 1)
    assert both.age > 0
    assert engine.queue == Queue(0, 0.0)


# Faults -----------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_worker_that_died_is_a_fault(tokenizer: Tokenizer) -> None:
    def die(_: Decode) -> Decoded:
        raise SystemExit  # What no worker catches.

    engine = Engine([FakeBackend(tokenizer, die)], max_batch_size=4, max_requests=10)
    engine.submit(request(FakeBackend(tokenizer)), Caller())
    [worker] = [thread for thread in threading.enumerate() if thread.name == "asr-engine-0"]
    worker.join(WAIT)

    assert engine.fault() == "A worker of the model has died."
    engine.close()


def test_a_call_that_never_returns_is_a_fault_and_an_engine_that_works_has_none(
    backend: FakeBackend,
) -> None:
    clock = Clock()
    watch = CallWatch(min_timeout=60, clock=clock)
    engine = Engine([backend], max_batch_size=4, max_requests=10, watch=watch)
    hold(engine, backend)

    before = engine.fault()
    clock.now = 61
    after = engine.fault()
    backend.gate.set()
    engine.close()

    assert before is None
    assert after is not None


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_an_engine_that_is_given_up_tells_all_who_wait_and_all_who_come(
    engine: Engine, backend: FakeBackend
) -> None:
    working, waiting, late = hold(engine, backend), Caller(), Caller()
    engine.submit(request(backend, beam_size=5), waiting)

    engine.give_up()

    for caller in (working, waiting):
        with pytest.raises(EngineLost) as lost:
            caller.transcript()
        assert lost.value.retry_after
    with pytest.raises(EngineLost):
        engine.submit(request(backend), late)
    with pytest.raises(EngineLost), engine.admission():
        pass
