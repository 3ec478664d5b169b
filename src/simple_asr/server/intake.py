"""Takes in a request's body, once, as it streams: text to memory, the media to the spool folder.

Whatever becomes of the request, the file is removed at its end. What the texts mean is
`parameters.py`'s business.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from python_multipart.multipart import parse_options_header
from starlette.requests import Request

from simple_asr.errors import (
    Cancelled,
    EmptyMedia,
    InvalidParameter,
    MalformedBody,
    MissingFile,
    PayloadTooLarge,
    RequestTimeout,
    UnknownParameter,
    UnsupportedContentType,
)
from simple_asr.server.multipart import MultipartReader, PartBegun
from simple_asr.server.raw_audio import raw_audio_fields
from simple_asr.service.labels import label
from simple_asr.service.parameters import FILE_FIELDS, PARAMS_FIELD
from simple_asr.service.spool import SpoolFile
from simple_asr.settings import Settings

MEDIA_TYPES = frozenset({"application/octet-stream", "application/ogg", "application/mp4"})
MEDIA_FAMILIES = ("audio/", "video/")
# What clients send when nobody chose: a file may hide behind it, and nothing says which field.
FORM_WITHOUT_FILES = frozenset({"application/x-www-form-urlencoded", "application/json", ""})
HOW_TO_SEND = (
    "Send it as the field audio_file of a form (curl -F audio_file=@clip.wav), or as the body "
    "itself (curl -H 'Content-Type: audio/wav' --data-binary @clip.wav)."
)
# Large enough that a gigabyte is some thousand hops to a thread, small enough to be no burden.
WRITE_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True)
class BodyLimits:
    """What one request's body may take: bytes, fields, and seconds.

    A sender is given up after `idle_seconds` of silence, and when it has fallen that many seconds
    behind `min_bytes_per_second`; 0 lets it be as slow as it likes. `max_document_bytes` is for all
    JSON documents of a form together, `max_transcript_bytes` for one that is a body.
    """

    max_bytes: int
    max_fields: int = 64
    max_field_bytes: int = 64 * 1024
    max_document_bytes: int = 1024 * 1024
    idle_seconds: float = 30.0
    min_bytes_per_second: float = 1024.0
    max_transcript_bytes: int = 32 * 1024 * 1024

    @classmethod
    def from_settings(cls, settings: Settings) -> BodyLimits:
        return cls(
            max_bytes=settings.max_upload_bytes,
            max_fields=settings.max_form_fields,
            max_field_bytes=settings.max_field_bytes,
            max_document_bytes=settings.max_document_bytes,
            idle_seconds=settings.body_timeout_seconds,
            min_bytes_per_second=settings.min_upload_rate,
        )


@dataclass(frozen=True, slots=True)
class ReceivedBody:
    """The media as a file of ours, the form's fields in order, and JSON documents as text.

    Fields are also what the Content-Type says of raw samples. `file` is None only where a request
    may come without.
    """

    file: Path | None
    fields: tuple[tuple[str, str], ...]
    documents: tuple[str, ...]

    @property
    def media(self) -> Path:
        """The file of a request that has to bring one."""
        assert self.file is not None, "a body without a file was refused"
        return self.file


@asynccontextmanager
async def receive_body(
    request: Request, spool_dir: Path, limits: BodyLimits, *, needs_file: bool = True
) -> AsyncIterator[ReceivedBody]:
    """The body of this request, for as long as the context lasts.

    Where it needs no file, it may be empty, or a JSON document.
    Raises MissingFile, EmptyMedia, MalformedBody, UnsupportedContentType, PayloadTooLarge,
    RequestTimeout, InvalidParameter, UnknownParameter, StorageFull; Cancelled when the caller
    leaves.
    """
    _refuse_encoded(request)
    _refuse_announced_size(request, limits)
    collector = _Collector(spool_dir, limits, needs_file=needs_file)
    try:
        await _collect(request, collector, limits)
        body = await collector.finish()
        raw = raw_audio_fields(request.headers.get("content-type"), request.query_params)
        yield replace(body, fields=(*body.fields, *raw))
    finally:
        # In the thread's queue at once, and shielded: the file goes even if a server that stops
        # gives this request up while it waits here.
        removing = asyncio.get_running_loop().run_in_executor(None, collector.discard)
        await asyncio.shield(removing)


async def receive_document(request: Request, limits: BodyLimits) -> bytes:
    """The JSON document that is this request's body, whole in memory.

    Raises UnsupportedContentType, PayloadTooLarge, RequestTimeout; Cancelled when the caller
    leaves.
    """
    _refuse_encoded(request)
    media_type, _ = _content_type(request)
    if media_type != "application/json":
        raise UnsupportedContentType(
            f"A body of type '{label(media_type)}' is not taken here. Send the transcript with "
            "Content-Type: application/json."
        )
    limits = replace(limits, max_bytes=limits.max_transcript_bytes)
    try:
        _refuse_announced_size(request, limits)
        return b"".join([chunk async for chunk in _chunks(request, limits)])
    except PayloadTooLarge:
        raise PayloadTooLarge(
            f"The transcript takes more than {limits.max_bytes} bytes, the most this server takes. "
            "Split it."
        ) from None


async def _collect(request: Request, collector: _Collector, limits: BodyLimits) -> None:
    media_type, boundary = _content_type(request)
    if boundary is not None:
        reader = MultipartReader(boundary)
        async for chunk in _chunks(request, limits):
            for event in reader.feed(chunk):
                if isinstance(event, PartBegun):
                    collector.begin(event)
                else:
                    await collector.add(event.data)
        reader.finish()
    elif _is_media(media_type):
        collector.begin_media()
        async for chunk in _chunks(request, limits):
            await collector.add(chunk)
    elif collector.needs_file or media_type not in FORM_WITHOUT_FILES:
        raise _nothing_to_take(media_type)
    else:
        async for chunk in _chunks(request, limits):
            if media_type != "application/json":
                raise _nothing_to_take(media_type)
            collector.begin_document()
            await collector.add(chunk)


def _content_type(request: Request) -> tuple[str, bytes | None]:
    """The media type, and the boundary of a multipart body.

    A boundary decides, whatever the media type says: `curl -H "Content-Type: application/json"
    -F …` sends a multipart body under `application/json; boundary=…`.
    """
    value, options = parse_options_header(request.headers.get("content-type"))
    media_type = value.decode("latin-1").lower()
    boundary = options.get(b"boundary")
    if boundary == b"" or (boundary is None and media_type.startswith("multipart/")):
        raise MalformedBody(
            "Content-Type says multipart and names no boundary. Let your HTTP library set this "
            "header; with curl, leave it out."
        )
    return media_type, boundary


def _is_media(media_type: str) -> bool:
    return media_type.startswith(MEDIA_FAMILIES) or media_type in MEDIA_TYPES


def _nothing_to_take(media_type: str) -> MissingFile | UnsupportedContentType:
    if media_type in FORM_WITHOUT_FILES:
        return missing_file()
    return UnsupportedContentType(
        f"A body of type '{label(media_type)}' is not taken. {HOW_TO_SEND} Parameters go into the "
        "form, into the query, or as JSON into the field params."
    )


def missing_file() -> MissingFile:
    """Neither a file came nor, where that is taken, the address of one."""
    return MissingFile(f"The request carries no audio file. {HOW_TO_SEND}", field="audio_file")


def _refuse_encoded(request: Request) -> None:
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("", "identity"):
        raise UnsupportedContentType(
            f"Content-Encoding '{label(encoding)}' is not taken. Send the body uncompressed."
        )


def _refuse_announced_size(request: Request, limits: BodyLimits) -> None:
    """Before a byte of the body is read, so that a caller who waits for 100 need not send it."""
    announced = request.headers.get("content-length", "")
    # More than 18 digits are too many bytes for any limit, and may be too many for int().
    if announced.isdecimal() and (len(announced) > 18 or int(announced) > limits.max_bytes):
        raise _body_too_large(limits, f"has {label(announced)} bytes")


def _body_too_large(limits: BodyLimits, size: str) -> PayloadTooLarge:
    return PayloadTooLarge(
        f"The request body {size}; this server takes at most {limits.max_bytes} "
        "bytes (MAX_UPLOAD_BYTES). Send the audio compressed (Opus, MP3), or split it."
    )


async def _chunks(request: Request, limits: BodyLimits) -> AsyncIterator[bytes]:
    """The body as it comes. Raises PayloadTooLarge, RequestTimeout, Cancelled."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    received = 0
    more = True
    while more:
        patience = limits.idle_seconds
        if limits.min_bytes_per_second:
            slowest = began + limits.idle_seconds + received / limits.min_bytes_per_second
            patience = min(patience, slowest - loop.time())
        try:
            message = await asyncio.wait_for(request.receive(), max(0.0, patience))
        except asyncio.TimeoutError:
            raise RequestTimeout(
                f"The body stopped coming after {received} bytes: nothing for "
                f"{limits.idle_seconds:g} s (BODY_TIMEOUT_SECONDS), or less than "
                f"{limits.min_bytes_per_second:g} bytes a second (MIN_UPLOAD_RATE). Send it again "
                "over a better connection."
            ) from None
        if message["type"] == "http.disconnect":
            raise Cancelled("The caller left before the body was complete.")
        chunk: bytes = message.get("body", b"")
        received += len(chunk)
        if received > limits.max_bytes:
            raise _body_too_large(limits, "is too large")
        if chunk:
            yield chunk
        more = message.get("more_body", False)


