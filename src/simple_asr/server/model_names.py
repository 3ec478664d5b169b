"""Which model a request's `model` stands for."""

from __future__ import annotations

from collections.abc import Mapping


def read_aliases(setting: str) -> dict[str, str]:
    """The setting MODEL_ALIASES, by name: `whisper-1, fast=tiny`. "" is the served model."""
    pairs = (entry.partition("=") for entry in setting.split(",") if entry.strip())
    return {alias.strip(): model.strip() for alias, _, model in pairs}


def resolve(name: str | None, aliases: Mapping[str, str]) -> str | None:
    """The model a name stands for, which may not exist; None is the default one."""
    return aliases.get(name or "", name or "") or None
