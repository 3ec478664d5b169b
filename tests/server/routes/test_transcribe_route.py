"""POST /transcribe as its callers see it: what may be sent, what comes back, what is refused."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from fastapi import FastAPI
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from simple_asr.engine.options import TranscribeOptions
from simple_asr.errors import EngineFailed, MediaLimitExceeded, Overloaded, UnreadableMedia
from simple_asr.server.record import RequestRecord
from simple_asr.server.routes.transcribe import _messages
from simple_asr.service.fake import TRANSCRIPT, FakeTranscriber
from simple_asr.service.parameters import read_parameters
from simple_asr.service.transcriber import ModelState
from simple_asr.transcript.formats import whisper_result
from simple_asr.transcript.model import Word
from tests.support import WAIT

pytestmark = pytest.mark.anyio

STREAM = {"Accept": "text/event-stream"}
CLIP = ("clip.wav", b"RIFF....WAVE", "audio/wav")


async def test_a_file_alone_comes_back_as_openai_whispers_full_result(
    client: httpx.AsyncClient, transcriber: FakeTranscriber
) -> None:
    answer = await client.post("/transcribe", files={"audio_file": CLIP})

    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.json() == json.loads(json.dumps(whisper_result(TRANSCRIPT)))
    assert transcriber.asked[0].content == CLIP[1]
    assert transcriber.asked[0].options == TranscribeOptions()


async def test_words_stand_in_a_segment_when_they_were_recognised(
    client: httpx.AsyncClient, transcriber: FakeTranscriber
) -> None:
    word = Word(" Привет,", 0.0, 0.5, 0.9)
    segment = replace(TRANSCRIPT.segments[0], words=(word,))
    transcriber.transcript = replace(TRANSCRIPT, segments=(segment,))

    answer = await client.post(
        "/transcribe", files={"audio_file": CLIP}, data={"word_timestamps": "true"}
    )

    assert answer.json()["segments"][0]["words"] == [
        {"word": " Привет,", "start": 0.0, "end": 0.5, "probability": 0.9}
    ]


async def test_simple_is_the_text_alone_as_json(client: httpx.AsyncClient) -> None:
    answer = await client.post("/transcribe", files={"audio_file": CLIP}, data={"format": "simple"})

    assert answer.headers["content-type"] == "application/json"
    assert answer.json() == {"text": "Привет, как дела?"}


async def test_text_is_plain_text(client: httpx.AsyncClient) -> None:
    answer = await client.post("/transcribe", files={"audio_file": CLIP}, data={"format": "text"})

    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert answer.text == "Привет, как дела?\n"


async def test_the_specifications_parameters_reach_the_transcriber(
    client: httpx.AsyncClient, transcriber: FakeTranscriber
) -> None:
    given = {
        "language": "en",
        "task": "translate",
        "temperature": "0.1",
        "beam_size": "5",
        "best_of": "3",
        "compression_ratio_threshold": "2.5",
        "logprob_threshold": "-0.5",
        "no_speech_threshold": "0.7",
        "condition_on_previous_text": "false",
        "initial_prompt": "This is a technical presentation about AI",
        "word_timestamps": "true",
        "prepend_punctuations": "«",
        "append_punctuations": "»",
        "clip_timestamps": "0,12.5",
        "hallucination_silence_threshold": "2",
    }

    answer = await client.post("/transcribe", files={"audio_file": CLIP}, data=given)

    assert answer.status_code == 200
    assert transcriber.asked[0].options == TranscribeOptions(
        language="en",
        task="translate",
        temperature=(0.1,),
        beam_size=5,
        best_of=3,
        compression_ratio_threshold=2.5,
        logprob_threshold=-0.5,
        no_speech_threshold=0.7,
        condition_on_previous_text=False,
        initial_prompt="This is a technical presentation about AI",
        word_timestamps=True,
        prepend_punctuations="«",
        append_punctuations="»",
        clip_timestamps=(0.0, 12.5),
        hallucination_silence_threshold=2.0,
    )


RUSSIAN = TranscribeOptions(language="ru", word_timestamps=True, temperature=(0.2,))
AS_TEXT = {"language": "ru", "word_timestamps": "true", "temperature": "0.2"}
AS_JSON = '{"language": "ru", "word_timestamps": true, "temperature": 0.2}'


async def test_parameters_may_stand_in_the_form(
    client: httpx.AsyncClient, transcriber: FakeTranscriber
) -> None:
    await client.post("/transcribe", files={"audio_file": CLIP}, data=AS_TEXT)

    assert transcriber.asked[0].options == RUSSIAN


async def test_parameters_may_stand_in_the_query(
    client: httpx.AsyncClient, transcriber: FakeTranscriber
) -> None:
    await client.post("/transcribe", files={"audio_file": CLIP}, params=AS_TEXT)

    assert transcriber.asked[0].options == RUSSIAN


async def test_parameters_may_be_json_in_the_field_params(
    client: httpx.AsyncClient, transcriber: FakeTranscriber
) -> None:
    await client.post("/transcribe", files={"audio_file": CLIP}, data={"params": AS_JSON})

    assert transcriber.asked[0].options == RUSSIAN


async def test_parameters_may_be_a_json_part_of_any_name(
    client: httpx.AsyncClient, transcriber: FakeTranscriber
) -> None:
    document = (None, AS_JSON.encode(), "application/json")

    await client.post("/transcribe", files={"audio_file": CLIP, "options": document})

    assert transcriber.asked[0].options == RUSSIAN


@pytest.mark.parametrize(
    "content_type", ["audio/wav", "video/mp4", "application/octet-stream", "application/ogg"]
)
async def test_a_raw_body_takes_its_parameters_from_the_query(
    client: httpx.AsyncClient, transcriber: FakeTranscriber, content_type: str
) -> None:
    answer = await client.post(
        "/transcribe",
        content=b"RIFF",
        params={"params": AS_JSON, "format": "text"},
        headers={"Content-Type": content_type},
    )

    assert answer.text == "Привет, как дела?\n"
    assert transcriber.asked[0].content == b"RIFF"
    assert transcriber.asked[0].options == RUSSIAN


async def test_json_may_travel_beside_the_raw_audio(
    client: httpx.AsyncClient, transcriber: FakeTranscriber
) -> None:
    body = (
        b"--cut\r\nContent-Type: application/json\r\n\r\n" + AS_JSON.encode() + b"\r\n"
        b"--cut\r\nContent-Type: audio/wav\r\n\r\nRIFF\r\n--cut--\r\n"
    )

    await client.post(
        "/transcribe", content=body, headers={"Content-Type": "multipart/mixed; boundary=cut"}
    )

    assert transcriber.asked[0].content == b"RIFF"
    assert transcriber.asked[0].options == RUSSIAN


async def test_a_form_sent_as_application_json_is_taken_as_the_form_it_is(
    client: httpx.AsyncClient, transcriber: FakeTranscriber
) -> None:
    body = (
        b'--cut\r\nContent-Disposition: form-data; name="language"\r\n\r\nru\r\n'
        b'--cut\r\nContent-Disposition: form-data; name="audio_file"; filename="a.wav"\r\n\r\n'
        b"RIFF\r\n--cut--\r\n"
    )

    answer = await client.post(
        "/transcribe", content=body, headers={"Content-Type": "application/json; boundary=cut"}
    )

    assert answer.status_code == 200
    assert transcriber.asked[0].options.language == "ru"


async def test_the_upload_is_gone_once_answered(
    client: httpx.AsyncClient, transcriber: FakeTranscriber, spooled: Callable[[], list[Path]]
) -> None:
    await client.post("/transcribe", files={"audio_file": CLIP})

    assert transcriber.asked[0].media.name != CLIP[0]
    assert spooled() == []


async def test_warnings_stand_in_a_header_so_that_the_body_stays_whispers(
    client: httpx.AsyncClient, transcriber: FakeTranscriber
) -> None:
    transcriber.transcript = replace(TRANSCRIPT, warnings=("Половина файла\nповреждена.",))

    answer = await client.post(
        "/transcribe", files={"audio_file": CLIP}, data={"temperature": "0", "best_of": "5"}
    )

    assert json.loads(answer.headers["x-asr-warnings"]) == [
        "Половина файла\\nповреждена.",
        "best_of has no effect at temperature 0 alone.",
    ]
    assert set(answer.json()) == {"text", "segments", "language"}


async def test_an_answer_without_warnings_has_no_such_header(client: httpx.AsyncClient) -> None:
    answer = await client.post("/transcribe", files={"audio_file": CLIP})

    assert "x-asr-warnings" not in answer.headers


def events_of(answer: httpx.Response) -> list[tuple[str, Any]]:
    """The names and data of a stream's events."""
    pairs = (block.split("\n") for block in answer.text.strip().split("\n\n"))
    return [
        (name.removeprefix("event: "), json.loads(data.removeprefix("data: ")))
        for name, data in pairs
    ]


