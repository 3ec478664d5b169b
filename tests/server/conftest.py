"""A door with nothing behind it: the app around a fake transcriber, and a live server of it."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import httpx
import hypothesis
import pytest
from fastapi import FastAPI

from simple_asr.server.app import create_app
from simple_asr.server.listener import listen
from simple_asr.server.run import build_server
from simple_asr.service.fake import FakeTranscriber
from simple_asr.service.keys import KeyStore
from simple_asr.settings import Settings

KEY = "0123456789abcdef" * 4

# A busy machine is no fault of the code.
hypothesis.settings.register_profile("no-deadline", deadline=None)
hypothesis.settings.load_profile("no-deadline")


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def key() -> str:
    """The one key every test's server accepts; its name is `alice`."""
    return KEY


@pytest.fixture(scope="session")
def make_settings(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Settings]:
    """Settings with folders of their own, whatever the environment says."""

    def make(**values: object) -> Settings:
        home = tmp_path_factory.mktemp("home")
        (home / "keys.txt").write_text(f"{KEY}  # alice\n")
        (home / "keys.txt").chmod(0o600)
        folders = {
            "keys_file": home / "keys.txt",
            "spool_dir": home / "spool",
            "jobs_dir": home / "jobs",
        }
        return Settings.model_validate({**folders, **values})

    return make


@pytest.fixture(scope="session")
def make_key_store() -> Callable[[Settings], KeyStore]:
    def make(settings: Settings) -> KeyStore:
        keys = KeyStore(settings.keys_file)
        keys.reload()
        return keys

    return make


@pytest.fixture
def settings(make_settings: Callable[..., Settings]) -> Settings:
    return make_settings()


@pytest.fixture
def key_store(settings: Settings, make_key_store: Callable[[Settings], KeyStore]) -> KeyStore:
    return make_key_store(settings)


@pytest.fixture
def transcriber() -> FakeTranscriber:
    return FakeTranscriber()


@pytest.fixture
def app(settings: Settings, transcriber: FakeTranscriber, key_store: KeyStore) -> FastAPI:
    return create_app(settings, transcriber, key_store)


@pytest.fixture
async def stranger(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """A client without a key, of the app itself: no socket, and no lifespan."""
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://asr") as client:
        yield client


@pytest.fixture
async def client(stranger: httpx.AsyncClient) -> httpx.AsyncClient:
    """The same with a key."""
    stranger.headers["X-API-Key"] = KEY
    return stranger


@pytest.fixture(scope="session")
def live() -> Callable[[FastAPI], AbstractContextManager[int]]:
    """Serves an app under uvicorn on a free loopback port, for as long as the context lasts."""
    return _live


@contextmanager
def _live(app: FastAPI) -> Iterator[int]:
    listener = listen("127.0.0.1", 0)
    server = build_server(app)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    try:
        # The socket listens already: a request that comes before the server waits for it.
        yield listener.getsockname()[1]
    finally:
        server.should_exit = True
        thread.join(timeout=10)
        assert not thread.is_alive(), "the server stops when it is told to"


@pytest.fixture
def spooled(settings: Settings) -> Callable[[], list[Path]]:
    """What lies in the spool folder now."""
    return lambda: sorted(settings.spool_dir.glob("*")) if settings.spool_dir.exists() else []
