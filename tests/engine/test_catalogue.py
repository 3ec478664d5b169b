"""Names, aliases and repositories lead to one row; a request reaches nothing but the table."""

from __future__ import annotations

import re

import pytest

from simple_asr.engine.catalogue import KNOWN_MODELS, PublishedModel, find_model, known_name
from simple_asr.errors import InvalidParameter


def test_every_model_of_the_specification_has_a_name() -> None:
    named = ["tiny", "base", "small", "medium", "large", "turbo"]

    assert all(known_name(name) for name in named)


@pytest.mark.parametrize(
    ("alias", "name"),
    [("large", "large-v3"), ("large-v3-turbo", "turbo"), ("Turbo", "turbo"), (" base ", "base")],
)
def test_an_alias_is_the_model_it_stands_for(alias: str, name: str) -> None:
    assert known_name(alias) == name


def test_a_repository_of_the_table_is_the_known_model() -> None:
    assert find_model("Systran/faster-whisper-base") is KNOWN_MODELS["base"]


@pytest.mark.parametrize(
    "name", ["../../etc", "/models/base", "./base", "Systran/faster-whisper-base", ""]
)
def test_a_request_names_models_of_the_table_and_never_a_path_or_repository(name: str) -> None:
    with pytest.raises(InvalidParameter) as refused:
        known_name(name)

    assert refused.value.field == "model"


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(InvalidParameter, match=r"'tubro' is not .* nearest known name is 'turbo'"):
        known_name("tubro")


def test_a_name_like_no_other_is_answered_with_all() -> None:
    with pytest.raises(InvalidParameter, match=r"Known are tiny, .*turbo"):
        known_name("zzzzzz")


def test_no_name_stands_for_two_models() -> None:
    names = [name for model in KNOWN_MODELS.values() for name in (model.name, *model.aliases)]

    assert len(names) == len(set(names))


@pytest.mark.parametrize("model", KNOWN_MODELS.values(), ids=lambda model: model.name)
def test_a_digest_comes_with_the_revision_it_was_taken_at(model: PublishedModel) -> None:
    assert bool(model.sha256) == bool(model.revision)
    assert all(re.fullmatch(r"[0-9a-f]{64}", sha256) for sha256 in model.sha256.values())
