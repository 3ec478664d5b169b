"""Traces: which stages a request had, and what a collector is sent of it."""

from __future__ import annotations

import gzip
import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest
from fastapi import FastAPI
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from simple_asr.errors import ConfigurationError
from simple_asr.server import tracing
from simple_asr.server.app import create_app
from simple_asr.server.record import RequestRecord
from simple_asr.server.tracing import Stage, Tracing, stages
from simple_asr.service.fake import FakeTranscriber
from simple_asr.service.keys import KeyStore
from simple_asr.settings import Settings
from simple_asr.transcript.model import Processing
from tests.support import WAIT

CLIP = {"audio_file": ("clip.wav", b"RIFF", "audio/wav")}
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


# Stages ------------------------------------------------------------------------------------------


def test_a_transcription_has_its_stages_without_a_gap() -> None:
    record = RequestRecord("id", received=11.0, recognised=17.0, processing=Processing(1, 2, 3))

    assert list(stages(record, began=10.0, ended=18.0)) == [
        Stage("receive", 10.0, 11.0),
        Stage("queue", 11.0, 12.0),
        Stage("decode", 12.0, 14.0),
        Stage("recognise", 14.0, 17.0),
        Stage("write", 17.0, 18.0),
    ]


def test_a_request_that_is_refused_has_only_the_stages_it_came_to() -> None:
    refused = RequestRecord("id")
    failed = RequestRecord("id", received=11.0)

    assert list(stages(refused, 10.0, 12.0)) == []
    assert list(stages(failed, 10.0, 12.0)) == [Stage("receive", 10.0, 11.0)]


# What is sent ------------------------------------------------------------------------------------


class Collector:
    """Stands for one that speaks OTLP over HTTP."""

    def __init__(self) -> None:
        self._spans: queue.Queue[Span] = queue.Queue()
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers["Content-Encoding"] == "gzip":
                    body = gzip.decompress(body)
                collector.take(self.path, body)
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.services: set[str] = set()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"

    def take(self, path: str, body: bytes) -> None:
        assert path == "/v1/traces"
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            self.services |= {
                attribute.value.string_value
                for attribute in resource.resource.attributes
                if attribute.key == "service.name"
            }
            for scope in resource.scope_spans:
                for span in scope.spans:
                    self._spans.put(span)

    def spans(self) -> list[Span]:
        """All that have come."""
        return list(self._spans.queue)


@pytest.fixture
def collector() -> Iterator[Collector]:
    collector = Collector()
    thread = threading.Thread(target=collector.server.serve_forever)
    thread.start()
    yield collector
    collector.server.shutdown()
    thread.join(WAIT)
    collector.server.server_close()


Live = Callable[[FastAPI], AbstractContextManager[int]]
MakeApp = Callable[..., FastAPI]


@pytest.fixture
def make_app(
    make_settings: Callable[..., Settings],
    make_key_store: Callable[[Settings], KeyStore],
    transcriber: FakeTranscriber,
) -> MakeApp:
    def make(endpoint: str) -> FastAPI:
        settings = make_settings(otel_exporter_otlp_endpoint=endpoint)
        return create_app(settings, transcriber, make_key_store(settings))

    return make


def test_a_request_is_a_span_with_its_stages_in_the_callers_trace(
    collector: Collector, make_app: MakeApp, live: Live, key: str
) -> None:
    headers = {"X-API-Key": key, "traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"}
    with live(make_app(collector.address)) as port:
        address = f"http://127.0.0.1:{port}"
        answer = httpx.post(f"{address}/transcribe", files=CLIP, headers=headers)
        httpx.get(f"{address}/health")

    spans = {span.name: span for span in collector.spans()}
    whole = spans.pop("POST /transcribe")
    known = {item.key: item.value for item in whole.attributes}
    assert set(spans) == {"receive", "queue", "decode", "recognise", "write"}
    assert {span.parent_span_id for span in spans.values()} == {whole.span_id}
    assert {span.trace_id.hex() for span in collector.spans()} == {TRACE}
    assert whole.kind == Span.SPAN_KIND_SERVER
    assert known["http.response.status_code"].int_value == 200
    assert known["asr.request_id"].string_value == answer.headers["x-request-id"]
    assert known["asr.key"].string_value == "alice"
    assert known["asr.audio_seconds"].double_value == 2.5
    assert collector.services == {"simple-asr"}
    assert seconds(spans["decode"]) == pytest.approx(0.5, abs=1e-3)
    assert key.encode() not in b"".join(span.SerializeToString() for span in collector.spans())


def seconds(span: Span) -> float:
    return (span.end_time_unix_nano - span.start_time_unix_nano) / 1e9


def test_a_failure_of_ours_is_an_error_of_the_span_and_a_callers_is_none(
    collector: Collector, make_app: MakeApp, live: Live, transcriber: FakeTranscriber, key: str
) -> None:
    transcriber.error = RuntimeError("the inside")
    with live(make_app(collector.address)) as port:
        address = f"http://127.0.0.1:{port}"
        httpx.post(f"{address}/transcribe", files=CLIP, headers={"X-API-Key": key})
        httpx.get(f"{address}/nothing")

    codes = {span.name: span.status.code for span in collector.spans()}
    assert codes["POST /transcribe"] == 2  # STATUS_CODE_ERROR
    assert codes["GET other"] == 0


def test_a_collector_that_is_not_there_costs_no_request_anything(
    make_app: MakeApp, live: Live, key: str
) -> None:
    with live(make_app("http://127.0.0.1:1")) as port:
        answer = httpx.post(
            f"http://127.0.0.1:{port}/transcribe", files=CLIP, headers={"X-API-Key": key}
        )

    assert answer.status_code == 200


# Without it --------------------------------------------------------------------------------------


def test_without_the_setting_nothing_of_it_is_imported() -> None:
    program = (
        "import sys\n"
        "from simple_asr.server.tracing import Tracing\n"
        "from simple_asr.settings import Settings\n"
        "import simple_asr.server.app\n"
        "Tracing(Settings(_env_file=None, otel_exporter_otlp_endpoint=''))\n"
        "parts = ('opentelemetry.sdk', 'opentelemetry.exporter')\n"
        "assert not [name for name in sys.modules if name.startswith(parts)]\n"
    )

    subprocess.run([sys.executable, "-c", program], check=True, timeout=WAIT)


def test_a_collector_without_the_extra_is_a_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracing, "EXPORTER", "opentelemetry_is_not_here")
    settings = Settings.model_validate({"otel_exporter_otlp_endpoint": "http://localhost:4318"})

    with pytest.raises(ConfigurationError, match=r"simple-asr-server\[otel\]"):
        Tracing(settings)
