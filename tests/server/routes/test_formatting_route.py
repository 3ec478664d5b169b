"""POST /format: what was kept as JSON comes back in any format, as if it had been asked for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

import httpx
import pytest
from fastapi import FastAPI

from simple_asr.server.app import create_app
from simple_asr.server.dependencies import MAX_REWRITING
from simple_asr.server.intake import BodyLimits
from simple_asr.service.fake import TRANSCRIPT, FakeTranscriber
from simple_asr.service.keys import KeyStore
from simple_asr.settings import Settings
from simple_asr.transcript.formats import FORMATS
from simple_asr.transcript.model import Word

pytestmark = pytest.mark.anyio

WORDS = (
    Word(" Привет,", 0.0, 0.8, 0.9),
    Word(" как", 0.8, 1.4, 0.7),
    Word(" дела?", 1.4, 2.5, 1.0),
)
WITH_WORDS = replace(TRANSCRIPT, segments=(replace(TRANSCRIPT.segments[0], words=WORDS),))
DOCUMENT = FORMATS["json"].write(WITH_WORDS)
JSON = {"Content-Type": "application/json"}


@pytest.mark.parametrize("name", list(FORMATS))
async def test_it_is_the_file_that_a_transcription_would_have_answered(
    client: httpx.AsyncClient, transcriber: FakeTranscriber, name: str
) -> None:
    transcriber.transcript = WITH_WORDS
    asked = {"format": name, "word_timestamps": "true"}
    transcribed = await client.post(
        "/transcribe", files={"audio_file": ("a.wav", b"RIFF")}, data=asked
    )

    rewritten = await client.post(f"/format?format={name}", content=DOCUMENT, headers=JSON)

    assert rewritten.status_code == 200
    assert rewritten.content == transcribed.content
    assert rewritten.headers["content-type"] == transcribed.headers["content-type"]


async def test_options_of_subtitles_act(client: httpx.AsyncClient) -> None:
    answer = await client.post(
        "/format?format=srt&max_words_per_line=2", content=DOCUMENT, headers=JSON
    )

    assert answer.text.split("\n")[:3] == ["1", "00:00:00,000 --> 00:00:01,400", "Привет, как"]


async def test_options_of_subtitles_without_effect_are_told(client: httpx.AsyncClient) -> None:
    answer = await client.post(
        "/format?format=text&max_words_per_line=2", content=DOCUMENT, headers=JSON
    )

    assert "max_words_per_line has no effect" in answer.headers["x-asr-warnings"]


async def test_few_documents_are_read_at_a_time(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    num_reading, most_reading = 0, 0

    async def read_in_turn(work: Callable[..., object], *args: object, **kwargs: object) -> object:
        nonlocal num_reading, most_reading
        num_reading += 1
        most_reading = max(most_reading, num_reading)
        await asyncio.sleep(0)  # Whoever may begin does so now.
        num_reading -= 1
        return work(*args, **kwargs)

    monkeypatch.setattr(asyncio, "to_thread", read_in_turn)
    asked = (client.post("/format", content=DOCUMENT, headers=JSON) for _ in range(10))

    answers = await asyncio.gather(*asked)

    assert [answer.status_code for answer in answers] == [200] * 10
    assert most_reading == MAX_REWRITING


async def test_options_of_recognition_are_refused(client: httpx.AsyncClient) -> None:
    answer = await client.post("/format?format=srt&beam_size=5", content=DOCUMENT, headers=JSON)

    assert answer.status_code == 422
    assert answer.json()["field"] == "beam_size"


async def test_what_is_no_transcript_is_refused(client: httpx.AsyncClient) -> None:
    answer = await client.post("/format?format=srt", content="{}", headers=JSON)

    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_transcript")


async def test_another_type_is_refused(client: httpx.AsyncClient) -> None:
    answer = await client.post(
        "/format?format=srt", content=DOCUMENT, headers={"Content-Type": "text/plain"}
    )

    assert (answer.status_code, answer.json()["code"]) == (415, "unsupported_content_type")


async def test_it_needs_a_key(stranger: httpx.AsyncClient) -> None:
    assert (await stranger.post("/format", content=DOCUMENT, headers=JSON)).status_code == 401


@pytest.fixture
def app(settings: Settings, transcriber: FakeTranscriber, key_store: KeyStore) -> FastAPI:
    limits = BodyLimits(max_bytes=10_000_000, max_transcript_bytes=10_000)
    return create_app(settings, transcriber, key_store, limits=limits)


async def test_a_document_over_the_limit_is_refused(client: httpx.AsyncClient) -> None:
    answer = await client.post("/format", content=DOCUMENT + " " * 10_000, headers=JSON)

    assert (answer.status_code, answer.json()["code"]) == (413, "payload_too_large")
    assert "10000 bytes" in answer.json()["detail"]
