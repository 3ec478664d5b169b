"""A body is taken in within its limits, and its file is gone in every outcome."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import pytest
from starlette.requests import Request
from starlette.types import Message

from simple_asr.errors import (
    AsrError,
    Cancelled,
    EmptyMedia,
    InvalidParameter,
    MalformedBody,
    MissingFile,
    PayloadTooLarge,
    RequestTimeout,
    StorageFull,
    UnknownParameter,
    UnsupportedContentType,
)
from simple_asr.server.intake import BodyLimits, ReceivedBody, receive_body
from simple_asr.service.spool import SpoolFile
from simple_asr.settings import Settings

pytestmark = pytest.mark.anyio

LIMITS = BodyLimits(
    max_bytes=10_000,
    max_fields=3,
    max_field_bytes=100,
    max_document_bytes=200,
    idle_seconds=0.05,
    min_bytes_per_second=1.0,
)
FORM = {"content-type": "multipart/form-data; boundary=cut"}
WAV = {"content-type": "audio/wav"}
END = b"--cut--\r\n"


def part(name: str, data: bytes, *, file: bool = False, content_type: str = "") -> bytes:
    disposition = f'form-data; name="{name}"' + ('; filename="clip.wav"' if file else "")
    kind = f"Content-Type: {content_type}\r\n" if content_type else ""
    return f"--cut\r\nContent-Disposition: {disposition}\r\n{kind}\r\n".encode() + data + b"\r\n"


AUDIO = part("audio_file", b"RIFF", file=True)


def left_in(spool: Path) -> list[Path]:
    return list(spool.glob("*"))


class Sender:
    """A client: sends its chunks one after the other, then nothing more."""

    def __init__(self, *chunks: bytes, then: str = "end") -> None:
        last = {"type": "http.request", "body": b"", "more_body": False}
        self.messages: list[Message] = [
            {"type": "http.request", "body": chunk, "more_body": True} for chunk in chunks
        ]
        if then == "end":
            self.messages.append(last)
        elif then == "leave":
            self.messages.append({"type": "http.disconnect"})
        self.sent = 0

    async def receive(self) -> Message:
        if self.sent == len(self.messages):
            await asyncio.Event().wait()
        self.sent += 1
        return self.messages[self.sent - 1]

    def request(self, headers: dict[str, str]) -> Request:
        raw = [(name.encode(), value.encode()) for name, value in headers.items()]
        scope = {"type": "http", "method": "POST", "headers": raw, "query_string": b""}
        return Request(scope, self.receive)


async def taken(
    spool: Path, headers: dict[str, str], *chunks: bytes, limits: BodyLimits = LIMITS
) -> tuple[ReceivedBody, bytes]:
    """The body, and the media as it lay on disk."""
    async with receive_body(Sender(*chunks).request(headers), spool, limits) as body:
        return body, body.media.read_bytes()


async def refused(
    spool: Path, headers: dict[str, str], *chunks: bytes, limits: BodyLimits = LIMITS
) -> AsrError:
    """Why it was refused; by then the spool folder must be empty."""
    with pytest.raises(AsrError) as caught:
        await taken(spool, headers, *chunks, limits=limits)
    assert left_in(spool) == []
    return caught.value


async def test_a_form_becomes_a_file_fields_and_documents(tmp_path: Path) -> None:
    body, media = await taken(
        tmp_path,
        FORM,
        part("language", b"ru") + AUDIO,
        part("params", b'{"beam_size": 5}') + part("more", b"{}", content_type="application/json"),
        END,
    )

    assert media == b"RIFF"
    assert body.fields == (("language", "ru"),)
    assert body.documents == ('{"beam_size": 5}', "{}")
    assert left_in(tmp_path) == []


async def test_the_field_may_also_be_called_file(tmp_path: Path) -> None:
    _, media = await taken(tmp_path, FORM, part("file", b"OggS", file=True) + END)

    assert media == b"OggS"


async def test_a_raw_body_is_the_file(tmp_path: Path) -> None:
    body, media = await taken(tmp_path, WAV, b"RI", b"FF")

    assert media == b"RIFF"
    assert body.fields == ()
    assert body.documents == ()


async def test_a_type_of_raw_samples_comes_as_parameters(tmp_path: Path) -> None:
    body, _ = await taken(tmp_path, {"content-type": "audio/pcm;rate=8000"}, b"\0\0")

    assert dict(body.fields) == {"pcm_format": "s16le", "pcm_rate": "8000"}


async def test_a_media_type_is_known_in_any_case(tmp_path: Path) -> None:
    _, media = await taken(tmp_path, {"content-type": "Audio/WAV; codecs=1"}, b"RIFF")

    assert media == b"RIFF"


async def test_a_large_file_arrives_whole(tmp_path: Path) -> None:
    chunk = bytes(range(256)) * 256
    limits = BodyLimits(max_bytes=50 * len(chunk))

    _, media = await taken(tmp_path, WAV, *[chunk] * 50, limits=limits)

    assert media == chunk * 50


async def test_nothing_the_client_names_becomes_a_path(tmp_path: Path) -> None:
    evil = AUDIO.replace(b"clip.wav", b"/etc/x")

    body, _ = await taken(tmp_path / "spool", FORM, evil + END)

    assert body.media.parent == tmp_path / "spool"
    assert "etc" not in body.media.name


@pytest.mark.parametrize("size", [9_999, 10_000])
async def test_a_body_up_to_the_limit_is_taken(tmp_path: Path, size: int) -> None:
    _, media = await taken(tmp_path, {**WAV, "content-length": str(size)}, b"x" * size)

    assert len(media) == size


async def test_a_body_over_the_limit_is_refused_without_being_read_on(tmp_path: Path) -> None:
    sender = Sender(*[b"x" * 1000] * 100)

    with pytest.raises(PayloadTooLarge, match="at most 10000 bytes"):
        async with receive_body(sender.request(WAV), tmp_path, LIMITS):
            pass

    assert sender.sent == 11
    assert left_in(tmp_path) == []


@pytest.mark.parametrize("size", ["10001", "9" * 5000])
async def test_an_announced_size_over_the_limit_is_refused_before_a_byte_is_read(
    tmp_path: Path, size: str
) -> None:
    sender = Sender(b"x")

    with pytest.raises(PayloadTooLarge):
        async with receive_body(sender.request({**WAV, "content-length": size}), tmp_path, LIMITS):
            pass

    assert sender.sent == 0


@pytest.mark.parametrize(
    ("parts", "error", "field"),
    [
        (AUDIO + part("a", b"1") * 4, PayloadTooLarge, None),
        (AUDIO + part("prompt", b"a" * 101), PayloadTooLarge, "prompt"),
        (AUDIO + part("params", b"1" * 201), PayloadTooLarge, "params"),
        (AUDIO + part("params", b"1" * 101) * 2, PayloadTooLarge, "params"),
        (AUDIO + AUDIO, InvalidParameter, "audio_file"),
        (AUDIO + part("prompt", b"\xed\xa0\x80"), InvalidParameter, "prompt"),
        (AUDIO + part("prompt", b"\xff\xfe"), InvalidParameter, "prompt"),
        (AUDIO + part("language", b"ru", file=True), UnknownParameter, "language"),
        (AUDIO + b"--cut\r\n\r\nnameless\r\n", MalformedBody, None),
        (part("audio_file", b"clip.wav"), MissingFile, "audio_file"),
        (part("language", b"ru"), MissingFile, "audio_file"),
        (part("audio_file", b"", file=True), EmptyMedia, "audio_file"),
    ],
)
async def test_a_form_that_cannot_be_taken_says_what_and_where(
    tmp_path: Path, parts: bytes, error: type[AsrError], field: str | None
) -> None:
    reason = await refused(tmp_path, FORM, parts + END)

    assert type(reason) is error
    assert reason.field == field


@pytest.mark.parametrize(
    "parts",
    [
        part("a", b"1") * 3,
        part("prompt", b"a" * 100),
        part("params", b"1" * 200),
        part("params", b"1" * 100) * 2,
    ],
)
async def test_a_form_up_to_its_limits_is_taken(tmp_path: Path, parts: bytes) -> None:
    _, media = await taken(tmp_path, FORM, AUDIO + parts + END)

    assert media == b"RIFF"


async def test_the_limits_are_those_of_the_settings(make_settings: Callable[..., Settings]) -> None:
    settings = make_settings(
        max_upload_bytes=1,
        max_form_fields=2,
        max_field_bytes=300,
        max_document_bytes=400,
        body_timeout_seconds=5,
        min_upload_rate=6,
    )

    assert BodyLimits.from_settings(settings) == BodyLimits(1, 2, 300, 400, 5, 6)


async def test_without_a_slowest_rate_a_sender_may_trickle(tmp_path: Path) -> None:
    limits = BodyLimits(max_bytes=10_000, idle_seconds=10, min_bytes_per_second=0)

    _, media = await taken(tmp_path, WAV, b"RI", b"FF", limits=limits)

    assert media == b"RIFF"


async def test_a_path_without_its_at_sign_is_recognised(tmp_path: Path) -> None:
    reason = await refused(tmp_path, FORM, part("audio_file", b"clip.wav") + END)

    assert "-F audio_file=@clip.wav" in reason.detail


async def test_an_empty_body_is_an_empty_file(tmp_path: Path) -> None:
    assert isinstance(await refused(tmp_path, WAV), EmptyMedia)


async def test_a_form_cut_short_is_refused(tmp_path: Path) -> None:
    assert isinstance(await refused(tmp_path, FORM, AUDIO), MalformedBody)


@pytest.mark.parametrize(
    ("content_type", "error"),
    [
        ("multipart/form-data", MalformedBody),
        ("multipart/form-data; boundary=", MalformedBody),
        ("multipart/form-data; boundary=" + "x" * 300, MalformedBody),
        ("application/json", MissingFile),
        ("application/x-www-form-urlencoded", MissingFile),
        ("", MissingFile),
        ("text/plain", UnsupportedContentType),
        ("image/png", UnsupportedContentType),
    ],
)
async def test_a_type_that_carries_no_file_is_refused(
    tmp_path: Path, content_type: str, error: type[AsrError]
) -> None:
    reason = await refused(tmp_path, {"content-type": content_type}, b"{}")

    assert type(reason) is error


async def test_a_compressed_body_is_refused(tmp_path: Path) -> None:
    reason = await refused(tmp_path, {**WAV, "content-encoding": "gzip"}, b"x")

    assert isinstance(reason, UnsupportedContentType)


async def test_a_sender_that_falls_silent_is_given_up(tmp_path: Path) -> None:
    sender = Sender(b"RIFF", then="silence")

    with pytest.raises(RequestTimeout, match="after 4 bytes"):
        async with receive_body(sender.request(WAV), tmp_path, LIMITS):
            pass

    assert left_in(tmp_path) == []


async def test_a_sender_that_trickles_is_given_up_though_it_never_falls_silent(
    tmp_path: Path,
) -> None:
    limits = BodyLimits(max_bytes=10_000, idle_seconds=0.1, min_bytes_per_second=1000.0)
    sender = Sender(*[b"x"] * 1000)

    async def trickle() -> Message:
        await asyncio.sleep(0.01)
        return await sender.receive()

    request = Request(sender.request(WAV).scope, trickle)

    with pytest.raises(RequestTimeout):
        async with receive_body(request, tmp_path, limits):
            pass

    assert sender.sent < 1000


async def test_a_caller_that_leaves_midway_leaves_no_file(tmp_path: Path) -> None:
    sender = Sender(b"RIFF", then="leave")

    with pytest.raises(Cancelled):
        async with receive_body(sender.request(WAV), tmp_path, LIMITS):
            pass

    assert left_in(tmp_path) == []


async def test_a_request_that_is_cancelled_leaves_no_file(tmp_path: Path) -> None:
    inside = asyncio.Event()

    async def hold() -> None:
        async with receive_body(Sender(b"RIFF").request(WAV), tmp_path, LIMITS):
            inside.set()
            await asyncio.Event().wait()

    holding = asyncio.create_task(hold())
    await inside.wait()
    kept = len(left_in(tmp_path))
    holding.cancel()
    with suppress(asyncio.CancelledError):
        await holding

    assert kept == 1
    assert left_in(tmp_path) == []


async def test_a_full_disk_is_told_and_leaves_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: SpoolFile, __: bytes) -> None:
        raise StorageFull("The disk is full.")

    monkeypatch.setattr(SpoolFile, "write", full)

    assert isinstance(await refused(tmp_path, WAV, b"RIFF"), StorageFull)


@pytest.mark.parametrize("number_of_cuts", [0, 1, 7])
async def test_chunks_may_be_cut_anywhere(tmp_path: Path, number_of_cuts: int) -> None:
    body = part("language", b"ru") + AUDIO + END
    size = len(body) // (number_of_cuts + 1) + 1
    chunks: Sequence[bytes] = [body[i : i + size] for i in range(0, len(body), size)]

    received, media = await taken(tmp_path, FORM, *chunks)

    assert (received.fields, media) == ((("language", "ru"),), b"RIFF")
