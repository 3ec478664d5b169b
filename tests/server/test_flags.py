"""Flags as clients write them."""

from __future__ import annotations

import pytest

from simple_asr.errors import InvalidParameter
from simple_asr.server.flags import read_flag


@pytest.mark.parametrize("value", ["true", "True", " 1 ", "yes", "y", "on"])
def test_these_are_true(value: str) -> None:
    assert read_flag("stream", value)


@pytest.mark.parametrize("value", ["false", "False", "0", "no", "off", "", "null", "None"])
def test_these_are_false(value: str) -> None:
    assert not read_flag("stream", value)


@pytest.mark.parametrize("value", ["ture", "2", "-1"])
def test_nothing_else_is_either(value: str) -> None:
    with pytest.raises(InvalidParameter, match=f"stream '{value}': should be true or false"):
        read_flag("stream", value)
