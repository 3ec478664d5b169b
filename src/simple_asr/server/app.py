"""Puts the HTTP door together. To add a route, add a module to `routes/` and a row to ROUTERS."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from simple_asr import __version__
from simple_asr.assembly import (
    build_downloads,
    build_jobs,
    build_outgoing,
    build_usage,
    build_webhooks,
)
from simple_asr.errors import AsrError, ConfigurationError
from simple_asr.server import error_answers
from simple_asr.server.dependencies import Services
from simple_asr.server.intake import BodyLimits
from simple_asr.server.key_reload import watch_keys
from simple_asr.server.middleware import (
    HeaderLimits,
    HeadLimits,
    LastResort,
    LingeringClose,
    RequestEnvelope,
    RequestsPerAddress,
)
from simple_asr.server.openapi import component_schemas
from simple_asr.server.openapi_v1 import openai_schemas
from simple_asr.server.pages import WebFiles
from simple_asr.server.path_prefix import PathPrefix
from simple_asr.server.routes import (
    batches,
    dialects,
    formatting,
    health,
    index,
    jobs,
    keys,
    metrics,
    models,
    openai,
    transcribe,
)
from simple_asr.server.tracing import Tracing
from simple_asr.service.charges import Charges
from simple_asr.service.keys import KeyStore
from simple_asr.service.metrics import Metrics
from simple_asr.service.models import Models
from simple_asr.service.peers import OpenPerCaller, Proxies
from simple_asr.service.quotas import Quotas, read_limits
from simple_asr.service.spool import sweep
from simple_asr.service.webhook_sender import WebhookSender
from simple_asr.service.wrong_keys import WrongKeys
from simple_asr.settings import Settings

DESCRIPTION = "Speech to text with every parameter of `whisper.transcribe()`."
# What a page of another origin may read of an answer, beside what every page may.
EXPOSED_HEADERS = ("X-Request-Id", "Retry-After", "X-ASR-Model", "X-ASR-Warnings", "Location")


def create_app(
    settings: Settings,
    transcriber: Models,
    key_store: KeyStore,
    *,
    limits: BodyLimits | None = None,
    metrics: Metrics | None = None,
) -> FastAPI:
    """The ASGI application. Nothing is read or started before its lifespan begins.

    `limits` are those of `settings` unless given; `metrics` are what others report to as well. The
    transcriber and the keys stay their owner's, who loads and closes them.
    """
    metrics = metrics or Metrics()
    outgoing = build_outgoing(settings)
    downloads = build_downloads(settings, outgoing)
    webhooks = build_webhooks(settings, outgoing)
    _count_webhooks(metrics, webhooks)
    tracing = Tracing(settings)
    app = _App(
        title="Simple ASR",
        version=__version__,
        description=DESCRIPTION,
        # FastAPI's pages load their scripts from another host; `/docs` is ours.
        docs_url=None,
        redoc_url=None,
        servers=[{"url": settings.root_path}] if settings.root_path else None,
        # A redirect would lose the body of a POST, and repeats a Host header nobody checked.
        redirect_slashes=False,
        lifespan=_lifespan,
        middleware=[
            Middleware(ProxyHeadersMiddleware, trusted_hosts=settings.trusted_proxies),
            Middleware(RequestEnvelope, transcriber=transcriber, metrics=metrics, tracing=tracing),
            Middleware(PathPrefix, prefix=settings.root_path),
            *_cors(settings),
            Middleware(LastResort, timeout=settings.request_timeout_seconds),
            Middleware(
                RequestsPerAddress,
                per_address=OpenPerCaller(
                    settings.max_connections_per_address, Proxies(settings.trusted_proxies)
                ),
            ),
            Middleware(LingeringClose),
            Middleware(HeaderLimits, limits=HeadLimits.from_settings(settings)),
        ],
    )
    quotas, usage = Quotas(read_limits(settings.limits_file)), build_usage(settings)
    charges = Charges(key_store, quotas, usage, metrics)
    app.state.services = Services(
        settings=settings,
        transcriber=transcriber,
        keys=key_store,
        limits=limits or BodyLimits.from_settings(settings),
        jobs=build_jobs(
            settings,
            transcriber,
            downloads=downloads,
            webhooks=webhooks,
            on_work=charges.to_owner,
        ),
        downloads=downloads,
        metrics=metrics,
        quotas=quotas,
        charges=charges,
        wrong_keys=WrongKeys(settings.max_wrong_keys_per_minute),
    )
    app.state.tracing = tracing
    app.add_exception_handler(AsrError, error_answers.answer_asr_error)
    app.add_exception_handler(HTTPException, error_answers.answer_http_exception)
    app.add_exception_handler(RequestValidationError, error_answers.answer_validation_error)
    for router in ROUTERS:
        app.include_router(router)
    app.mount("/web", WebFiles())
    _check_prefix(app, settings.root_path)
    return app


def _cors(settings: Settings) -> list[Middleware]:
    """Lets pages of other origins in. Keys come in headers: browsers need send no credentials."""
    if not settings.allowed_origins:
        return []
    return [
        Middleware(
            CORSMiddleware,
            allow_origins=settings.allowed_origins,
            allow_methods=["GET", "HEAD", "POST", "DELETE"],
            # OpenAI's SDK adds a dozen of its own, and other clients theirs.
            allow_headers=["*"],
            expose_headers=EXPOSED_HEADERS,
        )
    ]


def _check_prefix(app: FastAPI, prefix: str) -> None:
    """Raises ConfigurationError where a path would mean one thing with the prefix taken off, and
    another with it left on.
    """
    routes = [*app.routes, *(route for router in ROUTERS for route in router.routes)]
    taken = [getattr(route, "path", "") for route in routes]
    if prefix and any(f"{path}/".startswith(f"{prefix}/") for path in taken):
        raise ConfigurationError(
            f"ROOT_PATH={prefix} is how paths of the server itself begin. Show it under another "
            "path, such as /speech."
        )


def _count_webhooks(metrics: Metrics, webhooks: WebhookSender) -> None:
    metrics.count("asr_webhooks_delivered", "Webhooks delivered.", lambda: webhooks.num_delivered)
    metrics.count(
        "asr_webhook_failures",
        "Attempts that failed.",
        lambda: webhooks.num_failed_attempts,
    )
    metrics.count("asr_webhooks_dead", "Webhooks given up.", lambda: webhooks.num_dead)


class _App(FastAPI):
    def openapi(self) -> dict[str, Any]:
        document = super().openapi()
        schemas = document.setdefault("components", {}).setdefault("schemas", {})
        schemas.update({**component_schemas(), **openai_schemas()})
        return document


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    services: Services = app.state.services
    tracing: Tracing = app.state.tracing
    for folder in (services.settings.spool_dir, services.settings.jobs_dir):
        await asyncio.to_thread(sweep, folder)
    watcher = asyncio.create_task(watch_keys(services.keys))
    try:
        async with tracing.telling(), services.charges.kept(), services.jobs.working():
            yield
    finally:
        watcher.cancel()
        with suppress(asyncio.CancelledError):
            await watcher


ROUTERS = (
    index.router,
    transcribe.router,
    formatting.router,
    batches.router,
    jobs.router,
    openai.router,
    dialects.router,
    health.router,
    keys.router,
    models.router,
    metrics.router,
)
