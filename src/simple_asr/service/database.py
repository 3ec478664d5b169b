"""The database of a server, SQLite or PostgreSQL: how it is opened, and its tables made.

What is kept in it is the business of its stores, `job_store.py` and `usage_store.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import alembic.command
import alembic.config
import sqlalchemy as sa
from alembic.util import CommandError
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from simple_asr.errors import AsrError, ConfigurationError, Unavailable

# Of a SQLite database, in the folder of the jobs.
DATABASE_FILE = "jobs.sqlite3"
# A transaction takes milliseconds; a disk may be that slow.
BUSY_SECONDS = 30
# Of PostgreSQL; one that starts says so at once.
SILENT_SECONDS = 5.0
# Any number that no other program locks the same database by.
_MIGRATION_LOCK = 0x_A5_20_B5
# PostgreSQL's codes (postgresql.org/docs/current/errcodes-appendix.html) of what passes by itself.
_PASSES = frozenset(
    {
        "08P01",  # what PgBouncer says while the database behind it is down
        "25006",  # it only reads until it has taken over from another
        "53100",  # its disk is full
        "53200",  # its memory
        "53300",  # its connections
        "57P01",  # it is stopped
        "57P02",  # it stops since a part of it crashed
        "57P03",  # it is starting
    }
)
_FULL = "53100"
# Words of what has no code: SQLite's disk is full (sqlite.org/rescode.html, SQLITE_FULL), it waits
# for another's transaction, or pg8000 found the connection cut.
_WORDS_OF_FULL = "database or disk is full"
_WORDS_OF_PASSES = (_WORDS_OF_FULL, "database is locked", "network error")


def sqlite_url(file: Path) -> str:
    """The address of a database in this file."""
    return sa.URL.create("sqlite", database=str(file)).render_as_string()


def postgresql_url(given: str) -> str:
    """The address in DATABASE_URL, once it is known to be one of PostgreSQL.

    Raises ConfigurationError, which repeats nothing that may belong to a password.
    """
    address = _read(given)
    if address is None or address.get_backend_name() != "postgresql":
        raise ConfigurationError(
            "DATABASE_URL is not the address of a PostgreSQL database, such as "
            "postgresql://user:password@host/database. Correct it, or leave it empty for SQLite. "
            "In a password, write @ as %40, : as %3A and / as %2F."
        )
    if unknown := sorted(address.query.keys() - OPTIONS):
        raise ConfigurationError(
            f"DATABASE_URL has options that are not known: {', '.join(unknown)}. Leave them out; "
            "the connection is encrypted where the database offers that."
        )
    if repeated := sorted(
        name for name, value in address.query.items() if isinstance(value, tuple)
    ):
        raise ConfigurationError(
            f"DATABASE_URL has options more than once: {', '.join(repeated)}. Leave one of each."
        )
    if not (address.username or address.query.get("user")):
        raise ConfigurationError(
            "DATABASE_URL names no user of the database. Write it before the host: "
            "postgresql://user:password@host/database."
        )
    return given


def _read(given: str) -> sa.URL | None:
    """None where it is no address, or where nobody knows what in it is the password."""
    if given.count("@") > 1:  # What follows the first would pass for the host, or for an option.
        return None
    try:
        return sa.make_url(given)
    except (ArgumentError, ValueError):  # ValueError: a port that is no number
        return None


def open_database(
    url: str, *, busy_seconds: float = BUSY_SECONDS, silent_seconds: float | None = None
) -> sa.Engine:
    """Connections to the address that `sqlite_url` or `postgresql_url` has given.

    SQLite waits for another's transaction for `busy_seconds`. PostgreSQL may be silent for
    `silent_seconds`, None: for ever; it does not heed the first, nor SQLite the second.
    """
    address = sa.make_url(url)
    driver = DRIVERS[address.get_backend_name()]
    options: dict[str, Any] = {"connect_args": {"timeout": silent_seconds}}
    if driver == "sqlite":
        options = SQLITE_POOL
    engine = sa.create_engine(address.set(drivername=driver), pool_pre_ping=True, **options)
    if driver == "sqlite":
        sa.event.listen(engine, "connect", _preparing_sqlite(busy_seconds))
        sa.event.listen(engine, "begin", _begin_sqlite)
    else:
        sa.event.listen(engine, "do_connect", _connect_to_postgresql)
    return engine


# A connection to SQLite is quickly made, and keeps three files open and up to 2 MB of pages: after
# a moment of many, most are closed again.
SQLITE_POOL = {"pool_size": 2, "max_overflow": 13}
DRIVERS = {"sqlite": "sqlite", "postgresql": "postgresql+pg8000"}
# What may follow a question mark. On another, libpq's `sslmode` above all, the driver would fail.
OPTIONS = frozenset({"application_name", "database", "host", "password", "unix_sock", "user"})


def _preparing_sqlite(busy_seconds: float) -> Callable[[Any, object], None]:
    def prepare(connection: Any, _: object) -> None:
        # `_begin_sqlite` begins transactions, not Python's module, which would begin them too late.
        connection.isolation_level = None
        for pragma in (
            f"busy_timeout={busy_seconds * 1000:.0f}",
            "journal_mode=WAL",
            # On the disk before it is promised, also through a power cut (sqlite.org/pragma.html).
            "synchronous=FULL",
            "foreign_keys=ON",
            # What is removed is overwritten: a result that has expired is nobody's to read.
            "secure_delete=ON",
        ):
            connection.execute(f"PRAGMA {pragma}")

    return prepare


def _begin_sqlite(connection: sa.Connection) -> None:
    # One that reads before it writes would fail if another wrote in between.
    is_writing = connection.get_execution_options().get("is_writing", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if is_writing else "BEGIN")


def _connect_to_postgresql(
    dialect: sa.Dialect, _: object, arguments: list[Any], named: dict[str, Any]
) -> Any:
    try:
        return dialect.connect(*arguments, **named)
    except OSError as error:  # pg8000 lets those of the talk about TLS through
        raise dialect.loaded_dbapi.InterfaceError("network error") from error


def migrate(engine: sa.Engine) -> None:
    """Brings the tables up to date, one server at a time.

    Raises ConfigurationError for those of a newer version, else as SQLAlchemy does.
    """
    config = alembic.config.Config()
    config.set_main_option("script_location", "simple_asr.service:migrations")
    with engine.execution_options(is_writing=True).begin() as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_MIGRATION_LOCK)))
        config.attributes["connection"] = connection
        try:
            alembic.command.upgrade(config, "heads")
        except CommandError as error:
            raise ConfigurationError(
                "The database was made by a newer version of this server. Start that one, or "
                "restore a backup from before it."
            ) from error


def check_database(url: str, *, patience: float) -> str:
    """Has a PostgreSQL database answer, and changes nothing there; its address without secrets.

    The address is of `postgresql_url`, and may be silent for `patience` seconds. Raises
    Unavailable, ConfigurationError.
    """
    engine = open_database(url, silent_seconds=patience)
    try:
        with engine.connect() as connection:
            connection.execute(sa.select(1))
    except SQLAlchemyError as error:
        raise unusable(url, error) from error
    finally:
        engine.dispose()
    return address_to_show(url)


def unusable(url: str, error: SQLAlchemyError) -> AsrError:
    """What an operator is told of a database that cannot be opened.

    Unavailable where that may pass by itself, as it does when a database starts; else
    ConfigurationError.
    """
    kind = Unavailable if _may_pass(error) else ConfigurationError
    if sa.make_url(url).get_backend_name() == "sqlite":
        return kind(
            f"The database of jobs cannot be used: {reason_of(error)}. Let this user write to "
            f"JOBS_DIR, or move the file {DATABASE_FILE} out of it to begin anew."
        )
    return kind(
        f"The database {address_to_show(url)} cannot be used: {reason_of(error)}. See that it "
        "runs, and that DATABASE_URL is right."
    )


def address_to_show(url: str) -> str:
    """Host, port and database of an address of PostgreSQL."""
    address = sa.make_url(url)
    return sa.URL.create(
        "postgresql", host=address.host, port=address.port, database=address.database
    ).render_as_string()


def _may_pass(error: SQLAlchemyError) -> bool:
    code = _code_of(error)
    if code is not None:
        return code in _PASSES
    said = getattr(error, "orig", None)
    is_unreachable = said is not None and isinstance(said.__cause__, OSError)
    return is_unreachable or any(words in str(said) for words in _WORDS_OF_PASSES)


def is_disk_full(error: SQLAlchemyError) -> bool:
    """Whether the database lacks room for what was to be written."""
    code = _code_of(error)
    if code is not None:
        return code == _FULL
    return _WORDS_OF_FULL in str(getattr(error, "orig", None))


def _code_of(error: SQLAlchemyError) -> str | None:
    """PostgreSQL's; None of errors of SQLite, and of those the driver has found itself."""
    said = getattr(error, "orig", None)
    if said is not None and said.args and isinstance(said.args[0], dict):  # pg8000's fields
        return str(said.args[0].get("C"))
    return None


def reason_of(error: SQLAlchemyError) -> str:
    """Why it failed. SQLAlchemy itself would add the statement, and with it text of callers.

    PostgreSQL's code is in brackets.
    """
    said = getattr(error, "orig", None)
    if said is None:
        return type(error).__name__
    if isinstance(said.__cause__, OSError):  # pg8000's words are the arguments of its call.
        return f"it cannot be reached ({said.__cause__.strerror or said.__cause__})"
    if code := _code_of(error):
        return f"{said.args[0].get('M')} ({code})"
    return str(said)
