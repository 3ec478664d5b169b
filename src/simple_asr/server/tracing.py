"""Traces for an OpenTelemetry collector: a span for each request, and below it one for each stage.

They are written when the request has ended, from what was measured anyway. OpenTelemetry's SDK is
imported only where the setting asks for traces.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

from starlette.datastructures import Headers
from starlette.types import Scope

from simple_asr import __version__
from simple_asr.errors import ConfigurationError
from simple_asr.server.record import RequestRecord
from simple_asr.settings import Settings

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

# Seconds a collector has for an answer, and in all at the end: nobody else waits for it.
PATIENCE = 2
# The one of the extra that needs all others.
EXPORTER = "opentelemetry.exporter.otlp.proto.http.trace_exporter"


@dataclass(frozen=True, slots=True)
class Stage:
    """What a request went through, from and to seconds of `time.perf_counter`."""

    name: str
    began: float
    ended: float


def stages(record: RequestRecord, began: float, ended: float) -> Iterator[Stage]:
    """The stages that a request has completed, in their order.

    `queue` is the wait for a decoder and that for the model, put together before both.
    """
    if record.received is not None:
        yield Stage("receive", began, record.received)
    if record.processing is None or record.recognised is None:
        return
    at = record.recognised - record.processing.total
    for name in ("queue", "decode", "recognise"):
        until = at + getattr(record.processing, name)
        yield Stage(name, at, until)
        at = until
    yield Stage("write", record.recognised, ended)


class Tracing:
    """Tells the collector of the setting. Owned by the event loop; a thread of the SDK sends."""

    def __init__(self, settings: Settings) -> None:
        """Nothing begins before `telling`. Raises ConfigurationError where the extra is missing."""
        self._endpoint = settings.otel_exporter_otlp_endpoint
        self._provider: TracerProvider | None = None
        if self._endpoint:
            _check_installed()

    @asynccontextmanager
    async def telling(self) -> AsyncIterator[None]:
        """For as long as the context lasts requests are told of, if they are to be.

        Its end takes some seconds where the collector does not answer.
        """
        if not self._endpoint:
            yield
            return
        self._provider = provider = self._make_provider()
        try:
            yield
        finally:
            self._provider = None
            await asyncio.to_thread(provider.shutdown)

    def request_ended(self, scope: Scope, record: RequestRecord, route: str, began: float) -> None:
        """`began` is its first moment, of `time.perf_counter`; its last is now."""
        if self._provider is None:
            return
        from opentelemetry.trace import SpanKind, StatusCode, set_span_in_context  # noqa: PLC0415
        from opentelemetry.trace.propagation.tracecontext import (  # noqa: PLC0415
            TraceContextTextMapPropagator,
        )

        ended = time.perf_counter()
        since_epoch = time.time_ns() - int(ended * 1e9)

        def at(seconds: float) -> int:
            return since_epoch + int(seconds * 1e9)

        tracer = self._provider.get_tracer("simple_asr", __version__)
        caller = TraceContextTextMapPropagator().extract(dict(Headers(scope=scope)))
        span = tracer.start_span(
            f"{scope['method']} {route}",
            caller,
            SpanKind.SERVER,
            _attributes(scope, record, route),
            start_time=at(began),
        )
        within = set_span_in_context(span)
        for stage in stages(record, began, ended):
            part = tracer.start_span(stage.name, within, start_time=at(stage.began))
            part.end(at(stage.ended))
        if record.status is None or record.status >= 500:
            span.set_status(StatusCode.ERROR)
        span.end(at(ended))

    def _make_provider(self) -> TracerProvider:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import (  # noqa: PLC0415
            OTLPSpanExporter,
        )
        from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415

        exporter = OTLPSpanExporter(f"{self._endpoint.rstrip('/')}/v1/traces", timeout=PATIENCE)
        resource = Resource.create()
        # Unless OTEL_SERVICE_NAME or OTEL_RESOURCE_ATTRIBUTES has named it.
        if str(resource.attributes["service.name"]).startswith("unknown_service"):
            resource = resource.merge(Resource({"service.name": "simple-asr"}))
        provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        provider.add_span_processor(BatchSpanProcessor(exporter))
        return provider


def _attributes(scope: Scope, record: RequestRecord, route: str) -> dict[str, str | int | float]:
    """By OpenTelemetry's names where it has one; the key's name, never the key."""
    known = {
        "http.request.method": scope["method"],
        "http.route": route,
        "http.response.status_code": record.status,
        "asr.request_id": record.request_id,
        "asr.key": record.key_name,
        "asr.model": record.model,
        "asr.audio_seconds": record.audio_seconds,
    }
    return {name: value for name, value in known.items() if value is not None}


def _check_installed() -> None:
    try:
        import_module(EXPORTER)
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"OTEL_EXPORTER_OTLP_ENDPOINT is set, and {error.name} is not installed. Start with "
            "./start_server.sh, which installs it, or install the extra: "
            "pip install 'simple-asr-server[otel]'."
        ) from None
