"""What the tests of services share."""

from __future__ import annotations

import wave
from pathlib import Path

import pytest

from tests.support import hiss


@pytest.fixture
def media(tmp_path: Path) -> Path:
    """Two seconds of hiss as WAV."""
    path = tmp_path / "hiss.wav"
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes(hiss(2))
    return path
