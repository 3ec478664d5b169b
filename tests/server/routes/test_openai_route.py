"""/v1 as the official `openai` SDK sees it: every shape it reads, every error it raises."""

from __future__ import annotations

import asyncio
import io
import logging
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import httpx2
import openai
import pytest
from openai.types.audio import TranscriptionVerbose, TranslationVerbose

from simple_asr.engine.options import TranscribeOptions
from simple_asr.errors import EngineFailed, Overloaded, StorageFull, UnreadableMedia
from simple_asr.server.app import create_app
from simple_asr.service.fake import TRANSCRIPT, FakeTranscriber
from simple_asr.service.keys import KeyStore
from simple_asr.service.transcriber import ModelState
from simple_asr.settings import Settings
from simple_asr.transcript.model import Segment, Word
from tests.support import WAIT

# The SDK calls translations deprecated; people use them.
pytestmark = pytest.mark.filterwarnings("ignore:deprecated:DeprecationWarning")

CLIP = ("clip.wav", b"RIFF....WAVE", "audio/wav")
WORDS = (Word(" Привет,", 0.0, 0.5, 0.9), Word(" как", 0.6, 0.8, 0.5), Word(" дела?", 0.8, 2.5, 1))
SECOND = Segment(1, 0, 2.5, 4.25, " Хорошо. ", (1,), 0.0, -0.2, 0.8, 0.01)
SPOKEN = replace(
    TRANSCRIPT,
    text=" Привет, как дела? Хорошо. ",
    segments=(replace(TRANSCRIPT.segments[0], words=WORDS), SECOND),
    duration=4.25,
)


@pytest.fixture(scope="module")
def fake() -> FakeTranscriber:
    return FakeTranscriber()


@pytest.fixture(scope="module")
def address(
    fake: FakeTranscriber,
    make_settings: Callable[..., Settings],
    make_key_store: Callable[[Settings], KeyStore],
    live: Callable[..., AbstractContextManager[int]],
) -> Iterator[str]:
    settings = make_settings()
    with live(create_app(settings, fake, make_key_store(settings))) as port:
        yield f"http://127.0.0.1:{port}/v1"


@pytest.fixture
def transcriber(fake: FakeTranscriber) -> FakeTranscriber:
    """The server's, as if nobody had asked it anything yet."""
    fake.__init__(SPOKEN)  # type: ignore[misc]  # one server for all tests, a fresh fake for each
    return fake


@pytest.fixture
def client(address: str, key: str, transcriber: FakeTranscriber) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=address, api_key=key, max_retries=0) as client:
        yield client


# Formats -----------------------------------------------------------------------------------------


def test_a_file_alone_is_its_text_and_its_usage(client: openai.OpenAI) -> None:
    result = client.audio.transcriptions.create(model="whisper-1", file=CLIP)

    assert result.text == "Привет, как дела? Хорошо."
    assert result.usage is not None
    assert result.usage.to_dict() == {"type": "duration", "seconds": 5}
    assert set(result.to_dict()) == {"text", "usage"}


def test_a_receipt_stands_beside_the_text_where_it_is_asked_for(client: openai.OpenAI) -> None:
    result = client.audio.transcriptions.create(
        model="whisper-1", file=CLIP, extra_body={"receipt": "true"}
    )

    assert result.text == "Привет, как дела? Хорошо."
    assert result.to_dict()["model"] == "turbo"


def test_text_is_the_text_and_nothing_around_it(client: openai.OpenAI) -> None:
    result = client.audio.transcriptions.create(
        model="whisper-1", file=CLIP, response_format="text"
    )

    assert result == "Привет, как дела? Хорошо.\n"


@pytest.mark.parametrize(
    ("response_format", "start"),
    [("srt", "1\n00:00:00,000 --> 00:00:02,500\n"), ("vtt", "WEBVTT\n\n00:00.000 --> 00:02.500\n")],
)
def test_subtitles_are_files_of_their_kind(
    client: openai.OpenAI, response_format: Any, start: str
) -> None:
    result = client.audio.transcriptions.create(
        model="whisper-1", file=CLIP, response_format=response_format
    )

    assert isinstance(result, str)
    assert result.startswith(start)


def verbose(client: openai.OpenAI, granularities: list[Any] | openai.Omit) -> TranscriptionVerbose:
    return client.audio.transcriptions.create(
        model="whisper-1",
        file=CLIP,
        response_format="verbose_json",
        timestamp_granularities=granularities,
    )


