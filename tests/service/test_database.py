"""How the database is opened."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from sqlalchemy.pool import QueuePool

from simple_asr.service.database import SQLITE_POOL, open_database, sqlite_url


def test_few_connections_stay_open_after_a_moment_of_many(tmp_path: Path) -> None:
    engine = open_database(sqlite_url(tmp_path / "jobs.sqlite3"))
    assert isinstance(engine.pool, QueuePool)

    with ExitStack() as moment:
        for _ in range(10):
            moment.enter_context(engine.connect())

    assert engine.pool.checkedin() == SQLITE_POOL["pool_size"] < 5
    engine.dispose()
