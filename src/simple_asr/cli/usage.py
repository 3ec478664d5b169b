"""`simple-asr usage`: what each key has used, by day, from the server's database."""

from __future__ import annotations

import json
from datetime import date, datetime, timedelta, timezone
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from simple_asr.assembly import database_url
from simple_asr.cli.console import results
from simple_asr.service.database import DATABASE_FILE
from simple_asr.service.usage import UsedInDay
from simple_asr.service.usage_store import UsageStore
from simple_asr.settings import Settings, load_settings

app = typer.Typer(add_completion=False)

DEFAULT_DAYS = 30


@app.command()
def usage(
    since: Annotated[
        datetime | None,
        typer.Option(
            formats=["%Y-%m-%d"],
            help=f"First day (UTC). Absent: {DEFAULT_DAYS} days ago.",
            show_default=False,
        ),
    ] = None,
    key: Annotated[
        str | None, typer.Option(help="Name of one key; absent: all.", show_default=False)
    ] = None,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON, a list of days.")] = False,
) -> None:
    """Tell what each key has used, by day.

    Requests, and seconds of audio and of computing. A running server writes them within seconds.
    """
    since = since or datetime.now(timezone.utc) - timedelta(days=DEFAULT_DAYS)
    rows = [row for row in _rows(load_settings(), since.date()) if key in (None, row.key_name)]
    if as_json:
        typer.echo(json.dumps([_fields(row) for row in rows], indent=1, ensure_ascii=False))
    else:
        _show(rows)


def _rows(settings: Settings, since: date) -> list[UsedInDay]:
    """Raises Unavailable, ConfigurationError."""
    if settings.database_url is None and not (settings.jobs_dir / DATABASE_FILE).exists():
        return []  # No server has run here: reading makes no database.
    store = UsageStore(database_url(settings))
    try:
        return store.since(since)
    finally:
        store.close()


def _fields(row: UsedInDay) -> dict[str, str | int | float]:
    return {
        "day": row.day.isoformat(),
        "key": row.key_name,
        "requests": row.used.requests,
        "audio_seconds": round(row.used.audio_seconds, 3),
        "compute_seconds": round(row.used.compute_seconds, 3),
    }


def _show(rows: list[UsedInDay]) -> None:
    table = Table("Day", "Key", box=None)
    for heading in ("Requests", "Audio, s", "Computing, s"):
        table.add_column(heading, justify="right")
    for row in rows:
        used = row.used
        table.add_row(
            row.day.isoformat(),
            Text(row.key_name),
            str(used.requests),
            f"{used.audio_seconds:.1f}",
            f"{used.compute_seconds:.1f}",
        )
    results().print(table)
