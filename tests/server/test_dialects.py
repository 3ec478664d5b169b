"""Neighbours' fields as parameters of ours: each alone, and those that mean something together."""

from __future__ import annotations

import pytest

from simple_asr.errors import ContradictoryParameters, InvalidParameter, UnknownParameter
from simple_asr.server.dialects import WEBSERVICE, lines, read_dialect, read_inference
from simple_asr.service.fake import TRANSCRIPT


def ladder(**fields: str) -> tuple[float, ...]:
    return read_inference(b"", list(fields.items())).parameters.options.temperature


def test_the_ladder_goes_by_steps_to_one() -> None:
    assert ladder(temperature="0.5", temperature_inc="0.2") == (0.5, 0.7, 0.9)


@pytest.mark.parametrize("step", ["0", "-1", "0.0001", "NaN", "inf", "1e308"])
def test_steps_that_lead_nowhere_leave_one_temperature(step: str) -> None:
    assert ladder(temperature="0.5", temperature_inc=step) == (0.5,)


@pytest.mark.parametrize("temperature", ["2", "-1", "-1e308", "-inf", "inf", "NaN", "warm"])
def test_a_temperature_that_cannot_be_is_refused(temperature: str) -> None:
    with pytest.raises(InvalidParameter, match="temperature"):
        ladder(temperature=temperature)


def test_a_clip_is_given_in_milliseconds() -> None:
    fields = [("offset_t", "250"), ("duration", "500")]

    assert read_inference(b"", fields).parameters.options.clip_timestamps == (0.25, 0.75)


def test_a_default_counts_where_nothing_is_given() -> None:
    defaults = {"format": "text"}

    assert read_dialect(WEBSERVICE, b"", [], [], defaults).parameters.format.name == "text"
    for given in (
        read_dialect(WEBSERVICE, b"output=srt", [("output", "srt")], [], defaults),
        read_dialect(WEBSERVICE, b"", [], ['{"format": "srt"}'], defaults),
    ):
        assert given.parameters.format.name == "srt"


@pytest.mark.parametrize(
    ("query", "fields", "field"),
    [
        (b"response_format=srt", [("response_format", "vtt")], "response_format"),
        (b"temperature=0.2&temperature=0.4", [], "temperature"),
        (b"beam_size=2", [("beam_size", "5")], "beam_size"),
        (b"suppress_tokens=1", [("suppress_tokens", "2")], "suppress_tokens"),
    ],
)
def test_two_values_of_a_field_are_refused(
    query: bytes, fields: list[tuple[str, str]], field: str
) -> None:
    with pytest.raises(ContradictoryParameters) as caught:
        read_inference(query, fields)

    assert caught.value.field == field


@pytest.mark.parametrize("name", ["translate", "vad", "token_timestamps", "no_timestamps"])
def test_a_flag_that_is_neither_true_nor_false_is_refused(name: str) -> None:
    with pytest.raises(InvalidParameter, match=f"{name} 'ture'"):
        read_inference(b"", [(name, "ture")])


def test_a_field_that_is_nobodys_is_refused() -> None:
    with pytest.raises(UnknownParameter, match="vad_filtre"):
        read_dialect(WEBSERVICE, b"vad_filtre=true", [])


def test_a_field_without_effect_is_named() -> None:
    assert read_inference(b"split_on_word=true", []).warnings == (
        "split_on_word has no effect here.",
    )


def test_a_text_is_a_line_for_each_segment() -> None:
    assert lines(TRANSCRIPT) == "Привет, как дела?\n"
