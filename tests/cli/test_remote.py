"""A server in the model's place: what it cannot be sent fails alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from simple_asr.cli.remote import RemoteTranscriber
from simple_asr.client import AsyncClient
from simple_asr.engine.options import TranscribeOptions
from simple_asr.errors import MissingFile

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def test_a_file_that_cannot_be_read_is_an_error_of_its_own(tmp_path: Path) -> None:
    async with AsyncClient("http://127.0.0.1:9") as client:
        with pytest.raises(MissingFile, match="No such file"):
            await RemoteTranscriber(client).transcribe(tmp_path / "gone.wav", TranscribeOptions())
