"""`simple-asr serve`: puts the server together from its settings, and runs it."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from contextlib import suppress
from typing import Annotated, NoReturn

import typer

from simple_asr.assembly import build_transcriber
from simple_asr.cli.progress import download_log
from simple_asr.cli.rocm import tell_rocm
from simple_asr.errors import ConfigurationError, ModelUnavailable
from simple_asr.server import run
from simple_asr.server.app import create_app
from simple_asr.service.keys import KeyStore
from simple_asr.service.metrics import Metrics
from simple_asr.settings import Settings, load_settings

logger = logging.getLogger(__name__)

app = typer.Typer(add_completion=False)


@app.command()
def serve(
    host: Annotated[
        str | None, typer.Option(help="Address to listen on instead of HOST.", show_default=False)
    ] = None,
    port: Annotated[
        int | None, typer.Option(help="Port to listen on instead of PORT.", min=1, max=65535)
    ] = None,
    *,
    cluster: Annotated[
        bool, typer.Option("--cluster", help="Serve from a Ray cluster (docs/cluster.md).")
    ] = False,
    min_replicas: Annotated[int, typer.Option(help="Fewest replicas of the cluster.", min=1)] = 1,
    max_replicas: Annotated[
        int | None,
        typer.Option(help="Most replicas of the cluster; the fewest unless given.", min=1),
    ] = None,
    cpus_per_replica: Annotated[
        int, typer.Option(help="Cores that each replica of the cluster has.", min=1)
    ] = 1,
    gpus_per_replica: Annotated[
        float, typer.Option(help="GPUs that each replica of the cluster has.", min=0)
    ] = 0,
) -> None:
    """Serve over HTTP until stopped.

    Answers at once, and with 503 until the model is loaded. SIGTERM lets running requests finish;
    SIGHUP reads keys, their limits and the log level again. Exits with 78 when it cannot serve as
    it is set up.
    """
    settings = _settings(host, port)
    run.configure_logging(settings.log_level, settings.log_format)
    tell_rocm(settings)
    if cluster:
        _serve_cluster(
            settings,
            {
                "min_replicas": min_replicas,
                "max_replicas": max_replicas or min_replicas,
                "cpus_per_replica": cpus_per_replica,
                "gpus_per_replica": gpus_per_replica,
                "grace_seconds": settings.grace_seconds,
            },
        )
        return
    _take_signals()
    key_store = _open_key_store(settings)
    metrics = Metrics()
    transcriber = build_transcriber(settings, download_log(), metrics)
    try:
        with suppress(SystemExit):  # how a signal ends it
            transcriber.start(on_failure=_stop)
            app = create_app(settings, transcriber, key_store, metrics=metrics)
            run.serve(app, settings)
    finally:
        # The loader's word that it failed may come this late, and must not end it with success.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        transcriber.close()
    if transcriber.model_state.status == "failed":
        raise ModelUnavailable(transcriber.model_state.reason)


def _serve_cluster(settings: Settings, arguments: dict[str, float]) -> None:
    """Until SIGTERM or SIGINT. Raises ConfigurationError where Ray is not installed."""
    try:
        from simple_asr import cluster  # noqa: PLC0415  (Ray is there for those who ask for it)
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"--cluster needs Ray, and {error.name} is not installed. Start with "
            "`./start_server.sh --cluster`, or install the extra: "
            "pip install 'simple-asr-server[cluster]'."
        ) from None
    plan = cluster.read_plan(arguments)
    _open_key_store(settings)
    stopped = threading.Event()
    with cluster.running(settings, plan):
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stopped.set())
        stopped.wait()


def _settings(host: str | None, port: int | None) -> Settings:
    given = {"host": host, "port": port}
    settings = load_settings()
    return settings.model_copy(update={name: value for name, value in given.items() if value})


def _stop() -> None:
    """Ends this process as an operator would: a server without a model is of no use."""
    os.kill(os.getpid(), signal.SIGTERM)


def _take_signals() -> None:
    """For the time before and after the server's own handlers are there."""
    # Uvicorn, once it has stopped, sends itself the SIGTERM again; by default that is death by it.
    signal.signal(signal.SIGTERM, _end_with_success)
    # The keys are about to be read anyway.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)


def _end_with_success(*_: object) -> NoReturn:
    sys.exit(0)


def _open_key_store(settings: Settings) -> KeyStore:
    """The keys in force; a new one where there is no key file yet. Raises InvalidKeyFile."""
    key_store = KeyStore(settings.keys_file)
    new_key = key_store.create_if_missing()
    if new_key is not None:
        _show_new_key(new_key, settings)
    key_store.reload()
    return key_store


def _show_new_key(key: str, settings: Settings) -> None:
    """This once, on standard output; the log, on standard error, never has it."""
    typer.echo(f"\nA new API key, which is kept in {settings.keys_file}:\n\n  {key}\n")
    typer.echo(f"To transcribe a file:\n\n  {_curl(key, settings)}\n")


def _curl(key: str, settings: Settings) -> str:
    return (
        f'curl -H "X-API-Key: {key}" -F audio_file=@clip.wav '
        f"http://{_reachable(settings.host)}:{settings.port}/transcribe"
    )


def _reachable(host: str) -> str:
    """What to write in an address for the host that is listened on."""
    if host in ("0.0.0.0", "::"):  # noqa: S104  (compared with, not listened on)
        return "localhost"
    return f"[{host}]" if ":" in host else host
