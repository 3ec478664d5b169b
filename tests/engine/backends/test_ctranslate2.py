"""The real model on real speech: what it hears, and that company in a batch changes nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from unittest.mock import MagicMock

import numpy as np
import pytest
from jiwer import wer
from whisper_normalizer.basic import BasicTextNormalizer

from simple_asr.audio.decode import DecoderPool
from simple_asr.audio.features import N_FRAMES, LogMel
from simple_asr.engine.backends import ctranslate2
from simple_asr.engine.backends.ctranslate2 import CTranslate2Backend, SharedModel, load_replicas
from simple_asr.engine.backends.decoder import Decoder, Threads
from simple_asr.engine.engine import Engine, answer_batch
from simple_asr.engine.fallback import best_hypothesis
from simple_asr.engine.options import TranscribeOptions
from simple_asr.engine.request import Request
from simple_asr.engine.seek_loop import search_options, token_limit
from simple_asr.engine.tokens import MAX_PROMPT_TOKENS, N_TEXT_CONTEXT, build_prompt
from simple_asr.engine.window import Decode, Decoded, Window, WindowAudio
from simple_asr.errors import ModelUnavailable
from simple_asr.transcript.model import Transcript
from tests.support import Caller, Clip, Silence

pytestmark = pytest.mark.weights

Hear = Callable[..., LogMel]

SILENCE = np.full((80, N_FRAMES), -1.5, np.float32)
"""A window's spectrogram at the floor."""


@pytest.fixture(scope="module")
def backend(base_model: Path) -> Iterator[CTranslate2Backend]:
    """`base` in float32, in which a batch's company must not show."""
    (backend,) = load_replicas(
        "base", base_model, device="cpu", compute_type="float32", num_threads=1
    )
    yield backend
    backend.close()


@pytest.fixture(scope="module")
def engine(base_model: Path) -> Iterator[Engine]:
    """`base` as it is served on a CPU."""
    replicas = load_replicas("base", base_model, device="cpu", compute_type="int8", num_threads=2)
    engine = Engine(replicas, max_batch_size=8, max_requests=100)
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def heard(speech: list[Clip], decoder: DecoderPool) -> dict[str, LogMel]:
    """One clip a language, ready for the model."""
    return {
        clip.language: LogMel(decoder.decode(clip.path), n_mels=80)
        for clip in speech
        if "pangram" in clip.path.stem or clip.path.stem == "quick_brown_fox"
    }


def decode_window(
    backend: CTranslate2Backend, log_mel: LogMel, language: str = "en", **options: object
) -> Window:
    chosen = TranscribeOptions.model_validate(options)
    prompt = build_prompt(backend.tokenizer, chosen, language, previous=())
    frames = min(N_FRAMES, log_mel.content_frames)
    audio = WindowAudio(lambda: log_mel.window(0, frames), frames)
    search = search_options(
        chosen,
        backend.tokenizer,
        chosen.temperature[0],
        max_new_tokens=token_limit(audio, chosen.sample_len),
    )
    return Window(None, audio, Decode(prompt, search))


def decoded(backend: CTranslate2Backend, *windows: Window) -> list[Decoded]:
    answers = answer_batch(backend, windows)
    return [answer for answer in answers if isinstance(answer, Decoded)]


def transcribe(
    engine: Engine, backend: CTranslate2Backend, log_mel: LogMel, **options: object
) -> Caller:
    caller = Caller()
    chosen = TranscribeOptions.model_validate(options)
    engine.submit(Request(chosen, log_mel, backend.info, backend.tokenizer), caller)
    return caller


@pytest.mark.parametrize("beam_size", [None, 5])
def test_the_answer_does_not_depend_on_who_shares_the_batch(
    backend: CTranslate2Backend, heard: dict[str, LogMel], beam_size: int | None
) -> None:
    windows = [
        decode_window(backend, log_mel, language, beam_size=beam_size)
        for language, log_mel in heard.items()
    ]

    alone = [decoded(backend, window)[0] for window in windows]
    together = decoded(backend, *windows)

    assert len(together) == len(windows) >= 8
    for by_itself, in_company in zip(alone, together, strict=True):
        assert in_company.hypotheses[0].tokens == by_itself.hypotheses[0].tokens
        assert in_company.no_speech_prob == pytest.approx(by_itself.no_speech_prob, rel=1e-3)


