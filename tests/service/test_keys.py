"""API keys: who is let in, what a key file may hold, and what becomes of a broken one."""

from __future__ import annotations

import contextlib
import logging
import os
import string
import threading
import time
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simple_asr.errors import AsrError, InvalidKeyFile, InvalidParameter, MissingKey, WrongKey
from simple_asr.service import keys
from simple_asr.service.keys import (
    Caller,
    KeyStore,
    add_key,
    generate_key,
    list_keys,
    parse_keys,
    revoke_key,
)

ALICE = "a11ce" + "0" * 59
BOB = "b0b" + "0" * 61


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keys.txt"


def write(path: Path, text: str | bytes) -> None:
    """Writes a file that was last touched an hour ago, so that it is not waited for."""
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    an_hour_ago = time.time() - 3600
    os.utime(path, (an_hour_ago, an_hour_ago))


def loaded(path: Path, text: str | bytes) -> KeyStore:
    write(path, text)
    store = KeyStore(path)
    store.reload()
    return store


# Who is let in -----------------------------------------------------------------------------------


def test_a_key_of_the_file_is_let_in_under_its_name(path: Path) -> None:
    store = loaded(path, f"{ALICE}  # alice\n{BOB}\n")

    assert store.identify(ALICE) == Caller("alice")


def test_whose_key_is_in_force_has_a_name_by_id(path: Path) -> None:
    store = loaded(path, f"{ALICE}  # alice\n")

    assert store.name_of(store.identify(ALICE).id) == "alice"
    assert store.name_of("of nobody") is None


def test_a_key_without_a_name_is_named_by_its_digest(path: Path) -> None:
    store = loaded(path, "key1\n")

    # printf key1 | sha256sum
    assert store.identify("key1") == Caller("key-817409")


def test_a_key_has_the_same_id_after_a_restart_and_another_key_another(path: Path) -> None:
    before = loaded(path, f"{ALICE}  # alice\n{BOB}  # alice\n")
    after = loaded(path, f"{BOB}\n{ALICE}\n")

    assert before.identify(ALICE).id == after.identify(ALICE).id
    assert before.identify(ALICE).id != before.identify(BOB).id
    assert ALICE not in before.identify(ALICE).id


def test_a_key_may_be_presented_as_bytes(path: Path) -> None:
    store = loaded(path, f"{ALICE}  # alice\n")

    assert store.identify(ALICE.encode()) == Caller("alice")


@pytest.mark.parametrize("nothing", [None, "", b""])
def test_no_key_is_told_apart_from_a_wrong_one(path: Path, nothing: str | bytes | None) -> None:
    store = loaded(path, f"{ALICE}\n")

    with pytest.raises(MissingKey, match="X-API-Key"):
        store.identify(nothing)


@pytest.mark.parametrize(
    "wrong",
    [
        BOB,
        ALICE[:-1],
        ALICE + "0",
        ALICE.upper(),
        f" {ALICE}",
        f"{ALICE}\n",
        "ключ",
        "\ud800",
        "\x00",
        b"\xff\xfe",
        "a" * 1_000_000,
    ],
)
def test_anything_but_the_very_key_is_wrong(path: Path, wrong: str | bytes) -> None:
    store = loaded(path, f"{ALICE}\n")

    with pytest.raises(WrongKey):
        store.identify(wrong)


@pytest.fixture(scope="module")
def store_of_alice(tmp_path_factory: pytest.TempPathFactory) -> KeyStore:
    return loaded(tmp_path_factory.mktemp("keys") / "keys.txt", f"{ALICE}\n")


@given(presented=st.one_of(st.text(min_size=1), st.binary(min_size=1)))
def test_no_presented_text_is_let_in_or_breaks_the_server(
    store_of_alice: KeyStore, presented: str | bytes
) -> None:
    with pytest.raises(WrongKey):
        store_of_alice.identify(presented)


