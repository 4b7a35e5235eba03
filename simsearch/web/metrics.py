"""Prometheus metrics of a server, and the middleware that counts requests."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

import anyio
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

SECONDS_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
LOOP_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2)
LOOK_SECONDS = 0.02
BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64)


class Metrics:
    """The counters of one server."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        self.last_request = -math.inf  # when it came or was answered, by `time.monotonic`
        self.requests = Counter(
            "simsearch_requests", "Requests answered.", ["route", "status"], registry=registry
        )
        self.seconds = Histogram(
            "simsearch_request_seconds",
            "Time to answer a request, in seconds.",
            ["route"],
            buckets=SECONDS_BUCKETS,
            registry=registry,
        )
        self.in_progress = Gauge(
            "simsearch_requests_in_progress", "Requests being answered.", registry=registry
        )
        self.rejected = Counter(
            "simsearch_turned_away", "Requests answered 503, as too many wait.", registry=registry
        )
        self.batch = Histogram(
            "simsearch_batch_images",
            "Images that pass through the network together.",
            buckets=BATCH_SIZES,
            registry=registry,
        )
        self.images = Gauge("simsearch_library_images", "Images of the library.", registry=registry)
        self.reloads = Counter(
            "simsearch_library_reloads", "Times that a new library was opened.", registry=registry
        )

        self.loop_late = Histogram(
            "simsearch_loop_late_seconds",
            "How late the event loop comes to what is due, in seconds.",
            buckets=LOOP_BUCKETS,
            registry=registry,
        )
        self.loop_busy = Histogram(
            "simsearch_loop_busy_seconds",
            "Processor time of the event loop between two looks at what is due, in seconds.",
            buckets=LOOP_BUCKETS,
            registry=registry,
        )

    async def watch_loop(self) -> None:
        """Measure the event loop that this runs on, until cancelled.

        What it computes between two looks, no other request can be answered meanwhile; how late it
        is depends on the machine's other work, too.
        """
        while True:
            start, computed = time.perf_counter(), time.thread_time()
            await anyio.sleep(LOOK_SECONDS)
            self.loop_late.observe(max(0.0, time.perf_counter() - start - LOOK_SECONDS))
            self.loop_busy.observe(time.thread_time() - computed)

    def text(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        return generate_latest(self._registry)


class MetricsMiddleware:
    """Counts and times requests by route.

    A label is the template of a route, or "other": clients cannot make new labels.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on a request, and record status and time of its response."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        status, start = 500, time.perf_counter()

        async def send_and_record(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        self._metrics.last_request = time.monotonic()
        with self._metrics.in_progress.track_inprogress():
            try:
                await self.app(scope, receive, send_and_record)
            finally:
                self._metrics.last_request = time.monotonic()
                route = getattr(scope.get("route"), "path", "other")
                self._metrics.requests.labels(route, str(status)).inc()
                self._metrics.seconds.labels(route).observe(time.perf_counter() - start)