async def test_a_stream_tells_progress_segments_and_at_last_the_whole_answer(
    client: httpx.AsyncClient, transcriber: FakeTranscriber, spooled: Callable[[], list[Path]]
) -> None:
    transcriber.transcript = replace(TRANSCRIPT, warnings=("Half of it is damaged.",))
    result = json.loads(json.dumps(whisper_result(TRANSCRIPT)))

    answer = await client.post("/transcribe", files={"audio_file": CLIP}, headers=STREAM)

    start = {"fraction": 0, "seconds_done": 0, "duration": 2.5, "eta_seconds": None}
    end = {"fraction": 1, "seconds_done": 2.5, "duration": 2.5, "eta_seconds": 0}
    done = {"format": "json", "content": result, "warnings": ["Half of it is damaged."]}
    assert events_of(answer) == [
        ("progress", start),
        ("segment", result["segments"][0]),
        ("progress", end),
        ("done", done),
    ]
    assert spooled() == []


async def test_a_stream_ends_with_the_format_asked_for(client: httpx.AsyncClient) -> None:
    answer = await client.post(
        "/transcribe", files={"audio_file": CLIP}, data={"format": "text"}, headers=STREAM
    )

    assert events_of(answer)[-1] == (
        "done",
        {"format": "text", "content": "Привет, как дела?\n", "warnings": []},
    )


