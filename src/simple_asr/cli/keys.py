"""`simple-asr keys`: edits the key file. A running server takes changes over by itself."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from simple_asr.cli.console import results
from simple_asr.service.keys import add_key, generate_key, list_keys, revoke_key

app = typer.Typer(help="Add, list and revoke API keys.", no_args_is_help=True, add_completion=False)

KeyFile = Annotated[
    Path | None,
    typer.Option("--file", help="Key file to use instead of KEYS_FILE.", show_default=False),
]


@app.command()
def add(
    key: Annotated[
        str | None,
        typer.Argument(help="Key to add. Absent: a new one is made.", show_default=False),
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Whose key it is, for logs and for `revoke`.")
    ] = None,
    file: KeyFile = None,
) -> None:
    """Add a key to the key file. A key made here is printed, this once."""
    path = _key_file(file)
    added = add_key(path, key, name)
    typer.echo(f"Added to {path}. A running server accepts it within seconds.", err=True)
    if key is None:
        typer.echo(added)


@app.command("list")
def show(file: KeyFile = None) -> None:
    """List the keys by name and beginning."""
    table = Table("Name", "Key", "Line", box=None)
    for entry in list_keys(_key_file(file)):
        table.add_row(Text(entry.name), Text(entry.hint), str(entry.line))
    results().print(table)


@app.command()
def revoke(
    name: Annotated[
        str, typer.Argument(metavar="NAME_OR_PREFIX", help="Its name, or how the key begins.")
    ],
    file: KeyFile = None,
) -> None:
    """Take a key out of the key file."""
    path = _key_file(file)
    revoked = revoke_key(path, name)
    typer.echo(
        f"Revoked {revoked.name} ({revoked.hint}). A running server refuses it within seconds.",
        err=True,
    )


@app.command()
def generate() -> None:
    """Print a new key, and put it nowhere."""
    typer.echo(generate_key())


def _key_file(given: Path | None) -> Path:
    if given is not None:
        return given
    # Settings take half a second to import, which `generate` and `--file` need not wait for.
    from simple_asr.settings import load_settings  # noqa: PLC0415

    return load_settings().keys_file
