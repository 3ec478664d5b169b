"""Where somebody speaks."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from simple_asr.audio.decode import DecoderPool
from simple_asr.audio.features import Samples
from simple_asr.audio.recording import Recording
from simple_asr.audio.speech import Span, SpeechDetector, SpeechRules, chunks, speech_spans
from tests.support import Clip, Noise, Silence

FRAME = 0.032


def frames(*stretches: tuple[float, float]) -> NDArray[np.float32]:
    """Probabilities of speech from (seconds, probability) stretches."""
    return np.concatenate(
        [np.full(round(seconds / FRAME), value, np.float32) for seconds, value in stretches]
    )


PLAIN = SpeechRules(padding=0.0)


def test_speech_begins_and_ends_with_its_probability() -> None:
    probabilities = frames((1, 0.01), (2, 0.9), (1, 0.01))

    (span,) = speech_spans(probabilities, 4.0, PLAIN)

    assert (span.start, span.end) == pytest.approx((1.0, 3.0), abs=FRAME)


def test_a_short_pause_does_not_end_speech() -> None:
    probabilities = frames((1, 0.9), (0.2, 0.01), (1, 0.9), (1, 0.01))

    assert len(speech_spans(probabilities, 3.2, PLAIN)) == 1


def test_between_the_thresholds_speech_goes_on() -> None:
    probabilities = frames((1, 0.9), (2, 0.4), (1, 0.9))

    assert speech_spans(probabilities, 4.0, PLAIN) == [Span(0.0, 4.0)]


def test_a_click_is_no_speech() -> None:
    assert speech_spans(frames((1, 0.01), (0.1, 0.9), (1, 0.01)), 2.1, PLAIN) == []


def test_speech_is_padded_and_neighbours_share_the_pause() -> None:
    rules = SpeechRules(padding=0.3)
    probabilities = frames((0.96, 0.9), (0.4, 0.01), (0.96, 0.9), (1.6, 0.01))

    first, second = speech_spans(probabilities, 4.0, rules)

    assert first.start == 0.0
    assert first.end == pytest.approx(second.start)
    assert second.end == pytest.approx(2.3 + 0.3, abs=2 * FRAME)


def test_chunks_are_cut_at_pauses_and_no_longer_than_a_window() -> None:
    spans = [Span(0, 10), Span(11, 20), Span(22, 33), Span(40, 45)]

    assert chunks(spans) == [Span(0, 20), Span(22, 45)]


def test_a_span_longer_than_a_chunk_stays_whole() -> None:
    assert chunks([Span(0, 5), Span(6, 50), Span(51, 55)]) == [
        Span(0, 5),
        Span(6, 50),
        Span(51, 55),
    ]


def test_silence_holds_no_speech() -> None:
    assert SpeechDetector().spans(Silence(40.0)) == []
    assert SpeechDetector().spans(Silence(0.0)) == []


def test_real_speech_is_found_and_the_silence_around_it_is_not(
    speech: list[Clip], decoder: DecoderPool
) -> None:
    clip = next(clip for clip in speech if clip.path.stem == "quick_brown_fox")
    with decoder.decode(clip.path) as recording:
        spoken = recording.read(0, recording.num_samples)

    class Between:
        num_samples = 2 * 16_000 * 20 + len(spoken)

        def read(self, start: int, stop: int) -> NDArray[np.float32]:
            whole = np.zeros(self.num_samples + 16_000, np.float32)
            whole[320_000 : 320_000 + len(spoken)] = spoken
            return whole[start:stop]

    spans = SpeechDetector().spans(Between())

    assert spans
    assert all(19.5 < span.start < span.end < 20.5 + len(spoken) / 16_000 for span in spans)


def test_noise_and_tones_hold_little_or_no_speech() -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, 16_000 * 20).astype(np.float32)

    class Noise:
        num_samples = len(noise)

        def read(self, start: int, stop: int) -> NDArray[np.float32]:
            return np.pad(noise[start:stop], (0, max(0, stop - len(noise))))

    assert sum(span.end - span.start for span in SpeechDetector().spans(Noise())) < 1.0


@pytest.mark.parametrize("loudness", [1.0, 0.01])
def test_speech_is_surely_found_however_quiet(
    speech: list[Clip], decoder: DecoderPool, loudness: float
) -> None:
    detector = SpeechDetector()
    sure = []
    for clip in speech:
        with decoder.decode(clip.path) as recording:
            waveform = loudness * recording.read(0, recording.num_samples)
        with Recording.from_samples(waveform) as quieter:
            sure.append(detector.surest(quieter, 0, quieter.num_samples))

    assert min(sure) > 0.9


@pytest.mark.parametrize("samples", [Silence(20.0), Noise(20.0), Noise(20.0, [(5, 6), (9, 9.01)])])
def test_where_nobody_speaks_it_is_not_sure(samples: Samples) -> None:
    assert SpeechDetector().surest(samples, 0, samples.num_samples) < 0.3


def test_only_the_stretch_asked_for_is_judged(speech: list[Clip], decoder: DecoderPool) -> None:
    with decoder.decode(speech[0].path) as recording:
        spoken = recording.read(0, recording.num_samples)
    silence = np.zeros(5 * 16_000, np.float32)
    with Recording.from_samples(np.concatenate([silence, spoken])) as recording:
        detector = SpeechDetector()

        assert detector.surest(recording, 0, 5 * 16_000) < 0.3
        assert detector.surest(recording, 5 * 16_000, recording.num_samples) > 0.9
