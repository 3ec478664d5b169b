"""Keeps what keys use in the database of the jobs, a row a key and day."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import date
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import SQLAlchemyError

from simple_asr.service.database import migrate, open_database, unusable
from simple_asr.service.usage import Used, UsedInDay

# Nobody waits for it: whoever holds the database for longer is waited for at the next try.
BUSY_SECONDS = 2

usage = sa.Table(
    "usage",
    sa.MetaData(),
    sa.Column("day", sa.Date, primary_key=True),
    sa.Column("key_name", sa.Text, primary_key=True),
    sa.Column("requests", sa.BigInteger, nullable=False),
    sa.Column("audio_seconds", sa.Double, nullable=False),
    sa.Column("compute_seconds", sa.Double, nullable=False),
)
_SUMS = ("requests", "audio_seconds", "compute_seconds")
_INSERT: dict[str, Callable[[sa.Table], Any]] = {
    "sqlite": sqlite.insert,
    "postgresql": postgresql.insert,
}


class UsageStore:
    """Several servers may share one: amounts are added where they stand."""

    def __init__(self, url: str) -> None:
        """Opens the database and brings its tables up to date.

        Raises ConfigurationError, and Unavailable where another try may do.
        """
        self._url = url
        self._engine = open_database(url, busy_seconds=BUSY_SECONDS)
        with self._telling():
            migrate(self._engine)

    def add(self, rows: Sequence[UsedInDay]) -> None:
        """To what is there already; all of it or nothing. Raises as it opens."""
        insert = _INSERT[self._engine.dialect.name](usage)
        adding = insert.on_conflict_do_update(
            index_elements=["day", "key_name"],
            set_={name: usage.c[name] + insert.excluded[name] for name in _SUMS},
        )
        writing = self._engine.execution_options(is_writing=True)
        with self._telling(), writing.begin() as connection:
            # In one order always: two servers that add to the same rows must not wait in a circle.
            for row in sorted(rows, key=lambda row: (row.day, row.key_name)):
                sums = {name: getattr(row.used, name) for name in _SUMS}
                connection.execute(adding, {"day": row.day, "key_name": row.key_name, **sums})

    def since(self, day: date) -> list[UsedInDay]:
        """From that day on, by day and key. Raises as it opens."""
        wanted = sa.select(usage).where(usage.c.day >= day).order_by(usage.c.day, usage.c.key_name)
        with self._telling(), self._engine.begin() as connection:
            return [
                UsedInDay(row.day, row.key_name, Used(*(getattr(row, name) for name in _SUMS)))
                for row in connection.execute(wanted)
            ]

    def close(self) -> None:
        self._engine.dispose()

    @contextmanager
    def _telling(self) -> Iterator[None]:
        """Turns the database's errors into what `unusable` makes of them."""
        try:
            yield
        except SQLAlchemyError as error:
            raise unusable(self._url, error) from error
