"""What is known of one request while it is served: its id, and what its log line will say."""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field

from starlette.types import Scope

from simple_asr.transcript.model import Processing, Transcript

SANE_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")


@dataclass(slots=True)
class RequestRecord:
    """Owned by the request's task. `status` is None until the answer begins.

    `key_name` is the caller's, never the key; `audio_seconds` is the length of the decoded audio;
    `processing` is where the time went; `model` is the one that was asked for, then the one that
    recognised, and None where that is the default one; `resources` are held until the end, when
    `on_end` is called. `received` is when the body was whole, `recognised` when the transcript was
    there, in seconds of `time.perf_counter`.
    """

    request_id: str
    status: int | None = None
    key_name: str | None = None
    audio_seconds: float | None = None
    processing: Processing | None = None
    model: str | None = None
    resources: ExitStack = field(default_factory=ExitStack)
    on_end: Callable[[], None] = lambda: None
    received: float | None = None
    recognised: float | None = None

    def close(self) -> None:
        """At the request's end: frees what was held for it, and says that it is over."""
        self.resources.close()
        self.on_end()

    def note(self, transcript: Transcript) -> None:
        """What the log line, a trace and a header tell of a transcript."""
        self.recognised = time.perf_counter()
        self.audio_seconds = transcript.duration
        self.processing = transcript.processing
        self.model = transcript.model


def open_record(scope: Scope) -> RequestRecord:
    """A record for a request that begins, kept in its scope."""
    record = RequestRecord(request_id=_given_id(scope["headers"]) or new_request_id())
    scope.setdefault("state", {})["record"] = record
    return record


def record_of(scope: Scope) -> RequestRecord:
    """The record that `open_record` made for this request."""
    record = scope["state"]["record"]
    assert isinstance(record, RequestRecord), "RequestEnvelope opens a record for every request"
    return record


def new_request_id() -> str:
    """32 hexadecimal digits, by chance."""
    return secrets.token_hex(16)


def _given_id(headers: Iterable[tuple[bytes, bytes]]) -> str | None:
    """The caller's own `x-request-id`, when it can stand in a header and a log line as it is."""
    for name, value in headers:
        if name == b"x-request-id" and SANE_REQUEST_ID.fullmatch(value):
            return value.decode("ascii")
    return None
