"""Runs requests on model replicas: admission, one worker thread a replica, cancel, drain."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from simple_asr.audio.features import N_FRAMES
from simple_asr.engine.backends.base import Backend
from simple_asr.engine.options import TranscribeOptions
from simple_asr.engine.request import Outcome, Request
from simple_asr.engine.scheduler import MOST_PASSED_OVER, Scheduler
from simple_asr.engine.seek_loop import search_options
from simple_asr.engine.tokens import build_prompt
from simple_asr.engine.watch import CallWatch, work_of
from simple_asr.engine.window import (
    Align,
    Answer,
    Decode,
    DetectLanguage,
    FindVoice,
    Voice,
    Window,
    WindowAudio,
)
from simple_asr.errors import AsrError, EngineFailed, EngineLost, Overloaded, ShuttingDown
from simple_asr.transcript.events import Event

logger = logging.getLogger(__name__)

# What one worker of a GPU needs to have them before the GPU wants them; a CPU's needs none.
_SPECTROGRAM_THREADS = 8

Listener = Callable[[Event | AsrError], None]
"""Told, from a worker thread, each event of a request, or the error that ended it."""


class OnCall(Protocol):
    """Told, from a worker thread, of each model call; must neither wait nor fail."""

    def __call__(
        self, step: str, num_windows: int, seconds: float, *, has_failed: bool
    ) -> None: ...


def tell_no_one(step: str, num_windows: int, seconds: float, *, has_failed: bool) -> None:
    """Listens to nothing."""


@dataclass(frozen=True, slots=True)
class Queue:
    """`num_windows` wait for a model, the first of them for `age` seconds."""

    num_windows: int = 0
    age: float = 0.0


@dataclass(slots=True)
class _Turn:
    """What a worker does for one batch of `num_windows`.

    Between two encodings, and two tokens, it lets windows of an earlier rank pass: so many at most
    in all, those included that pass them, and at once no more than half of what it may have itself,
    since memory holds both.
    """

    backend: Backend
    max_batch_size: int
    num_windows: int
    max_passing: int
    num_passed: int = 0
    seconds_waited: float = 0.0

    @property
    def num_to_let_pass(self) -> int:
        """How many windows may pass now, in one call."""
        allowed = min(self.max_passing, MOST_PASSED_OVER * self.num_windows)
        return min(self.max_batch_size // 2, allowed - self.num_passed)

    def passed_by(self, batch: Sequence[Window]) -> _Turn:
        """The turn of a batch that passes this one."""
        self.num_passed += len(batch)
        return _Turn(
            self.backend,
            self.max_batch_size // 2,
            len(batch),
            max_passing=self.max_passing - self.num_passed,
        )

    def now(self) -> float:
        """Seconds on a clock that stands still while others pass."""
        return time.monotonic() - self.seconds_waited

    @contextmanager
    def giving_way(self) -> Iterator[None]:
        """While somebody passes."""
        began = time.monotonic()
        try:
            yield
        finally:
            self.seconds_waited += time.monotonic() - began


@dataclass(slots=True)
class Statistics:
    """Since the start; read without a lock, so a moment behind."""

    num_batches: int = 0
    num_windows: int = 0
    num_failed_batches: int = 0


class Engine:
    """Shares model calls between requests.

    `_lock` guards the scheduler, the listeners and every request: a request moves on only while
    its worker holds it. Model calls run outside it.
    """

    def __init__(
        self,
        backends: Sequence[Backend],
        *,
        max_batch_size: int,
        max_requests: int,
        on_call: OnCall = tell_no_one,
        on_outcome: Callable[[Outcome], None] = lambda _: None,
        watch: CallWatch | None = None,
    ) -> None:
        """Starts one thread for each of `backends`, which then belongs to it."""
        is_on_gpu = backends[0].info.device == "cuda"
        self._scheduler = Scheduler(max_batch_size, mixes_ranks=is_on_gpu)
        self._max_batch_size = max_batch_size
        self._max_requests = max_requests
        self._on_call = on_call
        self._on_outcome = on_outcome
        self._waiting: dict[Window, float] = {}
        self._num_admitted = 0
        self._listeners: dict[Request, Listener] = {}
        self._is_closing = False
        self._is_lost = False
        self._watch = watch or CallWatch(min_timeout=0)
        self._lock = threading.Lock()
        self._work = threading.Condition(self._lock)
        self.statistics = Statistics()
        self._backends = backends
        self._num_running = len(backends)
        self._spectrograms = ThreadPoolExecutor(_SPECTROGRAM_THREADS, "asr-spectrogram")
        self._threads = [
            threading.Thread(
                target=self._run, args=(backend,), name=f"asr-engine-{index}", daemon=True
            )
            for index, backend in enumerate(backends)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def num_admitted(self) -> int:
        """Callers between admission and the end of their work."""
        with self._lock:
            return self._num_admitted

    @property
    def queue(self) -> Queue:
        """What waits now."""
        with self._lock:
            oldest = next(iter(self._waiting.values()), None)
            age = 0.0 if oldest is None else time.monotonic() - oldest
            return Queue(len(self._waiting), age)

    @contextmanager
    def admission(self) -> Iterator[None]:
        """A place among `max_requests`, taken before any work is done for a caller.

        Raises Overloaded, ShuttingDown or EngineLost at once, with nothing queued.
        """
        with self._lock:
            self._check_open()
            if self._num_admitted >= self._max_requests:
                raise Overloaded(
                    f"{self._max_requests} requests are being worked on, which is this server's "
                    "limit. Send the request again later.",
                    retry_after=5,
                )
            self._num_admitted += 1
        try:
            yield
        finally:
            with self._lock:
                self._num_admitted -= 1

    def submit(self, request: Request, listener: Listener) -> None:
        """Starts an admitted caller's request. Raises ShuttingDown, EngineLost."""
        with self._work:
            self._check_open()
            events, windows = request.start()
            self._listeners[request] = listener
            self._publish(request, events, windows)

    def cancel(self, request: Request) -> None:
        """Frees the request's windows, and stops a call for them alone. It hears nothing more."""
        with self._lock:
            self._forget(request)

    def fault(self) -> str | None:
        """Why it cannot go on, for the log; None while it can."""
        with self._lock:
            if self._is_closing or all(thread.is_alive() for thread in self._threads):
                return self._watch.overdue()
        return "A worker of the model has died."

    def give_up(self) -> None:
        """Fails all who wait, and all who come, with EngineLost: after a fault nothing is sure."""
        with self._work:
            self._is_lost = True
            for request in list(self._listeners):
                self._fail(request, engine_lost())

    def close(self, timeout: float = 5.0) -> None:
        """Ends the workers after their present token, or call; who waits is told ShuttingDown."""
        with self._work:
            self._is_closing = True
            for request in list(self._listeners):
                self._fail(request, ShuttingDown("The server was shut down during the request."))
            self._work.notify_all()
        for thread in self._threads:
            thread.join(timeout)

    # Worker threads ------------------------------------------------------------------------------

    def _run(self, backend: Backend) -> None:
        while True:
            with self._work:
                while not (batch := self._scheduler.next_batch()) and not self._is_closing:
                    self._work.wait()
                self._note_served(batch)
            if not batch:
                break
            most = MOST_PASSED_OVER * len(batch)
            self._serve(_Turn(backend, self._max_batch_size, len(batch), most), batch)
        self._end_worker()

    def _end_worker(self) -> None:
        """Replicas may share their weights: the last worker gives them all back."""
        with self._lock:
            self._num_running -= 1
            if self._num_running:
                return
        self._spectrograms.shutdown(wait=False)
        for backend in self._backends:
            backend.close()

    def _serve(self, turn: _Turn, batch: list[Window]) -> None:
        """One model call and what follows from it. Whatever fails, the worker lives on."""
        if heard := self._awaited(self._hear_all(turn, batch)):
            turn.num_windows = len(heard)
            self._ask(turn, heard)

    def _ask(self, turn: _Turn, windows: list[Window]) -> None:
        """Where a call fails, its halves are asked by themselves.

        What was too much for the memory at once may not be in parts, and a window on which the
        model fails costs no other the answer.
        """
        unanswered = dict.fromkeys(windows)
        began = turn.now()
        try:
            with self._watch.call(turn.backend, work_of(windows)):
                self._answer(turn, unanswered)
        except Exception as error:
            with self._lock:
                self.statistics.num_failed_batches += 1
            if len(windows) > 1:
                logger.warning("A call with %d windows failed, halving: %s", len(windows), error)
                rest = list(unanswered)
                middle = len(rest) // 2
                for half in (rest[:middle], rest[middle:]):
                    if half:
                        self._ask(turn, half)
                return
            logger.exception("A model call failed")
            self._on_call(_name_of(windows), 1, turn.now() - began, has_failed=True)
            with self._lock:
                self._fail_call(windows[0])

    def _answer(self, turn: _Turn, unanswered: dict[Window, None]) -> None:
        """Hands over each answer as soon as it is there, and takes its window out.

        Ends before the model does when nobody waits for the rest. Raises what the model raises, and
        RuntimeError when it gives no answer to a window.
        """
        windows, began = list(unanswered), turn.now()
        with closing(ask(turn.backend, windows)) as answering:
            for answers in answering:
                is_over = not self._awaited(unanswered.keys() - dict(answers).keys())
                if is_over:
                    self._count_call(windows, turn.now() - began)
                with self._work:
                    for window, answer in answers:
                        self._hand_over(window, answer)
                        del unanswered[window]
                if is_over:
                    return
                with self._watch.paused(turn.backend):
                    self._let_pass(turn, unanswered)
        raise RuntimeError(f"The model left {len(unanswered)} windows without an answer.")

    def _awaited(self, windows: Iterable[Window]) -> list[Window]:
        """Those of these windows for which somebody still waits."""
        with self._lock:
            return [window for window in windows if window.owner in self._listeners]

    def _count_call(self, windows: Sequence[Window], seconds: float) -> None:
        self._on_call(_name_of(windows), len(windows), seconds, has_failed=False)
        with self._lock:
            self.statistics.num_batches += 1
            self.statistics.num_windows += len(windows)

    def _let_pass(self, turn: _Turn, windows: Iterable[Window]) -> None:
        """Serves those who come before all of `windows`, for which the turn is."""
        rank = min(window.rank for window in windows)
        while turn.num_to_let_pass > 0:
            with self._lock:
                batch = self._scheduler.batch_before(rank, turn.num_to_let_pass)
                self._note_served(batch)
            if not batch:
                return
            passing = turn.passed_by(batch)
            with turn.giving_way():
                self._serve(passing, batch)
            turn.num_passed += passing.num_passed

    def _hear_all(self, turn: _Turn, batch: list[Window]) -> list[Window]:
        """Encodes the batch, without the second windows of a request once somebody new waits."""
        heard: list[Window] = []
        owners: set[object] = set()
        left = batch
        while left and not self._gives_way(left, owners):
            group = left[: turn.backend.info.encode_batch_size]
            left = left[len(group) :]
            owners.update(window.owner for window in group)
            heard += self._hear(turn.backend, group)
            self._let_pass(turn, batch)
        return heard

    def _gives_way(self, batch: list[Window], owners: set[object]) -> bool:
        """Puts back windows of `owners`, who have their turn already, when another waits."""
        if batch[0].owner not in owners or batch[0].audio.encoded is not None:
            return False
        with self._work:
            if not self._scheduler.has_others_than(owners, batch[0].priority):
                return False
            returned = [window for window in batch if window.owner in self._listeners]
            self._scheduler.put_back(returned)
            self._waiting.update(dict.fromkeys(returned, time.monotonic()))
            self._work.notify()
            return True

    def _hear(self, backend: Backend, windows: Sequence[Window]) -> list[Window]:
        """Encodes windows, and returns them without those whose caller left or that failed."""
        with self._lock:
            windows = [window for window in windows if window.owner in self._listeners]
        if not windows:
            return []
        try:
            with self._watch.call(backend, len(windows)):
                encode(backend, windows, self._spectrograms)
        except Exception:
            if len(windows) > 1:  # the failure of one costs no other
                return [heard for window in windows for heard in self._hear(backend, [window])]
            with self._lock:
                # Who leaves closes the recording, perhaps while it is read.
                if windows[0].owner in self._listeners:
                    logger.exception("A window could not be encoded")
                    self._fail_call(windows[0])
            return []
        return list(windows)

    # Under the lock ------------------------------------------------------------------------------

    def _note_served(self, batch: Sequence[Window]) -> None:
        """They wait no longer."""
        for window in batch:
            self._waiting.pop(window, None)

    def _hand_over(self, window: Window, answer: Answer) -> None:
        request = window.owner
        assert isinstance(request, Request), "Only requests own windows here"
        if request not in self._listeners:
            return  # cancelled meanwhile
        try:
            events, windows = request.receive(window, answer)
        except Exception:
            logger.exception("A model's answer could not be read")
            self._fail_call(window)
        else:
            if request.last_outcome is not None:
                self._on_outcome(request.last_outcome)
            self._publish(request, events, windows)

    def _check_open(self) -> None:
        if self._is_closing:
            raise ShuttingDown("The server is shutting down. Send the request again shortly.")
        if self._is_lost:
            raise engine_lost()

    def _publish(
        self, request: Request, events: Sequence[Event], windows: Sequence[Window]
    ) -> None:
        listener = self._listeners[request]
        for window in windows:
            self._scheduler.add(window)
            self._waiting[window] = time.monotonic()
        self._work.notify(len(windows))
        if request.is_finished:
            self._forget(request)
        for event in events:
            _tell(listener, event)

    def _fail_call(self, window: Window) -> None:
        request = window.owner
        if isinstance(request, Request) and request in self._listeners:
            self._fail(
                request,
                EngineFailed(
                    "The model failed on this audio; the server's log has the reason. "
                    "Send the request again; if it fails again, tell the operator."
                ),
            )

    def _fail(self, request: Request, error: AsrError) -> None:
        listener = self._listeners[request]
        self._forget(request)
        _tell(listener, error)

    def _forget(self, request: Request) -> None:
        self._listeners.pop(request, None)
        self._scheduler.remove(request)
        for window in [window for window in self._waiting if window.owner is request]:
            del self._waiting[window]


