"""Which model a request's `model` stands for."""

from __future__ import annotations

import pytest

from simple_asr.server.model_names import read_aliases, resolve

ALIASES = {"whisper-1": "", "fast": "tiny"}


def test_aliases_stand_for_a_model_or_for_the_served_one() -> None:
    assert read_aliases("whisper-1, fast = tiny,") == ALIASES


@pytest.mark.parametrize("name", [None, "", "whisper-1"])
def test_no_name_and_a_plain_alias_are_the_default_model(name: str | None) -> None:
    assert resolve(name, ALIASES) is None


def test_an_alias_is_the_model_it_names_and_any_other_name_itself() -> None:
    assert resolve("fast", ALIASES) == "tiny"
    assert resolve("small", ALIASES) == "small"