async def test_an_error_before_a_streams_first_event_is_an_ordinary_answer(
    client: httpx.AsyncClient, transcriber: FakeTranscriber
) -> None:
    transcriber.error = Overloaded("Full.", retry_after=2.1)

    answer = await client.post("/transcribe", files={"audio_file": CLIP}, headers=STREAM)

    assert answer.status_code == 503
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["retry-after"] == "3"


async def test_a_later_error_is_a_streams_last_event(
    client: httpx.AsyncClient, transcriber: FakeTranscriber, spooled: Callable[[], list[Path]]
) -> None:
    transcriber.late_error = EngineFailed("The model call failed.")

    answer = await client.post("/transcribe", files={"audio_file": CLIP}, headers=STREAM)

    name, problem = events_of(answer)[-1]
    assert name == "error"
    assert problem["code"] == "engine_failed"
    assert problem["request_id"] == answer.headers["x-request-id"]
    assert spooled() == []


async def test_the_work_has_ended_when_its_stream_is_closed(
    transcriber: FakeTranscriber, tmp_path: Path
) -> None:
    (tmp_path / "clip.wav").write_bytes(b"RIFF")
    parameters = read_parameters(b"")
    events = transcriber.events(tmp_path / "clip.wav", parameters.options)
    messages = _messages(events, parameters, RequestRecord("id"))
    await anext(messages)

    await messages.aclose()

    assert transcriber.ended.is_set()


