"""What the server allows: sizes, counts and times."""

import os
from dataclasses import dataclass

from xception.errors import UserError

#: Connections that the system holds until they are accepted, which may all be at once.
BACKLOG = 256
_SPARE_FILES = 100 + BACKLOG  # for everything that is no connection, or about to be refused


def most_connections(wanted: int = 1000) -> int:
    """As many connections as are wanted, or as this process may hold open files for."""
    if hasattr(os, "sysconf"):  # not on Windows
        wanted = min(wanted, os.sysconf("SC_OPEN_MAX") - _SPARE_FILES)
    return max(wanted, 8)


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Every bound of the server in one place.

    Raises:
        UserError: the queue is shorter than the photos that one request may bring.
    """

    body_bytes: int = 32 * 2**20
    """The longest body of a request."""
    bodies_bytes: int = 256 * 2**20
    """All bodies in memory together; the slowest sender gives way. The photos of a multipart body
    are taken out of it, and until they are answered take as much again."""
    pixels: int = 50_000_000
    """The largest picture, judged by its header before it is decoded."""
    mask_pixels: int = 2**20
    """Of a mask; a larger photo is scaled down before it is segmented."""
    image_pixels: int = 2**23
    """Of what a network that segments is shown of a photo: more than of the mask where its training
    scaled photos to one shorter side, and without bound if the photo is a sliver."""
    photos: int = 16
    """Photos in one request."""
    queue: int = 64
    """Photos accepted and not yet answered; more are refused."""
    connections: int = 1000
    """Open connections; the one that has kept us waiting longest gives way."""
    header_seconds: float = 10.0
    """From the first byte of a request, or the opening of a connection, to the end of its head; and
    how long a caller may take nothing of an answer."""
    body_seconds: float = 20.0
    """From there to the end of its body."""
    answer_seconds: float = 30.0
    """From there to the answer."""
    idle_seconds: int = 15
    """How long a connection may wait for its next request."""
    linger_seconds: float = 2.0
    """How long a caller may go on sending what was already refused."""
    farewell_seconds: float = 0.5
    """How long a server that was told to stop still takes in what is on its way."""

    def __post_init__(self) -> None:
        if self.photos > self.queue:
            raise UserError(
                f"a request may bring {self.photos} photos, but the queue holds {self.queue}"
            )

    @property
    def request_seconds(self) -> float:
        """After the head: body, answer, and sending it."""
        return self.body_seconds + self.answer_seconds + self.linger_seconds

    @property
    def patience_seconds(self) -> float:
        """The longest wait that is worth being accepted for: half of what an answer may take."""
        return self.answer_seconds / 2
