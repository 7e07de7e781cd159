"""What the server counts and measures, as Prometheus reads it."""

from collections.abc import Callable

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)
from starlette.responses import Response

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_PHOTOS = (1, 2, 4, 8, 16, 32, 64)


class Metrics:
    """One set of them for each server: `xception_…`, and `process_…` of the process."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        self.requests = Counter(
            "xception_requests", "Requests by path and status.", ["path", "status"],
            registry=registry,
        )  # fmt: skip
        self.seconds = Histogram(
            "xception_request_seconds", "From the end of the head to the end of the answer.",
            ["path"], registry=registry, buckets=_SECONDS,
        )  # fmt: skip
        self.photos = Counter(
            "xception_photos", "Photos by what came of them.", ["outcome"], registry=registry
        )
        self.refusals = Counter(
            "xception_refusals", "Requests refused, by reason.", ["reason"], registry=registry
        )
        self.closed = Counter(
            "xception_connections_closed", "Connections closed on the caller, by reason.",
            ["reason"], registry=registry,
        )  # fmt: skip
        self.batch_photos = Histogram(
            "xception_batch_photos", "Photos computed at once.", registry=registry, buckets=_PHOTOS
        )
        self.batch_seconds = Histogram(
            "xception_batch_seconds", "Computing a batch.", registry=registry, buckets=_SECONDS
        )
        ProcessCollector(registry=registry)

    def gauge(self, name: str, text: str, value: Callable[[], float]) -> None:
        """A value that is asked for whenever the metrics are read."""
        Gauge(f"xception_{name}", text, registry=self._registry).set_function(value)

    def observe_batch(self, photos: int, seconds: float) -> None:
        """A batch was computed."""
        self.batch_photos.observe(photos)
        self.batch_seconds.observe(seconds)

    def response(self) -> Response:
        """All of them in Prometheus' text format."""
        return Response(
            generate_latest(self._registry), headers={"Content-Type": CONTENT_TYPE_LATEST}
        )
