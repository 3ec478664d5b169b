"""From a model's name to a folder of CTranslate2 files on this machine, checked and complete.

Looked for in this order: a folder given as a path, a copy under the models folder, the copy
installed with the server, the hub. Which names there are is the catalogue's business, HTTP the
hub's, and loading what is found the backend's.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from simple_asr.engine.bundled import bundled_copy
from simple_asr.engine.catalogue import KNOWN_MODELS, PublishedModel, find_model, nearest_name
from simple_asr.engine.checked import (
    CheckedFile,
    flush_to_disk,
    read_record,
    sha256_of,
    write_record,
)
from simple_asr.engine.hub import MAIN_HUB, Hub
from simple_asr.errors import ModelUnavailable, StorageFull

# CTranslate2 reads the first two and one of the vocabularies; text and tokens need the tokenizer.
REQUIRED_FILES = ("model.bin", "config.json", "tokenizer.json")
VOCABULARIES = ("vocabulary.json", "vocabulary.txt")
OPTIONAL_FILES = ("preprocessor_config.json",)
MODEL_FILES = (*REQUIRED_FILES, *VOCABULARIES, *OPTIONAL_FILES)

# Inside the models folder: downloads on their way, and the locks of those who fetch them.
INCOMING = ".incoming"

_REPOSITORY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}/[A-Za-z0-9][A-Za-z0-9._-]{0,95}")


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """A complete model on this machine; `name` is the catalogue's, not an alias."""

    name: str
    folder: Path


@dataclass(frozen=True, slots=True)
class DownloadProgress:
    """How much of one file of a model is here; `bytes_done` is `bytes_total` at its end."""

    file: str
    bytes_done: int
    bytes_total: int


OnDownload = Callable[[DownloadProgress], None]
"""Told, from the thread that fetches, each time a part of a file has arrived."""


@dataclass(frozen=True, slots=True)
class KnownModel:
    """One line of a listing. `num_bytes` is on disk if local, else of the weights (0: unknown)."""

    name: str
    repository: str | None
    state: Literal["local", "bundled", "on the hub"]
    num_bytes: int
    path: Path | None
    notes: str


class Source(Protocol):
    """Where the files of one model come from."""

    @property
    def origin(self) -> str:
        """For people: which place, which version."""
        ...

    @property
    def version(self) -> str:
        """Equal for equal content: what is left of an interrupted fetch is used for it alone."""
        ...

    @property
    def sizes(self) -> Mapping[str, int]:
        """Bytes of every file it holds."""
        ...

    @property
    def sha256(self) -> Mapping[str, str]:
        """The digests it states, of some files or none."""
        ...

    def fetch(self, file: str, path: Path, progress: Callable[[int], None]) -> None:
        """Brings `file` to `path`, where the remains of an earlier call may lie."""
        ...