def test_verbose_json_has_all_ten_fields_of_a_segment(client: openai.OpenAI) -> None:
    result = verbose(client, openai.omit)

    assert (result.language, result.duration) == ("russian", 4.25)
    assert result.to_dict()["task"] == "transcribe"
    assert result.usage is not None
    assert result.usage.seconds == 5
    assert result.segments is not None
    assert [segment.id for segment in result.segments] == [0, 1]
    assert set(result.segments[0].to_dict()) == {
        "id", "seek", "start", "end", "text", "tokens",
        "temperature", "avg_logprob", "compression_ratio", "no_speech_prob",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("granularities", "has_segments", "has_words"),
    [
        (openai.omit, True, False),
        (["segment"], True, False),
        (["word"], False, True),
        (["word", "segment"], True, True),
    ],
)
def test_granularities_choose_segments_and_words(
    client: openai.OpenAI, granularities: Any, has_segments: bool, has_words: bool
) -> None:
    result = verbose(client, granularities)

    assert (result.segments is not None) == has_segments
    assert (result.words is not None) == has_words


def test_words_stand_at_the_top_without_blanks(
    client: openai.OpenAI, transcriber: FakeTranscriber
) -> None:
    result = verbose(client, ["word"])

    assert result.words is not None
    assert [word.word for word in result.words] == ["Привет,", "как", "дела?"]
    assert transcriber.asked[0].options.word_timestamps


def test_a_translation_is_english_and_its_text_alone(
    client: openai.OpenAI, transcriber: FakeTranscriber
) -> None:
    result = client.audio.translations.create(model="whisper-1", file=CLIP)

    assert result.to_dict() == {"text": "Привет, как дела? Хорошо."}
    assert transcriber.asked[0].options.task == "translate"


def test_a_verbose_translation_names_its_task(
    client: openai.OpenAI, transcriber: FakeTranscriber
) -> None:
    transcriber.transcript = replace(SPOKEN, task="translate")

    result = client.audio.translations.create(
        model="whisper-1", file=CLIP, response_format="verbose_json"
    )

    assert isinstance(result, TranslationVerbose)
    assert result.language == "english"
    assert result.to_dict()["task"] == "translate"
    assert "words" not in result.to_dict()


# Fields ------------------------------------------------------------------------------------------


def test_every_field_of_the_sdk_reaches_the_transcriber(
    client: openai.OpenAI, transcriber: FakeTranscriber
) -> None:
    client.audio.transcriptions.create(
        model="gpt-4o-transcribe",
        file=io.BytesIO(b"RIFF"),
        chunking_strategy="auto",
        keywords=["Ёж", "ASR"],
        language="ru",
        prompt="Имена.",
        temperature=0.2,
        stream=False,
        extra_body={"beam_size": 5, "condition_on_previous_text": False},
    )

    assert transcriber.asked[0].content == b"RIFF"
    assert transcriber.asked[0].options == TranscribeOptions(
        chunking_strategy="auto",
        initial_prompt="Ёж, ASR. Имена.",
        carry_initial_prompt=True,
        language="ru",
        temperature=(0.2,),
        beam_size=5,
        condition_on_previous_text=False,
    )


def test_temperature_zero_is_the_whole_ladder(
    client: openai.OpenAI, transcriber: FakeTranscriber
) -> None:
    client.audio.transcriptions.create(model="whisper-1", file=CLIP, temperature=0)

    assert transcriber.asked[0].options == TranscribeOptions()


def test_an_object_of_voice_activity_sets_its_rules(
    client: openai.OpenAI, transcriber: FakeTranscriber
) -> None:
    client.audio.transcriptions.create(
        model="whisper-1",
        file=CLIP,
        chunking_strategy={
            "type": "server_vad",
            "threshold": 0.6,
            "prefix_padding_ms": 300,
            "silence_duration_ms": 450,
        },
    )

    assert transcriber.asked[0].options == TranscribeOptions(
        chunking_strategy="auto", vad_threshold=0.6, vad_padding=0.3, vad_min_silence=0.45
    )


def test_languages_are_the_choice_and_the_answer_names_the_one(
    client: openai.OpenAI, transcriber: FakeTranscriber
) -> None:
    result = client.audio.transcriptions.create(
        model="gpt-transcribe", file=CLIP, languages=["ru", "en"]
    )

    assert transcriber.asked[0].options.languages == ("ru", "en")
    assert result.to_dict()["languages"] == [{"code": "ru"}]


