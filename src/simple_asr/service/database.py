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

from simple_asr.errors import ConfigurationError

# Of a SQLite database, in the folder of the jobs.
DATABASE_FILE = "jobs.sqlite3"
# A transaction takes milliseconds; a disk may be that slow.
BUSY_SECONDS = 30
# Any number that no other program locks the same database by.
_MIGRATION_LOCK = 0x_A5_20_B5


def sqlite_url(file: Path) -> str:
    """The address of a database in this file."""
    return sa.URL.create("sqlite", database=str(file)).render_as_string()


def open_database(url: str, *, busy_seconds: float = BUSY_SECONDS) -> sa.Engine:
    """Connections that wait so long for another's transaction on SQLite.

    Raises ConfigurationError for an address that is none, or of a database we do not know."""
    try:
        address = sa.make_url(url)
        driver = DRIVERS[address.get_backend_name()]
    except (ArgumentError, KeyError):
        raise ConfigurationError(
            "DATABASE_URL is not the address of a PostgreSQL database, such as "
            "postgresql://user:password@host/database. Correct it, or leave it empty for SQLite."
        ) from None
    pool = SQLITE_POOL if driver == "sqlite" else {}
    engine = sa.create_engine(address.set(drivername=driver), pool_pre_ping=True, **pool)
    if driver == "sqlite":
        sa.event.listen(engine, "connect", _preparing_sqlite(busy_seconds))
        sa.event.listen(engine, "begin", _begin_sqlite)
    return engine


# A connection to SQLite is quickly made, and keeps three files open and up to 2 MB of pages: after
# a moment of many, most are closed again.
SQLITE_POOL = {"pool_size": 2, "max_overflow": 13}
DRIVERS = {"sqlite": "sqlite", "postgresql": "postgresql+pg8000"}


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


def reason_of(error: SQLAlchemyError) -> str:
    """Why it failed. SQLAlchemy itself would add the statement, and with it text of callers.

    PostgreSQL's code (postgresql.org/docs/current/errcodes-appendix.html) is in brackets.
    """
    said = getattr(error, "orig", None)
    if said is None:
        return type(error).__name__
    if isinstance(said.__cause__, OSError):  # pg8000's words are the arguments of its call.
        return f"it cannot be reached ({said.__cause__.strerror or said.__cause__})"
    if said.args and isinstance(said.args[0], dict):  # pg8000's, of the fields of the answer.
        return f"{said.args[0].get('M')} ({said.args[0].get('C')})"
    return str(said)
