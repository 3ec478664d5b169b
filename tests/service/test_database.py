"""How the database is opened, and what is said when it cannot be."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import QueuePool

from simple_asr.errors import AsrError, ConfigurationError, Unavailable
from simple_asr.service.database import (
    SQLITE_POOL,
    address_to_show,
    check_database,
    is_disk_full,
    open_database,
    postgresql_url,
    sqlite_url,
)
from simple_asr.service.job_store import JobStore
from tests.service.postgresql import Database, running
from tests.support import WAIT


def test_few_connections_stay_open_after_a_moment_of_many(tmp_path: Path) -> None:
    engine = open_database(sqlite_url(tmp_path / "jobs.sqlite3"))
    assert isinstance(engine.pool, QueuePool)

    with ExitStack() as moment:
        for _ in range(10):
            moment.enter_context(engine.connect())

    assert engine.pool.checkedin() == SQLITE_POOL["pool_size"] < 5
    engine.dispose()


@pytest.mark.parametrize(
    "address",
    [
        "postgresql://asr:hush",  # the password passes for a port
        "postgresql://asr:hu@sh:hush@db.example/asr",
        "postgresql://asr:s@hush/sh@db.example/asr",  # for a host
        "postgresql://asr:p@/?hush=1@db.example/asr",  # for an option
        "mysql://asr:hush@db.example/asr",
        "sqlite:////tmp/hush.sqlite",  # whoever wants SQLite leaves it empty
        "hush",
    ],
)
def test_an_address_that_is_not_postgresqls_is_not_repeated(address: str) -> None:
    with pytest.raises(ConfigurationError, match="is not the address of") as refused:
        postgresql_url(address)

    assert "hush" not in str(refused.value)
    assert refused.value.__cause__ is None


@pytest.mark.parametrize(
    ("address", "fault"),
    [
        ("postgresql://asr:hush@db.example/asr?sslmode=require", "not known: sslmode"),
        ("postgresql://asr:hush@/asr?host=one&host=two", "more than once: host"),
        ("postgresql://127.0.0.1/asr", "names no user"),
        ("postgresql:///asr?password=hush", "names no user"),
    ],
)
def test_what_the_driver_could_not_use_is_refused_by_its_name(address: str, fault: str) -> None:
    with pytest.raises(ConfigurationError, match=fault) as refused:
        postgresql_url(address)

    assert "hush" not in str(refused.value)


@pytest.mark.parametrize(
    "address",
    [
        "postgresql://asr:hu%40sh@db.example:5433/asr",
        "postgresql:///asr?user=asr&host=db.example&application_name=one",
    ],
)
def test_an_address_of_postgresql_is_taken_as_it_is(address: str) -> None:
    assert postgresql_url(address) == address


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("postgresql://asr:hush@db.example/asr", "postgresql://db.example/asr"),
        ("postgresql://asr:hush@[::1]:5433/asr", "postgresql://[::1]:5433/asr"),
        ("postgresql://db.example/asr?user=asr&password=hush", "postgresql://db.example/asr"),
    ],
)
def test_an_address_is_shown_without_its_secrets(address: str, shown: str) -> None:
    assert address_to_show(address) == shown


# One that does not answer as it should ------------------------------------------------------------


@contextmanager
def listening(answer: Callable[[socket.socket], None]) -> Iterator[str]:
    """The address of what answers the first connection so, and ends it."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(WAIT)

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                answer(connection)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"postgresql://asr:hush@127.0.0.1:{listener.getsockname()[1]}/asr"
        thread.join()


def greet(connection: socket.socket) -> None:
    """Until it is the database's turn to say whether it lets the caller in."""
    connection.recv(8)  # whether TLS is spoken
    connection.sendall(b"N")
    connection.recv(1000)


def refuse(code: str, words: str = "no") -> Callable[[socket.socket], None]:
    """As PostgreSQL does (postgresql.org/docs/current/protocol-message-formats.html)."""
    fields = f"SFATAL\0C{code}\0M{words}\0\0".encode()

    def answer(connection: socket.socket) -> None:
        greet(connection)
        connection.sendall(b"E" + (4 + len(fields)).to_bytes(4, "big") + fields)

    return answer


PASSING = ("08P01", "25006", "53100", "53200", "53300", "57P01", "57P02", "57P03")
FAULTS: list[tuple[Callable[[socket.socket], None], type[AsrError], str]] = [
    *((refuse(code), Unavailable, f"no ({code})") for code in PASSING),
    (refuse("28P01"), ConfigurationError, "no (28P01)"),  # a wrong password
    # What it says of the fault does not decide: it may be in any language, and repeat our words.
    (refuse("28000", "(57P03)"), ConfigurationError, "(57P03) (28000)"),
    (greet, Unavailable, "network error"),
]


@pytest.mark.parametrize(("answer", "kind", "reason"), FAULTS, ids=[each[2] for each in FAULTS])
def test_what_may_pass_by_itself_is_told_apart_from_what_must_be_mended(
    answer: Callable[[socket.socket], None], kind: type[AsrError], reason: str
) -> None:
    with listening(answer) as address, pytest.raises(kind) as refused:
        JobStore(address)

    assert f" cannot be used: {reason}. See that it runs" in str(refused.value)
    assert "hush" not in str(refused.value)


@pytest.mark.parametrize(
    ("code", "words", "is_full"),
    [("53100", "нет места", True), ("53200", "database or disk is full", False)],
)
def test_a_full_disk_of_postgresql_is_known_by_its_code(
    code: str, words: str, is_full: bool
) -> None:
    said = Exception({"S": "ERROR", "C": code, "M": words})  # as pg8000 raises it

    assert is_disk_full(DBAPIError("INSERT", None, said)) is is_full


def test_a_database_that_keeps_silent_is_waited_for_no_longer_than_asked() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"postgresql://asr:hush@127.0.0.1:{silent.getsockname()[1]}/asr"

        with pytest.raises(Unavailable, match="timed out"):
            check_database(address, patience=0.1)


@pytest.fixture(scope="module")
def postgresql() -> Iterator[Database]:
    with running() as database:
        yield database


def test_a_database_that_answers_is_named_without_secrets(postgresql: Database) -> None:
    with postgresql.fresh() as address:
        told = check_database(address.replace("asr@", "asr:hush@"), patience=5)

    assert told == address.replace("asr@", "")
