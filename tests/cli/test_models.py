"""`simple-asr models`: what is listed, and what a download leaves."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from typer.testing import Result

from simple_asr.engine.catalogue import KNOWN_MODELS
from simple_asr.engine.fake_hub import FakeHub

Run = Callable[..., Result]

NAME = "someone/whisper-ct2"
FILES = {
    "config.json": b"{}",
    "model.bin": bytes(range(256)) * 2000,
    "tokenizer.json": b'{"model": {}}',
    "vocabulary.json": b'["a", "b"]',
}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    with FakeHub() as hub:
        hub.publish(NAME, FILES)
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        monkeypatch.setenv("HF_HUB_OFFLINE", "false")
        yield hub


def test_the_list_has_every_known_model(run: Run) -> None:
    lines = run("models", "list").stdout.splitlines()

    assert [line.split()[0] for line in lines] == ["Name", *KNOWN_MODELS]


def test_the_list_says_where_a_model_is_and_how_large(run: Run) -> None:
    rows = {line.split()[0]: line for line in run("models", "list").stdout.splitlines()}

    assert "installed with the server" in rows["base"]
    assert "on the hub" in rows["turbo"]
    assert "1618 MB" in rows["turbo"]
    assert "also 'large-v3-turbo'" in rows["turbo"]


@pytest.mark.usefixtures("hub")
def test_a_download_prints_the_folder_and_nothing_else(run: Run) -> None:
    result = run("models", "download", NAME)

    folder = Path(result.stdout.removesuffix("\n"))
    assert result.exit_code == 0
    assert (folder / "model.bin").read_bytes() == FILES["model.bin"]
    assert result.stderr == ""


@pytest.mark.usefixtures("hub")
def test_a_downloaded_model_is_listed_as_local(run: Run) -> None:
    run("models", "download", NAME)

    [row] = [line for line in run("models", "list").stdout.splitlines() if NAME in line]
    assert "local" in row


def test_a_model_nobody_has_is_an_error_that_names_the_nearest(run: Run) -> None:
    result = run("models", "download", "trubo")

    assert result.exit_code == 78
    assert "The nearest known name is 'turbo'." in result.stderr
    assert result.stdout == ""


def test_a_hub_that_does_not_answer_is_an_error_that_says_what_to_do(run: Run) -> None:
    result = run("models", "download", "small")

    assert result.exit_code == 78
    assert "HF_HUB_OFFLINE" in result.stderr