def test_the_longest_key_is_let_in_and_one_character_more_is_not(path: Path) -> None:
    longest = "x" * keys.MAX_KEY_BYTES
    store = loaded(path, f"{longest}  # long\n")

    assert store.identify(longest) == Caller("long")
    with pytest.raises(WrongKey):
        store.identify(longest + "x")


def test_without_any_key_the_refusal_says_how_to_add_one(path: Path) -> None:
    store = loaded(path, "# none yet\n")

    with pytest.raises(WrongKey, match="simple-asr keys add"):
        store.identify(ALICE)


def test_before_the_file_is_read_every_key_is_refused(path: Path) -> None:
    write(path, f"{ALICE}\n")

    with pytest.raises(WrongKey):
        KeyStore(path).identify(ALICE)


# What a key file may hold ------------------------------------------------------------------------


def names_in(content: str | bytes) -> list[str]:
    return [
        line.name for line in parse_keys(content.encode() if isinstance(content, str) else content)
    ]


@pytest.mark.parametrize(
    ("content", "names"),
    [
        (f"{ALICE} # alice\n", ["alice"]),
        (f"{ALICE}\t# alice\n", ["alice"]),
        (f"{ALICE}  ## the one, the only \n", ["the one, the only"]),
        (f"  {ALICE}  # alice", ["alice"]),
        (f"\ufeff{ALICE} # a byte order mark before it\r\n", ["a byte order mark before it"]),
        (f"# a comment\n\n \t\n{ALICE} # alice\r\n", ["alice"]),
        (f"{ALICE} # алиса\n{BOB} # bob\n", ["алиса", "bob"]),
        (f"{ALICE} #\n", ["key-c1487f"]),
        ("key#1 # a mark inside a key is the key's\n", ["a mark inside a key is the key's"]),
        ("", []),
    ],
)
def test_a_file_has_a_key_on_a_line_and_a_name_behind_it(content: str, names: list[str]) -> None:
    assert names_in(content) == names


def test_a_name_cannot_forge_a_line_of_the_log() -> None:
    assert names_in(f"{ALICE} # alice\x1b[2J\u2028admin" + "!" * 100) == [
        "alice?[2J?admin" + "!" * 49
    ]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (f"{ALICE}\n{BOB} bob\n", "Line 2 of the key file holds more than one word"),
        ("key one\n", "Line 1 of the key file holds more than one word"),
        (f"\n\nключ\n{ALICE}\n", "line 3 of the key file has other characters"),
        ("key\x07\n", "line 1 of the key file has other characters"),
        ("key\u00a0\n", "line 1 of the key file has other characters"),
        (f"{ALICE}\r{BOB}\r", "line 1 of the key file has other characters"),
        ("x" * 4097, "line 1 of the key file has .* more than 4096"),
        (f"{ALICE}\n".encode("utf-16"), "not UTF-8 text"),
        (b"\xff\xfe", "not UTF-8 text"),
        (f"{ALICE}\n\0\n", "not UTF-8 text"),
        (b"#" * (1024 * 1024 + 1), "larger than 1048576 bytes"),
    ],
)
def test_a_line_that_is_not_a_key_is_named_and_nothing_is_taken(
    content: str | bytes, says: str
) -> None:
    with pytest.raises(InvalidKeyFile, match=says):
        names_in(content)


def test_a_file_of_just_the_largest_size_is_read() -> None:
    assert names_in(f"{ALICE} # alice\n".ljust(1024 * 1024, "#")) == ["alice"]


KEYS = st.text(string.ascii_letters + string.digits + string.punctuation, min_size=1).filter(
    lambda key: not key.startswith("#")
)
NAMES = st.text(string.ascii_letters + " .-_жé", min_size=1, max_size=40).filter(
    lambda name: name == name.strip()
)
FILLERS = st.lists(st.sampled_from(["", " ", "\t", "# comment", "  #", "\r"]), max_size=3)


