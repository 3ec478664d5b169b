"""Takes a multipart body apart as it comes: bytes in, parts out. Keeps nothing, writes nothing."""

from __future__ import annotations

from dataclasses import dataclass

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from simple_asr.errors import InvalidParameter, MalformedBody, UnsupportedContentType

PLAIN_ENCODINGS = frozenset({b"", b"7bit", b"8bit", b"binary"})


@dataclass(frozen=True, slots=True)
class PartBegun:
    """A part's headers, as far as they matter. `name` is None where the part has none.

    `content_type` is the bare media type in lower case, empty where none is given. The client's
    file name is not kept: nothing here could need it.
    """

    name: str | None
    has_file_name: bool
    content_type: str


@dataclass(frozen=True, slots=True)
class PartData:
    """Some bytes of the part begun last."""

    data: bytes


PartEvent = PartBegun | PartData


class MultipartReader:
    """One body's reader: `feed` it the bytes in order, then ask `finish` whether it was whole.

    python_multipart holds a part to 8 headers of 4 KiB, and a boundary to 256 bytes.
    """

    def __init__(self, boundary: bytes) -> None:
        """Raises MalformedBody when no boundary can look like this."""
        self._events: list[PartEvent] = []
        self._headers: dict[bytes, bytes] = {}
        self._header_name = bytearray()
        self._header_value = bytearray()
        self._is_complete = False
        try:
            self._parser = MultipartParser(
                boundary,
                {
                    "on_part_begin": self._headers.clear,
                    "on_header_field": self._on_header_name,
                    "on_header_value": self._on_header_value,
                    "on_header_end": self._on_header_end,
                    "on_headers_finished": self._on_headers_finished,
                    "on_part_data": self._on_part_data,
                    "on_end": self._on_end,
                },
            )
        except FormParserError:
            raise MalformedBody(
                f"The boundary in Content-Type has {len(boundary)} bytes; RFC 2046 allows 70. Let "
                "your HTTP library choose it."
            ) from None

    def feed(self, data: bytes) -> list[PartEvent]:
        """What these bytes complete. Raises MalformedBody."""
        try:
            self._parser.write(data)
        except FormParserError:
            raise MalformedBody(
                "The multipart body cannot be read. Check that the boundary in Content-Type is the "
                "one in the body, and that no part has more than 8 headers of 4 KiB."
            ) from None
        events, self._events = self._events, []
        return events

    def finish(self) -> None:
        """Raises MalformedBody when the final boundary has not come."""
        if not self._is_complete:
            raise MalformedBody(
                "The multipart body ends before its final boundary: the upload was cut short. Send "
                "it again, and let your HTTP library set Content-Length."
            )

    def _on_header_name(self, data: bytes, start: int, end: int) -> None:
        self._header_name += data[start:end]

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._header_value += data[start:end]

    def _on_header_end(self) -> None:
        self._headers[bytes(self._header_name).lower()] = bytes(self._header_value).strip()
        self._header_name.clear()
        self._header_value.clear()

    def _on_headers_finished(self) -> None:
        self._events.append(_part(self._headers))

    def _on_part_data(self, data: bytes, start: int, end: int) -> None:
        self._events.append(PartData(data[start:end]))

    def _on_end(self) -> None:
        self._is_complete = True


def _part(headers: dict[bytes, bytes]) -> PartBegun:
    if headers.get(b"content-transfer-encoding", b"").lower() not in PLAIN_ENCODINGS:
        raise UnsupportedContentType(
            "A part has a Content-Transfer-Encoding. Send the bytes as they are (RFC 7578, 4.7)."
        )
    _, disposition = parse_options_header(headers.get(b"content-disposition"))
    content_type, _ = parse_options_header(headers.get(b"content-type"))
    return PartBegun(
        name=_name(disposition.get(b"name")),
        has_file_name=b"filename" in disposition,
        content_type=content_type.decode("latin-1").lower(),
    )


def _name(name: bytes | None) -> str | None:
    if name is None:
        return None
    try:
        return name.decode("utf-8")
    except UnicodeDecodeError:
        raise InvalidParameter("A field's name is not UTF-8. Send names as UTF-8.") from None
