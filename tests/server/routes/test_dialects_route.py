"""Neighbours' clients: what they send is understood, and what they read comes back."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import httpx
import pytest

from simple_asr.engine.options import TranscribeOptions
from simple_asr.service.fake import TRANSCRIPT, FakeTranscriber
from simple_asr.transcript.model import Segment

pytestmark = pytest.mark.anyio

CLIP = ("clip.wav", b"RIFF....WAVE", "audio/wav")
SECOND = Segment(1, 0, 2.5, 4.25, " Хорошо.", (1,), 0.0, -0.2, 0.8, 0.01)


@pytest.fixture(autouse=True)
def _two_segments(transcriber: FakeTranscriber) -> None:
    transcriber.transcript = replace(
        TRANSCRIPT, segments=(TRANSCRIPT.segments[0], SECOND), language_probability=0.75
    )


@pytest.mark.parametrize(
    ("output", "start"),
    [
        (None, "Привет, как дела?\nХорошо.\n"),
        ("txt", "Привет, как дела?\nХорошо.\n"),
        ("srt", "1\n00:00:00,000 --> 00:00:02,500\n"),
        ("vtt", "WEBVTT\n"),
        ("tsv", "start\tend\ttext\n"),
        ("json", '{"text": " Привет, как дела?", "segments": '),
    ],
)
async def test_asr_writes_each_of_the_webservices_outputs(
    client: httpx.AsyncClient, output: str | None, start: str
) -> None:
    query = {} if output is None else {"output": output}

    answer = await client.post("/asr", files={"audio_file": CLIP}, params=query)

    assert answer.text.startswith(start)


async def test_asr_understands_the_webservices_query(
    client: httpx.AsyncClient, transcriber: FakeTranscriber
) -> None:
    query = {
        "encode": "true",
        "task": "translate",
        "language": "ru",
        "initial_prompt": "Имена",
        "vad_filter": "true",
        "word_timestamps": "true",
        "output": "json",
    }

    answer = await client.post("/asr", files={"audio_file": CLIP}, params=query)

    assert answer.status_code == 200
    assert transcriber.asked[0].options == TranscribeOptions(
        task="translate",
        language="ru",
        initial_prompt="Имена",
        chunking_strategy="auto",
        word_timestamps=True,
    )


@pytest.mark.parametrize(
    ("path", "query", "field"),
    [
        ("/asr", {"encode": "false"}, "encode"),
        ("/asr", {"output": "pdf"}, "output"),
        ("/asr", {"outputs": "txt"}, "outputs"),
        ("/inference", {"response_format": "pdf"}, "response_format"),
        ("/inference", {"temperature_inc": "warm"}, "temperature_inc"),
        ("/inference", {"offset_t": "NaN"}, "clip_timestamps"),
    ],
)
async def test_what_cannot_be_is_refused(
    client: httpx.AsyncClient, path: str, query: dict[str, str], field: str
) -> None:
    answer = await client.post(path, files={"audio_file": CLIP}, params=query)

    assert answer.status_code == 422
    assert answer.json()["field"] == field


async def test_the_language_is_named_with_the_probability_of_that_language(
    client: httpx.AsyncClient, transcriber: FakeTranscriber
) -> None:
    answer = await client.post("/detect-language?encode=true", files={"audio_file": CLIP})

    assert answer.json() == {
        "detected_language": "russian",
        "language_code": "ru",
        "confidence": 0.75,
    }
    assert transcriber.asked[0].options.clip_timestamps == (0, 30)


@pytest.mark.parametrize(
    ("response_format", "start"),
    [
        (None, '{"text": "Привет, как дела?"}'),
        ("json", '{"text": "Привет, как дела?"}'),
        ("text", "Привет, как дела?\nХорошо.\n"),
        ("srt", "1\n00:00:00,000 --> 00:00:02,500\n"),
        ("vtt", "WEBVTT\n"),
        ("verbose_json", '{"task": "transcribe", "language": "russian"'),
    ],
)
async def test_inference_writes_each_of_whisper_cpps_formats(
    client: httpx.AsyncClient, response_format: str | None, start: str
) -> None:
    form = {} if response_format is None else {"response_format": response_format}

    answer = await client.post("/inference", files={"file": CLIP}, data=form)

    assert answer.text.startswith(start)


@pytest.mark.parametrize(
    ("form", "options"),
    [
        ({"temperature": "0.0", "temperature_inc": "0.2"}, {}),
        ({"temperature": "0.4", "temperature_inc": "0.3"}, {"temperature": "0.4,0.7,1.0"}),
        ({"temperature": "0.2", "temperature_inc": "0"}, {"temperature": "0.2"}),
        ({"language": "auto", "translate": "true"}, {"task": "translate"}),
        ({"translate": "false", "beam_size": "-1"}, {}),
        ({"prompt": "Имена", "beam_size": "5"}, {"initial_prompt": "Имена", "beam_size": 5}),
        ({"offset_t": "1500", "duration": "2000"}, {"clip_timestamps": "1.5,3.5"}),
        ({"offset_t": "1500"}, {"clip_timestamps": "1.5"}),
        ({"logprob_thold": "-0.5"}, {"logprob_threshold": -0.5}),
        ({"max_context": "0"}, {"condition_on_previous_text": False}),
        ({"vad": "true"}, {"chunking_strategy": "auto"}),
        ({"vad_threshold": "0.6", "vad_speech_pad_ms": "30"},
         {"vad_threshold": 0.6, "vad_padding": 0.03}),
        ({"vad_min_speech_duration_ms": "100", "vad_min_silence_duration_ms": "500"},
         {"vad_min_speech": 0.1, "vad_min_silence": 0.5}),
        ({"no_timestamps": "true"}, {"without_timestamps": True}),
    ],
)  # fmt: skip
async def test_inference_understands_whisper_cpps_fields(
    client: httpx.AsyncClient,
    transcriber: FakeTranscriber,
    form: dict[str, str],
    options: dict[str, Any],
) -> None:
    answer = await client.post("/inference", files={"file": CLIP}, data=form)

    assert answer.status_code == 200
    assert transcriber.asked[0].options == TranscribeOptions(**options)


@pytest.mark.parametrize("path", ["/asr", "/detect-language", "/inference"])
async def test_a_document_of_parameters_is_heeded(
    client: httpx.AsyncClient, transcriber: FakeTranscriber, path: str
) -> None:
    document = ("params.json", b'{"language": "ru"}', "application/json")

    answer = await client.post(path, files={"audio_file": CLIP, "params": document})

    assert answer.status_code == 200
    assert transcriber.asked[0].options.language == "ru"


async def test_what_has_no_meaning_here_is_named(client: httpx.AsyncClient) -> None:
    answer = await client.post("/inference", files={"file": CLIP}, data={"word_thold": "0.1"})

    assert answer.headers["x-asr-warnings"] == '["word_thold has no effect here."]'


@pytest.mark.parametrize("path", ["/asr", "/detect-language", "/inference"])
async def test_a_key_is_needed(stranger: httpx.AsyncClient, path: str) -> None:
    answer = await stranger.post(path, files={"audio_file": CLIP})

    assert answer.status_code == 401
