"""docs/compared.md promises nothing that no test holds."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
LINES = (REPOSITORY / "docs" / "compared.md").read_text("utf-8").splitlines()
ROWS = [line for line in LINES if line.startswith("| ") and not line.startswith("| What goes")]


@pytest.fixture(scope="module")
def tests() -> set[str]:
    """The name of every test there is."""
    files = REPOSITORY.glob("tests/**/test_*.py")
    return {name for file in files for name in re.findall(r"def (test_\w+)", file.read_text())}


def test_the_page_has_its_rows() -> None:
    assert len(ROWS) > 30


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[2:42])
def test_every_row_is_held_by_a_test(row: str, tests: set[str]) -> None:
    held_by = set(re.findall(r"`(test_\w+)`", row.rpartition(" | ")[2]))

    assert held_by
    assert held_by <= tests
