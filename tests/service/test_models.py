"""Several models in one server: loaded once however many ask, released when nobody does."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from simple_asr.assembly import build_transcriber
from simple_asr.audio.decode import DecoderPool
from simple_asr.engine.backends.fake import FakeBackend
from simple_asr.engine.models import KnownModel
from simple_asr.engine.options import TranscribeOptions
from simple_asr.engine.seek_loop import Shortcuts
from simple_asr.engine.tokens import Tokenizer
from simple_asr.errors import (
    EngineLost,
    ModelFailed,
    ModelInUse,
    ModelNotFound,
    ModelNotReady,
    ModelUnavailable,
    Overloaded,
    ShuttingDown,
)
from simple_asr.service import transcriber as transcribing
from simple_asr.service.decoding import Borrowed
from simple_asr.service.models import ListedModel, ModelPool
from simple_asr.service.transcriber import LoadedModel, LocalTranscriber
from simple_asr.settings import Settings
from simple_asr.transcript.events import Done
from simple_asr.transcript.model import Transcript
from tests.support import WAIT, Clip

KNOWN = [
    KnownModel("base", None, "local", 40, None, ""),
    KnownModel("tiny", None, "local", 30, None, ""),
    KnownModel("tiny.en", None, "bundled", 30, None, ""),
    KnownModel("medium", None, "local", 30, None, ""),
    KnownModel("small", None, "on the hub", 30, None, ""),
]


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Workshop:
    """Makes transcribers with fake models, and remembers them by name."""

    tokenizer: Tokenizer
    decoder: DecoderPool
    backends: dict[str, list[FakeBackend]] = field(default_factory=dict)
    may_load: threading.Event = field(default_factory=threading.Event)
    is_loading: threading.Event = field(default_factory=threading.Event)
    broken: set[str] = field(default_factory=set)
    min_call_timeout: float = 0

    def hold_loads(self) -> None:
        """Those that begin now end when `may_load` is set."""
        self.is_loading.clear()
        self.may_load.clear()

    def open(self, name: str) -> LocalTranscriber:
        return LocalTranscriber(
            Borrowed(self.decoder),
            lambda: self.load(name),
            model_name=name,
            shortcuts=Shortcuts(),
            max_batch_size=4,
            max_requests=8,
            num_decoders=2,
            min_call_timeout=self.min_call_timeout,
        )

    def load(self, name: str) -> LoadedModel:
        self.is_loading.set()
        self.may_load.wait(WAIT)
        if name in self.broken:
            raise ModelUnavailable("The file is broken.")
        backend = FakeBackend(self.tokenizer, name=name)
        self.backends.setdefault(name, []).append(backend)
        return LoadedModel([backend])


@pytest.fixture
def workshop(tokenizer: Tokenizer, decoder: DecoderPool) -> Workshop:
    workshop = Workshop(tokenizer, decoder)
    workshop.may_load.set()
    return workshop


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def build(workshop: Workshop, clock: Clock) -> Iterator[Callable[..., ModelPool]]:
    """Makes pools whose default model, `base`, is loaded."""
    made: list[ModelPool] = []

    def make(max_bytes: int = 100, max_requests: int = 8) -> ModelPool:
        pool = ModelPool(
            workshop.open("base"),
            workshop.open,
            lambda: KNOWN,
            max_bytes=max_bytes,
            idle_seconds=600,
            max_requests=max_requests,
            clock=clock,
        )
        made.append(pool)
        pool.start()
        pool.wait_until_loaded()
        return pool

    yield make
    workshop.may_load.set()
    for backends in workshop.backends.values():
        for backend in backends:
            backend.gate.set()
    for pool in made:
        pool.close()


@pytest.fixture
def pool(build: Callable[..., ModelPool]) -> ModelPool:
    return build()


def asking(model: str | None) -> TranscribeOptions:
    return TranscribeOptions(language="en", model=model)


def states(pool: ModelPool) -> dict[str, str]:
    return {model.name: model.state for model in pool.models()}


def test_who_names_no_model_gets_the_default_one(
    pool: ModelPool, workshop: Workshop, media: Path
) -> None:
    asyncio.run(pool.transcribe(media, asking(None)))

    assert set(workshop.backends) == {"base"}


@pytest.mark.parametrize("name", ["base", "BASE", "Systran/faster-whisper-base"])
def test_the_default_model_has_all_its_names(
    pool: ModelPool, workshop: Workshop, media: Path, name: str
) -> None:
    asyncio.run(pool.transcribe(media, asking(name)))

    assert set(workshop.backends) == {"base"}


def test_a_model_that_is_named_is_loaded_and_stays(
    pool: ModelPool, workshop: Workshop, media: Path
) -> None:
    for _ in range(2):
        assert asyncio.run(pool.transcribe(media, asking("tiny"))).text == " Hello."

    assert len(workshop.backends["tiny"]) == 1
    assert states(pool)["tiny"] == "loaded"


def test_events_come_of_the_model_that_is_named(
    pool: ModelPool, workshop: Workshop, media: Path
) -> None:
    async def last() -> object:
        return [event async for event in pool.events(media, asking("tiny.en"))][-1]

    assert isinstance(asyncio.run(last()), Done)
    assert set(workshop.backends) == {"base", "tiny.en"}


def test_a_model_is_loaded_once_however_many_ask(
    pool: ModelPool, workshop: Workshop, media: Path
) -> None:
    workshop.hold_loads()

    async def ask() -> None:
        asked = [asyncio.create_task(pool.transcribe(media, asking("tiny"))) for _ in range(5)]
        await asyncio.to_thread(workshop.is_loading.wait, WAIT)
        workshop.may_load.set()
        await asyncio.gather(*asked)

    asyncio.run(ask())

    assert len(workshop.backends["tiny"]) == 1


def test_a_caller_who_leaves_while_a_model_loads_does_not_stop_it_for_others(
    pool: ModelPool, workshop: Workshop, media: Path
) -> None:
    workshop.hold_loads()

    async def leave() -> str:
        leaving = asyncio.create_task(pool.transcribe(media, asking("tiny")))
        staying = asyncio.create_task(pool.transcribe(media, asking("tiny")))
        await asyncio.to_thread(workshop.is_loading.wait, WAIT)
        leaving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leaving
        workshop.may_load.set()
        return (await staying).text

    assert asyncio.run(leave()) == " Hello."


def test_the_least_recently_used_makes_room(pool: ModelPool, clock: Clock, media: Path) -> None:
    for name in ("tiny", "tiny.en", "tiny", "medium"):
        asyncio.run(pool.transcribe(media, asking(name)))
        clock.now += 1

    assert states(pool) == {
        "base": "loaded",
        "tiny": "loaded",
        "tiny.en": "local",
        "medium": "loaded",
        "small": "known",
    }


def test_a_model_that_makes_room_is_closed(
    build: Callable[..., ModelPool], workshop: Workshop, media: Path
) -> None:
    pool = build(max_bytes=70)
    asyncio.run(pool.transcribe(media, asking("tiny")))

    asyncio.run(pool.transcribe(media, asking("tiny.en")))

    assert workshop.backends["tiny"][0].is_closed
    assert states(pool)["tiny"] == "local"


def test_a_model_in_use_is_never_cut(
    build: Callable[..., ModelPool], workshop: Workshop, media: Path
) -> None:
    pool = build(max_bytes=70)
    asyncio.run(pool.transcribe(media, asking("tiny")))
    [tiny] = workshop.backends["tiny"]

    async def ask() -> str:
        tiny.is_working.clear()
        tiny.gate.clear()
        at_work = asyncio.create_task(pool.transcribe(media, asking("tiny")))
        await asyncio.to_thread(tiny.is_working.wait, WAIT)
        with pytest.raises(ModelNotReady) as refusal:
            await pool.transcribe(media, asking("tiny.en"))
        assert refusal.value.retry_after
        with pytest.raises(ModelInUse):
            pool.unload("tiny")
        tiny.gate.set()
        return (await at_work).text

    assert asyncio.run(ask()) == " Hello."


def test_a_model_that_nobody_used_for_long_is_released_and_the_default_one_stays(
    pool: ModelPool, workshop: Workshop, clock: Clock, media: Path
) -> None:
    asyncio.run(pool.transcribe(media, asking("tiny")))
    clock.now += 599
    pool.release_idle()
    assert states(pool)["tiny"] == "loaded"

    clock.now += 1
    pool.release_idle()

    assert states(pool)["tiny"] == "local"
    assert workshop.backends["tiny"][0].is_closed
    assert states(pool)["base"] == "loaded"


def test_a_model_that_was_released_is_loaded_again(
    pool: ModelPool, workshop: Workshop, media: Path
) -> None:
    asyncio.run(pool.transcribe(media, asking("tiny")))
    pool.unload("tiny")

    asyncio.run(pool.transcribe(media, asking("tiny")))

    assert len(workshop.backends["tiny"]) == 2


@pytest.mark.parametrize("name", ["huge", "/etc", "../base", "small"])
def test_what_is_not_on_this_machine_is_not_found(pool: ModelPool, media: Path, name: str) -> None:
    with pytest.raises(ModelNotFound):
        asyncio.run(pool.transcribe(media, asking(name)))


def test_a_model_that_cannot_be_loaded_is_tried_again_by_the_next_who_asks(
    pool: ModelPool, workshop: Workshop, media: Path
) -> None:
    workshop.broken.add("tiny")
    with pytest.raises(ModelFailed, match="could not be loaded"):
        asyncio.run(pool.transcribe(media, asking("tiny")))
    assert states(pool)["tiny"] == "failed"

    workshop.broken.clear()

    assert asyncio.run(pool.transcribe(media, asking("tiny"))).text == " Hello."


def test_a_model_that_could_not_be_fetched_is_not_here_and_can_be_forgotten(
    pool: ModelPool, workshop: Workshop
) -> None:
    workshop.broken.add("small")
    pool.load("small")
    pool.wait_until_loaded("small")

    failed = pool.find("small")
    forgotten = pool.unload("small")

    assert failed == ListedModel("small", "failed", 30, is_here=False)
    assert forgotten == ListedModel("small", "known", 30, is_here=False)


def test_all_models_together_take_so_many_requests(
    build: Callable[..., ModelPool], workshop: Workshop, media: Path
) -> None:
    pool = build(max_requests=1)
    [base] = workshop.backends["base"]

    async def ask() -> None:
        base.is_working.clear()
        base.gate.clear()
        at_work = asyncio.create_task(pool.transcribe(media, asking(None)))
        await asyncio.to_thread(base.is_working.wait, WAIT)
        with pytest.raises(Overloaded):
            await pool.transcribe(media, asking("tiny"))
        base.gate.set()
        await at_work

    asyncio.run(ask())

    assert pool.num_requests == 0


def test_a_pool_that_is_closed_opens_no_more_models(
    pool: ModelPool, workshop: Workshop, media: Path
) -> None:
    pool.close()

    with pytest.raises(ShuttingDown):
        asyncio.run(pool.transcribe(media, asking("tiny")))

    assert "tiny" not in workshop.backends


def test_a_load_is_begun_at_once_and_told_when_it_is_done(
    pool: ModelPool, workshop: Workshop
) -> None:
    workshop.hold_loads()

    begun = pool.load("small")
    with pytest.raises(ModelInUse):
        pool.unload("small")
    workshop.may_load.set()
    pool.wait_until_loaded("small")

    assert begun == ListedModel("small", "loading", 30, is_here=False)
    assert states(pool)["small"] == "loaded"


def test_the_default_model_cannot_be_unloaded(pool: ModelPool) -> None:
    with pytest.raises(ModelInUse, match="DEFAULT_MODEL"):
        pool.unload("base")


def test_the_default_model_is_listed_first(pool: ModelPool) -> None:
    assert pool.models()[0] == ListedModel("base", "loaded", 40, is_default=True)


@pytest.mark.weights
def test_two_real_models_are_served_side_by_side(
    models_root: Path, base_model: Path, speech: list[Clip], tmp_path: Path
) -> None:
    [clip] = [clip for clip in speech if clip.path.stem == "quick_brown_fox"]
    settings = Settings(
        _env_file=None,
        default_model="base",
        model_device="cpu",
        model_download_root=models_root,
        hf_hub_offline=True,
        spool_dir=tmp_path,
    )
    pool = build_transcriber(settings)
    pool.start()
    pool.wait_until_loaded()

    async def ask_both() -> list[Transcript]:
        named = (TranscribeOptions(model=model) for model in ("tiny.en", "base"))
        return await asyncio.gather(*(pool.transcribe(clip.path, options) for options in named))

    transcripts = asyncio.run(ask_both())

    assert [transcript.model for transcript in transcripts] == ["tiny.en", "base"]
    assert all("brown fox" in transcript.text for transcript in transcripts)
    pool.close()


def test_where_any_model_hangs_nobody_is_admitted_any_more(
    pool: ModelPool, workshop: Workshop, media: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transcribing, "WATCH_SECONDS", 0.01)
    workshop.min_call_timeout = 0.2
    pool.load("tiny")
    pool.wait_until_loaded("tiny")
    workshop.backends["tiny"][0].gate.clear()

    with pytest.raises(EngineLost):
        asyncio.run(pool.transcribe(media, asking("tiny")))

    assert pool.model_state.status == "restarting"
    with pytest.raises(EngineLost):
        asyncio.run(pool.transcribe(media, asking(None)))


def until_two_wait(pool: ModelPool) -> int:
    deadline = time.monotonic() + WAIT
    while pool.queue.num_windows < 2:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return pool.queue.num_windows


def test_what_waits_is_added_up_over_the_models(
    pool: ModelPool, workshop: Workshop, media: Path
) -> None:
    async def ask() -> int:
        asked = []
        for model in (None, "tiny"):
            backend = workshop.backends[model or "base"][0]
            backend.gate.clear()
            asked.append(asyncio.create_task(pool.transcribe(media, asking(model))))
            await asyncio.to_thread(backend.is_working.wait, WAIT)
            backend.is_working.clear()
            asked.append(asyncio.create_task(pool.transcribe(media, asking(model))))
        waiting = await asyncio.to_thread(until_two_wait, pool)
        for backends in workshop.backends.values():
            backends[0].gate.set()
        await asyncio.gather(*asked)
        return waiting

    pool.load("tiny")
    pool.wait_until_loaded("tiny")
    for backends in workshop.backends.values():
        backends[0].is_working.clear()  # Of the warm-up.

    assert asyncio.run(ask()) == 2
    assert pool.queue.num_windows == 0