@given(
    lines=st.lists(st.tuples(FILLERS, KEYS, NAMES, st.sampled_from([" # ", "\t#", "  ##  "]))),
    ending=st.sampled_from(["\n", "\r\n"]),
)
def test_every_key_and_name_is_read_back_as_written(
    lines: list[tuple[list[str], str, str, str]], ending: str
) -> None:
    rows = [row for fillers, key, name, sep in lines for row in (*fillers, f"{key}{sep}{name}")]

    parsed = parse_keys(ending.join(rows).encode())

    assert [(line.key, line.name) for line in parsed] == [(key, name) for _, key, name, _ in lines]
    assert [rows[line.line - 1].split()[0] for line in parsed] == [key for _, key, _, _ in lines]


@given(st.one_of(st.binary(), st.text().map(str.encode)))
def test_any_bytes_are_keys_or_a_clear_refusal(content: bytes) -> None:
    with contextlib.suppress(InvalidKeyFile):
        parsed = parse_keys(content)

        assert all(line.key.isascii() and line.key.isprintable() for line in parsed)


@pytest.mark.parametrize("kind", ["folder", "fifo", "device"])
def test_what_is_not_a_file_is_refused_at_once(path: Path, kind: str) -> None:
    if kind == "folder":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/zero")

    result = KeyStore(path).reload()

    assert result.problem
    assert "not a file" in result.problem


def test_a_symlink_is_followed_as_secrets_are_mounted(path: Path, tmp_path: Path) -> None:
    write(tmp_path / "secret", f"{ALICE} # alice\n")
    path.symlink_to(tmp_path / "secret")
    store = KeyStore(path)

    store.reload()

    assert store.identify(ALICE) == Caller("alice")


def test_a_repeated_key_counts_once_under_its_first_name(path: Path) -> None:
    store = loaded(path, f"{ALICE} # alice\n{ALICE} # again\n")

    assert store.count == 1
    assert store.identify(ALICE) == Caller("alice")


# Reloading ---------------------------------------------------------------------------------------


def test_a_reload_takes_new_keys_and_drops_revoked_ones(path: Path) -> None:
    store = loaded(path, f"{ALICE} # alice\n")
    write(path, f"{BOB} # bob\n")

    result = store.reload()

    assert (result.count, result.changed, result.problem) == (1, True, None)
    assert store.identify(BOB) == Caller("bob")
    with pytest.raises(WrongKey):
        store.identify(ALICE)


def test_a_reload_of_the_same_keys_changes_nothing(path: Path) -> None:
    store = loaded(path, f"{ALICE} # alice\n{BOB}\n")
    write(path, f"# in another order\n{BOB}\n{ALICE} # alice\n")

    result = store.reload()

    assert (result.count, result.changed) == (2, False)


@pytest.mark.parametrize(
    ("broken", "says"),
    [
        (b"", "holds no key"),
        (b"# only a comment\n", "holds no key"),
        (b"two words\n", "Line 1"),
        (b"\xff\xff", "UTF-8"),
        (b"x\n" * 1024 * 1024, "larger than"),
    ],
)
def test_a_broken_or_empty_file_keeps_the_last_good_set_and_says_so(
    path: Path, broken: bytes, says: str
) -> None:
    store = loaded(path, f"{ALICE} # alice\n")
    write(path, broken)

    result = store.reload()

    assert (result.count, result.changed) == (1, False)
    assert says in (result.problem or "")
    assert "stay in force" in (result.problem or "")
    assert store.identify(ALICE) == Caller("alice")


def test_a_file_that_vanishes_keeps_the_last_good_set(path: Path) -> None:
    store = loaded(path, f"{ALICE} # alice\n")
    path.unlink()

    result = store.reload()

    assert "There is no key file" in (result.problem or "")
    assert store.identify(ALICE) == Caller("alice")