def test_a_text_that_stands_still_while_others_are_written_is_the_same(
    backend: CTranslate2Backend, heard: dict[str, LogMel]
) -> None:
    window, *others = (
        decode_window(backend, log_mel, language) for language, log_mel in heard.items()
    )
    [alone] = decoded(backend, window)
    assert isinstance(window.step, Decode)

    found: dict[int, Decoded] = {}
    num_tokens = 0
    for ended in backend.decode([window.audio.encoded], [window.step]):
        found.update(ended)
        num_tokens += 1
        if num_tokens % 5 == 0:
            decoded(backend, *others[:2])

    assert found == {0: alone}
    assert num_tokens > 10


def test_requests_served_together_get_what_they_get_alone(
    engine: Engine, backend: CTranslate2Backend, heard: dict[str, LogMel]
) -> None:
    alone = {
        language: transcribe(engine, backend, log_mel, word_timestamps=True).transcript()
        for language, log_mel in heard.items()
    }
    before = engine.statistics.num_batches

    callers = {
        language: transcribe(engine, backend, log_mel, word_timestamps=True)
        for language, log_mel in heard.items()
    }
    together = {language: caller.transcript() for language, caller in callers.items()}

    assert {k: t.text for k, t in together.items()} == {k: t.text for k, t in alone.items()}
    assert {k: t.language for k, t in together.items()} == {k: t.language for k, t in alone.items()}
    # Fewer calls than detecting, decoding and aligning each clip by itself takes.
    assert engine.statistics.num_batches - before < 3 * len(heard)


@pytest.mark.parametrize("language", ["en", "es", "fr", "it", "pt"])
def test_speech_is_written_down_in_its_language(
    engine: Engine,
    backend: CTranslate2Backend,
    heard: dict[str, LogMel],
    speech: list[Clip],
    language: str,
) -> None:
    spoken = next(
        clip.text
        for clip in speech
        if clip.language == language
        and ("pangram" in clip.path.stem or clip.path.stem == "quick_brown_fox")
    )

    transcript = transcribe(engine, backend, heard[language], beam_size=5).transcript()

    normal = BasicTextNormalizer()
    assert transcript.language == language
    assert wer(normal(spoken), normal(transcript.text)) <= 0.6


def test_words_follow_each_other_within_the_recording(
    engine: Engine, backend: CTranslate2Backend, heard: dict[str, LogMel]
) -> None:
    transcript = transcribe(
        engine, backend, heard["en"], language="en", word_timestamps=True
    ).transcript()

    words = [word for segment in transcript.segments for word in segment.words or ()]
    assert "".join(word.word for word in words) == transcript.text
    assert all(0 <= word.start <= word.end <= transcript.duration + 0.1 for word in words)
    assert all(before.end <= after.start + 1e-6 for before, after in pairwise(words))
    assert all(0 < word.probability <= 1 for word in words)


def test_translation_writes_english(
    engine: Engine, backend: CTranslate2Backend, heard: dict[str, LogMel]
) -> None:
    def english(task: str) -> Transcript:
        return transcribe(
            engine, backend, heard["fr"], language="fr", task=task, temperature=0
        ).transcript()

    assert english("translate").text != english("transcribe").text
    assert english("translate").text.isascii()


@pytest.mark.parametrize("sample_len", [1, 2, 5])
@pytest.mark.parametrize("beam_size", [None, 3])
def test_no_more_tokens_are_written_than_sample_len(
    backend: CTranslate2Backend, heard: dict[str, LogMel], sample_len: int, beam_size: int | None
) -> None:
    window = decode_window(backend, heard["en"], sample_len=sample_len, beam_size=beam_size)

    (answer,) = decoded(backend, window)

    assert len(answer.hypotheses[0].tokens) == sample_len


def test_the_score_of_a_hypothesis_is_the_sum_of_its_log_probabilities(
    backend: CTranslate2Backend, heard: dict[str, LogMel]
) -> None:
    greedy = decode_window(backend, heard["en"])
    beams = decode_window(backend, heard["en"], beam_size=3, patience=2.0)

    (alone,), (several,) = decoded(backend, greedy), decoded(backend, beams)

    assert len(several.hypotheses) == 6
    same = [h for h in several.hypotheses if h.tokens == alone.hypotheses[0].tokens]
    assert same
    assert same[0].sum_logprob == pytest.approx(alone.hypotheses[0].sum_logprob, rel=1e-3)


