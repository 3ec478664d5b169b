"""`simple-asr keys`: what is printed, what is not, and what becomes of the key file."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

from simple_asr.service.keys import parse_keys

Run = Callable[..., Result]

KEYS_FILE = Path("data/keys.txt")
ALICES = "a1" * 32
BOBS = "b2" * 32


@pytest.fixture
def two_keys(home: Path) -> Path:
    """Alice's and Bob's."""
    path = home / KEYS_FILE
    path.parent.mkdir()
    path.write_text(f"{ALICES}  # alice\n{BOBS}  # bob\n")
    return path


def keys_in(path: Path) -> dict[str, str]:
    """Keys by name."""
    return {line.name: line.key for line in parse_keys(path.read_bytes())}


def test_a_key_that_is_made_is_all_there_is_on_standard_output(run: Run) -> None:
    result = run("keys", "add", "--name", "alice")

    assert re.fullmatch(r"[0-9a-f]{64}\n", result.stdout)
    assert keys_in(KEYS_FILE) == {"alice": result.stdout.strip()}


def test_a_key_that_is_given_is_not_printed(run: Run) -> None:
    result = run("keys", "add", ALICES)

    assert ALICES not in result.output
    assert list(keys_in(KEYS_FILE).values()) == [ALICES]


def test_a_key_that_cannot_be_is_refused(run: Run) -> None:
    result = run("keys", "add", "two words")

    assert result.exit_code == 2
    assert "without spaces" in result.stderr
    assert not KEYS_FILE.exists()


@pytest.mark.usefixtures("two_keys")
def test_the_list_shows_names_and_beginnings_and_no_key(run: Run) -> None:
    shown = run("keys", "list").stdout

    assert [line.split() for line in shown.splitlines()] == [
        ["Name", "Key", "Line"],
        ["alice", "a1a1…", "1"],
        ["bob", "b2b2…", "2"],
    ]


def test_a_name_is_shown_as_it_is_written(run: Run) -> None:
    run("keys", "add", "--name", "[bold]alice[/bold]")

    assert "[bold]alice[/bold]" in run("keys", "list").stdout


@pytest.mark.parametrize("given", ["bob", "b2b2", BOBS])
def test_a_key_is_revoked_by_name_or_beginning(run: Run, two_keys: Path, given: str) -> None:
    result = run("keys", "revoke", given)

    assert result.exit_code == 0
    assert "Revoked bob (b2b2…)" in result.stderr
    assert keys_in(two_keys) == {"alice": ALICES}


def test_a_key_nobody_has_is_not_revoked(run: Run, two_keys: Path) -> None:
    result = run("keys", "revoke", "carol")

    assert result.exit_code == 2
    assert "`simple-asr keys list`" in result.stderr
    assert len(keys_in(two_keys)) == 2


def test_a_generated_key_is_printed_and_kept_nowhere(run: Run, home: Path) -> None:
    result = run("keys", "generate")

    assert re.fullmatch(r"[0-9a-f]{64}\n", result.stdout)
    assert list(home.iterdir()) == []


def test_no_key_file_is_an_error_that_says_how_to_make_one(run: Run) -> None:
    result = run("keys", "list")

    assert result.exit_code == 78
    assert result.stderr == "There is no key file. Make one with `simple-asr keys add`.\n"


def test_the_key_file_is_the_one_of_the_settings(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEYS_FILE", "secrets/asr")

    run("keys", "add", "--name", "alice")

    assert list(keys_in(Path("secrets/asr"))) == ["alice"]


def test_another_key_file_can_be_named(run: Run, two_keys: Path) -> None:
    run("keys", "add", "--name", "carol", "--file", "other.txt")

    assert list(keys_in(Path("other.txt"))) == ["carol"]
    assert len(keys_in(two_keys)) == 2
