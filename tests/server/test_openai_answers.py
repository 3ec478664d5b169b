"""A stream's deltas: they join to the text, whatever blanks the segments bring."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from simple_asr.server.openai_answers import Deltas


@given(st.lists(st.text(alphabet="ab \n", max_size=5), max_size=6))
def test_deltas_join_to_the_stripped_text(texts: list[str]) -> None:
    deltas = Deltas()

    told = [deltas.next(text) for text in texts]

    assert "".join(told) == deltas.text == "".join(texts).strip()


def test_a_segment_of_blanks_alone_is_not_told() -> None:
    deltas = Deltas()

    assert [deltas.next(" One."), deltas.next("  "), deltas.next("Two.")] == ["One.", "", "  Two."]
