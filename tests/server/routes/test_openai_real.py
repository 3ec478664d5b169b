"""The official `openai` SDK against a server with the real `base` model: what it hears is right."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import openai
import pytest

from simple_asr.assembly import build_transcriber
from simple_asr.server.app import create_app
from simple_asr.service.keys import KeyStore
from simple_asr.settings import Settings
from tests.support import Clip

pytestmark = pytest.mark.weights


@pytest.fixture(scope="module")
def client(
    *,
    base_model: Path,
    models_root: Path,
    key: str,
    make_settings: Callable[..., Settings],
    make_key_store: Callable[[Settings], KeyStore],
    live: Callable[..., AbstractContextManager[int]],
) -> Iterator[openai.OpenAI]:
    settings = make_settings(
        default_model="base",
        model_device="cpu",
        model_download_root=models_root,
        hf_hub_offline=True,
        decoder_processes=1,
    )
    transcriber = build_transcriber(settings)
    transcriber.start()
    transcriber.wait_until_loaded()
    with live(create_app(settings, transcriber, make_key_store(settings))) as port:
        yield openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key=key, max_retries=0)
    transcriber.close()


@pytest.fixture(scope="module")
def english(speech: list[Clip]) -> Clip:
    return next(clip for clip in speech if clip.language == "en")


def test_all_shapes_of_one_recording_tell_the_same_text(
    client: openai.OpenAI, english: Clip
) -> None:
    create = client.audio.transcriptions.create

    text = create(model="whisper-1", file=english.path, response_format="text").strip()
    plain = create(model="whisper-1", file=english.path)
    verbose = create(
        model="whisper-1",
        file=english.path,
        response_format="verbose_json",
        timestamp_granularities=["word", "segment"],
    )
    *deltas, done = create(model="whisper-1", file=english.path, stream=True)

    assert len(text.split()) > 3
    assert plain.text == text
    assert (verbose.text, verbose.language) == (text, "english")
    assert done.to_dict()["text"] == text
    assert "".join(str(delta.to_dict()["delta"]) for delta in deltas) == text
    assert verbose.words is not None
    assert verbose.segments is not None
    assert " ".join(word.word for word in verbose.words) == text
    assert 0 <= verbose.words[0].start < verbose.words[-1].end <= verbose.duration


def test_the_language_is_chosen_among_those_it_may_be(client: openai.OpenAI, english: Clip) -> None:
    result = client.audio.transcriptions.create(
        model="whisper-1", file=english.path, languages=["ru", "en"]
    )

    assert result.to_dict()["languages"] == [{"code": "en"}]


def test_logprobs_are_those_of_the_words_heard(client: openai.OpenAI, english: Clip) -> None:
    result = client.audio.transcriptions.create(
        model="whisper-1", file=english.path, include=["logprobs"]
    )

    assert result.logprobs is not None
    assert "".join(logprob.token or "" for logprob in result.logprobs).strip() == result.text
    assert all((logprob.logprob or 0) <= 0 for logprob in result.logprobs)


def test_a_file_that_holds_no_audio_is_the_callers_fault(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as raised:
        client.audio.transcriptions.create(model="whisper-1", file=("a.wav", b"not audio"))

    assert raised.value.code == "unreadable_media"
