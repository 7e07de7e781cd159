"""Which photos come when in training, and with which random numbers: by (seed, epoch, place)."""

from collections import Counter
from collections.abc import Iterable

import numpy as np
from jaxtyping import Float, Int64

from xception.data.folders import Photo


def steps_per_epoch(count: int, batch_size: int) -> int:
    """Whole batches in an epoch of `count` photos; if they are too few for one, one of them all."""
    return max(1, count // batch_size)


def epoch_order(
    count: int, seed: int, epoch: int, weights: Float[np.ndarray, "n"] | None = None
) -> Int64[np.ndarray, "n"]:
    """The positions of one epoch: a permutation, or with weights as many draws with replacement."""
    rng = np.random.default_rng([seed, epoch, 0])
    if weights is None:
        return rng.permutation(count)
    return rng.choice(count, size=count, p=weights)


def balanced_weights(members: Iterable[Photo]) -> Float[np.ndarray, "n"]:
    """Probabilities of the photos that give every class the same chance, where each has one label.

    Several labels: the rarest counts. Photos without a label are a class of their own.
    """
    groups = [photo.labels or (-1,) for photo in members]
    counts = Counter(label for labels in groups for label in labels)
    weights = np.array([1 / min(counts[label] for label in labels) for labels in groups])
    return weights / weights.sum()


class Draws:
    """The random numbers of an epoch's photos, from one counter-based generator.

    Setting its counter is several times cheaper than seeding a generator for each photo, which for
    small photos is felt.
    """

    def __init__(self, seed: int, epoch: int):
        self._bits = np.random.Philox([seed, epoch, 1])  # 0 is the epoch's order
        self._start = self._bits.state
        self._generator = np.random.Generator(self._bits)

    def at(self, place: int) -> np.random.Generator:
        """The generator at the numbers of one place in the epoch; valid until the next call."""
        self._bits.state = self._start
        self._bits.advance(place << 128)  # of a period of 2^256 blocks
        return self._generator