@dataclass(slots=True)
class _Text:
    """A field or document while it comes. `name` is None for a JSON document."""

    name: str | None
    max_bytes: int
    data: bytearray = field(default_factory=bytearray)


class _Collector:
    """Sorts the parts of one body. Owned by the request's task."""

    def __init__(self, spool_dir: Path, limits: BodyLimits, *, needs_file: bool) -> None:
        self.needs_file = needs_file
        self._spool_dir = spool_dir
        self._limits = limits
        self._texts: list[_Text] = []
        self._media: SpoolFile | None = None
        self._unwritten = bytearray()
        self._text: _Text | None = None

    def begin(self, part: PartBegun) -> None:
        """A part of a multipart body begins; what follows belongs to it."""
        if _holds_media(part):
            self.begin_media()
        else:
            self._begin_text(part)

    def begin_media(self) -> None:
        """What follows is the media. Opened here and not in a thread: see `discard`."""
        if self._media is not None:
            raise InvalidParameter(
                "Two audio files came; a request takes one. Send a request for each.",
                field="audio_file",
            )
        self._text = None
        self._media = SpoolFile(self._spool_dir)

    def begin_document(self) -> None:
        """What follows is one JSON document; said again, the same one."""
        if self._text is None:
            self._text = _Text(None, self._limits.max_document_bytes)
            self._texts.append(self._text)

    async def add(self, data: bytes) -> None:
        """More of what began last."""
        if self._text is not None:
            self._add_text(self._text, data)
            return
        self._unwritten += data
        if len(self._unwritten) >= WRITE_BYTES:
            await self._write()

    async def finish(self) -> ReceivedBody:
        """All of it, the media complete on disk."""
        if self._media is not None:
            await self._write()
            if self._media.size == 0:
                raise EmptyMedia(
                    "The audio file is empty (0 bytes). Check the path it was read from.",
                    field="audio_file",
                )
        elif self.needs_file:
            raise missing_file()
        texts = [(text.name, _decoded(text)) for text in self._texts]
        return ReceivedBody(
            file=self._media.path if self._media else None,
            fields=tuple((name, value) for name, value in texts if name is not None),
            documents=tuple(value for name, value in texts if name is None),
        )

    def discard(self) -> None:
        """Removes what was kept on disk; no thread can be left that makes the file only now."""
        if self._media is not None:
            self._media.remove()

    async def _write(self) -> None:
        assert self._media is not None, "only media is written"
        data, self._unwritten = self._unwritten, bytearray()
        await asyncio.to_thread(self._media.write, bytes(data))

    def _begin_text(self, part: PartBegun) -> None:
        if len(self._texts) == self._limits.max_fields:
            raise PayloadTooLarge(
                f"The form has more than {self._limits.max_fields} fields, the most this server "
                "takes (MAX_FORM_FIELDS). Every parameter needs one field."
            )
        if part.name == PARAMS_FIELD or part.content_type == "application/json":
            taken = sum(len(text.data) for text in self._texts if text.name is None)
            self._text = _Text(None, self._limits.max_document_bytes - taken)
        else:
            self._text = _Text(_field_name(part), self._limits.max_field_bytes)
        self._texts.append(self._text)

    def _add_text(self, text: _Text, data: bytes) -> None:
        text.data += data
        if len(text.data) > text.max_bytes:
            name = label(text.name or PARAMS_FIELD)
            limit, setting = (
                (self._limits.max_document_bytes, "MAX_DOCUMENT_BYTES")
                if text.name is None
                else (self._limits.max_field_bytes, "MAX_FIELD_BYTES")
            )
            raise PayloadTooLarge(
                f"The field {name} holds more than {limit} bytes, the most this server takes there "
                f"({setting}). Shorten it.",
                field=name,
            )