class ModelStore:
    """Owner of the models folder `root`, which it shares with other processes.

    A model appears under `root` by one rename, when it is complete and checked. Whoever fetches one
    holds its lock file; threads and processes that want the same model wait for it.
    """

    def __init__(
        self,
        root: Path,
        *,
        endpoint: str = MAIN_HUB,
        token: str | None = None,
        offline: bool = False,
        logger: logging.Logger | None = None,
    ) -> None:
        self._root = root
        self._hub = None if offline else Hub(endpoint, token)
        self._logger = logger or logging.getLogger("simple_asr.models")

    def resolve(self, name: str, progress: OnDownload | None = None) -> ModelFiles:
        """The files of a model given as a name, an alias, `owner/name` on the hub, or a folder.

        Raises ModelUnavailable saying where it was looked for and what to do, StorageFull.
        """
        name = name.strip()
        if folder := _as_folder(name):
            _refuse_incomplete(folder)
            return ModelFiles(folder.resolve().name, folder)
        model = self._find(name)
        return self._local(model) or self._obtain(model, progress or _unwatched)

    def models(self) -> list[KnownModel]:
        """Every known model, and every other one under the models folder. Nothing is checked."""
        others = [
            PublishedModel(folder.name.replace("--", "/"), repository="")
            for folder in (sorted(self._root.iterdir()) if self._root.is_dir() else ())
            if folder.name not in KNOWN_MODELS and not _missing(_sizes(folder))
        ]
        return [self._listing(model) for model in (*KNOWN_MODELS.values(), *others)]

    def _listing(self, model: PublishedModel) -> KnownModel:
        folder = self._root / model.folder
        sizes = _sizes(folder)
        notes = [f"also {alias!r}" for alias in model.aliases]
        if not model.is_multilingual:
            notes.append("English only")
        is_local = not _missing(sizes)
        return KnownModel(
            name=model.name,
            repository=model.repository or None,
            state="local" if is_local else "bundled" if bundled_copy(model.name) else "on the hub",
            num_bytes=sum(sizes.values()) if is_local else model.num_bytes,
            path=folder if is_local else None,
            notes=", ".join(notes),
        )

    def _find(self, name: str) -> PublishedModel:
        if model := find_model(name):
            return model
        if _REPOSITORY.fullmatch(name):
            return PublishedModel(name, repository=name)
        if re.fullmatch(r"\w[\w.-]*", name) and _sizes(self._root / name):
            return PublishedModel(name, repository="")
        raise ModelUnavailable(
            f"{name!r} is not a known model. {nearest_name(name)} `owner/name` is taken for a "
            "repository on the hub, and ./name for a folder."
        )

    # A copy under the models folder ------------------------------------------------------------

    def _local(self, model: PublishedModel) -> ModelFiles | None:
        folder = self._root / model.folder
        # An empty folder is nobody's model: somebody made it to mount or to copy something there.
        if not folder.is_dir() or not any(folder.iterdir()):
            return None
        _refuse_incomplete(folder)
        self._refuse_altered(folder, model.sha256)
        return ModelFiles(model.name, folder)

    def _refuse_altered(self, folder: Path, published: Mapping[str, str]) -> None:
        record = read_record(folder)
        expected = {file: checked.sha256 for file, checked in record.items()} | dict(published)
        changed = {
            file: now
            for file, sha256 in expected.items()
            if (folder / file).is_file()
            and (now := CheckedFile.now(folder / file, sha256)) != record.get(file)
        }
        for file, now in changed.items():
            if sha256_of(folder / file) != now.sha256:
                raise ModelUnavailable(
                    f"{_shown(folder)}/{file} is not the file it should be: its SHA-256 is not "
                    f"{now.sha256}. Delete {_shown(folder)} to have it fetched again; a model of "
                    "your own wants a folder of another name."
                )
        try:
            if changed:
                write_record(folder, record | changed)
        except OSError as error:
            # A read-only folder serves as well; it is only read in full at every start.
            self._logger.debug("Cannot note in %s that it was checked: %s", folder, error)

    # From the installed packages, or the hub ----------------------------------------------------

    def _obtain(self, model: PublishedModel, progress: OnDownload) -> ModelFiles:
        source = self._source(model)
        with self._storage_faults(model), self._lock(model):
            if local := self._local(model):
                return local
            staged = self._stage(model, source, progress)
            folder = self._root / model.folder
            staged.rename(folder)
            self._discard_remains(model)
        self._logger.info("Fetched the model %s from %s.", model.name, source.origin)
        return ModelFiles(model.name, folder)

    def _source(self, model: PublishedModel) -> Source:
        """The installed copy first: it has the published bytes, and asks nobody on the network."""
        if bundled := bundled_copy(model.name):
            return bundled
        absent = f"The model {model.name!r} is not under {_shown(self._root)}."
        if self._hub is None:
            raise ModelUnavailable(
                f"{absent} HF_HUB_OFFLINE is on, so the hub was not asked. Switch it off. "
                f"Otherwise {self._way_out(model)}"
            )
        try:
            source = self._hub.open(model.repository, model.revision)
        except ModelUnavailable as error:
            raise ModelUnavailable(
                f"{absent} {error.detail} Otherwise {self._way_out(model)}"
            ) from error
        if missing := _missing(source.sizes):
            raise ModelUnavailable(
                f"The repository {model.repository!r} is not a Whisper model for CTranslate2: it "
                f"lacks {missing}. Name one that was converted, such as "
                "'Systran/faster-whisper-small'."
            )
        return source

    def _way_out(self, model: PublishedModel) -> str:
        way = f"copy the model's folder to {_shown(self._root / model.folder)}"
        if model.name != "base" and bundled_copy("base"):
            way += ", or set DEFAULT_MODEL=base, which is installed with the server"
        return f"{way}."

    def _stage(
        self,
        model: PublishedModel,
        source: Source,
        progress: OnDownload,
    ) -> Path:
        """A complete and checked folder beside the final one, on the same file system."""
        expected = {**source.sha256, **model.sha256}
        for file, sha256 in source.sha256.items():
            if sha256 != expected[file]:
                raise _altered(model, file, source)
        sizes = {file: size for file, size in source.sizes.items() if size and file in MODEL_FILES}
        staged = self._root / INCOMING / model.folder / source.version
        staged.mkdir(parents=True, exist_ok=True)
        self._refuse_full_disk(model, sum(sizes.values()) - sum(_sizes(staged).values()))

        record = {}
        # The small files first: what is wrong with a repository shows before its weights are here.
        for file in sorted(sizes, key=sizes.__getitem__):
            path = staged / file
            _fetch(source, file, path, progress)
            sha256 = sha256_of(path)
            if expected.get(file, sha256) != sha256:
                path.unlink()
                raise _altered(model, file, source)
            flush_to_disk(path)
            record[file] = CheckedFile.now(path, sha256)
        write_record(staged, record)
        return staged

    def _refuse_full_disk(self, model: PublishedModel, needed: int) -> None:
        free = shutil.disk_usage(self._root).free
        if free < needed:
            raise StorageFull(
                f"The model {model.name!r} needs {needed / 1e6:.0f} MB more under "
                f"{_shown(self._root)}, where {free / 1e6:.0f} MB are free. Free some space, or "
                "set MODEL_DOWNLOAD_ROOT to a folder on another disk."
            )

    def _discard_remains(self, model: PublishedModel) -> None:
        """Half downloads of other versions. The lock file stays: others may be waiting at it."""
        for version in (self._root / INCOMING / model.folder).iterdir():
            if version.is_dir():
                shutil.rmtree(version, ignore_errors=True)

    @contextmanager
    def _lock(self, model: PublishedModel) -> Iterator[None]:
        """One at a time per model, among threads and processes. Any death frees it."""
        path = self._root / INCOMING / model.folder / "lock"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w") as stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                self._logger.info("Waiting for another process that fetches %s.", model.name)
                fcntl.flock(stream, fcntl.LOCK_EX)
            yield

    @contextmanager
    def _storage_faults(self, model: PublishedModel) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise StorageFull(
                    f"The disk of {_shown(self._root)} became full while {model.name!r} was "
                    "fetched. What has arrived is kept: free some space and start again, or set "
                    "MODEL_DOWNLOAD_ROOT to a folder on another disk."
                ) from error
            raise ModelUnavailable(
                f"The model {model.name!r} cannot be put under {_shown(self._root)} ({error}). "
                "Make the folder writable for this user, or set MODEL_DOWNLOAD_ROOT to another."
            ) from error


