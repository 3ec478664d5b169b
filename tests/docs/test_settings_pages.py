""".env.example and docs/settings.md say what the code does; a failure shows the row to paste."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import annotated_types
import pytest

from simple_asr.settings import Settings, load_settings

ROOT = Path(__file__).parents[2]
ENV_EXAMPLE = ROOT / ".env.example"
SETTINGS_PAGE = ROOT / "docs/settings.md"

# The specification's table, as printed there.
SPECIFICATION = {
    "HOST": "0.0.0.0",  # noqa: S104 - the specification's default
    "PORT": "9854",
    "DEFAULT_MODEL": "turbo",
    "MODEL_DEVICE": "cuda",
    "MODEL_DOWNLOAD_ROOT": "./models",
    "KEYS_FILE": "./data/keys.txt",
    "LOG_LEVEL": "info",
    "HSA_OVERRIDE_GFX_VERSION": "10.3.0",
    "AUDIO_SPEEDUP": "1.25",
}

PATTERNS_IN_WORDS = {
    r"^(\d+\.\d+\.\d+)?$": "`x.y.z`, or empty",
    r"^(/[\w.~-]+)*$": "path with a leading `/`, or empty",
    r"^0?[0-7]{3}$": "three octal digits",
    r"^(https?://\S+)?$": "address with `http://` or `https://`, or empty",
    r"^(s3://[a-z0-9][a-z0-9.-]+(/[\w.-]+)*/?)?$": "address with `s3://`, or empty",
    r"^https?://\S+$": "address with `http://` or `https://`",
}


@pytest.fixture(autouse=True)
def _no_settings_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)


def settings_from(text: str, folder: Path) -> Settings:
    """What the server would use if `text` were its .env."""
    env_file = folder / ".env"
    env_file.write_text(text, encoding="utf-8")
    return load_settings(env_file)


# What the code says ---------------------------------------------------------------------------


def default_text(name: str) -> str:
    """A default as one writes it in .env."""
    default = Settings.model_fields[name].default
    if default is None:
        return ""
    if isinstance(default, bool):
        return str(default).lower()
    if isinstance(default, float):
        return f"{default:.15g}"
    if isinstance(default, Path):
        return f"./{default}"
    return str(default)


def allowed_values(name: str) -> str:
    """The words of a choice, the range of a number, the form of a text."""
    variable = Settings.model_fields[name]
    if get_origin(variable.annotation) is Literal:
        return ", ".join(f"`{choice}`" for choice in get_args(variable.annotation))
    if variable.annotation is bool:
        return "`true`, `false`"
    if variable.annotation in (int, float):
        return number_range(variable.metadata)
    if variable.annotation in (Path, Path | None):
        return "path"
    patterns = [rule.pattern for rule in variable.metadata if hasattr(rule, "pattern")]
    return PATTERNS_IN_WORDS[patterns[0]] if patterns else "text"


def number_range(rules: list[Any]) -> str:
    bounds = {type(rule): rule for rule in rules}
    if annotated_types.Gt in bounds:
        return f"above {bounds[annotated_types.Gt].gt}"
    least = bounds[annotated_types.Ge].ge
    if annotated_types.Le in bounds:
        return f"{least} to {bounds[annotated_types.Le].le}"
    return f"{least} or more"


def row(name: str) -> tuple[str, str, str, str]:
    """Variable, default, meaning and range, as docs/settings.md has them."""
    default = default_text(name)
    return (
        f"`{name.upper()}`",
        f"`{default}`" if default else "empty",
        Settings.model_fields[name].description or "",
        allowed_values(name),
    )


# .env.example ---------------------------------------------------------------------------------


def test_the_example_lists_every_variable_with_its_meaning() -> None:
    lines = ENV_EXAMPLE.read_text(encoding="utf-8").splitlines()

    listed = {
        line.removeprefix("#").partition("=")[0]: above.removeprefix("# ")
        for above, line in pairwise(lines)
        if re.match(r"#?[A-Z_]+=", line)
    }

    assert listed == {
        name.upper(): variable.description for name, variable in Settings.model_fields.items()
    }


def test_the_example_shows_the_defaults(tmp_path: Path) -> None:
    example = ENV_EXAMPLE.read_text(encoding="utf-8")
    written_out = re.sub(r"^#([A-Z_]+=)", r"\1", example, flags=re.MULTILINE)

    assert settings_from(written_out, tmp_path) == settings_from("", tmp_path)


def test_the_example_copied_as_it_is_changes_nothing() -> None:
    assert not re.findall(r"^[^#\n].*", ENV_EXAMPLE.read_text(encoding="utf-8"), re.MULTILINE)


# docs/settings.md -----------------------------------------------------------------------------


def test_the_page_has_a_row_for_every_variable() -> None:
    page = SETTINGS_PAGE.read_text(encoding="utf-8")

    rows = [
        tuple(cell.strip() for cell in line.strip("|").split(" | "))
        for line in page.splitlines()
        if re.match(r"\| `[A-Z_]+` \|", line)
    ]

    assert rows == [row(name) for name in Settings.model_fields]


@pytest.mark.parametrize("name", SPECIFICATION)
def test_a_variable_of_the_specification_has_its_default(name: str, tmp_path: Path) -> None:
    as_specified = settings_from(f"{name}={SPECIFICATION[name]}", tmp_path)

    assert name.lower() in Settings.model_fields
    assert as_specified == settings_from("", tmp_path)


def test_the_page_shows_the_specifications_variables_first() -> None:
    page = SETTINGS_PAGE.read_text(encoding="utf-8")

    shown = re.findall(r"^\| `([A-Z_]+)` \| `([^`]*)`", page, re.MULTILINE)

    assert shown[: len(SPECIFICATION)] == list(SPECIFICATION.items())


def test_every_example_of_the_page_is_a_valid_env_file(tmp_path: Path) -> None:
    page = SETTINGS_PAGE.read_text(encoding="utf-8")

    examples = re.findall(r"^```env\n(.*?)^```", page, re.DOTALL | re.MULTILINE)

    assert examples
    for example in examples:
        assert settings_from(example, tmp_path) != settings_from("", tmp_path)
        names = re.findall(r"^([A-Za-z_]+)=", example, re.MULTILINE)
        assert {name.lower() for name in names} <= set(Settings.model_fields)
