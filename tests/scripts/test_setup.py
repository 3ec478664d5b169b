"""start_server.sh, run_tests.sh and scripts/setup.sh, with a stand-in for Python that installs
nothing: it writes down what pip was asked for, and fails where a test tells it to."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# All that the scripts may use besides Python and what every shell has built in.
TOOLS = ["cat", "cksum", "cp", "date", "dirname", "grep", "mkdir", "rm", "sh"]

PYTHON_STAND_IN = r"""#!/bin/sh
case "$1 $2" in
    "-c "*version_info*) echo "VERSION" ;;
    "-c "*ensurepip*) HAS_VENV ;;
    "-c "*fcntl*) exec "REAL_PYTHON" "$@" ;;
    "-c "*simple_asr*) [ -e .venv/bin/simple-asr ] ;;
    "-m venv")
        mkdir -p "$3/bin"
        cp "$0" "$3/bin/python"
        echo "#!$PWD/$3/bin/python" >"$3/bin/pip"
        ;;
    "-m pip")
        if [ "$3" = install ]; then
            echo "$*" >>pip.log
            eval "${DURING_PIP:-}"
            cp ../commands/* .venv/bin/
        fi
        ;;
esac
"""

COMMAND_STAND_IN = """#!/bin/sh
echo "${0##*/} $*"
[ "${0##*/}" != "${FAILING:-}" ]
"""


@dataclass
class Checkout:
    """A copy of the scripts in a folder of its own, on a machine with the given Pythons only."""

    root: Path
    pythons: Path
    tools: Path
    processes: list[subprocess.Popen[str]] = field(default_factory=list)

    def add_python(self, name: str, version: str, *, has_venv: bool = True) -> Path:
        text = PYTHON_STAND_IN.replace("VERSION", version)
        text = text.replace("HAS_VENV", "true" if has_venv else "false")
        text = text.replace("REAL_PYTHON", sys.executable)
        return write_command(self.pythons / name, text)

    def run(
        self, command: str = "start_server.sh", *arguments: str, shell: str = "sh", **env: str
    ) -> subprocess.CompletedProcess[str]:
        process = self.begin(command, *arguments, shell=shell, **env)
        output, _ = process.communicate()
        return subprocess.CompletedProcess(process.args, process.returncode, output)

    def begin(
        self, command: str, *arguments: str, shell: str = "sh", **env: str
    ) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [shutil.which(shell) or shell, str(self.root / command), *arguments],
            cwd="/",
            env={"PATH": f"{self.pythons}:{self.tools}", **env},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            # A job in the background is born deaf to Ctrl-C; these must hear it.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
        )
        self.processes.append(process)
        return process

    def installs(self) -> list[str]:
        """What pip was asked to install, one line a call."""
        log = self.root / "pip.log"
        return log.read_text().splitlines() if log.exists() else []

    def snapshot(self) -> dict[Path, int]:
        """Every file and folder, with when it last changed."""
        return {path: path.stat().st_mtime_ns for path in self.root.rglob("*")}


def write_command(path: Path, text: str) -> Path:
    path.write_text(text)
    path.chmod(0o755)
    return path


@pytest.fixture
def checkout(tmp_path: Path) -> Iterator[Checkout]:
    root = tmp_path / "a folder"
    (root / "scripts").mkdir(parents=True)
    (root / "requirements").mkdir()
    for name in ("start_server.sh", "run_tests.sh", "scripts/setup.sh"):
        shutil.copy(ROOT / name, root / name)
    for name in (
        "pyproject.toml",
        "requirements/run.txt",
        "requirements/cluster.txt",
        "requirements/otel.txt",
        "requirements/s3.txt",
        "requirements/test.txt",
    ):
        (root / name).write_text(f"# {name}\n")
    pythons, tools, commands = (tmp_path / name for name in ("pythons", "tools", "commands"))
    for folder in (pythons, tools, commands):
        folder.mkdir()
    for name in TOOLS:
        (tools / name).symlink_to(shutil.which(name) or name)
    for name in ("simple-asr", "ruff", "mypy", "lint-imports", "pytest"):
        write_command(commands / name, COMMAND_STAND_IN)

    made = Checkout(root, pythons, tools)
    yield made

    for process in made.processes:
        with process:  # Closes its pipe and waits for it.
            process.kill()


# A start --------------------------------------------------------------------------------------


def test_the_first_start_installs_the_locked_set_and_serves(checkout: Checkout) -> None:
    checkout.add_python("python3", "3.11")

    start = checkout.run("start_server.sh", "--port", "9000")

    assert start.returncode == 0, start.stdout
    assert start.stdout.splitlines()[-1] == "simple-asr serve --port 9000"
    packages, project = checkout.installs()
    assert "--require-hashes" in packages
    assert "--only-binary :all:" in packages
    assert packages.endswith("--requirement requirements/run.txt")
    assert "--no-deps --no-build-isolation --editable ." in project


def test_a_start_as_a_cluster_installs_ray_too(checkout: Checkout) -> None:
    checkout.add_python("python3", "3.11")
    checkout.run()

    start = checkout.run("start_server.sh", "--cluster", "--port", "9000")

    assert start.stdout.splitlines()[-1] == "simple-asr serve --cluster --port 9000"
    assert checkout.installs()[2].endswith("--requirement requirements/cluster.txt")


@pytest.mark.parametrize(
    ("line", "variables", "package_set"),
    [
        ("OTEL_EXPORTER_OTLP_ENDPOINT=http://localhost:4318", {}, "otel"),
        ("", {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://localhost:4318"}, "otel"),
        ("JOB_FILES_URL=s3://talks", {}, "s3"),
        ("", {"JOB_FILES_URL": "s3://talks"}, "s3"),
        ("JOB_FILES_URL=s3://talks\nOTEL_EXPORTER_OTLP_ENDPOINT=http://localhost:4318", {}, "s3"),
    ],
)
def test_a_start_installs_what_its_settings_need(
    checkout: Checkout, line: str, variables: dict[str, str], package_set: str
) -> None:
    checkout.add_python("python3", "3.11")
    (checkout.root / ".env").write_text(f"{line}\n")

    checkout.run("start_server.sh", **variables)

    assert checkout.installs()[0].endswith(f"--requirement requirements/{package_set}.txt")


def test_a_start_alone_after_one_as_a_cluster_changes_nothing(checkout: Checkout) -> None:
    checkout.add_python("python3", "3.11")
    checkout.run("start_server.sh", "--cluster")
    before = checkout.snapshot()

    checkout.run()

    assert checkout.snapshot() == before


def test_a_second_start_changes_nothing(checkout: Checkout) -> None:
    checkout.add_python("python3", "3.11")
    checkout.run()
    before = checkout.snapshot()

    second = checkout.run("start_server.sh", "--port", "9000")

    assert second.stdout == "simple-asr serve --port 9000\n"
    assert checkout.snapshot() == before


@pytest.mark.parametrize("changed", ["requirements/run.txt", "pyproject.toml", "scripts/setup.sh"])
def test_changed_requirements_are_installed_at_the_next_start(
    checkout: Checkout, changed: str
) -> None:
    checkout.add_python("python3", "3.11")
    checkout.run()
    with (checkout.root / changed).open("a") as file:
        file.write("# changed\n")

    start = checkout.run()

    assert start.returncode == 0, start.stdout
    assert len(checkout.installs()) == 4
    assert "Making .venv" not in start.stdout


def test_the_scripts_of_this_project_can_be_executed() -> None:
    for name in ("start_server.sh", "run_tests.sh", "scripts/setup.sh", ".ci/run"):
        assert os.access(ROOT / name, os.X_OK), f"{name} is not executable: chmod +x {name}"


# Which Python ---------------------------------------------------------------------------------


def test_without_python_it_says_which_package_to_install(checkout: Checkout) -> None:
    start = checkout.run()

    assert start.returncode == 1
    assert "No Python 3.10 to 3.14 was found" in start.stdout
    assert "sudo apt install python3 python3-venv" in start.stdout


def test_a_python_that_is_too_old_is_refused_by_name_and_version(checkout: Checkout) -> None:
    old = checkout.add_python("old-python", "3.8")

    start = checkout.run(PYTHON=str(old))

    assert start.returncode == 1
    assert f"{old} is Python 3.8." in start.stdout
    assert not (checkout.root / ".venv").exists()


def test_a_python_without_venv_names_the_package_of_its_version(checkout: Checkout) -> None:
    checkout.add_python("python3", "3.12", has_venv=False)

    start = checkout.run()

    assert start.returncode == 1
    assert "sudo apt install python3.12-venv" in start.stdout
    assert not (checkout.root / ".venv").exists()


def test_an_older_python_that_has_venv_serves_where_a_newer_one_lacks_it(
    checkout: Checkout,
) -> None:
    checkout.add_python("python3.12", "3.12", has_venv=False)
    checkout.add_python("python3.10", "3.10")

    start = checkout.run()

    assert start.returncode == 0, start.stdout
    assert "Making .venv with python3.10 (Python 3.10)" in start.stdout


def test_naming_another_python_makes_the_environment_anew(checkout: Checkout) -> None:
    checkout.add_python("python3.11", "3.11")
    checkout.add_python("python3.10", "3.10")
    checkout.run()

    start = checkout.run(PYTHON="python3.10")

    assert "Making .venv with python3.10" in start.stdout


# A setup that went wrong ----------------------------------------------------------------------


def test_a_failed_install_does_not_serve_and_is_tried_again(checkout: Checkout) -> None:
    checkout.add_python("python3", "3.11")

    failed = checkout.run(DURING_PIP="exit 1")
    again = checkout.run()

    assert failed.returncode == 1
    assert "The packages could not be installed" in failed.stdout
    assert "simple-asr" not in failed.stdout
    assert again.returncode == 0, again.stdout
    assert "Making .venv" not in again.stdout


@pytest.mark.parametrize("shell", ["sh", "bash"])
@pytest.mark.parametrize("signal_name", ["INT", "TERM", "KILL"])
def test_an_install_that_was_cut_off_is_begun_anew(
    checkout: Checkout, shell: str, signal_name: str
) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"There is no {shell} here.")
    checkout.add_python("python3", "3.11")

    # pip leaves with 1 when it is interrupted, as when it fails by itself.
    cut_off = checkout.run(
        "scripts/setup.sh", "run", shell=shell, DURING_PIP=f"kill -{signal_name} $PPID; exit 1"
    )
    again = checkout.run()

    assert cut_off.returncode != 0
    assert "Making .venv" in again.stdout
    assert again.returncode == 0, again.stdout


def test_an_environment_whose_python_is_gone_is_made_anew(checkout: Checkout) -> None:
    checkout.add_python("python3", "3.11")
    checkout.run()
    (checkout.root / ".venv/bin/python").unlink()

    start = checkout.run()

    assert "Making .venv" in start.stdout
    assert start.returncode == 0, start.stdout


def test_an_environment_is_made_anew_where_the_folder_was_moved(checkout: Checkout) -> None:
    checkout.add_python("python3", "3.11")
    checkout.run()
    checkout.root = checkout.root.rename(checkout.root.with_name("moved"))

    start = checkout.run()

    assert "Making .venv" in start.stdout
    assert start.returncode == 0, start.stdout


@pytest.mark.timeout(60)
def test_of_two_starts_at_once_one_installs_and_both_serve(checkout: Checkout) -> None:
    checkout.add_python("python3", "3.11")
    pip_runs, pip_may_end = checkout.root / "pip-runs", checkout.root / "pip-may-end"
    os.mkfifo(pip_runs)
    os.mkfifo(pip_may_end)
    wait = 'case "$*" in *requirement*) echo >pip-runs; read -r _ <pip-may-end ;; esac'

    first = checkout.begin("start_server.sh", DURING_PIP=wait)
    pip_runs.read_text()
    second = checkout.begin("start_server.sh", DURING_PIP=wait)
    assert second.stdout is not None
    waiting = second.stdout.readline()
    pip_may_end.write_text("\n")

    assert "Waiting for another start" in waiting
    assert first.communicate()[0].endswith("simple-asr serve\n")
    assert second.communicate()[0] == "simple-asr serve\n"
    assert len(checkout.installs()) == 2


# The tests ------------------------------------------------------------------------------------


def test_the_test_run_installs_its_own_set_which_also_serves(checkout: Checkout) -> None:
    checkout.add_python("python3", "3.11")

    tests = checkout.run("run_tests.sh")
    start = checkout.run("start_server.sh")

    assert tests.returncode == 0, tests.stdout
    assert checkout.installs()[0].endswith("--requirement requirements/test.txt")
    assert start.stdout == "simple-asr serve\n"


def test_the_locked_test_set_holds_the_locked_run_set() -> None:
    run, test = (
        set(re.findall(r"^[a-z0-9][^\\; ]+", (ROOT / f"requirements/{name}.txt").read_text(), re.M))
        for name in ("run", "test")
    )

    assert run
    assert run <= test


@pytest.mark.parametrize("failing", ["ruff", "mypy", "lint-imports", "pytest"])
def test_a_failed_check_fails_the_run_and_the_others_run_all_the_same(
    checkout: Checkout, failing: str
) -> None:
    checkout.add_python("python3", "3.11")

    tests = checkout.run("run_tests.sh", FAILING=failing)

    assert tests.returncode == 1
    assert re.findall(r"^== (\w+)", tests.stdout, re.M) == [
        "format",
        "lint",
        "types",
        "layers",
        "tests",
    ]
    assert "FAILED" in tests.stdout


def test_arguments_of_the_test_run_go_to_pytest_alone(checkout: Checkout) -> None:
    checkout.add_python("python3", "3.11")

    tests = checkout.run("run_tests.sh", "-k", "two words")

    assert "pytest --numprocesses auto -k two words\n" in tests.stdout
    assert "mypy \n" in tests.stdout