def test_logprobs_are_of_words_and_their_bytes_are_theirs(client: openai.OpenAI) -> None:
    result = client.audio.transcriptions.create(
        model="gpt-4o-transcribe", file=CLIP, include=["logprobs"]
    )

    assert result.logprobs is not None
    assert [logprob.token for logprob in result.logprobs] == [word.word for word in WORDS]
    assert bytes(int(byte) for byte in result.logprobs[0].bytes or []) == " Привет,".encode()
    assert result.logprobs[2].logprob == 0


# Streams -----------------------------------------------------------------------------------------


def test_the_deltas_of_a_stream_join_to_its_text(client: openai.OpenAI) -> None:
    stream = client.audio.transcriptions.create(model="gpt-4o-transcribe", file=CLIP, stream=True)

    *deltas, done = list(stream)

    assert [event.type for event in deltas] == ["transcript.text.delta"] * 2
    assert done.type == "transcript.text.done"
    assert "".join(event.to_dict()["delta"] for event in deltas) == done.text  # type: ignore[misc]  # to_dict is of objects
    assert done.text == "Привет, как дела? Хорошо."
    assert done.to_dict()["usage"] == {"type": "duration", "seconds": 5}


def test_a_streams_segment_leaves_before_the_next_is_known(
    client: openai.OpenAI, transcriber: FakeTranscriber
) -> None:
    transcriber.is_stuck_late = True

    with client.audio.transcriptions.create(model="whisper-1", file=CLIP, stream=True) as stream:
        first = next(iter(stream))

    assert first.to_dict()["delta"] == "Привет, как дела?"
    assert transcriber.ended.wait(60)


def test_an_error_in_a_stream_is_raised_by_the_sdk(
    client: openai.OpenAI, transcriber: FakeTranscriber
) -> None:
    transcriber.late_error = EngineFailed("The model call failed.")
    stream = client.audio.transcriptions.create(model="whisper-1", file=CLIP, stream=True)

    with pytest.raises(openai.APIError, match=r"The model call failed\."):
        list(stream)


def test_a_verbose_stream_ends_with_the_verbose_document(client: openai.OpenAI) -> None:
    stream = client.audio.transcriptions.create(
        model="whisper-1", file=CLIP, stream=True, response_format="verbose_json"
    )

    done = list(stream)[-1].to_dict()

    assert done["type"] == "transcript.text.done"
    assert (done["language"], done["duration"]) == ("russian", 4.25)


@pytest.mark.parametrize("response_format", ["json", "verbose_json"])
def test_a_stream_ends_with_the_receipt_and_the_warnings(
    client: openai.OpenAI, response_format: Any
) -> None:
    stream = client.audio.transcriptions.create(
        model="whisper-1",
        file=CLIP,
        stream=True,
        response_format=response_format,
        extra_body={"receipt": "true", "min_cue_gap": "0.1"},
    )

    done = list(stream)[-1].to_dict()

    assert done["model"] == "turbo"
    assert "min_cue_gap has no effect" in str(done["warnings"])


# Jobs --------------------------------------------------------------------------------------------

BACKGROUND = {"background": True}


def send(client: openai.OpenAI, **asked: Any) -> httpx2.Response:
    """What the server answers, before the SDK makes anything of it."""
    raw = client.audio.transcriptions.with_raw_response
    response: httpx2.Response = raw.create(model="whisper-1", file=CLIP, **asked).http_response
    return response


def result_of(taken: httpx2.Response, key: str) -> httpx.Response:
    """The result of a job that was taken in, once its stream of events has ended."""
    links = {name: str(taken.url.join(path)) for name, path in taken.json()["links"].items()}
    headers = {"X-API-Key": key}
    assert "event: done" in httpx.get(links["events"], headers=headers, timeout=WAIT).text
    return httpx.get(links["result"], headers=headers)


@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"include": ["logprobs"]},
        {"response_format": "text"},
        {"response_format": "srt"},
        {"response_format": "verbose_json", "timestamp_granularities": ["word"]},
        {"response_format": "verbose_json", "timestamp_granularities": ["segment"]},
    ],
)
def test_a_job_has_the_result_that_would_have_been_answered(
    client: openai.OpenAI, key: str, transcriber: FakeTranscriber, asked: dict[str, Any]
) -> None:
    taken = send(client, **asked, extra_body={**BACKGROUND, "beam_size": 3})
    result = result_of(taken, key)
    at_once = send(client, **asked, extra_body={"beam_size": 3})

    assert (taken.status_code, taken.json()["state"]) == (202, "queued")
    assert taken.headers["Location"] == taken.json()["links"]["self"]
    assert result.content == at_once.content
    assert result.headers["Content-Type"] == at_once.headers["Content-Type"]
    in_the_background, live = transcriber.asked
    assert in_the_background.content == live.content
    assert in_the_background.options == live.options