def test_an_unreadable_file_is_taken_once_it_may_be_read_again(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(*arguments: object) -> int:
        raise PermissionError(13, "Permission denied")

    store = loaded(path, f"{ALICE} # alice\n")
    write(path, f"{BOB} # bob\n")
    with monkeypatch.context() as while_denied:
        while_denied.setattr(os, "open", denied)
        unreadable = store.reload()

    assert "cannot be read: Permission denied" in (unreadable.problem or "")
    assert store.changed_on_disk()
    assert store.reload().changed


def test_at_the_start_a_broken_file_means_every_key_is_refused(path: Path) -> None:
    write(path, "two words\n")
    store = KeyStore(path)

    result = store.reload()

    assert (result.count, result.changed) == (0, False)
    assert "every key is refused" in (result.problem or "")


def test_a_change_is_noticed_once(path: Path) -> None:
    store = KeyStore(path)
    write(path, f"{ALICE}\n")

    noticed_first = store.changed_on_disk()
    store.reload()
    noticed_unchanged = store.changed_on_disk()
    write(path, f"{BOB}\n")
    noticed_second = store.changed_on_disk()

    assert (noticed_first, noticed_unchanged, noticed_second) == (True, False, True)


def test_a_change_that_keeps_size_and_time_is_noticed(path: Path) -> None:
    store = loaded(path, f"{ALICE}\n")
    before = path.stat()
    path.write_text(f"{BOB}\n")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))

    assert store.changed_on_disk()


def test_a_broken_file_is_not_read_again_before_it_changes(path: Path) -> None:
    store = loaded(path, "two words\n")

    assert not store.changed_on_disk()


def test_a_missing_file_is_no_change_until_it_appears(path: Path) -> None:
    store = KeyStore(path)
    store.reload()
    missing = store.changed_on_disk()
    write(path, f"{ALICE}\n")

    assert not missing
    assert store.changed_on_disk()


# Files caught while they are written -------------------------------------------------------------


