"""Several models in one server: loaded when they are asked for, released when they are not.

Which of them stay is the shelf's business, recognising the transcribers'.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import aclosing, asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Protocol

from simple_asr.engine.catalogue import find_model
from simple_asr.engine.engine import Queue, engine_lost
from simple_asr.engine.models import KnownModel
from simple_asr.engine.options import TranscribeOptions
from simple_asr.engine.parts import WHOLE, Part
from simple_asr.engine.window import Priority
from simple_asr.errors import (
    ModelFailed,
    ModelInUse,
    ModelNotFound,
    Overloaded,
    ShuttingDown,
)
from simple_asr.service.labels import label
from simple_asr.service.shelf import Shelf
from simple_asr.service.transcriber import LocalTranscriber, ModelState, Transcriber
from simple_asr.transcript.events import Checkpoint, Event
from simple_asr.transcript.model import Transcript

logger = logging.getLogger(__name__)

# How many times within MODEL_IDLE_SECONDS idle models are looked for.
_LOOKS = 10


ModelPlace = Literal["loaded", "loading", "failed", "local", "known"]
PLACES: dict[str, ModelPlace] = {
    "ready": "loaded",
    "loading": "loading",
    "failed": "failed",
    "restarting": "loading",
}


@dataclass(frozen=True, slots=True)
class ListedModel:
    """A model that can be named. `state` "known" is on the hub only; `num_bytes` 0 is unknown.

    Only one that `is_here`, whole on this machine, can be asked for.
    """

    name: str
    state: ModelPlace
    num_bytes: int
    num_requests: int = 0
    is_default: bool = False
    is_here: bool = True


class Models(Transcriber, Protocol):
    """A transcriber that heeds `options.model`, and can go on with work that was stopped."""

    def events(
        self,
        media: Path,
        options: TranscribeOptions,
        checkpoint: Checkpoint | None = None,
        priority: Priority = Priority.INTERACTIVE,
    ) -> AsyncGenerator[Event, None]:
        """As a Transcriber's; from `checkpoint` on, of which only what is new is told.

        Where it cannot go on, it begins anew, with the segment 0.
        """
        ...

    def check_room(self) -> None:
        """Raises Overloaded or EngineLost where one more request would be refused now."""
        ...

    def models(self) -> list[ListedModel]:
        """Every model, the default one first. Reads folders."""
        ...

    def find(self, name: str) -> ListedModel:
        """The model a name stands for. Raises ModelNotFound."""
        ...

    def load(self, name: str) -> ListedModel:
        """Begins to load a model, fetching it where it is not here; its state now.

        Raises ModelNotFound, InvalidParameter and ModelNotReady (no room).
        """
        ...

    def unload(self, name: str) -> ListedModel:
        """Releases a model at once. Raises ModelNotFound, ModelInUse."""
        ...


@dataclass(frozen=True, slots=True)
class _Opened:
    """A model that is loaded or on its way; `outcome` comes when that is decided."""

    transcriber: LocalTranscriber
    outcome: Future[ModelState]

    def close(self) -> None:
        """Blocks until its model is released."""
        self.transcriber.close()


class ModelPool:
    """One transcriber a model. The default one is there from `start` to `close`.

    `_lock` guards the shelf, the opened models and the counts. A model is closed only after it left
    the shelf, where nobody leaves who is in use; loading is a use too.
    """

    def __init__(
        self,
        default: LocalTranscriber,
        open_model: Callable[[str], LocalTranscriber],
        known_models: Callable[[], Sequence[KnownModel]],
        *,
        max_bytes: int,
        idle_seconds: float,
        max_requests: int,
        seconds_to_next_end: Callable[[], float] = lambda: 5.0,
        on_close: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`open_model` makes a transcriber that has not begun to load.

        All models together take `max_requests`, and one more is told to come again when, as
        `seconds_to_next_end` estimates, a place is free; `on_close` frees what they share.
        """
        self._default = default
        self._open_model = open_model
        self._known_models = known_models
        self._idle_seconds = idle_seconds
        self._max_requests = max_requests
        self._seconds_to_next_end = seconds_to_next_end
        self._on_close = on_close
        self._clock = clock
        self._shelf = Shelf(max_bytes)
        self._opened: dict[str, _Opened] = {}
        self._failed: set[str] = set()
        self._num_requests = 0
        self._is_lost = threading.Event()
        self._on_loss: Callable[[], None] = lambda: None
        self._lock = threading.Lock()
        self._is_closed = threading.Event()
        self._threads = ThreadPoolExecutor(thread_name_prefix="asr-models")
        self._cleaner = threading.Thread(target=self._clean, name="asr-models-idle", daemon=True)

    # The default model ---------------------------------------------------------------------------

    @property
    def model_state(self) -> ModelState:
        """The default model's; `restarting` once any model's engine answers no more."""
        state = self._default.model_state
        return replace(state, status="restarting") if self._is_lost.is_set() else state

    def start(
        self,
        on_failure: Callable[[], None] = lambda: None,
        on_loss: Callable[[], None] = lambda: None,
    ) -> None:
        """Begins to load the default model and returns at once.

        `on_failure` is called where that fails, `on_loss` once an engine answers no more: then
        nobody is admitted, and only another process can go on.
        """
        self._on_loss = on_loss
        sizes = {model.name: model.num_bytes for model in self._known_models()}
        requested = self.model_state.requested
        self._shelf.add(requested, sizes.get(_canonical(requested), 0), self._clock(), is_kept=True)
        self._default.start(on_failure, self._lose)
        if self._idle_seconds:
            self._cleaner.start()

    def _lose(self) -> None:
        if not self._is_lost.is_set():
            self._is_lost.set()
            self._on_loss()

    def wait_until_loaded(self, name: str | None = None) -> ModelState:
        """Waits for a model that was begun to load; the default one unless another is named."""
        if name is None:
            return self._default.wait_until_loaded()
        with self._lock:
            opened = self._opened[name]
        return opened.outcome.result()

    def close(self) -> None:
        """Fails what is in work, and ends every model."""
        with self._lock:
            self._is_closed.set()
            opened, self._opened = list(self._opened.values()), {}
        self._default.close()
        for one in opened:
            one.close()
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._on_close()

    # Requests ------------------------------------------------------------------------------------

    @property
    def num_requests(self) -> int:
        """Requests admitted and not ended, of all models."""
        return self._num_requests

    @property
    def queue(self) -> Queue:
        """Windows that wait, of all models."""
        with self._lock:
            transcribers = [self._default, *(one.transcriber for one in self._opened.values())]
        queues = [transcriber.queue for transcriber in transcribers]
        return Queue(sum(queue.num_windows for queue in queues), max(queue.age for queue in queues))

    async def transcribe(self, media: Path, options: TranscribeOptions) -> Transcript:
        with self._admission():
            async with self._model(options.model) as transcriber:
                return await transcriber.transcribe(media, options)

    async def events(
        self,
        media: Path,
        options: TranscribeOptions,
        checkpoint: Checkpoint | None = None,
        priority: Priority = Priority.INTERACTIVE,
        part: Part = WHOLE,
    ) -> AsyncGenerator[Event, None]:
        with self._admission():
            async with (
                self._model(options.model) as transcriber,
                aclosing(transcriber.events(media, options, checkpoint, priority, part)) as events,
            ):
                async for event in events:
                    yield event

    def check_room(self) -> None:
        if self._is_lost.is_set():
            raise engine_lost()
        if self._num_requests >= self._max_requests:
            raise Overloaded(
                f"{self._max_requests} requests are being worked on, which is this server's "
                "limit. Send the request again later.",
                retry_after=self._seconds_to_next_end(),
            )

    @contextmanager
    def _admission(self) -> Iterator[None]:
        """A place among those of all models. Raises Overloaded, EngineLost."""
        with self._lock:
            self.check_room()
            self._num_requests += 1
        try:
            yield
        finally:
            with self._lock:
                self._num_requests -= 1

    @asynccontextmanager
    async def _model(self, name: str | None) -> AsyncIterator[LocalTranscriber]:
        """The model, loaded, for as long as the context lasts.

        Raises ModelNotFound, ModelNotReady, ModelFailed, InvalidParameter.
        """
        if name is None or self._is_default(name):
            yield self._default
            return
        model = await asyncio.to_thread(self._find, name)
        if model.state == "on the hub":
            raise ModelNotFound(
                f"The model {model.name} is known, and not on this machine. An administrator can "
                f"have it fetched: POST /models/{model.name}/load.",
                field="model",
            )
        opened = self._begin_use(model)
        try:
            # Shielded, since others may wait for the same.
            state = await asyncio.shield(asyncio.wrap_future(opened.outcome))
            if state.status != "ready":
                raise ModelFailed(
                    f"The model {model.name} could not be loaded; the server's log has the reason. "
                    "Tell the operator, or name another model.",
                    retry_after=30,
                )
            yield opened.transcriber
        finally:
            self._end_use(model.name)

    # Models --------------------------------------------------------------------------------------

    def models(self) -> list[ListedModel]:
        known = self._known_models()
        default = self._listed_default({model.name: model.num_bytes for model in known})
        others = [model for model in known if not self._is_default(model.name)]
        return [default, *map(self._listed, others)]

    def find(self, name: str) -> ListedModel:
        if self._is_default(name):
            return self.models()[0]
        return self._listed(self._find(name))

    def load(self, name: str) -> ListedModel:
        if not self._is_default(name):
            model = self._find(name)
            with self._lock:
                self._open(model)
        return self.find(name)

    def unload(self, name: str) -> ListedModel:
        if self._is_default(name):
            raise ModelInUse(
                "The default model stays loaded. Set DEFAULT_MODEL to another one, and start again."
            )
        model = self._find(name)
        with self._lock:
            if self._shelf.num_users(model.name):
                raise ModelInUse(
                    f"The model {model.name} is in use, or is being loaded. Unload it when it is "
                    "not; models without use are unloaded by themselves."
                )
            self._failed.discard(model.name)
            leaving = self._take_out([model.name] if model.name in self._shelf else [])
        _close_all(leaving)
        return self.find(name)

    def release_idle(self) -> None:
        """Ends the models that nobody has used for long."""
        with self._lock:
            leaving = self._take_out(self._shelf.idle_since(self._clock() - self._idle_seconds))
        _close_all(leaving)

    def _clean(self) -> None:
        while not self._is_closed.wait(self._idle_seconds / _LOOKS):
            self.release_idle()

    def _is_default(self, name: str) -> bool:
        return goes_by(name, self.model_state)

    def _find(self, name: str) -> KnownModel:
        """By name or alias, never by path. Raises ModelNotFound."""
        canonical = _canonical(name)
        for model in self._known_models():
            if model.name == canonical:
                return model
        raise ModelNotFound(
            f"There is no model '{label(name)}'. GET /models lists those there are.", field="model"
        )

    def _listed_default(self, sizes: Mapping[str, int]) -> ListedModel:
        state = self.model_state
        return ListedModel(
            state.served,
            PLACES[state.status],
            sizes.get(_canonical(state.served), 0),
            num_requests=self._default.num_requests,
            is_default=True,
        )

    def _listed(self, model: KnownModel) -> ListedModel:
        with self._lock:
            opened = self._opened.get(model.name)
            num_users = self._shelf.num_users(model.name)
            has_failed = model.name in self._failed
        state: ModelPlace = "known" if model.state == "on the hub" else "local"
        if has_failed:
            state = "failed"
        if opened is not None:
            is_loaded = opened.transcriber.model_state.status == "ready"
            state = "loaded" if is_loaded else "loading"
        return ListedModel(
            model.name,
            state,
            model.num_bytes,
            # The one that loads it is a user, and no request.
            num_requests=max(0, num_users - (state == "loading")),
            is_here=model.state != "on the hub",
        )

    # Loading -------------------------------------------------------------------------------------

    def _begin_use(self, model: KnownModel) -> _Opened:
        with self._lock:
            opened = self._open(model)
            self._shelf.use(model.name, self._clock())
            return opened

    def _end_use(self, name: str) -> None:
        with self._lock:
            self._shelf.release(name, self._clock())
            # One that failed goes with its last user, so that the next who asks tries again.
            if name in self._failed and not self._shelf.num_users(name):
                self._take_out([name])

    def _open(self, model: KnownModel) -> _Opened:
        """The model, which begins to load if it has not. Under the lock."""
        name = model.name
        if name in self._opened:
            return self._opened[name]
        if self._is_closed.is_set():
            raise ShuttingDown("The server is shutting down. Send the request again shortly.")
        leaving = self._take_out(self._shelf.make_room(name, model.num_bytes))
        self._shelf.add(name, model.num_bytes, self._clock())
        self._shelf.use(name, self._clock())
        self._failed.discard(name)
        transcriber = self._open_model(name)
        outcome = self._threads.submit(self._load, name, transcriber, leaving)
        self._opened[name] = _Opened(transcriber, outcome)
        return self._opened[name]

    def _take_out(self, names: Sequence[str]) -> list[_Opened]:
        """Models that leave, still to be closed. Under the lock."""
        for name in names:
            self._shelf.remove(name)
        return [self._opened.pop(name) for name in names if name in self._opened]

    def _load(
        self, name: str, transcriber: LocalTranscriber, leaving: Sequence[_Opened]
    ) -> ModelState:
        """In a thread: first those that make room are ended."""
        try:
            _close_all(leaving)
            transcriber.start(on_loss=self._lose)
            state = transcriber.wait_until_loaded()
            if state.status != "ready":
                with self._lock:
                    self._failed.add(name)
            return state
        finally:
            self._end_use(name)


def goes_by(name: str, state: ModelState) -> bool:
    """Whether a name stands for the default model; while a fallback is served, both names do."""
    return _canonical(name) in {_canonical(state.requested), _canonical(state.served)}


def _canonical(name: str) -> str:
    """The catalogue's name of a name, alias or repository; any other as it is."""
    known = find_model(name)
    return known.name if known is not None else name


def _close_all(leaving: Sequence[_Opened]) -> None:
    for opened in leaving:
        logger.info("The model %s is released", opened.transcriber.model_state.served)
        opened.close()
