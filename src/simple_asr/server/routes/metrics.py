"""GET /metrics: what the server counts of itself, for Prometheus."""

from __future__ import annotations

import asyncio
import hmac
from ipaddress import ip_address

from fastapi import APIRouter, Request
from starlette.responses import Response

from simple_asr.server.dependencies import TheServices
from simple_asr.server.middleware import host_of
from simple_asr.server.openapi import METRICS_RESPONSES
from simple_asr.server.problems import NotFound
from simple_asr.service.metrics import CONTENT_TYPE
from simple_asr.service.peers import UNIX
from simple_asr.settings import Settings

router = APIRouter()


@router.get(
    "/metrics",
    summary="Figures for Prometheus",
    response_class=Response,
    responses=METRICS_RESPONSES,
)
async def metrics(request: Request, services: TheServices) -> Response:
    """To whoever sends `METRICS_TOKEN`, and to this machine itself with `METRICS_ON_LOOPBACK`.

    404 to everybody else: API keys are for those who transcribe.
    """
    if not _may_read(request, services.settings):
        raise NotFound("There is nothing at this path for you. GET /openapi.json lists what is.")
    return Response(await asyncio.to_thread(services.metrics.exposition), media_type=CONTENT_TYPE)


def _may_read(request: Request, settings: Settings) -> bool:
    if settings.metrics_on_loopback and _is_from_here(request):
        return True
    token = settings.metrics_token
    if token is None:
        return False
    presented = request.headers.get("authorization", "").encode("latin-1")
    return hmac.compare_digest(presented, f"Bearer {token.get_secret_value()}".encode())


def _is_from_here(request: Request) -> bool:
    """A proxy on this machine speaks for others, and says so."""
    if "x-forwarded-for" in request.headers or "forwarded" in request.headers:
        return False
    host = host_of(request.scope)
    if host == UNIX:
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
