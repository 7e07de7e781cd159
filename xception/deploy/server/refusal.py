"""What a caller is told who cannot be served."""

import json
import math

from starlette.responses import Response


class Refusal(Exception):
    """An answer other than the one that was asked for.

    Args:
        status: of HTTP; 4xx if the caller can mend it, 503 if time can.
        message: what is wrong and what would be right, in one line.
        reason: one word for the metrics.
        retry_seconds: when to try again, with 503.
    """

    def __init__(
        self, status: int, message: str, reason: str, *, retry_seconds: float | None = None
    ):
        super().__init__(message)
        self.status = status
        self.message = message
        self.reason = reason
        self.retry_seconds = retry_seconds

    def response(self) -> Response:
        """The answer: the message as JSON, with the headers that the status asks for."""
        headers = {}
        if self.retry_seconds is not None:
            headers["Retry-After"] = str(max(1, math.ceil(self.retry_seconds)))
        if self.status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        return Response(
            json.dumps({"error": self.message}, ensure_ascii=False),
            self.status,
            headers,
            "application/json",
        )


def busy(retry_seconds: float) -> Refusal:
    """The server has as much to do as it can answer in time."""
    return Refusal(503, "too busy; try again later", "busy", retry_seconds=retry_seconds)
