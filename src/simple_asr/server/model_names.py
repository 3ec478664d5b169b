"""Which model a request's `model` stands for."""

from __future__ import annotations

from collections.abc import Mapping

from simple_asr.engine.catalogue import find_model
from simple_asr.errors import ModelNotFound
from simple_asr.service.labels import label
from simple_asr.service.transcriber import ModelState


def read_aliases(setting: str) -> dict[str, str]:
    """The setting MODEL_ALIASES, by name: `whisper-1, fast=tiny`. "" is the served model."""
    pairs = (entry.partition("=") for entry in setting.split(",") if entry.strip())
    return {alias.strip(): model.strip() for alias, _, model in pairs}


def resolve(name: str | None, aliases: Mapping[str, str], state: ModelState) -> str:
    """The model to use: the one that is served, or nothing. Raises ModelNotFound.

    None is the served one. While another than DEFAULT_MODEL is served, both names stand for it.
    """
    wanted = aliases.get(name or "", name or "") or state.served
    if _known(wanted) in {_known(state.served), _known(state.requested)}:
        return state.served
    raise ModelNotFound(
        f"The model '{label(wanted)}' is not served here. GET /v1/models lists those that are.",
        field="model",
    )


def _known(name: str) -> str:
    """The name in the catalogue of a name, alias or repository; any other as it is."""
    known = find_model(name)
    return known.name if known is not None else name
