"""The arithmetic of docs/cluster.md, done again from the figures it begins with."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest

PAGE = (Path(__file__).parents[2] / "docs" / "cluster.md").read_text(encoding="utf-8")
SHARE_OF_TIME = 0.7
PEAK = 2.5
# Audio seconds a second: as the page's first table has them.
H100, TWO_CORES = 800, 20


def rows(after: str) -> list[list[str]]:
    """Cells of the first table below a text."""
    table = PAGE[PAGE.index(after) :].split("\n|", 1)[1].split("\n\n", 1)[0]
    cells = [[cell.strip() for cell in line.strip("| ").split("|")] for line in table.split("\n")]
    return cells[2:]


def number(text: str) -> float:
    return float(re.sub(r"[ $,]", "", text))


def machines(audio_per_second: float, speed: float, peak: float = 1) -> int:
    return math.ceil(audio_per_second * peak / (speed * SHARE_OF_TIME))


def test_the_arithmetic_begins_with_the_figures_of_the_page() -> None:
    speeds = dict(zip(("H100", "two cores"), rows("Two figures to begin with"), strict=True))

    assert number(speeds["H100"][1]) == H100
    assert f"{TWO_CORES} below" in speeds["two cores"][2]


@pytest.mark.parametrize("row", rows("where `peak` is"), ids=lambda row: row[0])
def test_as_many_machines_as_the_formula_says(row: list[str]) -> None:
    hours, mean, *counts = map(number, row)

    audio_per_second = hours * 3600 / 86_400

    assert mean == round(audio_per_second)
    assert counts == [
        machines(audio_per_second, H100),
        machines(audio_per_second, H100, PEAK),
        machines(audio_per_second, TWO_CORES),
    ]


@pytest.mark.parametrize("row", rows("**Cost of an audio hour**"), ids=lambda row: row[0])
def test_an_audio_hour_costs_what_its_share_of_a_machine_hour_does(row: list[str]) -> None:
    _, price, hours, cost, cost_of_a_million = row

    assert number(cost) == pytest.approx(number(price) / number(hours), abs=6e-5)
    assert number(cost_of_a_million) == pytest.approx(1e6 * number(price) / number(hours), rel=2e-3)