def test_a_jobs_result_may_have_a_receipt(client: openai.OpenAI, key: str) -> None:
    taken = send(
        client,
        extra_body={**BACKGROUND, "receipt": True, "max_line_width": 40},
        timestamp_granularities=["word"],
        response_format="verbose_json",
    )

    receipt = result_of(taken, key).json()

    assert receipt["model"] == "turbo"
    assert receipt["warnings"] == ["max_line_width has no effect on format verbose_json."]


def test_a_job_may_be_a_translation(
    client: openai.OpenAI, key: str, transcriber: FakeTranscriber
) -> None:
    raw = client.audio.translations.with_raw_response
    taken = raw.create(model="whisper-1", file=CLIP, extra_body=BACKGROUND).http_response

    assert result_of(taken, key).json() == {"text": "Привет, как дела? Хорошо."}
    assert transcriber.asked[0].options.task == "translate"


def test_a_jobs_result_can_be_had_in_another_format(client: openai.OpenAI, key: str) -> None:
    taken = send(client, response_format="verbose_json", extra_body=BACKGROUND)

    address = result_of(taken, key).url.copy_with(params={"format": "srt"})

    assert httpx.get(address, headers={"X-API-Key": key}).text.startswith("1\n00:00:00,000")


def test_the_same_job_sent_again_is_one_job(client: openai.OpenAI) -> None:
    once = {"Idempotency-Key": "8f14e45f"}

    ids = [send(client, extra_body=BACKGROUND, extra_headers=once).json()["id"] for _ in range(2)]
    with pytest.raises(openai.ConflictError) as raised:
        send(client, extra_body=BACKGROUND, extra_headers=once, response_format="text")

    assert ids[0] == ids[1]
    assert raised.value.code == "idempotency_mismatch"


@pytest.mark.parametrize(
    ("asked", "param"),
    [
        ({"extra_body": {**BACKGROUND, "beam_size": 99}}, "beam_size"),
        ({"extra_body": {"background": "maybe"}}, "background"),
        ({"extra_body": BACKGROUND, "stream": True}, "stream"),
        ({"extra_body": {"webhook_url": "https://example.com/"}}, "webhook_url"),
        ({"extra_body": BACKGROUND, "extra_headers": {"Idempotency-Key": "a b"}}, None),
    ],
)
def test_what_is_wrong_is_told_at_once_and_makes_no_job(
    client: openai.OpenAI, address: str, key: str, asked: dict[str, Any], param: str | None
) -> None:
    jobs, headers = address.replace("/v1", "/jobs"), {"X-API-Key": key}
    before = httpx.get(jobs, headers=headers).json()

    with pytest.raises(openai.BadRequestError) as raised:
        send(client, **asked)

    assert raised.value.param == (param or "Idempotency-Key")
    assert httpx.get(jobs, headers=headers).json() == before


# Errors ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"response_format": "diarized_json"}, "response_format"),
        ({"response_format": "pdf"}, "response_format"),
        ({"response_format": "srt", "stream": True}, "stream"),
        ({"timestamp_granularities": ["word"]}, "timestamp_granularities[]"),
        ({"timestamp_granularities": ["syllable"]}, "timestamp_granularities[]"),
        ({"include": ["logprobs"], "response_format": "verbose_json"}, "include[]"),
        ({"language": "xx"}, "language"),
        ({"temperature": 2}, "temperature"),
        ({"prompt": "x" * 20_000}, "prompt"),
        ({"known_speaker_names": ["A"]}, "known_speaker_names[]"),
        ({"known_speaker_references": ["data:" + "A" * 2_000_000]}, "known_speaker_references[]"),
        ({"chunking_strategy": {"type": "client_vad"}}, "chunking_strategy[type]"),
        ({"chunking_strategy": {"type": "server_vad", "threshold": 2}},
         "chunking_strategy[threshold]"),
        ({"extra_body": {"beam_sise": 5}}, "beam_sise"),
        ({"extra_body": {"format": "simple"}}, "response_format"),
    ],
)  # fmt: skip
def test_a_field_that_is_wrong_is_named_as_it_was_sent(
    client: openai.OpenAI, transcriber: FakeTranscriber, fields: dict[str, Any], param: str
) -> None:
    with pytest.raises(openai.BadRequestError) as raised:
        client.audio.transcriptions.create(**{"model": "whisper-1", "file": CLIP, **fields})

    assert raised.value.param == param
    assert raised.value.type == "invalid_request_error"
    assert transcriber.asked == []


