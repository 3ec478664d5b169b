"""Both sides understand each other; the server understands nothing else."""

from __future__ import annotations

import pytest

from simple_asr.audio.decoder_protocol import (
    Answer,
    DecodeLimits,
    DecodeRequest,
    Done,
    Failed,
    PcmFormat,
    Progress,
    Ready,
    from_line,
    to_line,
)


@pytest.mark.parametrize(
    "answer",
    [
        Ready(()),
        Ready(("bounded memory",)),
        Progress(960_000),
        Done(()),
        Done(("The file is damaged.", "Второе предупреждение.\nwith a line end")),
        Done((), num_channels=8),
        Failed("unreadable_media", "No audio."),
    ],
)
def test_an_answer_survives_the_wire_as_one_line(answer: Answer) -> None:
    line = to_line(answer)

    assert line.count(b"\n") == 1
    assert from_line(line) == answer


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"\n",
        b"not json",
        b"\xff\xfe",
        b"null",
        b"[]",
        b"{}",
        b'{"ready": 1}',
        b'{"samples": "many"}',
        b'{"samples": -1}',
        b'{"samples": 1' + b"0" * 400 + b"}",
        b'{"done": "a sentence"}',
        b'{"done": []}',
        b'{"done": [], "channels": 0}',
        b'{"done": [], "channels": 9}',
        b'{"error": "unreadable_media"}',
        b'{"error": 1, "detail": "a sentence"}',
        b"[" * 16_000,
    ],
)
def test_anything_else_is_refused(line: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  (by json, by the codec, or by us)
        from_line(line)


def test_limits_survive_the_command_line() -> None:
    limits = DecodeLimits(max_seconds=0.5, timeout=2.5, max_raw_bytes=10, memory_bytes=20)

    assert DecodeLimits.from_json(limits.to_json()) == limits


@pytest.mark.parametrize(
    "request_", [DecodeRequest(), DecodeRequest(True, PcmFormat("mulaw", 8000, num_channels=2))]
)
def test_a_request_survives_the_wire_as_one_line(request_: DecodeRequest) -> None:
    line = request_.to_line()

    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert DecodeRequest.from_line(line) == request_
