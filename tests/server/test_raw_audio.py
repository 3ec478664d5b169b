"""What a Content-Type says of raw samples."""

from __future__ import annotations

import pytest

from simple_asr.server.raw_audio import raw_audio_fields


@pytest.mark.parametrize(
    ("content_type", "expected"),
    [
        ("audio/pcm", {"pcm_format": "s16le"}),
        ("audio/pcm;rate=24000", {"pcm_format": "s16le", "pcm_rate": "24000"}),
        ("audio/PCM; rate=8000; format=f32le", {"pcm_format": "f32le", "pcm_rate": "8000"}),
        (
            "audio/L16;rate=16000;channels=2",
            {"pcm_format": "s16be", "pcm_rate": "16000", "pcm_channels": "2"},
        ),
        ("audio/PCMU", {"pcm_format": "mulaw", "pcm_rate": "8000"}),
        ("audio/PCMA;rate=16000", {"pcm_format": "alaw", "pcm_rate": "16000"}),
        ("audio/wav;rate=8000", {}),
        (None, {}),
    ],
)
def test_a_type_of_raw_samples_stands_for_parameters(
    content_type: str | None, expected: dict[str, str]
) -> None:
    assert dict(raw_audio_fields(content_type, {})) == expected


def test_what_a_type_implies_gives_way_to_a_parameter() -> None:
    given = {"pcm_format": "f32le", "pcm_rate": "8000"}

    assert list(raw_audio_fields("audio/pcmu", given)) == []


def test_what_a_type_says_is_not_taken_back() -> None:
    assert ("pcm_rate", "16000") in raw_audio_fields("audio/pcm;rate=16000", {"pcm_rate": "8000"})
