"""Text of others, made safe to show."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from simple_asr.service.labels import ascii_label, label, value_label


def test_plain_text_of_any_language_stays_as_it_is() -> None:
    assert label("Привет, 世界") == "Привет, 世界"


def test_what_could_break_a_line_or_turn_it_around_is_escaped() -> None:
    assert label("a\r\nSet-Cookie: x\0\u202e") == "a\\r\\nSet-Cookie: x\\x00\\u202e"


def test_a_long_text_is_cut_and_says_so() -> None:
    assert label("x" * 1000, limit=10) == "x" * 9 + "…"


def test_a_header_gets_ascii() -> None:
    assert ascii_label("Ёж") == "\\u0401\\u0436"


def test_a_value_is_shown_as_its_sender_wrote_it() -> None:
    assert value_label("5") == "'5'"
    assert value_label([1, None, True]) == "[1, null, true]"
    assert value_label(10**5000) == "a number of thousands of digits"


@given(st.text(), st.integers(min_value=1, max_value=100))
def test_a_label_is_one_printable_line_within_its_limit(text: str, limit: int) -> None:
    shown = label(text, limit)

    assert shown.isprintable()
    assert len(shown) <= limit
