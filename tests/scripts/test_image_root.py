"""How scripts/image_root.py reads the Dockerfile. To run it takes root and minutes."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def image_root() -> ModuleType:
    spec = importlib.util.spec_from_file_location("image_root", ROOT / "scripts/image_root.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["image_root"] = module  # where dataclasses looks for it
    spec.loader.exec_module(module)
    return module


def no_stage(name: str) -> object:
    raise AssertionError(f"the stage {name} is not asked for")


def test_every_instruction_of_an_image_is_one_it_can_follow(image_root: ModuleType) -> None:
    known = {"RUN", "COPY", "ENV", *image_root.SETS, *image_root.WITHOUT_EFFECT}
    stages = image_root.read_stages((ROOT / "deploy" / "Dockerfile").read_text())

    used = {name for target in ("build", "cpu", "cuda") for name, _ in stages[target].steps}

    assert used - known == set()


def test_what_it_cannot_follow_ends_it(image_root: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="ONBUILD RUN true"):
        image_root.take_step(image_root.Image(tmp_path), "ONBUILD", "RUN true", no_stage)


def test_only_what_git_keeps_is_copied(image_root: ModuleType, tmp_path: Path) -> None:
    image = image_root.Image(tmp_path, workdir="/app")

    image_root.copy(image, ["README.md", "LICENSE", "./"], no_stage)
    image_root.copy(image, ["src", "src"], no_stage)
    image_root.copy(image, ["requirements/run.txt", "requirements/"], no_stage)

    copied = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert {"app/README.md", "app/LICENSE", "app/requirements/run.txt"} <= copied
    assert "app/src/simple_asr/errors.py" in copied
    assert not any("__pycache__" in path for path in copied)


def test_a_path_is_put_before_the_one_there_was(image_root: ModuleType) -> None:
    after = image_root.with_variables({"PATH": "/bin"}, "PATH=/app/bin:$PATH PORT=9854")

    assert after == {"PATH": "/app/bin:/bin", "PORT": "9854"}
