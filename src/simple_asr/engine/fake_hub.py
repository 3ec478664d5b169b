"""A model hub on this machine for tests: the real one's answers, refusals and bad days.

Like the real hub it lists a repository at a commit, sends large files' readers to another host,
serves ranges, hides what a stranger may not see behind 401, and names the fault in X-Error-Code.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType

_LISTING = re.compile(
    r"/api/models/(?P<name>[^/]+/[^/]+)/revision/(?P<revision>[^/?]+)\?blobs=true"
)
_FILE = re.compile(r"/(?P<name>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<file>[^/]+)")
_LARGE_FILE = re.compile(r"/large/(?P<sha256>[0-9a-f]{64})")


@dataclass(frozen=True, slots=True)
class Asked:
    """A request that came: its path, and the headers the tests look at (None: not sent)."""

    path: str
    range: str | None
    authorization: str | None


@dataclass(slots=True)
class PublishedRepository:
    """`token` is needed to see it, unless None; a `gated` one is seen and not given."""

    files: dict[str, bytes]
    commit: str
    token: str | None = None
    is_gated: bool = False


@dataclass(slots=True)
class FakeHub:
    """Use as a context manager; `endpoint` is valid inside. Fields may be changed at any time.

    `cuts` are the bytes after which the next large files break off, one number each; `failures` are
    the statuses they are refused with before. `tamper` changes the content of every file on its
    way. Large files wait until `gate` is set, and set `is_asked_for_weights`.
    """

    repositories: dict[str, PublishedRepository] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)
    cuts: list[int] = field(default_factory=list)
    failures: list[int] = field(default_factory=list)
    ignores_ranges: bool = False
    tamper: Callable[[bytes], bytes] | None = None
    gate: threading.Event = field(default_factory=threading.Event)
    is_asked_for_weights: threading.Event = field(default_factory=threading.Event)
    _server: ThreadingHTTPServer | None = None

    def publish(
        self,
        name: str,
        files: Mapping[str, bytes],
        *,
        commit: str = "c" * 40,
        token: str | None = None,
        is_gated: bool = False,
    ) -> None:
        """Puts a repository up, or replaces it. `model.bin` is stored as a large file."""
        self.repositories[name] = PublishedRepository(dict(files), commit, token, is_gated)

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    @property
    def _port(self) -> int:
        assert self._server is not None, "A fake hub has an address inside its with block only."
        return self._server.server_port

    def __enter__(self) -> FakeHub:
        self.gate.set()
        hub = self

        class Handler(_Handler):
            def do_GET(self) -> None:
                hub._answer(self)

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._server is not None, "A fake hub is left after it was entered."
        self.gate.set()
        self._server.shutdown()
        self._server.server_close()

    def num_asked(self, ending: str) -> int:
        """How many requests had a path that ends so."""
        return sum(asked.path.endswith(ending) for asked in self.asked)

    # Answers -----------------------------------------------------------------------------------

    def _answer(self, request: _Handler) -> None:
        authorization = request.headers.get("Authorization")
        self.asked.append(Asked(request.path, request.headers.get("Range"), authorization))
        if match := _LARGE_FILE.fullmatch(request.path):
            self._send_large_file(request, self._large_file(match["sha256"]))
        elif match := _LISTING.fullmatch(request.path):
            if repository := self._seen(request, match["name"], match["revision"], authorization):
                request.send(200, json.dumps(_listing(repository)).encode())
        elif match := _FILE.fullmatch(request.path):
            if repository := self._seen(request, match["name"], match["revision"], authorization):
                self._send_file(request, repository, match["file"])
        else:
            request.send(404, b"{}")

    def _seen(
        self, request: _Handler, name: str, revision: str, authorization: str | None
    ) -> PublishedRepository | None:
        """The repository, or None when the request has been refused."""
        repository = self.repositories.get(name)
        if authorization == "Bearer expired":
            request.refuse(401, "")
        elif repository is None and authorization is None:
            request.refuse(401, "RepoNotFound")
        elif repository is None:
            request.refuse(404, "RepoNotFound")
        elif repository.token and authorization != f"Bearer {repository.token}":
            request.refuse(401, "RepoNotFound")
        elif repository.is_gated:
            request.refuse(403, "GatedRepo")
        elif revision not in ("main", repository.commit):
            request.refuse(404, "RevisionNotFound")
        else:
            return repository
        return None

    def _send_file(self, request: _Handler, repository: PublishedRepository, file: str) -> None:
        content = repository.files.get(file)
        if content is None:
            request.refuse(404, "EntryNotFound")
        elif file == "model.bin":
            # By another name this is another host: a token must not go there.
            location = f"http://localhost:{self._port}/large/{hashlib.sha256(content).hexdigest()}"
            request.send(302, b"", {"Location": location})
        else:
            self._send_content(request, content)

    def _large_file(self, sha256: str) -> bytes:
        for repository in self.repositories.values():
            content = repository.files.get("model.bin", b"")
            if hashlib.sha256(content).hexdigest() == sha256:
                return content
        raise AssertionError("Only the hub's own redirects lead to a large file.")

    def _send_large_file(self, request: _Handler, content: bytes) -> None:
        self.is_asked_for_weights.set()
        self.gate.wait()
        if self.failures:
            request.send(self.failures.pop(0), b"")
        else:
            self._send_content(request, content, self.cuts.pop(0) if self.cuts else None)

    def _send_content(
        self, request: _Handler, content: bytes, cut_after: int | None = None
    ) -> None:
        if self.tamper:
            content = self.tamper(content)
        asked_range = re.fullmatch(r"bytes=(\d+)-", request.headers.get("Range", ""))
        if asked_range is None or self.ignores_ranges:
            request.send(200, content, cut_after=cut_after)
        elif (start := int(asked_range[1])) < len(content):
            place = f"bytes {start}-{len(content) - 1}/{len(content)}"
            request.send(206, content[start:], {"Content-Range": place}, cut_after)
        else:
            request.refuse(416, "")


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def handle(self) -> None:
        with suppress(ConnectionError):  # A client may leave before the end.
            super().handle()

    def send(
        self,
        status: int,
        body: bytes,
        headers: Mapping[str, str] | None = None,
        cut_after: int | None = None,
    ) -> None:
        """An answer; one that is cut states its whole length and sends so many bytes of it."""
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[:cut_after])
        self.close_connection = cut_after is not None

    def refuse(self, status: int, code: str) -> None:
        self.send(status, b"{}", {"X-Error-Code": code} if code else {})

    def log_message(self, *_: object) -> None:
        """Nothing: the requests are in `asked`."""


def _listing(repository: PublishedRepository) -> dict[str, object]:
    return {
        "sha": repository.commit,
        "siblings": [_sibling(name, content) for name, content in repository.files.items()],
    }


def _sibling(name: str, content: bytes) -> dict[str, object]:
    blob_id = hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
    entry: dict[str, object] = {"rfilename": name, "size": len(content), "blobId": blob_id}
    if name == "model.bin":
        entry["lfs"] = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}
    return entry
