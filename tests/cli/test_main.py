"""The command as a whole: its help, its exit codes, and the way out."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable

import pytest
from typer.testing import CliRunner, Result

from simple_asr import __version__
from simple_asr.cli.main import COMMANDS, app, exit_code, load_command
from simple_asr.errors import (
    AsrError,
    ConfigurationError,
    EngineFailed,
    InvalidParameter,
    ModelUnavailable,
)

Run = Callable[..., Result]


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False)


def test_help_lists_every_command_with_its_summary(run: Run) -> None:
    shown = run("--help").stdout

    for name, summary in COMMANDS.items():
        assert name in shown
        assert summary in shown


@pytest.mark.parametrize("name", COMMANDS)
def test_a_commands_own_help_begins_with_its_summary(name: str) -> None:
    assert load_command(name).help.splitlines()[0] == COMMANDS[name]


def test_help_waits_for_no_library_that_is_slow_to_load() -> None:
    shown = python(
        "-c",
        "import sys\n"
        "from simple_asr.cli.main import app\n"
        "app(['--help'], standalone_mode=False)\n"
        "print(sorted({'pydantic', 'numpy', 'fastapi', 'av', 'ctranslate2'} & set(sys.modules)))",
    )

    assert "transcribe" in shown.stdout
    assert shown.stdout.splitlines()[-1] == "[]"


def test_version_is_the_packages(run: Run) -> None:
    assert run("--version").stdout == f"{__version__}\n"


def test_the_package_runs_as_a_module() -> None:
    shown = python("-m", "simple_asr", "--version")

    assert (shown.returncode, shown.stdout) == (0, f"{__version__}\n")


def test_an_unknown_command_is_answered_with_the_nearest(run: Run) -> None:
    result = run("transcripe")

    assert result.exit_code == 2
    assert "Did you mean 'transcribe'?" in result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigurationError("…"), 78),
        (ModelUnavailable("…"), 78),
        (InvalidParameter("…"), 2),
        (EngineFailed("…"), 1),
        (AsrError("…"), 1),
    ],
)
def test_the_exit_code_tells_whose_fault_it_was(error: AsrError, code: int) -> None:
    assert exit_code(error) == code


def test_wrong_settings_are_a_sentence_and_no_traceback(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PORT", "http")

    result = run("serve")

    assert result.exit_code == 78
    assert result.stdout == ""
    assert result.stderr.startswith("These settings are not valid")
    assert "PORT" in result.stderr
    assert "Traceback" not in result.stderr


def test_settings_come_from_env_file_of_the_folder(run: Run) -> None:
    with open(".env", "w") as env_file:  # noqa: PTH123  (the test's own folder is the current one)
        env_file.write("PORT=http\n")

    assert run("serve").exit_code == 78


def test_an_unforeseen_error_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("simple_asr.cli.keys.generate_key", lambda: 1 / 0)

    result = CliRunner().invoke(app, ["keys", "generate"])

    assert isinstance(result.exception, ZeroDivisionError)


def test_a_thread_that_cannot_be_stopped_does_not_change_the_exit_code() -> None:
    # What runs at Python's own way out stands for libraries that abort there.
    ended = python(
        "-c",
        "import atexit, sys, threading\n"
        "from simple_asr.cli import main\n"
        "def app(**_):\n"
        "    threading.Thread(target=threading.Event().wait, daemon=True).start()\n"
        "    print('transcript')\n"
        "    sys.exit(3)\n"
        "main.app = app\n"
        "atexit.register(print, 'aborted')\n"
        "main.main()",
    )

    assert (ended.returncode, ended.stdout) == (3, "transcript\n")


@pytest.mark.parametrize(
    ("typed", "offered"),
    [("simple-asr tr", "transcribe"), ("simple-asr transcribe --wa", "--watch")],
)
def test_the_shell_completes_commands_and_their_options(typed: str, offered: str) -> None:
    asked = {"_SIMPLE_ASR_COMPLETE": "complete_bash", "COMP_WORDS": typed}
    asked["COMP_CWORD"] = str(len(typed.split()) - 1)

    shown = subprocess.run(
        [sys.executable, "-m", "simple_asr"],
        env={**os.environ, **asked},
        capture_output=True,
        text=True,
        check=False,
    )

    assert shown.stdout.split() == [offered]
