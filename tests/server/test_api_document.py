"""docs/api.md says what the code does: its tables hold every row, and its tests exist."""

from __future__ import annotations

import inspect
import json
import re
from pathlib import Path
from typing import Any

import pytest

from simple_asr import errors
from simple_asr.errors import AsrError, Cancelled, ConfigurationError, InvalidKeyFile
from simple_asr.server import problems
from simple_asr.server.problems import status_of
from simple_asr.service.parameters import parameter_schemas
from simple_asr.transcript.formats import FORMATS

REPOSITORY = Path(__file__).parents[2]
DOCUMENT = (REPOSITORY / "docs" / "api.md").read_text(encoding="utf-8")
ROWS = {line.strip() for line in DOCUMENT.splitlines() if line.startswith("|")}


@pytest.mark.parametrize("name", list(parameter_schemas()))
def test_every_parameter_has_its_row(name: str) -> None:
    schema = parameter_schemas()[name]

    row = f"| `{name}` | {kind(schema)} | {default(schema)} | {schema['description']} |"

    assert row in ROWS


@pytest.mark.parametrize("name", list(FORMATS))
def test_every_format_has_its_row(name: str) -> None:
    format_ = FORMATS[name]

    assert f"| `{name}` | `{format_.media_type}` | {format_.meaning} |" in ROWS


def visible_errors() -> list[type[AsrError]]:
    """Those a caller can be answered with over HTTP."""
    found = [
        kind
        for module in (errors, problems)
        for _, kind in inspect.getmembers(module, inspect.isclass)
        if issubclass(kind, AsrError) and kind.__module__ == module.__name__
    ]
    at_start = [kind for kind in found if issubclass(kind, ConfigurationError)]
    unseen = {errors.SeveralErrors, Cancelled, *at_start} - {InvalidKeyFile}
    # A base stands for nothing of its own.
    bases = {base for kind in found for base in kind.__bases__} - {AsrError, errors.RequestError}
    return [kind for kind in found if kind not in unseen | bases]


@pytest.mark.parametrize("kind", visible_errors())
def test_every_error_has_its_row(kind: type[AsrError]) -> None:
    start = f"| {status_of(kind('What happened.'))} | `{kind.code}` |"

    assert [row for row in ROWS if row.startswith(start)] != []


def test_every_test_the_document_names_exists() -> None:
    tests = "\n".join(path.read_text(encoding="utf-8") for path in REPOSITORY.glob("tests/**/*.py"))
    named = set(re.findall(r"`(test_\w+)`", DOCUMENT))

    missing = {name for name in named if f"def {name}(" not in tests}

    assert len(named) > 10
    assert missing == set()


def kind(schema: dict[str, Any]) -> str:
    """A JSON schema in words, with its range."""
    if "anyOf" in schema:
        return kind(schema["anyOf"][0])
    if "const" in schema:
        return f"`{schema['const']}`"
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    if schema["type"] == "array":
        return f"list of {schema['items']['type']}s"
    return f"{schema['type']}{bounds(schema)}"


def bounds(schema: dict[str, Any]) -> str:
    if "exclusiveMinimum" in schema:
        most = f", at most {schema['maximum']}" if "maximum" in schema else ""
        return f" above {schema['exclusiveMinimum']}{most}"
    return f", {schema['minimum']} to {schema['maximum']}" if "minimum" in schema else ""


def default(schema: dict[str, Any]) -> str:
    value = schema.get("default")
    if value is None:
        return "absent"
    return f"`{value if isinstance(value, str) else json.dumps(value)}`"
