"""Who comes in: a bound on the photos inside, and on how long the last of them would wait.

A queue that grows answers everybody late; one that refuses answers most in time. Refusing is done
by counting, so it takes no time itself.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from xception.deploy.server.refusal import busy

_MEMORY = 0.05  # the share of the newest photo in the average


class Gate:
    """Counts the photos inside; used by the event loop alone.

    Args:
        limit: photos inside at once.
        patience_seconds: the longest wait that is worth coming in for.
        photo_seconds: how long a photo takes where photos follow each other, at first.
        clock: seconds that never go back.
    """

    def __init__(
        self,
        limit: int,
        patience_seconds: float,
        *,
        photo_seconds: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
    ):
        self.limit = limit
        self.patience_seconds = patience_seconds
        self.photo_seconds = photo_seconds
        self.inside = 0
        self._clock = clock
        self._last = clock()  # when a photo left, or the first one came

    def wait_seconds(self, photos: int = 0) -> float:
        """How long the last of so many more photos would be inside."""
        return (self.inside + photos) * self.photo_seconds

    def check(self, photos: int = 1, *, own: int = 0) -> None:
        """Raises `Refusal` (503) if so many more photos have no place.

        Who has the house to themselves, with `own` photos inside, may bring any number: waiting
        would not get them a better place.
        """
        if self.inside == own:
            return
        full = self.inside + photos > self.limit
        if full or self.wait_seconds(photos) > self.patience_seconds:
            raise busy(self.wait_seconds())

    @contextmanager
    def visit(self) -> Iterator["Visit"]:
        """A request's stay: what it brings in leaves with it."""
        visit = Visit(self)
        try:
            yield visit
        finally:
            visit.leave()

    def _enter(self, photos: int, own: int) -> None:
        self.check(photos, own=own)
        if not self.inside:
            self._last = self._clock()
        self.inside += photos

    def _leave(self, photos: int, *, answered: bool) -> None:
        self.inside -= photos
        if answered:
            now = self._clock()
            each = (now - self._last) / photos
            self._last = now
            share = 1 - (1 - _MEMORY) ** photos if self.photo_seconds else 1.0
            self.photo_seconds += share * (each - self.photo_seconds)


class Visit:
    """The photos of one request inside a `Gate`."""

    def __init__(self, gate: Gate):
        self._gate = gate
        self.photos = 0

    def bring(self, photos: int) -> None:
        """Come in with more photos. Raises `Refusal` (503) if there is no place."""
        self._gate._enter(photos, self.photos)
        self.photos += photos

    def answered(self) -> None:
        """All photos have their answers: they leave, and the gate learns how long it took."""
        photos, self.photos = self.photos, 0
        if photos:
            self._gate._leave(photos, answered=True)

    def leave(self) -> None:
        """Leave without an answer, if still inside."""
        photos, self.photos = self.photos, 0
        self._gate._leave(photos, answered=False)