def _holds_media(part: PartBegun) -> bool:
    """A part that is named for the file, or has no name and a media's type (multipart/mixed)."""
    is_media = _is_media(part.content_type)
    if part.name is None:
        return is_media
    if part.name not in FILE_FIELDS:
        return False
    if part.has_file_name or is_media:
        return True
    raise MissingFile(
        f"The field {part.name} came as text, not as a file. With curl, put an @ before the path: "
        f"-F {part.name}=@clip.wav",
        field=part.name,
    )


def _field_name(part: PartBegun) -> str:
    if part.name is None:
        raise MalformedBody(
            "A part has no name and is neither audio, video nor JSON. Name it in its "
            "Content-Disposition, or give it a Content-Type."
        )
    if part.has_file_name:
        name = label(part.name)
        raise UnknownParameter(
            f"The field {name} came as a file; the file belongs into the field audio_file, and a "
            "parameter comes as text.",
            field=name,
        )
    return part.name


def _decoded(text: _Text) -> str:
    """Text is UTF-8, as forms are (RFC 7578, 5.1.2). Raises InvalidParameter."""
    try:
        return text.data.decode("utf-8")
    except UnicodeDecodeError:
        name = label(text.name or PARAMS_FIELD)
        raise InvalidParameter(
            f"The field {name} is not UTF-8. Send text as UTF-8.", field=name
        ) from None
