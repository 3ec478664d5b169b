"""What tests share: real weights, real speech, and the folders both are kept in."""

from __future__ import annotations

import fcntl
import importlib.metadata
import logging
import os
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from simple_asr.audio.decode import DecodeLimits, DecoderPool
from simple_asr.engine.models import ModelStore
from simple_asr.engine.tokens import Tokenizer
from simple_asr.engine.tuning import give_back_memory, tune
from tests.support import Clip

# The tests run the model as the server does.
tune()

REPOSITORY = Path(__file__).parent.parent
SHARED = REPOSITORY.parent / "shared"


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    """A command that sets up logging in one test leaves none of it to the next."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    levels = {name: logging.getLogger(name).level for name in ("httpx", "httpx2", "simple_asr")}
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    for name, before in levels.items():
        logging.getLogger(name).setLevel(before)


@pytest.fixture(autouse=True, scope="module")
def _memory_is_given_back() -> Iterator[None]:
    """What the models of one module took is not held through the next: other tests run beside."""
    yield
    give_back_memory()


@pytest.fixture(scope="session")
def models_root() -> Path:
    """Where the tests keep models between runs; git ignores it."""
    folder = REPOSITORY / ".cache" / "models"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def base_model(models_root: Path) -> Path:
    """Folder of the real `base` weights, from the installed packages."""
    return ModelStore(models_root, offline=True).resolve("base").folder


@pytest.fixture(scope="session")
def tokenizer(base_model: Path) -> Tokenizer:
    return Tokenizer.from_folder(base_model)


@pytest.fixture(scope="session")
def speech() -> list[Clip]:
    """Short clips of real speech in nine languages, from the package `pytest-audioeval`."""
    try:
        files = importlib.metadata.files("pytest-audioeval") or []
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("pytest-audioeval has no release for this Python")
    recordings = (Path(str(file.locate())) for file in files if file.suffix == ".wav")
    return [
        Clip(path, language=path.parent.name, text=path.with_suffix(".txt").read_text().strip())
        for path in sorted(recordings)
    ]


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of development recordings beside the checkout, where there is one."""
    if not (SHARED / "data" / "manifest.jsonl").exists():
        pytest.skip("the folder `shared` with recordings is not beside this checkout")
    return SHARED


# What hostile files refer to; `expected.json` names the address, the files the folder.
LISTENER = ("127.0.0.1", 18099)
CANARY = Path("/tmp/asr-canary")  # noqa: S108


@pytest.fixture(scope="module")
def _referred_to_by_us_alone() -> Iterator[None]:
    """Who tests with hostile files beside us, in another process, waits for our module's end."""
    with CANARY.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@pytest.fixture(scope="module")
def listener(_referred_to_by_us_alone: None) -> Iterator[socket.socket]:
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(LISTENER)
        except OSError as error:
            pytest.skip(f"port {LISTENER[1]}, which the files name, is taken: {error}")
        listener.listen()
        listener.setblocking(False)
        yield listener


@pytest.fixture(scope="module")
def canary(shared: Path, _referred_to_by_us_alone: None) -> Iterator[Path]:
    """The files that must not be read, last read in 1970."""
    shutil.rmtree(CANARY, ignore_errors=True)
    shutil.copytree(shared / "hostile" / "canary", CANARY)
    for path in CANARY.iterdir():
        os.utime(path, (0, path.stat().st_mtime))
    yield CANARY
    shutil.rmtree(CANARY)


@pytest.fixture(scope="session")
def decoder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DecoderPool]:
    """Real decoder processes."""
    spool = tmp_path_factory.mktemp("spool")
    pool = DecoderPool(1, DecodeLimits(), spool)
    yield pool
    pool.close()
