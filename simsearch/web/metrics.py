"""Prometheus metrics of a server, and the middleware that counts requests."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

SECONDS_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64)


class Metrics:
    """The counters of one server."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
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

        with self._metrics.in_progress.track_inprogress():
            try:
                await self.app(scope, receive, send_and_record)
            finally:
                route = getattr(scope.get("route"), "path", "other")
                self._metrics.requests.labels(route, str(status)).inc()
                self._metrics.seconds.labels(route).observe(time.perf_counter() - start)