def test_a_segment_leaves_while_the_rest_is_worked_on_which_ends_with_its_reader(
    app: FastAPI,
    transcriber: FakeTranscriber,
    key: str,
    live: Callable[[FastAPI], AbstractContextManager[int]],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO", "simple_asr.access")
    transcriber.is_stuck_late = True
    with live(app) as port:
        with httpx.stream(
            "POST",
            f"http://127.0.0.1:{port}/transcribe",
            files={"audio_file": CLIP},
            headers={**STREAM, "X-API-Key": key},
            timeout=WAIT,
        ) as answer:
            first_segment = next(line for line in answer.iter_lines() if line == "event: segment")
        has_ended = transcriber.ended.wait(WAIT)

    assert first_segment
    assert has_ended
    assert "status=499 key=alice audio_s=2.50" in caplog.text


async def test_without_a_key_401(stranger: httpx.AsyncClient, transcriber: FakeTranscriber) -> None:
    answer = await stranger.post("/transcribe", files={"audio_file": CLIP})

    assert answer.status_code == 401
    assert answer.json()["code"] == "missing_api_key"
    assert transcriber.asked == []


async def test_with_a_wrong_key_403(
    stranger: httpx.AsyncClient, transcriber: FakeTranscriber
) -> None:
    answer = await stranger.post(
        "/transcribe", files={"audio_file": CLIP}, headers={"X-API-Key": "wrong"}
    )

    assert answer.status_code == 403
    assert answer.json()["code"] == "invalid_api_key"
    assert transcriber.asked == []


async def test_with_wrong_parameters_422(
    client: httpx.AsyncClient, transcriber: FakeTranscriber, spooled: Callable[[], list[Path]]
) -> None:
    answer = await client.post(
        "/transcribe", files={"audio_file": CLIP}, data={"temperature": "NaN"}
    )

    assert answer.status_code == 422
    assert answer.json()["code"] == "invalid_parameter"
    assert answer.json()["field"] == "temperature"
    assert transcriber.asked == []
    assert spooled() == []


async def test_without_a_file_422(client: httpx.AsyncClient) -> None:
    answer = await client.post("/transcribe", data={"language": "ru"})

    assert answer.status_code == 422
    assert answer.json()["code"] == "missing_file"
    assert "curl -F audio_file=@clip.wav" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (UnreadableMedia("Not media."), 422),
        (MediaLimitExceeded("Too long."), 413),
        (Overloaded("Full.", retry_after=2.1), 503),
        (EngineFailed("The model call failed."), 500),
        (RuntimeError("secret: /srv/models"), 500),
    ],
)
async def test_a_failure_behind_the_door_is_a_problem_and_leaves_no_file(
    client: httpx.AsyncClient,
    transcriber: FakeTranscriber,
    spooled: Callable[[], list[Path]],
    error: Exception,
    status: int,
) -> None:
    transcriber.error = error

    answer = await client.post("/transcribe", files={"audio_file": CLIP})

    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert "secret" not in answer.text
    assert spooled() == []


async def test_while_the_model_loads_503_says_when_to_come_back(
    client: httpx.AsyncClient, transcriber: FakeTranscriber
) -> None:
    transcriber.state = ModelState("loading", requested="turbo", served="turbo")

    answer = await client.post("/transcribe", files={"audio_file": CLIP})

    assert answer.status_code == 503
    assert answer.json()["code"] == "model_not_ready"
    assert answer.headers["retry-after"] == "5"


@given(field=st.tuples(st.text(max_size=30), st.binary(max_size=100)), query=st.binary(max_size=50))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_bytes_in_any_field_are_a_fault_of_ours(
    app: FastAPI,
    key: str,
    spooled: Callable[[], list[Path]],
    field: tuple[str, bytes],
    query: bytes,
) -> None:
    name, value = field
    head = f'Content-Disposition: form-data; name="{name}"\r\n\r\n'
    file = 'Content-Disposition: form-data; name="audio_file"; filename="a.wav"\r\n\r\nRIFF'
    body = b"--cut\r\n%b%b\r\n--cut\r\n%b\r\n--cut--\r\n" % (
        head.encode("utf-8", "surrogatepass"),
        value,
        file.encode(),
    )

    answer = asyncio.run(_sent(app, key, body, query))

    assert answer.status_code < 500
    assert len(answer.content) <= 4096
    assert spooled() == []


async def _sent(app: FastAPI, key: str, body: bytes, query: bytes) -> httpx.Response:
    headers = {"X-API-Key": key, "Content-Type": "multipart/form-data; boundary=cut"}
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app), base_url="http://asr"
    ) as client:
        return await client.post(f"/transcribe?{quote(query)}", content=body, headers=headers)
