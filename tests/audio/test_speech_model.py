from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray

from simple_asr.audio.speech import published_model
from simple_asr.audio.speech_model import STATE_WIDTH, speech_model

FRAMES = np.random.default_rng(0).normal(0, 0.1, (40, 576)).astype(np.float32)
NOTHING = np.zeros((1, 1, STATE_WIDTH), np.float32)


def test_many_frames_are_judged_as_the_published_model_judges_one_after_another() -> None:
    hidden_and_cell = np.concatenate([NOTHING, NOTHING])
    session = onnxruntime.InferenceSession(published_model())
    expected = []
    for frame in FRAMES:
        probability, hidden_and_cell = session.run(
            None, {"input": frame[None], "state": hidden_and_cell, "sr": np.array(16_000)}
        )
        expected.append(probability[0, 0])

    probabilities, hidden, cell = ask(FRAMES, NOTHING, NOTHING)

    assert len(set(np.round(expected, 4))) > 1, "else any constant would do"
    assert probabilities == pytest.approx(np.array(expected), abs=1e-5)
    assert hidden == pytest.approx(hidden_and_cell[:1], abs=1e-3)
    assert cell == pytest.approx(hidden_and_cell[1:], abs=1e-3)


def test_it_goes_on_where_the_call_before_ended() -> None:
    whole, *_ = ask(FRAMES, NOTHING, NOTHING)

    first, hidden, cell = ask(FRAMES[:15], NOTHING, NOTHING)
    second, *_ = ask(FRAMES[15:], hidden, cell)

    assert np.concatenate([first, second]) == pytest.approx(whole, abs=1e-5)


def ask(frames: NDArray[np.float32], *state: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    session = onnxruntime.InferenceSession(speech_model(published_model()))
    inputs = dict(zip(("frames", "hidden", "cell"), (frames, *state), strict=True))
    answers: list[NDArray[np.float32]] = session.run(None, inputs)
    return answers
