"""Multipart bodies, taken apart whichever way the network cut them."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simple_asr.errors import InvalidParameter, MalformedBody, UnsupportedContentType
from simple_asr.server.multipart import MultipartReader, PartBegun, PartData

FIELD = b'--cut\r\nContent-Disposition: form-data; name="language"\r\n\r\nru\r\n'
FILE = (
    b'--cut\r\nContent-Disposition: form-data; name="audio_file"; filename="a;b.wav"\r\n'
    b"Content-Type: Audio/WAV; codecs=1\r\n\r\nRI\r\n-FF\r\n"
)
END = b"--cut--\r\n"


def read(*chunks: bytes, boundary: bytes = b"cut") -> list[tuple[PartBegun, bytes]]:
    """Parts with their data put together again."""
    reader = MultipartReader(boundary)
    parts: list[tuple[PartBegun, bytes]] = []
    for chunk in chunks:
        for event in reader.feed(chunk):
            if isinstance(event, PartData):
                part, data = parts.pop()
                parts.append((part, data + event.data))
            else:
                parts.append((event, b""))
    reader.finish()
    return parts


WHOLE = [
    (PartBegun("language", has_file_name=False, content_type=""), b"ru"),
    (PartBegun("audio_file", has_file_name=True, content_type="audio/wav"), b"RI\r\n-FF"),
]


def test_parts_come_with_what_matters_of_their_headers() -> None:
    assert read(FIELD + FILE + END) == WHOLE


@given(st.lists(st.integers(0, len(FIELD + FILE + END)), max_size=20))
def test_it_does_not_matter_where_the_network_cuts(cuts: list[int]) -> None:
    body = FIELD + FILE + END
    edges = [0, *sorted(cuts), len(body)]
    chunks = [body[start:end] for start, end in itertools.pairwise(edges)]

    assert read(*chunks) == WHOLE


def test_a_part_may_have_no_name_and_no_headers() -> None:
    parts = read(b"--cut\r\n\r\nRIFF\r\n--cut\r\nContent-Type: audio/ogg\r\n\r\nOggS\r\n" + END)

    assert parts == [
        (PartBegun(None, has_file_name=False, content_type=""), b"RIFF"),
        (PartBegun(None, has_file_name=False, content_type="audio/ogg"), b"OggS"),
    ]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        FIELD,
        FIELD + FILE,
        FIELD + b"--cut",
        FIELD + b"--cut-",
        b"not multipart at all",
        b"preamble" * 1000 + FIELD + END,
        b"--other\r\n\r\nRIFF\r\n--other--\r\n",
        b"--cut\r\n" + b"A: b\r\n" * 9 + b"\r\nRIFF\r\n" + END,
        b"--cut\r\nA: " + b"b" * 10_000 + b"\r\n\r\nRIFF\r\n" + END,
        b"--cut\r\nno colon\r\n\r\nRIFF\r\n" + END,
    ],
)
def test_a_body_that_is_cut_short_or_malformed_is_refused(body: bytes) -> None:
    with pytest.raises(MalformedBody):
        read(body)


def test_a_boundary_longer_than_any_is_refused() -> None:
    with pytest.raises(MalformedBody, match="300 bytes"):
        read(boundary=b"x" * 300)


def test_what_follows_the_final_boundary_is_of_no_matter() -> None:
    assert read(FIELD + FILE + END, b"epilogue") == WHOLE


def test_a_part_encoded_for_mail_is_refused_rather_than_misread() -> None:
    with pytest.raises(UnsupportedContentType):
        read(b"--cut\r\nContent-Transfer-Encoding: base64\r\n\r\nUklGRg==\r\n" + END)


def test_a_name_is_utf8() -> None:
    body = '--cut\r\nContent-Disposition: form-data; name="Ёж"\r\n\r\n\r\n--cut--\r\n'

    assert read(body.encode())[0][0].name == "Ёж"
    with pytest.raises(InvalidParameter):
        read(body.encode("cp1251"))
