"""`simple-asr doctor`: looks at everything the server needs, and says what is wrong and what to do.

What is looked at, and how, is `checks.py`'s business.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from simple_asr.cli.checks import MACHINE_CHECKS, SERVER_CHECKS, Finding
from simple_asr.cli.console import results
from simple_asr.cli.rocm import tell_rocm
from simple_asr.errors import ConfigurationError
from simple_asr.settings import Settings, load_settings

app = typer.Typer(add_completion=False)

MARKS = {"ok": ("✓", "green"), "warning": ("!", "yellow"), "error": ("✗", "red")}


@app.command()
def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON document.")] = False,
) -> None:
    """Tell what would keep this machine from serving, and what to do.

    Changes nothing. Exits with 0 when the server can work here, 1 when it cannot.
    """
    findings = tuple(_findings())
    can_serve = all(finding.outcome != "error" for finding in findings)
    if as_json:
        document = {"can_serve": can_serve, "findings": [asdict(finding) for finding in findings]}
        typer.echo(json.dumps(document, ensure_ascii=False, indent=2))
    else:
        _print(findings, can_serve)
    if not can_serve:
        raise typer.Exit(1)


def _findings() -> Iterator[Finding]:
    for check in MACHINE_CHECKS:
        yield from check()
    try:
        settings = load_settings()
    except ConfigurationError as error:
        yield Finding("error", "Settings", error.detail)
        return
    yield Finding("ok", "Settings", "all valid")
    yield from _findings_about(settings)


def _findings_about(settings: Settings) -> Iterator[Finding]:
    tell_rocm(settings)
    for check in SERVER_CHECKS:
        yield from check(settings)


def _print(findings: Sequence[Finding], can_serve: bool) -> None:
    console = results()
    console.print(_table(findings))
    console.print()
    console.print(
        "The server can work here."
        if can_serve
        else "The server cannot work here until what is marked ✗ is mended."
    )


def _table(findings: Iterable[Finding]) -> Table:
    table = Table.grid(padding=(0, 2, 0, 0))
    for finding in findings:
        mark, colour = MARKS[finding.outcome]
        text = "\n".join(filter(None, [finding.text, finding.advice and f"→ {finding.advice}"]))
        table.add_row(Text(mark, colour), finding.subject, Text(text))
    return table
