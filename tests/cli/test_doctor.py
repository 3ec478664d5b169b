"""`simple-asr doctor`: how findings are shown, and what it exits with."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator

import pytest
from typer.testing import Result

from simple_asr.cli import doctor
from simple_asr.cli.checks import Finding

Run = Callable[..., Result]
Find = Callable[..., None]

GOOD = Finding("ok", "Port", "9854 is free")
MEDIOCRE = Finding("warning", "Device", "CPU", "Buy a GPU.")
BAD = Finding("error", "Keys", "there are none", "Add one.")


@pytest.fixture
def find(monkeypatch: pytest.MonkeyPatch) -> Find:
    """Makes these the only findings."""

    def find(*findings: Finding) -> None:
        monkeypatch.setattr(doctor, "MACHINE_CHECKS", ())
        monkeypatch.setattr(doctor, "SERVER_CHECKS", (lambda _: iter(findings),))

    return find


@pytest.mark.parametrize(("finding", "code"), [(GOOD, 0), (MEDIOCRE, 0), (BAD, 1)])
def test_only_an_error_keeps_it_from_success(
    run: Run, find: Find, finding: Finding, code: int
) -> None:
    find(GOOD, finding)

    assert run("doctor").exit_code == code


def test_each_finding_has_a_mark_and_says_what_to_do(run: Run, find: Find) -> None:
    find(GOOD, MEDIOCRE, BAD)

    lines = [" ".join(line.split()) for line in run("doctor").stdout.splitlines()]

    assert lines == [
        "✓ Settings all valid",
        "✓ Port 9854 is free",
        "! Device CPU",
        "→ Buy a GPU.",
        "✗ Keys there are none",
        "→ Add one.",
        "",
        "The server cannot work here until what is marked ✗ is mended.",
    ]


def test_what_looks_like_markup_is_shown_as_it_is(run: Run, find: Find) -> None:
    find(Finding("ok", "Keys", "2 in [red]/keys.txt"))

    assert "2 in [red]/keys.txt" in run("doctor").stdout


def test_json_has_all_of_it(run: Run, find: Find) -> None:
    find(BAD)

    document = json.loads(run("doctor", "--json").stdout)

    assert document["can_serve"] is False
    assert document["findings"][-1] == {
        "outcome": "error",
        "subject": "Keys",
        "text": "there are none",
        "advice": "Add one.",
    }


def test_wrong_settings_are_a_finding_beside_those_of_the_machine(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def check_machine() -> Iterator[Finding]:
        yield GOOD

    monkeypatch.setattr(doctor, "MACHINE_CHECKS", (check_machine,))
    monkeypatch.setenv("PORT", "http")

    result = run("doctor")

    assert result.exit_code == 1
    assert "9854 is free" in result.stdout
    assert "✗  Settings" in result.stdout
    assert "PORT" in result.stdout


def test_on_this_machine_it_finds_that_the_server_can_work(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        monkeypatch.setenv("HOST", "127.0.0.1")
        monkeypatch.setenv("PORT", str(probe.getsockname()[1]))

    document = json.loads(run("doctor", "--json").stdout)

    subjects = {finding["subject"] for finding in document["findings"]}
    assert document["can_serve"]
    assert {"Python", "Libraries", "Decoder", "Device", "Model", "Keys", "Jobs", "Port"} <= subjects