def test_several_samples_are_drawn_above_temperature_zero(
    backend: CTranslate2Backend, heard: dict[str, LogMel]
) -> None:
    window = decode_window(backend, heard["en"], temperature=1.0, best_of=4)

    (answer,) = decoded(backend, window)

    assert len(answer.hypotheses) == 4


def test_suppressed_tokens_are_not_written(
    backend: CTranslate2Backend, heard: dict[str, LogMel]
) -> None:
    (free,) = decoded(backend, decode_window(backend, heard["en"]))
    text_token = next(t for t in free.hypotheses[0].tokens if t < backend.tokenizer.eot)

    (bound,) = decoded(backend, decode_window(backend, heard["en"], suppress_tokens=[text_token]))

    assert text_token not in bound.hypotheses[0].tokens


def test_without_timestamps_only_text_is_written(
    backend: CTranslate2Backend, heard: dict[str, LogMel]
) -> None:
    (answer,) = decoded(backend, decode_window(backend, heard["en"], without_timestamps=True))

    tokens = answer.hypotheses[0].tokens
    assert tokens
    assert not any(backend.tokenizer.is_timestamp(token) for token in tokens)


def test_a_prefix_conditions_and_is_not_repeated(
    backend: CTranslate2Backend, heard: dict[str, LogMel]
) -> None:
    window = decode_window(backend, heard["en"], prefix="The quick brown", without_timestamps=True)

    (answer,) = decoded(backend, window)

    text = backend.tokenizer.decode(answer.hypotheses[0].tokens)
    assert "fox" in text
    assert "quick" not in text


def test_a_window_after_a_prefix_begins_with_a_timestamp(
    backend: CTranslate2Backend, heard: dict[str, LogMel]
) -> None:
    window = decode_window(backend, heard["en"], prefix="The quick brown")

    (answer,) = decoded(backend, window)

    first_timestamp = answer.hypotheses[0].tokens[0] - backend.tokenizer.timestamp_begin
    assert 0 <= first_timestamp <= 50


def test_a_window_with_a_full_prompt_ends_where_the_context_ends(
    backend: CTranslate2Backend, heard: dict[str, LogMel]
) -> None:
    endless = decode_window(backend, heard["en"], suppress_tokens=[backend.tokenizer.eot])
    assert isinstance(endless.step, Decode)
    options = TranscribeOptions()
    full = build_prompt(backend.tokenizer, options, "en", previous=[11] * MAX_PROMPT_TOKENS)
    window = Window(None, endless.audio, replace(endless.step, prompt=full))

    (answer,) = decoded(backend, window)

    # The last token is not read any more, so it may lie beyond the context.
    assert len(full.tokens) + len(answer.hypotheses[0].tokens) == N_TEXT_CONTEXT + 1


@pytest.mark.parametrize("options", [{}, {"without_timestamps": True}])
def test_the_decoder_writes_what_ctranslate2_writes(
    backend: CTranslate2Backend,
    ctranslate2_alone: CTranslate2Backend,
    heard: dict[str, LogMel],
    options: dict[str, object],
) -> None:
    windows = [
        decode_window(backend, heard[language], language, **options) for language in ("en", "fr")
    ]

    ours, theirs = decoded(backend, *windows), decoded(ctranslate2_alone, *windows)

    for own, other in zip(ours, theirs, strict=True):
        best, expected = (best_hypothesis(answer.hypotheses, None) for answer in (own, other))
        assert best.tokens == expected.tokens
        assert best.sum_logprob == pytest.approx(expected.sum_logprob, rel=1e-3)
        assert own.no_speech_prob == pytest.approx(other.no_speech_prob, rel=1e-3)


@pytest.fixture(scope="module")
def ctranslate2_alone(backend: CTranslate2Backend) -> CTranslate2Backend:
    """The same weights, decoded as on a GPU."""
    return CTranslate2Backend("base", backend.model, backend.tokenizer)


