"""`simple-asr serve`: reads what is asked for, and sees that a server is there until the end.

Light to import, since its process may stay for ever as the parent of the one that serves.
"""

from __future__ import annotations

import logging
import signal
import socket
import threading
from typing import Annotated

import typer

from simple_asr.cli.rocm import tell_rocm
from simple_asr.errors import ConfigurationError
from simple_asr.server.listener import listening
from simple_asr.server.log import configure_logging
from simple_asr.server.supervisor import StandIn, Supervised, is_supported, keep_serving
from simple_asr.settings import Settings, load_settings

logger = logging.getLogger(__name__)

app = typer.Typer(add_completion=False)

_AT_ITS_NEXT_START = (
    "A cluster takes up keys by itself; limits, the certificate and the log level it reads at its "
    "next start: SIGHUP changes nothing."
)


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
    SIGHUP reads keys, their limits, the certificate and the log level again. Exits with 78 when it
    cannot serve as it is set up. A server that dies or hangs is started again, unless
    SUPERVISE=false.
    """
    settings = _settings(host, port)
    configure_logging(settings.log_level, settings.log_format)
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
    if not (settings.supervise and is_supported()):
        _serve_until_stopped(settings)
        return
    with listening(settings) as listener:
        _serve_until_stopped(settings, keep_serving(listener, _stand_in(settings)))


def _serve_until_stopped(settings: Settings, supervised: Supervised | None = None) -> None:
    # Not before: libraries that start threads must not be forked.
    from simple_asr.cli.serving import serve_until_stopped  # noqa: PLC0415

    serve_until_stopped(settings, supervised)


def _stand_in(settings: Settings) -> StandIn:
    def answer(listener: socket.socket, seconds: float) -> None:
        from simple_asr.server.stand_in import answering_for  # noqa: PLC0415  (as above)

        answering_for(settings)(listener, seconds)

    return answer


def _serve_cluster(settings: Settings, arguments: dict[str, float]) -> None:
    """Until SIGTERM or SIGINT. Raises ConfigurationError where Ray is not installed."""
    from simple_asr.cli.serving import open_key_store  # noqa: PLC0415  (heavy)

    try:
        from simple_asr import cluster  # noqa: PLC0415  (Ray is there for those who ask for it)
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"--cluster needs Ray, and {error.name} is not installed. Start with "
            "`./start_server.sh --cluster`, or install the extra: "
            "pip install 'simple-asr-server[cluster]'."
        ) from None
    plan = cluster.read_plan(arguments)
    open_key_store(settings)
    stopped = threading.Event()
    # By default it would end this process, and leave the cluster without a word.
    signal.signal(signal.SIGHUP, lambda *_: logger.warning(_AT_ITS_NEXT_START))
    with cluster.running(settings, plan):
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stopped.set())
        stopped.wait()


def _settings(host: str | None, port: int | None) -> Settings:
    given = {"host": host, "port": port}
    settings = load_settings()
    return settings.model_copy(update={name: value for name, value in given.items() if value})
