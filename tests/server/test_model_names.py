"""Which model a request's `model` stands for."""

from __future__ import annotations

import pytest

from simple_asr.errors import ModelNotFound
from simple_asr.server.model_names import read_aliases, resolve
from simple_asr.service.transcriber import ModelState

TURBO = ModelState("ready", requested="turbo", served="turbo")
ALIASES = {"whisper-1": "", "fast": "tiny"}


def test_aliases_stand_for_a_model_or_for_the_served_one() -> None:
    assert read_aliases("whisper-1, fast = tiny,") == ALIASES


@pytest.mark.parametrize("name", [None, "", "turbo", "whisper-1", "TURBO", "large-v3-turbo"])
def test_the_served_model_goes_by_each_of_its_names(name: str | None) -> None:
    assert resolve(name, ALIASES, TURBO) == "turbo"


@pytest.mark.parametrize("name", ["fast", "tiny", "nothing", "../turbo"])
def test_a_model_that_is_not_served_is_not_found(name: str) -> None:
    with pytest.raises(ModelNotFound, match="GET /v1/models"):
        resolve(name, ALIASES, TURBO)


@pytest.mark.parametrize("name", ["turbo", "base", "whisper-1"])
def test_while_another_model_is_served_both_names_stand_for_it(name: str) -> None:
    degraded = ModelState("ready", requested="turbo", served="base")

    assert resolve(name, ALIASES, degraded) == "base"
