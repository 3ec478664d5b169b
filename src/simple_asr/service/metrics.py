"""What the server counts and measures of itself, in Prometheus' terms.

Whoever serves, recognises or decodes tells it; a scrape reads it. Keys appear by name, never by
value; text and audio do not appear.
"""

from __future__ import annotations

import math
import resource
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector

from simple_asr.engine.engine import Queue
from simple_asr.engine.machine import available_memory
from simple_asr.engine.request import Outcome
from simple_asr.service.usage import Used
from simple_asr.transcript.model import Processing

CONTENT_TYPE = CONTENT_TYPE_LATEST

# Seconds: from a short clip on a GPU to an hour on a laptop.
_SECONDS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800, 7200)
_BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
_REAL_TIME_FACTORS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5)


class Metrics:
    """One server's. Any thread may tell it anything: prometheus_client has a lock for each number.

    `_begun` belongs to the event loop.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._begun: dict[object, float] = {}
        self.queue: Callable[[], Queue] = Queue
        """Asked at each scrape, which is all there is to say of what waits now."""
        # A time of birth beside each counter would double the figures, and tells nobody anything.
        disable_created_metrics()  # type: ignore[no-untyped-call]  # it has no annotations
        registry = self._registry = CollectorRegistry(auto_describe=True)
        ProcessCollector(registry=registry)
        self._requests = Counter(
            "asr_requests", "Requests answered.", ("route", "status"), registry=registry
        )
        self._request_seconds = Histogram(
            "asr_request_seconds",
            "From a request's head to the end of its answer.",
            ("route",),
            buckets=_SECONDS,
            registry=registry,
        )
        self._key_requests = Counter(
            "asr_key_requests", "Requests by name of the key.", ("key",), registry=registry
        )
        self._key_audio = Counter(
            "asr_key_audio_seconds", "Audio recognised, by key.", ("key",), registry=registry
        )
        self._key_compute = Counter(
            "asr_key_compute_seconds",
            "Time spent decoding and recognising, by key.",
            ("key",),
            registry=registry,
        )
        self._stages = Histogram(
            "asr_stage_seconds",
            "Where a transcription's time went: waiting, decoding, recognising.",
            ("stage",),
            buckets=_SECONDS,
            registry=registry,
        )
        self._real_time_factor = Histogram(
            "asr_real_time_factor",
            "Seconds of work for each second of audio.",
            buckets=_REAL_TIME_FACTORS,
            registry=registry,
        )
        self._windows = Counter(
            "asr_windows",
            "Windows the model answered or failed on, by what was asked.",
            ("step", "outcome"),
            registry=registry,
        )
        self._outcomes = Counter(
            "asr_window_outcomes",
            "Windows whose text was kept, that were decoded anew, or that held nothing.",
            ("outcome",),
            registry=registry,
        )
        self._batches = Histogram(
            "asr_batch_windows", "Windows in a model call.", buckets=_BATCH_SIZES, registry=registry
        )
        self._calls = Histogram(
            "asr_model_call_seconds", "Time of a model call.", buckets=_SECONDS, registry=registry
        )
        self._gauge("asr_requests_in_progress", "Begun, not ended.", lambda: len(self._begun))
        self._gauge("asr_oldest_request_seconds", "Age of the oldest of them.", self._oldest)
        self._gauge(
            "asr_queue_windows", "That wait for the model.", lambda: self.queue().num_windows
        )
        self._gauge(
            "asr_queue_age_seconds",
            "How long the first of them has waited.",
            lambda: self.queue().age,
        )
        self._gauge(
            "asr_decoder_resident_bytes", "Memory of the child processes.", children_resident_bytes
        )
        self._gauge(
            "asr_available_memory_bytes",
            "That can be had without swapping; NaN where the system does not tell.",
            lambda: _or_nan(available_memory()),
        )

    # Told by whoever does it ---------------------------------------------------------------------

    def request_began(self, request: object) -> None:
        self._begun[request] = self._clock()

    def request_ended(
        self,
        request: object,
        *,
        route: str,
        status: int | None,
        key_name: str | None = None,
        audio_seconds: float | None = None,
        processing: Processing | None = None,
    ) -> None:
        """`route` is the path's pattern, so that callers cannot make up series; `status` is None
        where the caller left before an answer began.
        """
        seconds = self._clock() - self._begun.pop(request)
        self._requests.labels(route, "none" if status is None else str(status)).inc()
        self._request_seconds.labels(route).observe(seconds)
        if key_name is not None:
            self._key_requests.labels(key_name).inc()
        if processing is not None:
            self._stages.labels("queue").observe(processing.queue)
            self._stages.labels("decode").observe(processing.decode)
            self._stages.labels("recognise").observe(processing.recognise)
            factor = processing.real_time_factor(audio_seconds or 0)
            if factor is not None:
                self._real_time_factor.observe(factor)

    def key_used(self, key_name: str, used: Used) -> None:
        """A request or a part of a job, beside the number of requests."""
        self._key_audio.labels(key_name).inc(used.audio_seconds)
        self._key_compute.labels(key_name).inc(used.compute_seconds)

    def model_called(
        self, step: str, num_windows: int, seconds: float, *, has_failed: bool
    ) -> None:
        """One call, of windows that all ask for the same `step`."""
        self._windows.labels(step, "failed" if has_failed else "answered").inc(num_windows)
        self._batches.observe(num_windows)
        self._calls.observe(seconds)

    def window_ended(self, outcome: Outcome) -> None:
        """What became of one window, or of one attempt at it."""
        self._outcomes.labels(outcome).inc()

    def count(self, name: str, meaning: str, value: Callable[[], int]) -> None:
        """Shows a number that somebody else counts."""
        self._registry.register(_Counted(name, meaning, value))

    # Read by a scrape ----------------------------------------------------------------------------

    def exposition(self) -> bytes:
        """Everything, as CONTENT_TYPE has it."""
        return generate_latest(self._registry)

    def _gauge(self, name: str, meaning: str, value: Callable[[], float]) -> None:
        Gauge(name, meaning, registry=self._registry).set_function(value)

    def _oldest(self) -> float:
        return self._clock() - min(self._begun.values(), default=self._clock())


class _Counted(Collector):
    def __init__(self, name: str, meaning: str, value: Callable[[], int]) -> None:
        self._name, self._meaning, self._value = name, meaning, value

    def collect(self) -> Iterator[CounterMetricFamily]:
        yield CounterMetricFamily(self._name, self._meaning, value=self._value())


def _or_nan(value: int | None) -> float:
    return math.nan if value is None else value


def children_resident_bytes() -> int:
    """Memory of this process's children. 0 where the system does not tell."""
    pages = 0
    try:
        for task in Path("/proc/self/task").iterdir():
            for child in (task / "children").read_text().split():
                pages += _resident_pages(child)
    except OSError:
        return 0
    return pages * resource.getpagesize()


def _resident_pages(process_id: str) -> int:
    try:
        return int(Path("/proc", process_id, "statm").read_text().split()[1])
    except OSError:  # it has ended meanwhile
        return 0
