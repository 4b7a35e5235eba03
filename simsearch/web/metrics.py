"""What a server measures of itself, for Prometheus."""

from __future__ import annotations

import time

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from simsearch.web.middleware import App, Message, Receive, Scope, Send

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_SIZES = (1, 2, 4, 8, 16, 32, 64)


class Measures:
    """The counters of one server."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        self._requests = Counter(
            "simsearch_requests", "Requests answered.", ["route", "status"], registry=registry
        )
        self._seconds = Histogram(
            "simsearch_request_seconds",
            "Time to answer a request, in seconds.",
            ["route"],
            buckets=_SECONDS,
            registry=registry,
        )
        self.in_progress = Gauge(
            "simsearch_requests_in_progress", "Requests being answered.", registry=registry
        )
        self.turned_away = Counter(
            "simsearch_turned_away", "Requests answered 503, as too many wait.", registry=registry
        )
        self.batch = Histogram(
            "simsearch_batch_images",
            "Images that pass through the network together.",
            buckets=_SIZES,
            registry=registry,
        )
        self.images = Gauge("simsearch_library_images", "Images of the library.", registry=registry)
        self.reloads = Counter(
            "simsearch_library_reloads", "Times that a new library was opened.", registry=registry
        )

    def note(self, route: str, status: int, seconds: float) -> None:
        """Count a request that has been answered."""
        self._requests.labels(route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def text(self) -> bytes:
        """Return all of it in Prometheus' text format."""
        return generate_latest(self._registry)


class Measured:
    """Counts and times requests by their route: an address itself may be anything."""

    def __init__(self, app: App, measures: Measures) -> None:
        self.app, self._measures = app, measures

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and note how it was answered."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        status, start = 500, time.perf_counter()

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        with self._measures.in_progress.track_inprogress():
            try:
                await self.app(scope, receive, noting)
            finally:
                route = getattr(scope.get("route"), "path", "other")
                self._measures.note(route, status, time.perf_counter() - start)
