"""`simple-asr health`: asks the server of these settings how it is, for containers and scripts."""

from __future__ import annotations

import math
from typing import Annotated

import httpx2
import typer

from simple_asr.errors import Unavailable
from simple_asr.server.listener import reachable, url_of
from simple_asr.server.tls import TlsFiles
from simple_asr.settings import Settings, load_settings

app = typer.Typer(add_completion=False)


def _a_number(seconds: float) -> float:
    if math.isnan(seconds):  # Which no range keeps out.
        raise typer.BadParameter("nan is no number of seconds.")
    return seconds


@app.command()
def health(
    ready: Annotated[
        bool, typer.Option("--ready", help="Whether to send requests there, /health/ready.")
    ] = False,
    timeout: Annotated[
        float,
        typer.Option(help="Seconds it has for an answer.", min=0.1, max=3600, callback=_a_number),
    ] = 4,
) -> None:
    """Ask the server on this machine how it is.

    It is looked for where the settings have it listen: by TCP, TLS or socket file. Prints its
    answer. Exits with 0 when it is well, 1 when it is not or does not answer.
    """
    settings = load_settings()
    try:
        with client_of(settings, timeout) as client:
            answer = client.get("/health/ready" if ready else "/health")
    except httpx2.HTTPError as error:
        raise Unavailable(f"The server gives no answer: {error or type(error).__name__}.") from None
    typer.echo(answer.text)
    if answer.is_error:
        raise typer.Exit(1)


def client_of(settings: Settings, timeout: float) -> httpx2.Client:
    """Asks the server of these settings on this machine. Raises ConfigurationError."""
    is_https = TlsFiles.from_settings(settings) is not None
    socket_file = None if settings.unix_socket is None else str(settings.unix_socket)
    return httpx2.Client(
        base_url=url_of(reachable(settings.host), settings.port, is_https=is_https),
        # The certificate is for the name that others call; who answers on this machine is known.
        transport=httpx2.HTTPTransport(verify=False, uds=socket_file),
        timeout=timeout,
    )
