"""The decoder for CPUs: its numbers, and that company changes none of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from simple_asr.engine.backends.decoder import Decoder, Threads
from simple_asr.engine.backends.decoder_graph import quantized

pytestmark = pytest.mark.weights

PROMPT = [50258, 50259, 50359]


@pytest.fixture(scope="module")
def decoder(base_model: Path) -> Decoder:
    """`base` in integers, as it is served."""
    return Decoder(base_model, is_quantized=True)


@pytest.fixture(scope="module")
def exact(base_model: Path) -> Decoder:
    """`base` in float32."""
    return Decoder(base_model, is_quantized=False)


@pytest.fixture(scope="module")
def heard() -> NDArray[np.float32]:
    """Four windows in which the encoder heard nothing that there is."""
    return np.random.default_rng(0).normal(size=(4, 1500, 512)).astype(np.float32)


def test_predictions_are_equal_to_the_bit_in_any_company(
    decoder: Decoder, heard: NDArray[np.float32]
) -> None:
    prompts = np.array([PROMPT] * 4)
    together = decoder.hear(heard)
    alone = [decoder.hear(heard[[window]]) for window in range(4)]

    first = together.read_prompt(prompts, [0, 2])
    then = together.read(np.array([11, 400, 5000, 7]))

    for window, reading in enumerate(alone):
        np.testing.assert_array_equal(reading.read_prompt(prompts[:1], [0, 2])[0], first[window])
        token = np.array([[11, 400, 5000, 7][window]])
        np.testing.assert_array_equal(reading.read(token)[0], then[window])


@pytest.mark.parametrize("is_quantized", [True, False])
def test_predictions_are_equal_to_the_bit_with_any_number_of_threads(
    base_model: Path, heard: NDArray[np.float32], *, is_quantized: bool
) -> None:
    is_alone, asked = False, []

    def tell() -> bool:
        asked.append(is_alone)
        return is_alone

    threads = Threads(side_by_side=1, together=3, is_alone=tell)
    decoder = Decoder(base_model, is_quantized=is_quantized, threads=threads)

    def predictions() -> list[NDArray[np.float32]]:
        reading = decoder.hear(heard[:2])
        prompts = np.array([[*PROMPT, *range(400, 600)]] * 2)
        return [reading.read_prompt(prompts, [0, 202]), reading.read(np.array([11, 400]))]

    by_one = predictions()
    is_alone = True
    by_several = predictions()

    for expected, found in zip(by_one, by_several, strict=True):
        np.testing.assert_array_equal(found, expected)
    assert asked == [False, False, True, True], "at each step"


def test_a_prompt_is_read_as_its_tokens_one_by_one(
    exact: Decoder, heard: NDArray[np.float32]
) -> None:
    at_once = exact.hear(heard[:1]).read_prompt(np.array([[*PROMPT, 50364, 400]]), [4])[0, 0]
    reading = exact.hear(heard[:1])
    reading.read_prompt(np.array([PROMPT]), [2])
    reading.read(np.array([50364]))

    one_by_one = reading.read(np.array([400]))[0]

    np.testing.assert_allclose(one_by_one, at_once, atol=2e-3)


def test_rows_of_a_window_go_on_in_the_order_that_is_kept(
    exact: Decoder, heard: NDArray[np.float32]
) -> None:
    def reading_after(*tokens: int) -> NDArray[np.float32]:
        alone = exact.hear(heard[:1])
        logits = alone.read_prompt(np.array([PROMPT]), [2])[0]
        for token in tokens:
            logits = alone.read(np.array([token]))
        return np.asarray(logits[0])

    beams = exact.hear(heard[:1])
    beams.read_prompt(np.array([PROMPT]), [2])
    beams.keep_rows(np.array([0, 0]))
    beams.read(np.array([11, 400]))
    beams.keep_rows(np.array([1, 0]))

    swapped = beams.read(np.array([13, 14]))

    np.testing.assert_allclose(swapped[0], reading_after(400, 13), atol=1e-3)
    np.testing.assert_allclose(swapped[1], reading_after(11, 14), atol=1e-3)


def test_windows_that_are_left_out_leave_the_others_as_they_were(
    decoder: Decoder, heard: NDArray[np.float32]
) -> None:
    all_windows, some = decoder.hear(heard), decoder.hear(heard)
    for reading in (all_windows, some):
        reading.read_prompt(np.array([PROMPT] * 4), [2])

    some.keep_windows(np.array([1, 3]))

    expected = all_windows.read(np.array([11, 400, 5000, 7]))
    np.testing.assert_array_equal(some.read(np.array([400, 7])), expected[[1, 3]])


def test_each_row_of_a_matrix_has_its_scale() -> None:
    weights = np.array([[1.0, -0.5], [0.0, 0.0], [0.02, 0.01]], np.float32)

    integers, scales = quantized({"matrix": weights}, "matrix")

    assert integers.tolist() == [[127, -64], [0, 0], [127, 64]]
    np.testing.assert_allclose(integers * scales[:, None], weights, atol=0.005)
