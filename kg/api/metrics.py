"""Figures of a running app in the text format of Prometheus; each app has a registry of its own."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from kg.api.gate import Gate

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class Metrics:
    """Requests by route and status, their time, and the state of gates and of what routers add."""

    def __init__(self, gates: Sequence[Gate], others: Iterable[Collector]) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "kgfuse_http_requests", "Requests answered", ["route", "status"], registry=self.registry
        )
        self.seconds = Histogram(
            "kgfuse_http_request_seconds",
            "From the head of a request to the end of its answer",
            ["route"],
            buckets=SECONDS,
            registry=self.registry,
        )
        self.in_flight = Gauge("kgfuse_http_requests_in_flight", "Requests not answered yet", registry=self.registry)
        for collector in (GateCollector(gates), *others):
            self.registry.register(collector)
        ProcessCollector(registry=self.registry)

    def text(self) -> bytes:
        return generate_latest(self.registry)


class GateCollector(Collector):
    """How full gates are."""

    def __init__(self, gates: Sequence[Gate]) -> None:
        self._gates = gates

    def collect(self) -> Iterator[Metric]:
        gauges: dict[str, tuple[str, Callable[[Gate], int]]] = {
            "kgfuse_queue_length": ("Requests that wait for a worker or for their body", lambda gate: gate.waiting),
            "kgfuse_queue_limit": ("Requests that may wait", lambda gate: gate.queue),
            "kgfuse_workers_busy": ("Worker threads at work", lambda gate: gate.busy),
            "kgfuse_workers": ("Worker threads", lambda gate: gate.workers),
        }
        for name, (said, value) in gauges.items():
            gauge = GaugeMetricFamily(name, said, labels=["queue"])
            for gate in self._gates:
                gauge.add_metric([gate.name], value(gate))
            yield gauge
        refused = CounterMetricFamily(
            "kgfuse_requests_refused",
            "Requests turned away: the queue was full, or time was up",
            labels=["queue", "why"],
        )
        for gate in self._gates:
            refused.add_metric([gate.name, "full"], gate.refused)
            refused.add_metric([gate.name, "deadline"], gate.overdue)
        yield refused


class Metered:
    """Counts and times every request, whatever becomes of it."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        status = 500

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        started = time.perf_counter()
        try:
            with self._metrics.in_flight.track_inprogress():
                await self._app(scope, receive, noted)
        finally:
            # The template of the path, never the path: a caller could make any number of those.
            route = getattr(scope.get("route"), "path", "none")
            self._metrics.requests.labels(route, status).inc()
            self._metrics.seconds.labels(route).observe(time.perf_counter() - started)
        return None