def test_a_model_that_is_not_served_is_not_found(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as raised:
        client.audio.transcriptions.create(model="large-v2", file=CLIP)

    assert (raised.value.code, raised.value.param) == ("model_not_found", "model")


def test_a_wrong_key_is_an_authentication_error(client: openai.OpenAI) -> None:
    with pytest.raises(openai.AuthenticationError) as raised:
        client.with_options(api_key="wrong").models.list()

    assert raised.value.code == "invalid_api_key"
    assert raised.value.request_id is not None


def test_the_other_header_for_keys_works_too(address: str, key: str) -> None:
    answer = httpx.get(f"{address}/models", headers={"X-API-Key": key})

    assert answer.status_code == 200


def test_a_path_that_is_not_there_is_an_error_of_openais_shape(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as raised:
        client.moderations.create(input="text")

    assert raised.value.code == "not_found"


@pytest.mark.parametrize(
    ("error", "kind", "should_retry"),
    [
        (UnreadableMedia("Not media."), openai.BadRequestError, None),
        (Overloaded("Full.", retry_after=2.1), openai.InternalServerError, "true"),
        (EngineFailed("The model call failed."), openai.InternalServerError, "false"),
        (StorageFull("Full."), openai.InternalServerError, "false"),
        (RuntimeError("secret: /srv/models"), openai.InternalServerError, "false"),
    ],
)
def test_a_failure_is_of_its_class_and_says_whether_to_retry(
    client: openai.OpenAI,
    transcriber: FakeTranscriber,
    error: Exception,
    kind: type[openai.APIStatusError],
    should_retry: str | None,
) -> None:
    transcriber.error = error

    with pytest.raises(kind) as raised:
        client.audio.transcriptions.create(model="whisper-1", file=CLIP)

    assert raised.value.response.headers.get("x-should-retry") == should_retry
    assert raised.value.code is not None
    assert "secret" not in str(raised.value)


def test_the_sdk_does_not_send_a_file_again_that_failed_for_good(
    client: openai.OpenAI, transcriber: FakeTranscriber
) -> None:
    transcriber.error = EngineFailed("The model call failed.")

    with pytest.raises(openai.InternalServerError):
        client.with_options(max_retries=2).audio.transcriptions.create(model="whisper-1", file=CLIP)

    assert len(transcriber.asked) == 1


def test_the_sdk_tries_again_when_it_is_told_when(
    client: openai.OpenAI, transcriber: FakeTranscriber
) -> None:
    transcriber.error = Overloaded("Full.", retry_after=0.1)

    with pytest.raises(openai.InternalServerError) as raised:
        client.with_options(max_retries=1).audio.transcriptions.create(model="whisper-1", file=CLIP)

    assert raised.value.response.headers["retry-after"] == "1"
    assert len(transcriber.asked) == 2


class Waited(logging.Handler):
    """Lets the model go on once a caller has given up."""

    def __init__(self, transcriber: FakeTranscriber) -> None:
        super().__init__()
        self.transcriber = transcriber
        self.num_left = 0

    def emit(self, record: logging.LogRecord) -> None:
        if "status=499" in record.getMessage():
            self.num_left += 1
            self.transcriber.free()


def test_a_second_try_after_a_timeout_joins_the_work_of_the_first(
    client: openai.OpenAI, transcriber: FakeTranscriber, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "simple_asr.access")
    transcriber.is_stuck = True
    waited = Waited(transcriber)
    logger = logging.getLogger("simple_asr.access")
    logger.addHandler(waited)

    try:
        result = client.with_options(max_retries=1, timeout=1.0).audio.transcriptions.create(
            model="whisper-1", file=CLIP
        )
    finally:
        logger.removeHandler(waited)

    assert result.text == "Привет, как дела? Хорошо."
    assert waited.num_left == 1
    assert len(transcriber.asked) == 1


def test_work_ends_with_a_client_that_leaves_for_good(
    client: openai.OpenAI, transcriber: FakeTranscriber, address: str, key: str
) -> None:
    transcriber.is_stuck = True

    with pytest.raises(httpx.ReadTimeout):
        httpx.post(
            f"{address}/audio/transcriptions",
            headers={"X-API-Key": key},
            files={"file": CLIP},
            timeout=0.5,
        )

    assert transcriber.ended.wait(60)


# Models ------------------------------------------------------------------------------------------


def test_the_models_are_those_on_this_machine_and_the_aliases(client: openai.OpenAI) -> None:
    models = client.models.list().data

    assert [model.id for model in models][:3] == ["turbo", "tiny", "whisper-1"]
    assert {(model.object, model.owned_by) for model in models} == {("model", "simple-asr")}


@pytest.mark.parametrize("name", ["whisper-1", "turbo", "large-v3-turbo"])
def test_a_model_can_be_asked_for_by_each_of_its_names(client: openai.OpenAI, name: str) -> None:
    assert client.models.retrieve(name).id == name


def test_a_name_with_a_slash_is_found_or_not_as_any_other(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as raised:
        client.models.retrieve("owner/name")

    assert raised.value.code == "model_not_found"


def test_a_loading_model_is_worth_another_try(
    client: openai.OpenAI, transcriber: FakeTranscriber
) -> None:
    transcriber.state = ModelState("loading", requested="turbo", served="turbo")

    with pytest.raises(openai.InternalServerError) as raised:
        client.audio.transcriptions.create(model="whisper-1", file=CLIP)

    assert raised.value.status_code == 503
    assert raised.value.response.headers["x-should-retry"] == "true"
    assert raised.value.response.headers["retry-after"] == "5"


# The asynchronous client ---------------------------------------------------------------------


def test_the_asynchronous_client_is_answered_alike(
    address: str, key: str, transcriber: FakeTranscriber
) -> None:
    async def ask() -> tuple[str, str]:
        async with openai.AsyncOpenAI(base_url=address, api_key=key) as client:
            whole = await client.audio.transcriptions.create(model="whisper-1", file=CLIP)
            stream = await client.audio.transcriptions.create(
                model="whisper-1", file=CLIP, stream=True
            )
            last = [event async for event in stream][-1]
            return whole.text, str(last.to_dict()["text"])

    assert asyncio.run(ask()) == ("Привет, как дела? Хорошо.",) * 2


# Other clients -------------------------------------------------------------------------------


def ask_as_open_webui(address: str, key: str, language: str) -> httpx.Response:
    """Byte for byte as its form comes: fields first, and a file whose type is not named."""
    form = (
        '--5e0c7b\r\nContent-Disposition: form-data; name="model"\r\n\r\nwhisper-1\r\n'
        f'--5e0c7b\r\nContent-Disposition: form-data; name="language"\r\n\r\n{language}\r\n'
        '--5e0c7b\r\nContent-Disposition: form-data; name="file"; filename="1f3a.wav"\r\n\r\n'
        "RIFF....WAVE\r\n--5e0c7b--\r\n"
    )
    headers = {
        "Authorization": f"Bearer {key}",
        "Content-Type": "multipart/form-data; boundary=5e0c7b",
    }
    return httpx.post(f"{address}/audio/transcriptions", headers=headers, content=form.encode())


def test_open_webuis_request_is_answered_with_a_text(
    address: str, key: str, transcriber: FakeTranscriber
) -> None:
    answer = ask_as_open_webui(address, key, language="ru")

    assert answer.json()["text"] == "Привет, как дела? Хорошо."
    assert transcriber.asked[0].content == b"RIFF....WAVE"
    assert transcriber.asked[0].options == TranscribeOptions(language="ru")


def test_open_webui_finds_the_message_of_an_error_where_it_looks(address: str, key: str) -> None:
    answer = ask_as_open_webui(address, key, language="xx")

    assert answer.status_code == 400
    assert "language 'xx'" in answer.json()["error"]["message"]


# The documentation ---------------------------------------------------------------------------

DOCUMENT = (Path(__file__).parents[3] / "docs" / "api.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"^```python\n(.+?)^```", DOCUMENT, flags=re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("example", EXAMPLES, ids=range(len(EXAMPLES)))
def test_every_example_of_the_document_prints_the_text(
    address: str, key: str, transcriber: FakeTranscriber, tmp_path: Path, example: str
) -> None:
    (tmp_path / "clip.wav").write_bytes(b"RIFF")

    done = subprocess.run(
        [sys.executable, "-c", example],
        cwd=tmp_path,
        env={**os.environ, "OPENAI_BASE_URL": address, "OPENAI_API_KEY": key},
        capture_output=True,
        encoding="utf-8",
        timeout=60,
        check=True,
    )

    assert done.stdout.strip() == "Привет, как дела? Хорошо."
