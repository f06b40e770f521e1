"""Counters for Prometheus."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_BUCKETS = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300)


class Metrics:
    """The counters of one gateway.

    Attributes:
        requests: finished requests, by route, method and status; 499 for those whose caller went away.
        seconds: their duration, by route.
        audio_seconds: duration of the audio that was computed or analyzed, by route.
        in_progress: requests that have a place now.
    """

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self.requests = Counter(
            "gomin_gateway_requests", "Finished requests.", ["route", "method", "status"], registry=self._registry
        )
        self.seconds = Histogram(
            "gomin_gateway_request_seconds",
            "Duration of requests.",
            ["route"],
            buckets=_BUCKETS,
            registry=self._registry,
        )
        self.audio_seconds = Counter(
            "gomin_gateway_audio_seconds", "Duration of the audio of requests.", ["route"], registry=self._registry
        )
        self.in_progress = Gauge(
            "gomin_gateway_requests_in_progress", "Requests that have a place.", registry=self._registry
        )

    def text(self) -> bytes:
        """All of them, in Prometheus' text format."""
        return generate_latest(self._registry)
