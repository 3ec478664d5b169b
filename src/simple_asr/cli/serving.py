"""Puts the server together from its settings, and runs it in this process."""

from __future__ import annotations

import logging
import os
import signal
import sys
import time
from typing import NoReturn

import typer

from simple_asr.assembly import build_transcriber, database_url
from simple_asr.cli.progress import download_log
from simple_asr.errors import ModelUnavailable
from simple_asr.server import run
from simple_asr.server.app import create_app
from simple_asr.server.dependencies import Services
from simple_asr.server.listener import reachable, url_of
from simple_asr.server.supervisor import EXIT_AGAIN, Supervised, end_now
from simple_asr.service.database import SILENT_SECONDS, check_database
from simple_asr.service.keys import KeyStore
from simple_asr.service.metrics import Metrics
from simple_asr.service.models import ModelPool
from simple_asr.settings import Settings

logger = logging.getLogger(__name__)


def serve_until_stopped(settings: Settings, supervised: Supervised | None) -> None:
    """Raises ModelUnavailable and other errors of the set-up, and Unavailable without a database.

    Ends the process with EXIT_AGAIN where a model's engine answers no more.
    """
    _take_signals()
    key_store = open_key_store(settings)
    metrics = Metrics()
    metrics.count(
        "asr_restarts",
        "Servers that died or hung before this one.",
        lambda: supervised.num_deaths if supervised else 0,
    )
    transcriber = build_transcriber(settings, download_log(), metrics)
    try:
        app = create_app(settings, transcriber, key_store, metrics=metrics)
        _open_jobs(app.state.services)
        transcriber.start(_stop, on_loss=lambda: _stop_when_told(transcriber, settings))
        run.serve(app, settings, supervised)
    except SystemExit as ending:
        if ending.code:  # None and 0 are how a signal ends it
            raise
    finally:
        # The loader's word that it failed may come this late, and must not end it with success.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if transcriber.model_state.status == "restarting":
            end_now(EXIT_AGAIN)  # To close what hangs would hang.
        transcriber.close()
    if transcriber.model_state.status == "failed":
        raise ModelUnavailable(transcriber.model_state.reason)


def _open_jobs(services: Services) -> None:
    """Before a model is loaded in vain; and uvicorn would have only a traceback for a fault."""
    if services.settings.database_url is not None:
        # Nobody watches a start: what drops every packet would hold it up for ever. The tables
        # themselves may take their time.
        check_database(database_url(services.settings), patience=SILENT_SECONDS)
    services.jobs.open()


def _stop() -> None:
    """Ends this process as an operator would: a server without a model is of no use."""
    os.kill(os.getpid(), signal.SIGTERM)


def _stop_when_told(transcriber: ModelPool, settings: Settings) -> None:
    """The same, once everybody who waits has been told, or has had the time of a stop."""
    deadline = time.monotonic() + settings.grace_seconds
    while transcriber.num_requests and time.monotonic() < deadline:
        time.sleep(0.1)
    _stop()


def _take_signals() -> None:
    """For the time before and after the server's own handlers are there."""
    # Uvicorn, once it has stopped, sends itself the SIGTERM again; by default that is death by it.
    signal.signal(signal.SIGTERM, _end_with_success)
    # The keys are about to be read anyway.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)


def _end_with_success(*_: object) -> NoReturn:
    sys.exit(0)


def open_key_store(settings: Settings) -> KeyStore:
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
    is_https = settings.tls_certificate is not None
    to = url_of(reachable(settings.host), settings.port, is_https=is_https)
    if settings.unix_socket is not None:
        to = f"--unix-socket {settings.unix_socket} http://localhost"
    return f'curl -H "X-API-Key: {key}" -F audio_file=@clip.wav {to}/transcribe'
