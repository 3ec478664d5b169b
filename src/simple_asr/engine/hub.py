"""Asks a model hub what a repository holds, and fetches its files. Where they go is not its matter.

Speaks the hub's two plain requests, `/api/models/…?blobs=true` and `/…/resolve/…`, over HTTP; why
not through the hub's own client is in docs/decisions/0003-where-weights-come-from.md.
"""

from __future__ import annotations

import hashlib
import re
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import httpx2

from simple_asr.errors import ModelUnavailable

MAIN_HUB = "https://huggingface.co"

# Seconds. A connection on one continent takes 0.2; a stalled download is taken up again sooner than
# a person would.
CONNECT_TIMEOUT = 3.0
READ_TIMEOUT = 30.0
# Failed tries in a row, none of which brought a byte, before a download is given up.
MAX_TRIES = 4

_COMMIT = re.compile(r"[0-9a-f]{40}")

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class HubFile:
    """What the hub states of a file: `sha256` of large files only, git's blob id of the others."""

    num_bytes: int
    sha256: str | None
    blob_id: str


@dataclass(frozen=True, slots=True)
class Repository:
    """A repository at one commit, so that files fetched hours apart belong together."""

    hub: Hub
    name: str
    version: str
    files: Mapping[str, HubFile]

    @property
    def origin(self) -> str:
        return f"{self.hub.endpoint}/{self.name} at {self.version[:12]}"

    @property
    def sizes(self) -> dict[str, int]:
        """Bytes of each file."""
        return {name: file.num_bytes for name, file in self.files.items()}

    @property
    def sha256(self) -> dict[str, str]:
        """Digests of the large files."""
        return {name: file.sha256 for name, file in self.files.items() if file.sha256}

    def fetch(self, file: str, path: Path, progress: Callable[[int], None]) -> None:
        """Brings `file` to `path`, going on from what an earlier, interrupted call left there.

        `progress` is told the bytes at `path` so far. Raises ModelUnavailable; OSError when the
        disk does not take the bytes.
        """
        self.hub.download(self, file, path, progress)
        stated = self.files[file]
        # Large files are checked by their SHA-256 when their caller has it.
        if stated.sha256 is None and _git_blob_id(path) != stated.blob_id:
            path.unlink()
            raise ModelUnavailable(
                f"{file} of {self.name!r} from the hub {self.hub.endpoint} arrived damaged: it is "
                "not the file the hub lists. Try again; if it stays so, check HF_ENDPOINT."
            )