def _name_of(windows: Sequence[Window]) -> str:
    """What the model is asked about them."""
    return windows[0].key.kind.__name__


def engine_lost() -> EngineLost:
    """What callers are told."""
    return EngineLost(
        "Speech recognition has stopped answering and is being started again. Send the request "
        "again shortly.",
        retry_after=10,
    )


def _tell(listener: Listener, event: Event | AsrError) -> None:
    """A listener that fails, as one on a closed event loop does, must not stop the others'."""
    try:
        listener(event)
    except Exception:
        logger.exception("A listener failed")


def encode(
    backend: Backend, windows: Sequence[Window], threads: ThreadPoolExecutor | None = None
) -> None:
    """Has the model hear windows of one context, each once: its output is kept for later steps.

    The spectrograms of several windows are computed side by side in `threads`.
    """
    new = [window.audio for window in windows if window.audio.encoded is None]
    if new:
        each = map if threads is None or len(new) == 1 else threads.map
        outputs = backend.encode(list(each(lambda audio: audio.log_mel(), new)))
        for audio, encoded in zip(new, outputs, strict=True):
            audio.encoded = encoded
    for window in windows:
        if window.key.kind is FindVoice and window.audio.find_voice is not None:
            window.audio.voice = window.audio.find_voice()


def ask(
    backend: Backend, batch: Sequence[Window]
) -> Generator[list[tuple[Window, Answer]], None, None]:
    """The model's answers to encoded windows with equal keys, as `Backend.decode` gives them."""
    encoded = [window.audio.encoded for window in batch]
    if batch[0].key.kind is Decode:
        steps = [window.step for window in batch if isinstance(window.step, Decode)]
        for answers in backend.decode(encoded, steps):
            yield [(batch[row], answer) for row, answer in answers.items()]
        return
    answers_in_order: Sequence[Answer]
    if batch[0].key.kind is FindVoice:
        answers_in_order = [Voice(window.audio.voice) for window in batch]
    elif batch[0].key.kind is DetectLanguage:
        answers_in_order = backend.detect_language(encoded)
    else:
        answers_in_order = backend.align(
            encoded,
            [window.step for window in batch if isinstance(window.step, Align)],
            [window.audio.num_frames for window in batch],
        )
    yield list(zip(batch, answers_in_order, strict=True))


def answer_batch(backend: Backend, batch: Sequence[Window]) -> list[Answer]:
    """Encodes windows with equal keys, and asks the model about them in one call."""
    for start in range(0, len(batch), backend.info.encode_batch_size):
        encode(backend, batch[start : start + backend.info.encode_batch_size])
    answers = {window: answer for part in ask(backend, batch) for window, answer in part}
    return [answers[window] for window in batch]


def warm_up(backend: Backend) -> None:
    """One real inference: 30 s of silence heard, one token written. Raises as the backend does."""
    tokenizer = backend.tokenizer
    options = TranscribeOptions(sample_len=1)
    language = "en" if backend.info.is_multilingual else None
    prompt = build_prompt(tokenizer, options, language, previous=())
    step = Decode(prompt, search_options(options, tokenizer, temperature=0.0))
    audio = WindowAudio(lambda: np.zeros((backend.info.n_mels, N_FRAMES), np.float32), N_FRAMES)
    answer_batch(backend, [Window(None, audio, step)])
