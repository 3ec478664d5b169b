"""A hub's listing, its files, and each of its refusals; against a hub on this machine."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from simple_asr.engine.fake_hub import FakeHub
from simple_asr.engine.hub import MAX_TRIES, Hub
from simple_asr.errors import ModelUnavailable
from tests.support import free_port

NAME = "someone/whisper-ct2"
WEIGHTS = bytes(range(256)) * 2000
FILES = {"config.json": b'{"a": 1}', "model.bin": WEIGHTS}


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "*")


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with FakeHub() as hub:
        hub.publish(NAME, FILES)
        yield hub


def client(hub: FakeHub, token: str | None = None) -> Hub:
    return Hub(hub.endpoint, token, pause=0)


def fetch(hub: FakeHub, path: Path, token: str | None = None) -> list[int]:
    """Fetches model.bin to `path`; returns the progress it told."""
    told: list[int] = []
    client(hub, token).open(NAME).fetch("model.bin", path, told.append)
    return told


# What there is -----------------------------------------------------------------------------------


def test_a_listing_is_of_one_commit_with_sizes_and_digests(hub: FakeHub) -> None:
    hub.publish(NAME, FILES, commit="a" * 40)

    repository = client(hub).open(NAME)

    assert repository.version == "a" * 40
    assert repository.sizes == {"config.json": 8, "model.bin": len(WEIGHTS)}
    assert repository.sha256.keys() == {"model.bin"}


def test_files_are_fetched_from_the_commit_that_was_listed(hub: FakeHub, tmp_path: Path) -> None:
    repository = client(hub).open(NAME)

    repository.fetch("config.json", tmp_path / "config.json", lambda _: None)

    assert hub.asked[-1].path == f"/{NAME}/resolve/{'c' * 40}/config.json"


@pytest.mark.parametrize("commit", ["main", "../../../etc", "C" * 40])
def test_what_is_not_a_commit_is_not_a_hubs_answer(hub: FakeHub, commit: str) -> None:
    hub.publish(NAME, FILES, commit=commit)

    with pytest.raises(ModelUnavailable, match="does not answer as a model hub"):
        client(hub).open(NAME)


# Refusals ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "token", "revision", "text"),
    [
        ("no/such", None, None, "shows no repository 'no/such'. Check the name, or set HF_TOKEN"),
        ("no/such", "mine", None, "has no repository 'no/such'"),
        ("its/private", None, None, "set HF_TOKEN if it is a private one"),
        ("its/private", "expired", None, "does not accept the token in HF_TOKEN"),
        ("its/gated", "mine", None, "denies access to 'its/gated'. Accept its terms"),
        (NAME, None, "d" * 40, "not the revision this server knows"),
    ],
)
def test_each_refusal_says_what_to_do(
    hub: FakeHub, name: str, token: str | None, revision: str | None, text: str
) -> None:
    hub.publish("its/private", FILES, token="secret")
    hub.publish("its/gated", FILES, is_gated=True)

    with pytest.raises(ModelUnavailable) as refused:
        client(hub, token).open(name, revision)

    assert text in refused.value.detail
    assert "expired" not in refused.value.detail


def test_a_closed_port_is_named_as_such() -> None:
    port = free_port()

    with pytest.raises(ModelUnavailable, match=rf"127.0.0.1:{port} .*\(connection refused\)"):
        Hub(f"http://127.0.0.1:{port}").open(NAME)


def test_a_hub_that_never_answers_is_given_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        hub = Hub(f"http://127.0.0.1:{silent.getsockname()[1]}", patience=0.05)

        with pytest.raises(ModelUnavailable, match=r"no answer within 0\.05 seconds"):
            hub.open(NAME)


@pytest.mark.parametrize("endpoint", ["http://[broken", "ftp://hub.example", "http://"])
def test_an_address_that_is_none_is_refused_with_a_reason(endpoint: str) -> None:
    with pytest.raises(ModelUnavailable, match="cannot be reached"):
        Hub(endpoint).open(NAME)


def test_a_token_no_header_can_carry_is_refused_and_not_shown(hub: FakeHub) -> None:
    with pytest.raises(ModelUnavailable, match="cannot be reached") as refused:
        client(hub, "ключ").open(NAME)

    assert "ключ" not in refused.value.detail


def test_the_password_of_a_mirror_is_not_shown(hub: FakeHub) -> None:
    mirror = hub.endpoint.replace("http://", "http://me:p@ssword@")

    with pytest.raises(ModelUnavailable) as refused:
        Hub(mirror).open("no/such")

    assert f"The hub {hub.endpoint} " in refused.value.detail
    assert "ssword" not in refused.value.detail


# Files -------------------------------------------------------------------------------------------


def test_a_file_arrives_whole_and_its_progress_ends_at_its_size(
    hub: FakeHub, tmp_path: Path
) -> None:
    told = fetch(hub, tmp_path / "model.bin")

    assert (tmp_path / "model.bin").read_bytes() == WEIGHTS
    assert told[-1] == len(WEIGHTS)
    assert told == sorted(told)


def test_a_broken_connection_is_taken_up_where_it_broke(hub: FakeHub, tmp_path: Path) -> None:
    hub.cuts = [200_000, 100_000]

    fetch(hub, tmp_path / "model.bin")

    assert (tmp_path / "model.bin").read_bytes() == WEIGHTS
    ranges = [asked.range for asked in hub.asked if asked.path.startswith("/large/")]
    assert ranges == [None, "bytes=200000-", "bytes=300000-"]


def test_a_hub_that_starts_over_does_not_spoil_the_file(hub: FakeHub, tmp_path: Path) -> None:
    hub.cuts = [200_000]
    hub.ignores_ranges = True

    fetch(hub, tmp_path / "model.bin")

    assert (tmp_path / "model.bin").read_bytes() == WEIGHTS


def test_a_hub_in_trouble_is_asked_again(hub: FakeHub, tmp_path: Path) -> None:
    hub.failures = [503, 429, 500]

    fetch(hub, tmp_path / "model.bin")

    assert (tmp_path / "model.bin").read_bytes() == WEIGHTS


def test_a_download_that_does_not_move_is_given_up_and_kept(hub: FakeHub, tmp_path: Path) -> None:
    hub.cuts = [200_000] + [0] * MAX_TRIES

    with pytest.raises(ModelUnavailable, match=r"broke off at 200000 of 512000 bytes .* is kept"):
        fetch(hub, tmp_path / "model.bin")

    assert (tmp_path / "model.bin").read_bytes() == WEIGHTS[:200_000]


def test_a_download_that_moves_is_never_given_up(hub: FakeHub, tmp_path: Path) -> None:
    hub.cuts = [1000, 0] * (2 * MAX_TRIES)

    fetch(hub, tmp_path / "model.bin")

    assert (tmp_path / "model.bin").read_bytes() == WEIGHTS


def test_a_file_longer_than_listed_is_not_taken(hub: FakeHub, tmp_path: Path) -> None:
    hub.tamper = lambda content: content + b"more"

    with pytest.raises(ModelUnavailable, match="sent more than the 512000 bytes"):
        fetch(hub, tmp_path / "model.bin")

    assert not (tmp_path / "model.bin").exists()


def test_a_small_file_is_checked_against_the_hubs_listing(hub: FakeHub, tmp_path: Path) -> None:
    hub.tamper = lambda content: content[::-1]
    path = tmp_path / "config.json"

    with pytest.raises(ModelUnavailable, match=r"config\.json .* arrived damaged"):
        client(hub).open(NAME).fetch("config.json", path, lambda _: None)

    assert not path.exists()


def test_the_token_goes_to_the_hub_and_not_where_it_sends_for_large_files(
    hub: FakeHub, tmp_path: Path
) -> None:
    hub.publish(NAME, FILES, token="secret")

    fetch(hub, tmp_path / "model.bin", token="secret")

    sent = {asked.path.split("/")[1]: asked.authorization for asked in hub.asked}
    assert sent == {"api": "Bearer secret", "someone": "Bearer secret", "large": None}