class Hub:
    """A model hub. Keeps no connection and no state between calls; any thread may use it."""

    def __init__(
        self,
        endpoint: str = MAIN_HUB,
        token: str | None = None,
        *,
        patience: float = 10.0,
        pause: float = 1.0,
    ) -> None:
        """`patience` bounds the first answer, `pause` is waited before trying again; seconds."""
        self._url = endpoint.rstrip("/")
        # For people, who need not see the password of a mirror.
        self.endpoint = re.sub(r"//[^/]*@", "//", self._url)
        self._token = token
        self._patience = patience
        self._pause = pause

    def open(self, repository: str, revision: str | None = None) -> Repository:
        """What the repository holds at `revision` (None: the head of `main`).

        Raises ModelUnavailable saying why not, within `patience` even where packets vanish.
        """
        url = f"{self._url}/api/models/{repository}/revision/{revision or 'main'}?blobs=true"
        try:
            response = _within(self._patience, lambda: self._get(url))
        except FutureTimeoutError:
            raise self._unreachable(f"no answer within {self._patience:g} seconds") from None
        except (httpx2.HTTPError, httpx2.InvalidURL, UnicodeError) as error:
            raise self._unreachable(_reason(error)) from error
        if not response.is_success:
            raise ModelUnavailable(self._refusal(response, repository))
        return self._repository(repository, response)

    def download(
        self, repository: Repository, file: str, path: Path, progress: Callable[[int], None]
    ) -> None:
        """Appends to `path` until it is as long as the hub said. Each byte won renews the tries."""
        num_bytes = repository.files[file].num_bytes
        url = f"{self._url}/{repository.name}/resolve/{repository.version}/{file}"
        tries = 0
        while (done := _size(path)) < num_bytes:
            reason = self._append(url, repository.name, path, num_bytes, progress)
            tries = 0 if _size(path) > done else tries + 1
            if tries == MAX_TRIES:
                raise ModelUnavailable(
                    f"The download of {file} from the hub {self.endpoint} broke off at "
                    f"{_size(path)} of {num_bytes} bytes ({reason}). What has arrived is kept: "
                    "start again, and it goes on from there."
                )
            time.sleep(self._pause * tries)
        if _size(path) > num_bytes:
            path.unlink()
            raise ModelUnavailable(
                f"The hub {self.endpoint} sent more than the {num_bytes} bytes it lists for {file} "
                f"of {repository.name!r}. Check HF_ENDPOINT."
            )

    def _append(
        self,
        url: str,
        repository: str,
        path: Path,
        num_bytes: int,
        progress: Callable[[int], None],
    ) -> str:
        """One request for what is missing. Returns why the file may still not be whole."""
        done = _size(path)
        headers = {"Range": f"bytes={done}-"} if done else {}
        try:
            with self._client() as client, client.stream("GET", url, headers=headers) as response:
                if response.status_code == 429 or response.is_server_error:
                    return f"status {response.status_code}"
                if not response.is_success:
                    raise ModelUnavailable(self._refusal(response, repository))
                # A server that ignores the range starts over, and so must the file.
                with path.open("ab" if response.status_code == 206 else "wb") as stream:
                    for chunk in response.iter_bytes():
                        stream.write(chunk)
                        progress(stream.tell())
                        if stream.tell() > num_bytes:  # It may never end; the disk would.
                            break
        except httpx2.HTTPError as error:
            return _reason(error)
        return "the answer ended early"

    def _get(self, url: str) -> httpx2.Response:
        with self._client() as client:
            response: httpx2.Response = client.get(url)
        return response

    def _client(self) -> httpx2.Client:
        # Compressed, a file's ranges and length would be those of something else.
        headers = {"Accept-Encoding": "identity", "User-Agent": "simple-asr-server"}
        if self._token:
            # The client drops it when a redirect leaves for another host, as large files' do.
            headers["Authorization"] = f"Bearer {self._token}"
        return httpx2.Client(
            headers=headers,
            follow_redirects=True,
            timeout=httpx2.Timeout(READ_TIMEOUT, connect=CONNECT_TIMEOUT),
        )

    def _repository(self, name: str, response: httpx2.Response) -> Repository:
        try:
            document = response.json()
            # The commit becomes part of a path: nothing but a commit may pass.
            if not _COMMIT.fullmatch(document["sha"]):
                raise ValueError("not a commit")
            files = {entry["rfilename"]: _hub_file(entry) for entry in document["siblings"]}
        except (ValueError, TypeError, KeyError) as error:
            raise ModelUnavailable(
                f"{self.endpoint} does not answer as a model hub. Check HF_ENDPOINT, and whether a "
                "sign-in page stands between this machine and the network."
            ) from error
        return Repository(self, name, document["sha"], files)

    def _unreachable(self, reason: str) -> ModelUnavailable:
        return ModelUnavailable(
            f"The hub {self.endpoint} cannot be reached ({reason}). Connect this machine to it."
        )

    def _refusal(self, response: httpx2.Response, repository: str) -> str:
        """What happened and what to do. To strangers, the hub says 401 of what does not exist."""
        match response.status_code, response.headers.get("X-Error-Code"):
            case (403, _) | (_, "GatedRepo"):
                fault = (
                    f"denies access to {repository!r}. Accept its terms at "
                    f"{self.endpoint}/{repository} and set HF_TOKEN to a token of that account."
                )
            case (401, _) if self._token:
                fault = "does not accept the token in HF_TOKEN. Renew it."
            case (401, _):
                fault = (
                    f"shows no repository {repository!r}. Check the name, or set HF_TOKEN if it is "
                    "a private one."
                )
            case (404, "RevisionNotFound"):
                fault = (
                    f"has {repository!r}, but not the revision this server knows. If HF_ENDPOINT "
                    "is a mirror, bring it up to date."
                )
            case (404, _):
                fault = f"has no repository {repository!r}. Check the name."
            case (429, _):
                fault = "has had too many requests from here. Try again in some minutes."
            case _:
                fault = "is in trouble, or is not a hub. Try again later, or check HF_ENDPOINT."
        return f"The hub {self.endpoint} (status {response.status_code}) {fault}"


def _within(seconds: float, ask: Callable[[], T]) -> T:
    """The result of `ask`, or FutureTimeoutError.

    A connect timeout does not bound a first answer: looking up a name has no timeout, and each
    address of a host is given the whole of it.
    """
    answer: Future[T] = Future()

    def run() -> None:
        try:
            answer.set_result(ask())
        except BaseException as error:  # Handed to the caller, whatever it is.
            answer.set_exception(error)

    threading.Thread(target=run, name="model-hub", daemon=True).start()
    return answer.result(timeout=seconds)


def _hub_file(entry: dict[str, Any]) -> HubFile:
    large = entry.get("lfs")
    return HubFile(
        num_bytes=int(entry["size"]),
        sha256=str(large["sha256"]) if large else None,
        blob_id=str(entry["blobId"]),
    )


def _git_blob_id(path: Path) -> str:
    """The name git gives a file: SHA-1 over a short header and the content (git, hash-object)."""
    digest = hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
    with path.open("rb") as stream:
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _reason(error: Exception) -> str:
    """`connection refused` from `[Errno 111] Connection refused`."""
    text = re.sub(r"^\[Errno -?\d+\] ", "", str(error)) or type(error).__name__
    return text[:1].lower() + text[1:]