def test_a_file_caught_half_written_is_read_when_it_is_whole(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rest = iter([f"{BOB} # bob\n"])

    def the_writer_goes_on() -> None:
        with path.open("a") as file:
            file.write(next(rest, ""))

    monkeypatch.setattr(keys, "_pause", the_writer_goes_on)
    path.write_text(f"{ALICE} # alice\n")
    store = KeyStore(path)

    result = store.reload()

    assert result.count == 2
    assert store.identify(BOB) == Caller("bob")


def test_a_file_caught_just_after_truncation_keeps_the_last_good_set(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = loaded(path, f"{ALICE} # alice\n")
    monkeypatch.setattr(keys, "_pause", lambda: None)
    path.write_text("")

    store.reload()

    assert store.identify(ALICE) == Caller("alice")


def test_a_file_replaced_while_it_is_read_is_taken_and_looked_at_again(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def another_takes_its_place() -> None:
        other = path.with_name("other")
        other.write_text(f"{BOB} # bob\n")
        other.replace(path)

    monkeypatch.setattr(keys, "_pause", another_takes_its_place)
    path.write_text(f"{ALICE} # alice\n")
    store = KeyStore(path)

    store.reload()

    assert store.identify(ALICE) == Caller("alice")
    assert store.changed_on_disk()


def test_a_file_that_never_rests_is_read_all_the_same_and_looked_at_again(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def somebody_writes() -> None:
        with path.open("a") as file:
            file.write("# still here\n")

    store = loaded(path, f"{ALICE} # alice\n")
    monkeypatch.setattr(keys, "_pause", somebody_writes)
    path.write_text(f"{BOB} # bob\n")

    store.reload()

    assert store.identify(BOB) == Caller("bob")
    with pytest.raises(WrongKey):
        store.identify(ALICE)
    assert store.changed_on_disk()


def test_a_file_that_never_rests_and_ends_in_half_a_line_is_not_taken(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def somebody_writes() -> None:
        with path.open("a") as file:
            file.write("0")

    store = loaded(path, f"{ALICE} # alice\n")
    monkeypatch.setattr(keys, "_pause", somebody_writes)
    path.write_text("0")

    result = store.reload()

    assert "not complete" in (result.problem or "")
    assert store.identify(ALICE) == Caller("alice")
    assert store.changed_on_disk()


def rename_into_place(path: Path, text: str) -> None:
    other = path.with_name("new-keys")
    other.write_text(text)
    other.replace(path)


def rewrite_in_place(path: Path, text: str) -> None:
    path.write_text(text)


@pytest.mark.parametrize("write_keys", [rename_into_place, rewrite_in_place])
def test_a_key_in_every_version_is_never_refused_while_the_file_changes(
    path: Path, monkeypatch: pytest.MonkeyPatch, write_keys: Callable[[Path, str], None]
) -> None:
    # Many more looks at the file, and much shorter ones, than a server takes.
    monkeypatch.setattr(keys, "SETTLE_SECONDS", 0.001)
    store = loaded(path, f"{ALICE} # alice\n")
    written = threading.Event()

    def write_many() -> None:
        for version in range(1000):
            write_keys(path, f"{version:064}\n" * 10 + f"{ALICE} # alice\n")
        write_keys(path, f"{BOB} # bob\n{ALICE} # alice\n")
        written.set()

    def watch() -> int:
        changes = 0
        while not written.is_set():
            changes += store.changed_on_disk() and store.reload().changed
        return changes

    def call() -> int:
        answers = 0
        while not written.is_set():
            answers += store.identify(ALICE) == Caller("alice")
        return answers

    with ThreadPoolExecutor(4) as pool:
        changes = [pool.submit(watch), pool.submit(watch)]
        answers = pool.submit(call)
        pool.submit(write_many).result()
    last = store.reload()

    # A refusal would have ended the caller, and would be raised here.
    assert answers.result() > 0
    assert sum(watcher.result() for watcher in changes) > 0
    assert (last.count, last.problem) == (2, None)
    with pytest.raises(WrongKey):
        store.identify(f"{999:064}")


# Secrecy -----------------------------------------------------------------------------------------


def test_no_key_shows_in_a_repr_a_log_or_an_error(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    secret = "hunter2-hunter2-hunter2"
    store = loaded(path, f"{secret}\n")
    errors = [repr(store), repr(vars(store)), repr(parse_keys(secret.encode()))]
    for content in (f"{secret} {secret}\n", f"{secret}é\n", f"{secret}\n".encode() + b"\xff"):
        write(path, content)
        errors.append(repr(store.reload()))
        with pytest.raises(InvalidKeyFile) as caught:
            list_keys(path)
        errors += traceback.format_exception(caught.value)
        assert caught.value.__context__ is None
    write(path, f"{secret}\n")
    for failing in (
        lambda: store.identify(secret + "!"),
        lambda: add_key(path, secret),
        lambda: revoke_key(path, secret),
        lambda: revoke_key(path, secret + "!"),
    ):
        with pytest.raises(AsrError) as refused:
            failing()
        errors.append(str(refused.value))

    told = "".join(errors) + caplog.text

    assert "hunter2" not in told


def test_only_digests_stay_in_memory(path: Path) -> None:
    store = loaded(path, f"{ALICE} # alice\n")

    held = repr(list(store._known.items()))

    assert ALICE not in held
    assert "alice" in held


def test_two_servers_hold_different_digests_of_one_key(path: Path) -> None:
    first, second = loaded(path, f"{ALICE}\n"), loaded(path, f"{ALICE}\n")

    assert first._known.keys().isdisjoint(second._known.keys())


def test_a_weak_key_and_an_open_file_are_warned_of_by_line_and_mode(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(path, f"{ALICE}\nkey1\n")
    path.chmod(0o644)

    KeyStore(path).reload()

    assert "on line 2" in caplog.text
    assert "mode 644" in caplog.text
    assert "key1" not in caplog.text


def test_a_good_private_file_is_not_warned_of(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(path, f"{ALICE}\n{BOB.upper()}\n")
    path.chmod(0o600)

    KeyStore(path).reload()

    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


def test_a_lasting_problem_is_logged_once(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = KeyStore(path)

    store.reload()
    store.reload()

    assert caplog.text.count("There is no key file") == 1


# The first start ---------------------------------------------------------------------------------


def test_the_first_start_makes_a_file_of_one_key_that_only_its_owner_may_read(
    tmp_path: Path,
) -> None:
    path = tmp_path / "data" / "keys.txt"
    store = KeyStore(path)

    key = store.create_if_missing()
    store.reload()

    assert key
    assert store.identify(key)
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("content", ["", f"{ALICE}\n", "two words\n"])
def test_a_file_that_is_there_is_left_alone(path: Path, content: str) -> None:
    write(path, content)

    key = KeyStore(path).create_if_missing()

    assert key is None
    assert path.read_text() == content


def test_two_servers_starting_together_make_one_key(path: Path) -> None:
    made: list[str | None] = []
    start = threading.Barrier(8)

    def first_start() -> None:
        start.wait()
        made.append(KeyStore(path).create_if_missing())

    threads = [threading.Thread(target=first_start) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert [key for key in made if key] == [line.key for line in parse_keys(path.read_bytes())]


def test_a_file_that_cannot_be_made_says_why(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("not a folder")

    with pytest.raises(InvalidKeyFile, match="folder of the key file cannot be made"):
        KeyStore(tmp_path / "data" / "keys.txt").create_if_missing()


# The command line --------------------------------------------------------------------------------


def test_generated_keys_are_64_hexadecimal_characters_and_differ() -> None:
    first, second = generate_key(), generate_key()

    assert first != second
    assert len(first) == 64
    assert set(first) <= set("0123456789abcdef")


def test_an_added_key_is_let_in_by_a_running_server(path: Path) -> None:
    store = loaded(path, f"{ALICE}\n")

    key = add_key(path, name="bob")
    noticed = store.changed_on_disk()
    store.reload()

    assert noticed
    assert store.identify(key) == Caller("bob")
    assert store.count == 2


def test_the_first_added_key_makes_the_file(tmp_path: Path) -> None:
    path = tmp_path / "data" / "keys.txt"

    key = add_key(path)

    assert [line.key for line in parse_keys(path.read_bytes())] == [key]
    assert path.stat().st_mode & 0o777 == 0o600


def test_adding_keeps_every_other_byte(path: Path) -> None:
    write(path, f"# mine\r\n\n{ALICE}\t# alice")

    add_key(path, BOB, "bob")

    assert path.read_bytes() == f"# mine\r\n\n{ALICE}\t# alice\n{BOB}  # bob\n".encode()


@pytest.mark.parametrize(
    ("key", "name", "field"),
    [
        ("", None, "key"),
        ("two words", None, "key"),
        ("#comment", None, "key"),
        ("ключ", None, "key"),
        ("x" * 4097, None, "key"),
        (ALICE, None, "key"),
        (None, "", "name"),
        (None, "two\nlines", "name"),
        (None, " padded", "name"),
        (None, "# mark", "name"),
        (None, "x" * 65, "name"),
        (None, "\udcff", "name"),
        (None, "alice", "name"),
    ],
)
def test_a_key_or_name_that_cannot_be_written_is_refused_and_nothing_changes(
    path: Path, key: str | None, name: str | None, field: str
) -> None:
    write(path, f"{ALICE} # alice\n")

    with pytest.raises(InvalidParameter) as caught:
        add_key(path, key, name)

    assert caught.value.field == field
    assert path.read_text() == f"{ALICE} # alice\n"


def test_a_broken_file_is_not_edited(path: Path) -> None:
    write(path, "two words\n")

    with pytest.raises(InvalidKeyFile, match="Line 1"):
        add_key(path)

    assert path.read_text() == "two words\n"


def test_keys_are_listed_by_name_line_and_beginning_only(path: Path) -> None:
    write(path, f"# ours\n{ALICE} # alice\nkey1\n")

    listed = [(entry.line, entry.name, entry.hint) for entry in list_keys(path)]

    assert listed == [(2, "alice", "a11c…"), (3, "key-817409", "k…")]


def test_listing_a_missing_file_says_how_to_make_one(path: Path) -> None:
    with pytest.raises(InvalidKeyFile, match="simple-asr keys add"):
        list_keys(path)


@pytest.mark.parametrize("meant", ["bob", "b0b0", "b0b0…", BOB])
def test_a_key_is_revoked_by_name_or_beginning_and_every_other_byte_is_kept(
    path: Path, meant: str
) -> None:
    write(path, f"# ours\r\n{BOB} # bob\n{ALICE} # alice\r\n\n# gone twice:\n{BOB}\n# end")

    revoked = revoke_key(path, meant)

    assert (revoked.name, revoked.line) == ("bob", 2)
    assert path.read_bytes() == f"# ours\r\n{ALICE} # alice\r\n\n# gone twice:\n# end".encode()


@pytest.mark.parametrize("meant", ["carol", "b0b", "0", "", "…"])
def test_revoking_what_is_not_there_changes_nothing(path: Path, meant: str) -> None:
    write(path, f"{ALICE} # alice\n{BOB}\n")

    with pytest.raises(InvalidParameter, match="No key has this name"):
        revoke_key(path, meant)

    assert len(list_keys(path)) == 2


def test_revoking_what_several_keys_are_called_asks_for_more(path: Path) -> None:
    write(path, f"{ALICE} # team\n{BOB} # team\n")

    with pytest.raises(InvalidParameter, match="lines 1, 2"):
        revoke_key(path, "team")


def test_the_last_key_is_not_revoked_since_a_server_would_keep_it(path: Path) -> None:
    write(path, f"{ALICE} # alice\n{ALICE} # again\n")

    with pytest.raises(InvalidParameter, match="Add another"):
        revoke_key(path, "alice")

    assert names_in(path.read_bytes()) == ["alice", "again"]


def test_an_edit_keeps_mode_and_symlink(path: Path, tmp_path: Path) -> None:
    target = tmp_path / "elsewhere"
    write(target, f"{ALICE}\n")
    target.chmod(0o640)
    path.symlink_to(target)

    add_key(path, BOB)

    assert path.is_symlink()
    assert target.stat().st_mode & 0o777 == 0o640
    assert len(list_keys(target)) == 2


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
def test_what_root_edits_stays_the_servers(path: Path) -> None:
    server_user = 10001
    os.chown(path.parent, server_user, server_user)

    add_key(path, name="first")
    made_for = path.stat().st_uid
    os.chown(path, server_user + 1, server_user)
    add_key(path, name="second")

    assert made_for == server_user
    assert path.stat().st_uid == server_user + 1


def test_an_edit_that_fails_leaves_the_file_and_nothing_else(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def disk_full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    write(path, f"{ALICE}\n")
    monkeypatch.setattr(os, "fsync", disk_full)

    with pytest.raises(InvalidKeyFile, match="cannot be changed: No space left on device"):
        add_key(path)

    assert path.read_text() == f"{ALICE}\n"
    assert list(path.parent.iterdir()) == [path]


def test_edits_at_the_same_time_lose_no_key(path: Path) -> None:
    write(path, f"{ALICE}\n")
    added: list[str] = []

    def add() -> None:
        added.append(add_key(path))

    threads = [threading.Thread(target=add) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert {line.key for line in parse_keys(path.read_bytes())} == {ALICE, *added}


@given(
    others=st.lists(st.sampled_from([b"", b"# comment", b"0" * 64, b"other  # o", b"x\r"])),
    position=st.integers(min_value=0),
)
def test_revoking_takes_out_that_line_and_no_other_byte(
    tmp_path_factory: pytest.TempPathFactory, others: list[bytes], position: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "edited.txt"
    others = [*others, b"stays"]
    at = position % (len(others) + 1)
    path.write_bytes(b"\n".join([*others[:at], b"leaving # gone", *others[at:]]))

    revoke_key(path, "gone")

    assert path.read_bytes() == b"\n".join(others)
