"""What is built to be installed has all of the package in it, and works without the checkout."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.support import Clip

ROOT = Path(__file__).parents[2]
PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    run(
        *PIP,
        "wheel",
        "--no-deps",
        "--no-index",
        "--no-build-isolation",
        "--wheel-dir",
        folder,
        ROOT,
    )
    (built,) = folder.glob("simple_asr_server-*-py3-none-any.whl")
    return built


def test_every_file_of_the_package_is_in_the_wheel(wheel: Path) -> None:
    tracked = run("git", "-C", ROOT, "ls-files", "src/simple_asr").split()

    packed = set(zipfile.ZipFile(wheel).namelist())

    assert {name.removeprefix("src/") for name in tracked} - packed == set()


@pytest.mark.weights
def test_the_installed_command_works_without_the_checkout(
    wheel: Path, speech: list[Clip], tmp_path: Path
) -> None:
    clip = next(clip for clip in speech if clip.language == "en")
    place = tmp_path / "installed"
    run(*PIP, "install", "--no-deps", "--no-index", "--target", place, wheel)
    environment = {
        **os.environ,
        "PYTHONPATH": str(place),
        "MODEL_DEVICE": "cpu",
        "HF_HUB_OFFLINE": "1",
    }

    found = run(
        sys.executable,
        "-c",
        "import simple_asr; print(simple_asr.__file__)",
        cwd=tmp_path,
        env=environment,
    )
    text = run(
        place / "bin" / "simple-asr",
        "transcribe",
        clip.path,
        "--model",
        "base",
        "--format",
        "text",
        cwd=tmp_path,
        env=environment,
    )

    assert Path(found.strip()).is_relative_to(place)
    assert text.strip()


def run(*words: str | Path, cwd: Path | None = None, env: dict[str, str] | None = None) -> str:
    done = subprocess.run(words, cwd=cwd, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{words} failed:\n{done.stdout}{done.stderr}"
    return done.stdout
