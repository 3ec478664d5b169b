"""`simple-asr models`: which models there are, and fetching them before they are needed."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from simple_asr.assembly import build_model_store
from simple_asr.cli.console import log_to, notices, results
from simple_asr.cli.progress import download_bars
from simple_asr.engine.models import KnownModel
from simple_asr.settings import load_settings

app = typer.Typer(
    help="List models, and download them ahead of time.", no_args_is_help=True, add_completion=False
)


@app.command("list")
def show() -> None:
    """List the models known by name, and those in MODEL_DOWNLOAD_ROOT."""
    table = Table("Name", "Where", "Size", "Notes", box=None)
    table.columns[2].justify = "right"
    for model in build_model_store(load_settings()).models():
        table.add_row(Text(model.name), _place(model), _size(model.num_bytes), Text(model.notes))
    results().print(table)


@app.command()
def download(
    name: Annotated[str, typer.Argument(help="A name of the list, or owner/name on the hub.")],
) -> None:
    """Fetch a model into MODEL_DOWNLOAD_ROOT, and print its folder."""
    settings = load_settings()
    console = notices()
    with log_to(console, verbose=settings.log_level == "debug"), download_bars(console) as show:
        files = build_model_store(settings).resolve(name, show)
    typer.echo(files.folder)


def _place(model: KnownModel) -> str:
    return "installed with the server" if model.state == "bundled" else model.state


def _size(num_bytes: int) -> str:
    return f"{num_bytes / 1e6:.0f} MB" if num_bytes else "?"
