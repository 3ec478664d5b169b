"""The Helm chart fits the program, as Helm and kubernetes-validate see it where there are any."""

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
    helm("lint", "--strict", str(CHART))


EVERY_CHOICE = [
    "keysSecret=keys",
    "storageClass=fast",
    "nodeSelector.gpu=yes",
    "resources.limits.nvidia\\.com/gpu=1",
]


@pytest.mark.parametrize("chosen", [[], EVERY_CHOICE], ids=["as it is", "every choice made"])
def test_kubernetes_takes_what_the_chart_makes(chosen: list[str]) -> None:
    schemas = pytest.importorskip("kubernetes_validate", reason="kubernetes-validate is missing")
    settings = [word for choice in chosen for word in ("--set", choice)]

    made = list(yaml.safe_load_all(helm("template", "asr", str(CHART), *settings)))

    assert len(made) == 4
    for resource in made:
        schemas.validate(resource, schemas.latest_version(), strict=True)


def helm(*words: str) -> str:
    try:
        done = subprocess.run(["helm", *words], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("helm is not installed")
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