def test_a_file_the_decoder_cannot_read_is_decoded_by_ctranslate2(
    base_model: Path, heard: dict[str, LogMel], monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown(*_: object, **__: object) -> Decoder:
        raise ValueError("It is of another version.")

    monkeypatch.setattr(ctranslate2, "Decoder", unknown)
    (backend,) = load_replicas("base", base_model, device="cpu", compute_type="int8", num_threads=1)

    (answer,) = decoded(backend, decode_window(backend, heard["en"]))

    assert "quick" in backend.tokenizer.decode(answer.hypotheses[0].tokens)
    backend.close()


@pytest.mark.parametrize("reader", ["backend", "ctranslate2_alone"])
def test_a_beam_that_ends_at_once_ranks_last(reader: str, request: pytest.FixtureRequest) -> None:
    backend = request.getfixturevalue(reader)
    all_text = range(backend.tokenizer.eot)
    step = _first_step(backend, without_timestamps=True, beam_size=3, suppress_blank=False)
    step = replace(step, search=replace(step.search, suppress_tokens=tuple(all_text)))
    window = Window(None, WindowAudio(lambda: SILENCE, N_FRAMES), step)

    (answer,) = decoded(backend, window)

    assert () in {hypothesis.tokens for hypothesis in answer.hypotheses}
    assert best_hypothesis(answer.hypotheses, None).tokens


def test_silence_is_recognised_as_such(backend: CTranslate2Backend) -> None:
    window = Window(None, WindowAudio(lambda: SILENCE, N_FRAMES), _first_step(backend))

    (answer,) = decoded(backend, window)

    assert answer.no_speech_prob > 0.3


def _first_step(backend: CTranslate2Backend, **options: object) -> Decode:
    step = decode_window(backend, LogMel(Silence(30), n_mels=80), "en", **options).step
    assert isinstance(step, Decode)
    return step


def test_broken_weights_are_refused_with_advice(tmp_path: Path) -> None:
    (tmp_path / "model.bin").write_bytes(b"not a model")
    (tmp_path / "config.json").write_text("{}")

    with pytest.raises(ModelUnavailable, match="Download it again"):
        load_replicas("broken", tmp_path, device="cpu", compute_type="float32", num_threads=1)


def test_no_weights_are_refused_with_advice(tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailable, match="Download it again"):
        load_replicas("gone", tmp_path, device="cpu", compute_type="int8", num_threads=2)


@pytest.mark.parametrize(
    ("cores", "gib", "workers", "threads_beside_others", "threads_alone"),
    [(1, 64, 1, 1, 1), (2, 64, 2, 1, 2), (2, 1, 1, 2, 2), (6, 64, 6, 1, 4)],
)
def test_a_worker_is_had_for_each_core_of_the_process_where_its_memory_allows(
    cores: int,
    gib: int,
    workers: int,
    threads_beside_others: int,
    threads_alone: int,
    *,
    base_model: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    decoder = MagicMock()
    monkeypatch.setattr(ctranslate2, "Decoder", decoder)
    monkeypatch.setattr(ctranslate2, "num_cores", lambda: cores)
    monkeypatch.setattr(ctranslate2, "physical_memory", lambda: gib << 30)

    replicas = load_replicas("base", base_model, device="cpu", compute_type="int8", num_threads=0)

    assert len(replicas) == workers
    writing: Threads = decoder.call_args.kwargs["threads"]
    with replicas[0].model.in_use():
        assert writing.now() == threads_alone
        with replicas[-1].model.in_use():
            assert writing.now() == threads_beside_others
    replicas[0].close()


def test_in_float32_the_matrices_are_not_held_once_more_for_who_is_alone(
    base_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoder = MagicMock()
    monkeypatch.setattr(ctranslate2, "Decoder", decoder)

    replicas = load_replicas(
        "base", base_model, device="cpu", compute_type="float32", num_threads=2
    )

    assert decoder.call_args.kwargs["threads"] == Threads(side_by_side=1, together=1)
    replicas[0].close()


def test_a_caller_who_is_alone_gets_all_threads_and_one_beside_others_does_not() -> None:
    side_by_side, together = MagicMock(), MagicMock()
    model = SharedModel(side_by_side, together)

    with model.in_use() as first, model.in_use() as second:
        pass
    with model.in_use() as third:
        pass

    assert (first, second, third) == (together, side_by_side, together)


def test_whoever_works_on_another_model_is_company_too() -> None:
    side_by_side = MagicMock()

    with SharedModel(MagicMock()).in_use(), SharedModel(side_by_side, MagicMock()).in_use() as used:
        assert used is side_by_side


def test_one_thread_and_all_threads_write_the_same(
    base_model: Path, heard: dict[str, LogMel]
) -> None:
    backend, _ = load_replicas("base", base_model, device="cpu", compute_type="int8", num_threads=2)

    alone = decoded(backend, decode_window(backend, heard["en"]))
    with backend.model.in_use():
        beside_another = decoded(backend, decode_window(backend, heard["en"]))

    assert alone == beside_another
    backend.close()
