"""Talks to a running server from Python: transcripts and their events, blocking or with asyncio.

    with Client("http://localhost:9854", key="…") as client:
        print(client.transcribe("clip.wav", language="ru").text)

Needs nothing of the server's own code.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import httpx2
from pydantic import TypeAdapter

from simple_asr.errors import AsrError
from simple_asr.transcript.document import read_transcript
from simple_asr.transcript.events import Done, Event, Progress, SegmentDone
from simple_asr.transcript.model import Segment, Transcript

Media = str | os.PathLike[str] | bytes | BinaryIO
"""A path, the content, or an open file, which can be sent again only where it can be rewound."""

# A server in work sends a comment every 15 s; one that is silent for so long is gone.
READ_SECONDS = 60.0
CONNECT_SECONDS = 10.0
TRY_AGAIN = (429, 503)
# Before another try where the server names no time.
PAUSE_SECONDS = 5.0
# States of a job that is not worth waiting for.
CAME_TO_NOTHING = ("failed", "cancelled")


class Refused(AsrError):
    """The server answered with an error. `detail` is its text; `problem` its whole document."""

    code = "refused"
    title = "Refused by the server"

    def __init__(self, status: int, problem: dict[str, Any], retry_after: float | None) -> None:
        detail = problem.get("detail") or f"The server answered {status}."
        super().__init__(str(detail), field=problem.get("field"), retry_after=retry_after)
        self.status = status
        self.problem = problem


class Unreachable(AsrError):
    """No answer came, or only the beginning of one."""

    code = "unreachable"
    title = "Server unreachable"


@dataclass(frozen=True, slots=True)
class Health:
    """`status` is healthy, degraded, loading or failed; `model` is the one that is served."""

    status: str
    model: str


class Client:
    """A server, for programs that wait. Thread-safe; `close` it, or use it in a `with`."""

    def __init__(self, address: str, key: str | None = None, *, retries: int = 3) -> None:
        """`address` is that of the server's `/`, or `unix:` and the path of its socket file. A busy
        server is asked again `retries` times.
        """
        path = _socket_file(address)
        self._http = httpx2.Client(
            # None is httpx's own way, by the proxies of the environment.
            transport=httpx2.HTTPTransport(uds=path) if path else None,
            **_connection(address, key),
        )
        self._retries = retries

    def transcribe(self, media: Media, *, background: bool = False, **options: Any) -> Transcript:
        """The finished transcript. `options` are the parameters of POST /transcribe by name.

        With `background` it is a job of the server's: see `stream`.
        Raises Refused, Unreachable, OSError where the media cannot be read.
        """
        for event in self.stream(media, background=background, **options):
            if isinstance(event, Done):
                return event.transcript
        raise AssertionError("stream ends with Done or an error")

    def stream(self, media: Media, *, background: bool = False, **options: Any) -> Iterator[Event]:
        """Progress and segments as they come, then Done. Closing the iterator ends the work.

        With `background` the work goes on, whatever becomes of this program or the server: the
        same call again finds it.
        """
        if background:
            yield from self._job_events(media, _streamed(options))
            return
        for tries_left in range(self._retries, -1, -1):
            has_begun = False
            try:
                for event in self._events(media, options):
                    has_begun = True
                    yield event
                return
            except Refused as refusal:
                time.sleep(_pause(refusal, 0 if has_begun else tries_left))

    def write(self, media: Media, format: str, **options: Any) -> str:  # noqa: A002  (its name there)
        """The transcript as a file of this format: `srt`, `vtt`, `text`, …"""
        options = {**options, "format": format}
        for tries_left in range(self._retries, -1, -1):
            try:
                with self._answer(media, options) as response:
                    reader = ContentReader()
                    for line in response.iter_lines():
                        reader.feed(line)
                return reader.finish()
            except Refused as refusal:  # noqa: PERF203  (each try is a request)
                time.sleep(_pause(refusal, tries_left))
        raise AssertionError("the last try returns or raises")

    def health(self) -> Health:
        """What is served, and how well. Needs no key."""
        with _told_apart():
            return _health(self._http.get("health"))

    def close(self) -> None:
        self._http.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _events(self, media: Media, options: dict[str, Any]) -> Iterator[Event]:
        with self._answer(media, _streamed(options)) as response:
            reader = EventReader(response.headers.get("X-ASR-Model", ""))
            for line in response.iter_lines():
                yield from reader.feed(line)
            reader.finish()

    def _job_events(self, media: Media, options: dict[str, Any]) -> Iterator[Event]:
        job_id, num_told, tries_left = "", 0, self._retries
        while True:
            try:
                job_id = job_id or self._job(media, options)
                with _told_apart(), self._http.stream(**_news(job_id, num_told)) as response:
                    if response.is_error:
                        response.read()
                    reader = EventReader(_read(response).headers.get("X-ASR-Model", ""))
                    for line in response.iter_lines():
                        for event in reader.feed(line):
                            num_told += isinstance(event, SegmentDone)
                            tries_left = self._retries
                            yield event
                    reader.finish()
                return
            except (Refused, Unreachable) as fault:  # noqa: PERF203  (each try is a connection)
                time.sleep(_pause(fault, tries_left))
                tries_left -= 1

    def _job(self, media: Media, options: dict[str, Any]) -> str:
        """The id of the job for this; one that came to nothing is sent again."""
        with _opened(media) as content, _told_apart():
            key = _job_key(content, options)
            if key:
                listed = _read(self._http.get("jobs", params={"idempotency_key": key})).json()
                for job in listed["jobs"]:
                    if job["state"] not in CAME_TO_NOTHING:
                        return str(job["id"])
                    _read(self._http.delete(f"jobs/{job['id']}"))
            headers = {"Idempotency-Key": key} if key else {}
            sent = self._http.post("jobs", headers=headers, **_form(content, options))
            return str(_read(sent).json()["id"])

    @contextmanager
    def _answer(self, media: Media, options: dict[str, Any]) -> Iterator[httpx2.Response]:
        """The stream of an answer: the server is never silent for long. Raises Refused."""
        with (
            _opened(media) as content,
            _told_apart(),
            self._http.stream(
                "POST", "transcribe", headers=_STREAM, **_form(content, options)
            ) as response,
        ):
            if response.is_error:
                response.read()
            yield _read(response)


class AsyncClient:
    """The same for asyncio; `aclose` it, or use it in an `async with`."""

    def __init__(self, address: str, key: str | None = None, *, retries: int = 3) -> None:
        """`address` is that of the server's `/`, or `unix:` and the path of its socket file. A busy
        server is asked again `retries` times.
        """
        path = _socket_file(address)
        self._http = httpx2.AsyncClient(
            transport=httpx2.AsyncHTTPTransport(uds=path) if path else None,
            **_connection(address, key),
        )
        self._retries = retries

    async def transcribe(
        self, media: Media, *, background: bool = False, **options: Any
    ) -> Transcript:
        """The finished transcript. `options` are the parameters of POST /transcribe by name.

        With `background` it is a job of the server's: see `stream`.
        Raises Refused, Unreachable, OSError where the media cannot be read.
        """
        async for event in self.stream(media, background=background, **options):
            if isinstance(event, Done):
                return event.transcript
        raise AssertionError("stream ends with Done or an error")

    async def stream(
        self, media: Media, *, background: bool = False, **options: Any
    ) -> AsyncIterator[Event]:
        """Progress and segments as they come, then Done. Closing the iterator ends the work.

        With `background` the work goes on, whatever becomes of this program or the server: the
        same call again finds it.
        """
        if background:
            async for event in self._job_events(media, _streamed(options)):
                yield event
            return
        for tries_left in range(self._retries, -1, -1):
            has_begun = False
            try:
                async for event in self._events(media, options):
                    has_begun = True
                    yield event
                return
            except Refused as refusal:
                await asyncio.sleep(_pause(refusal, 0 if has_begun else tries_left))

    async def write(self, media: Media, format: str, **options: Any) -> str:  # noqa: A002  (as above)
        """The transcript as a file of this format: `srt`, `vtt`, `text`, …"""
        options = {**options, "format": format}
        for tries_left in range(self._retries, -1, -1):
            try:
                async with self._answer(media, options) as response:
                    reader = ContentReader()
                    async for line in response.aiter_lines():
                        reader.feed(line)
                return reader.finish()
            except Refused as refusal:  # noqa: PERF203  (each try is a request)
                await asyncio.sleep(_pause(refusal, tries_left))
        raise AssertionError("the last try returns or raises")

    async def health(self) -> Health:
        """What is served, and how well. Needs no key."""
        with _told_apart():
            return _health(await self._http.get("health"))

    async def aclose(self) -> None:
        await self._http.aclose()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def _events(self, media: Media, options: dict[str, Any]) -> AsyncIterator[Event]:
        async with self._answer(media, _streamed(options)) as response:
            reader = EventReader(response.headers.get("X-ASR-Model", ""))
            async for line in response.aiter_lines():
                for event in reader.feed(line):
                    yield event
            reader.finish()

    async def _job_events(self, media: Media, options: dict[str, Any]) -> AsyncIterator[Event]:
        job_id, num_told, tries_left = "", 0, self._retries
        while True:
            try:
                job_id = job_id or await self._job(media, options)
                with _told_apart():
                    async with self._http.stream(**_news(job_id, num_told)) as response:
                        if response.is_error:
                            await response.aread()
                        reader = EventReader(_read(response).headers.get("X-ASR-Model", ""))
                        async for line in response.aiter_lines():
                            for event in reader.feed(line):
                                num_told += isinstance(event, SegmentDone)
                                tries_left = self._retries
                                yield event
                        reader.finish()
                return
            except (Refused, Unreachable) as fault:  # noqa: PERF203  (each try is a connection)
                await asyncio.sleep(_pause(fault, tries_left))
                tries_left -= 1

    async def _job(self, media: Media, options: dict[str, Any]) -> str:
        """The id of the job for this; one that came to nothing is sent again."""
        with _opened(media) as content, _told_apart():
            key = await asyncio.to_thread(_job_key, content, options)
            if key:
                asked = await self._http.get("jobs", params={"idempotency_key": key})
                for job in _read(asked).json()["jobs"]:
                    if job["state"] not in CAME_TO_NOTHING:
                        return str(job["id"])
                    _read(await self._http.delete(f"jobs/{job['id']}"))
            headers = {"Idempotency-Key": key} if key else {}
            sent = await self._http.post("jobs", headers=headers, **_form(content, options))
            return str(_read(sent).json()["id"])

    @asynccontextmanager
    async def _answer(
        self, media: Media, options: dict[str, Any]
    ) -> AsyncIterator[httpx2.Response]:
        with _opened(media) as content, _told_apart():
            form = _form(content, options)
            async with self._http.stream("POST", "transcribe", headers=_STREAM, **form) as response:
                if response.is_error:
                    await response.aread()
                yield _read(response)


# What both share --------------------------------------------------------------------------------

_STREAM = {"Accept": "text/event-stream"}
_SEGMENT = TypeAdapter(Segment)


def _connection(address: str, key: str | None) -> dict[str, Any]:
    if _socket_file(address):
        address = "http://localhost"
    try:
        base_url = httpx2.URL(address.rstrip("/") + "/")
        # A key of other characters is none of a server's.
        headers = {} if key is None else {"X-API-Key": key.encode("latin-1")}
    except httpx2.InvalidURL as error:
        raise Unreachable(
            f"{address!r} is no address of a server: {error}. Give one such as "
            "http://localhost:9854."
        ) from None
    except UnicodeError:
        raise Unreachable("The key has characters that no key has. Check it.") from None
    return {
        "base_url": base_url,
        "headers": headers,
        "timeout": httpx2.Timeout(READ_SECONDS, connect=CONNECT_SECONDS),
    }


def _socket_file(address: str) -> str | None:
    """Of a server that listens on one."""
    return address.removeprefix("unix:") if address.startswith("unix:") else None


@contextmanager
def _opened(media: Media) -> Iterator[BinaryIO]:
    """The media from its beginning. Closes what it opened itself."""
    if isinstance(media, bytes):
        yield BytesIO(media)
    elif isinstance(media, (str, os.PathLike)):
        with Path(media).open("rb") as content:
            yield content
    else:
        if media.seekable():
            media.seek(0)
        yield media


def _streamed(options: dict[str, Any]) -> dict[str, Any]:
    # Whatever format was asked for, a stream ends with the whole transcript.
    return {**options, "format": "json"}


def _form(content: BinaryIO, options: dict[str, Any]) -> dict[str, Any]:
    # One JSON document, in which null, lists and truth values are what they are.
    return {"data": {"params": json.dumps(options)}, "files": {"audio_file": ("audio", content)}}


def _job_key(content: BinaryIO, options: dict[str, Any]) -> str:
    """The same for the same media and options; none where the media can be read only once."""
    if not content.seekable():
        return ""
    hasher = hashlib.sha256(json.dumps(options, sort_keys=True).encode() + b"\0")
    while chunk := content.read(1024 * 1024):
        hasher.update(chunk)
    content.seek(0)
    return hasher.hexdigest()


def _news(job_id: str, num_told: int) -> dict[str, Any]:
    """The request for the events of a job that are not known here."""
    headers = {**_STREAM, "Last-Event-ID": str(num_told)}
    return {"method": "GET", "url": f"jobs/{job_id}/events", "headers": headers}


@contextmanager
def _told_apart() -> Iterator[None]:
    """Failures of the connection, as errors of ours."""
    try:
        yield
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        raise Unreachable(
            f"The server gave no answer ({type(error).__name__}: {error}). Check its address, and "
            "whether it runs."
        ) from error


def _read(response: httpx2.Response) -> httpx2.Response:
    """The response, if it is no error; its body has been read if it is. Raises Refused."""
    if not response.is_error:
        return response
    try:
        problem = response.json()
    except ValueError:  # Something between here and the server answered in its place.
        problem = {}
    retry_after = response.headers.get("Retry-After", "")
    raise Refused(
        response.status_code,
        problem if isinstance(problem, dict) else {},
        float(retry_after) if retry_after.isdecimal() else None,
    )


def _health(response: httpx2.Response) -> Health:
    # 503 has the same document, while the model is loaded.
    document = response.json() if response.status_code == 503 else _read(response).json()
    return Health(document["status"], document["model_name"])


def _pause(fault: Refused | Unreachable, tries_left: int) -> float:
    """Seconds until the next try. Raises the fault where another one cannot help."""
    if not tries_left or (isinstance(fault, Refused) and fault.status not in TRY_AGAIN):
        raise fault
    return PAUSE_SECONDS if fault.retry_after is None else fault.retry_after


class MessageReader:
    """Makes messages of the lines of an answer, as they come: each a name and its JSON."""

    def __init__(self) -> None:
        self._name = ""
        self._data: list[str] = []
        self._is_done = False

    def message(self, line: str) -> tuple[str, dict[str, Any]] | None:
        """The message that this line completes, if it does. Raises Refused."""
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "event":
            self._name = value
        elif field == "data":
            self._data.append(value)
        elif not line and self._data:
            name, data = self._name, json.loads("\n".join(self._data))
            self._name, self._data = "", []
            if name == "error":
                raise Refused(data["status"], data, None)
            self._is_done = name == "done"
            return name, data
        return None

    def check(self) -> None:
        """Raises Unreachable where the answer ended before its last message."""
        if not self._is_done:
            raise Unreachable(
                "The connection to the server broke before the transcript was complete. Send the "
                "file again."
            )


class EventReader:
    """Makes events of the lines of an answer, as they come."""

    def __init__(self, model: str) -> None:
        self._model = model
        self._messages = MessageReader()
        self._duration = 0.0

    def feed(self, line: str) -> Iterator[Event]:
        """The event that this line completes, if it does. Raises Refused."""
        if message := self._messages.message(line):
            yield from self._event(*message)

    def finish(self) -> None:
        """Raises Unreachable where the answer ended before its last event."""
        self._messages.check()

    def _event(self, name: str, data: dict[str, Any]) -> Iterator[Event]:
        if name == "progress":
            self._duration = data["duration"]
            yield Progress(data["seconds_done"], data["duration"])
        elif name == "segment":
            yield SegmentDone(_SEGMENT.validate_python(data))
        elif name == "done":
            transcript = read_transcript(json.dumps(data["content"]), model=self._model)
            yield Done(
                replace(transcript, duration=self._duration, warnings=tuple(data["warnings"]))
            )


class ContentReader:
    """Takes the written transcript from the lines of an answer."""

    def __init__(self) -> None:
        self._messages = MessageReader()
        self._content: object = ""

    def feed(self, line: str) -> None:
        """Raises Refused."""
        match self._messages.message(line):
            case "done", {"content": content}:
                self._content = content

    def finish(self) -> str:
        """The file as the server writes it. Raises Unreachable where the answer broke off."""
        self._messages.check()
        if isinstance(self._content, str):
            return self._content
        return json.dumps(self._content, ensure_ascii=False)