def shown_name(name: str) -> str:
    """A model's name for callers: of a folder given as a path, only the folder's own."""
    return Path(name).resolve().name if _is_path(name) else name


def _is_path(name: str) -> bool:
    """Whether it is written as one; `owner/name` is one if it exists."""
    if "/" not in name and not name.startswith((".", "~")):
        return False
    return not _REPOSITORY.fullmatch(name) or Path(name).is_dir()


def _as_folder(name: str) -> Path | None:
    """The folder a name stands for when written as a path."""
    if not _is_path(name):
        return None
    try:
        return Path(name).expanduser()
    except RuntimeError as error:
        raise ModelUnavailable(f"The model folder {name!r}: {error}") from error


def _refuse_incomplete(folder: Path) -> None:
    if not folder.is_dir():
        raise ModelUnavailable(
            f"The model folder {_shown(folder)} does not exist. Correct its path."
        )
    if missing := _missing(_sizes(folder)):
        raise ModelUnavailable(
            f"The model folder {_shown(folder)} lacks {missing}. Copy the model there whole; if it "
            "is one the server fetches itself, delete the folder."
        )


def _missing(sizes: Mapping[str, int]) -> str:
    """The first file a model cannot do without; empty when it has them all."""
    if missing := [file for file in REQUIRED_FILES if not sizes.get(file)]:
        return missing[0]
    return "" if any(sizes.get(file) for file in VOCABULARIES) else " or ".join(VOCABULARIES)


def _sizes(folder: Path) -> dict[str, int]:
    """Bytes of each model file in a folder."""
    return {
        file: (folder / file).stat().st_size for file in MODEL_FILES if (folder / file).is_file()
    }


def _fetch(source: Source, file: str, path: Path, progress: OnDownload) -> None:
    num_bytes = source.sizes[file]
    source.fetch(file, path, lambda done: progress(DownloadProgress(file, done, num_bytes)))
    # Said here as well: of a file that an earlier try completed, the source says nothing.
    progress(DownloadProgress(file, num_bytes, num_bytes))


def _altered(model: PublishedModel, file: str, source: Source) -> ModelUnavailable:
    return ModelUnavailable(
        f"{file} of the model {model.name!r} from {source.origin} is not the published file: its "
        "SHA-256 is another. It was not used. Try again; if it stays so, somebody changed it, or "
        "HF_ENDPOINT is a mirror that is not faithful."
    )


def _shown(path: Path) -> str:
    """A path as the settings have it: `./models`."""
    return str(path) if path.is_absolute() else f"./{path}"


def _unwatched(_: DownloadProgress) -> None:
    pass
