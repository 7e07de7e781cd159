"""Where a training stands, besides its tensors; all of it is in the checkpoint."""

from dataclasses import dataclass, field
from typing import Any


@dataclass
class Tally:
    """Sums over an epoch so far."""

    loss: float = 0.0  # of photos
    right: float = 0.0  # answers
    answers: float = 0.0  # that are right or wrong
    seen: int = 0  # photos

    def __add__(self, other: "Tally") -> "Tally":
        return Tally(
            self.loss + other.loss,
            self.right + other.right,
            self.answers + other.answers,
            self.seen + other.seen,
        )

    @property
    def accuracy(self) -> float | None:
        """The share of right answers; None where answers are not right or wrong as such."""
        return self.right / self.answers if self.answers else None


@dataclass
class Position:
    """Where a training stands, besides its tensors."""

    step: int = 0
    seconds: float = 0.0
    epoch_seconds: float = 0.0
    tally: Tally = field(default_factory=Tally)
    history: list[dict[str, Any]] = field(default_factory=list)
    best: tuple[float, float] | None = None  # (score, -loss) on validation
