"""The Helm chart fits the program; `helm lint` is asked where it is installed."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import yaml

from simple_asr.settings import Settings

CHART = Path(__file__).parents[2] / "deploy" / "helm" / "simple-asr"


def test_the_chart_uses_the_values_it_has_and_no_others() -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    text = "\n".join(path.read_text() for path in (CHART / "templates").iterdir())

    used = {name.split(".")[0] for name in re.findall(r"\.Values\.([\w.]+)", text)}
    used |= set(re.findall(r'list "(\w+)" "\w+"', text)) | set(
        re.findall(r'list "\w+" "(\w+)"', text)
    )

    assert used == set(values)


def test_the_chart_sets_settings_there_are() -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text())

    assert {name.lower() for name in values["settings"]} <= set(Settings.model_fields)


def test_helm_finds_no_fault_with_the_chart() -> None:
    try:
        lint = subprocess.run(
            ["helm", "lint", "--strict", str(CHART)], capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        pytest.skip("helm is not installed")

    assert lint.returncode == 0, lint.stdout + lint.stderr
