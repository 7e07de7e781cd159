"""Which photos are the same, or nearly: recompressed, scaled, brightened, cropped by a little.

Near duplicates are searched in two steps. First the pairs whose 64-bit fingerprints (`scan`) are at
most `MAX_BITS` = 7 bits apart; all of them, without comparing all pairs: the bits are dealt into
four bands of 16, and of 7 differences some band must hold at most one (multi-index hashing:
Norouzi, Punjani, Fleet, CVPR 2012, section 3). Then their thumbnails are compared, for two shirts
on one floor have similar fingerprints but not similar pixels.

The thresholds were set by looking: of 400 pairs of CIFAR-10 and of photos of clothing on a floor,
pairs up to 8 grey levels apart were the same picture and those above 10 often were not; the same
photo at half the size or at JPEG quality 50 is at most 7 apart.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int64, UInt8, UInt64

MAX_BITS = 7
#: Mean difference of two thumbnails, in grey levels of 255, their overall brightness made equal.
MAX_DIFFERENCE = 8.0
#: The same, as a share of the mean deviation from grey within the flatter of the two.
MAX_RELATIVE_DIFFERENCE = 0.35
#: Pairs of fingerprints, and of thumbnails, after which the search gives up: some seconds' work.
#: The 60,000 photos of CIFAR-10 need 4 million and 2 thousand.
MAX_CANDIDATES = 100_000_000
MAX_LOOKS = 500_000

_BANDS = 4
_BLOCK = 2_000_000  # pairs of fingerprints compared at a time
_LOOKS = 10_000  # pairs of thumbnails compared at a time


class NearDuplicates(NamedTuple):
    """The groups found, as positions in ascending order, and whether the search was complete."""

    groups: list[list[int]]
    complete: bool


def exact_groups(digests: Sequence[bytes]) -> list[list[int]]:
    """Positions of equal digests, in groups of two and more. Empty digests equal nothing."""
    groups: dict[bytes, list[int]] = {}
    for position, digest in enumerate(digests):
        if digest:
            groups.setdefault(digest, []).append(position)
    return [group for group in groups.values() if len(group) > 1]


def near_groups(
    fingerprints: UInt64[np.ndarray, " n"], thumbnails: UInt8[np.ndarray, "n d"]
) -> NearDuplicates:
    """Groups of two and more photos that are connected by pairs of near duplicates."""
    if len(fingerprints) < 2:
        return NearDuplicates([], complete=True)
    groups = _Groups(len(fingerprints))
    compared = looked = 0
    for left, right in _candidates(fingerprints):
        compared += len(left)
        close = np.bitwise_count(fingerprints[left] ^ fingerprints[right]) <= MAX_BITS
        left, right = left[close], right[close]
        for start in range(0, len(left), _LOOKS):
            a, b = left[start : start + _LOOKS], right[start : start + _LOOKS]
            unknown = groups.labels[a] != groups.labels[b]
            a, b = a[unknown], b[unknown]
            looked += len(a)
            same = alike(thumbnails[a], thumbnails[b])
            groups.join(a[same], b[same])
            if looked > MAX_LOOKS:
                return NearDuplicates(groups.of_several(), complete=False)
        if compared > MAX_CANDIDATES:
            return NearDuplicates(groups.of_several(), complete=False)
    return NearDuplicates(groups.of_several(), complete=True)


def alike(a: UInt8[np.ndarray, "n d"], b: UInt8[np.ndarray, "n d"]) -> Bool[np.ndarray, " n"]:
    """Whether pairs of thumbnails show the same, up to overall brightness."""
    a, b = a.astype(np.float32), b.astype(np.float32)
    a -= a.mean(1, keepdims=True)
    b -= b.mean(1, keepdims=True)
    difference = np.abs(a - b).mean(1)
    contrast = np.minimum(np.abs(a).mean(1), np.abs(b).mean(1))
    return (difference <= MAX_DIFFERENCE) & (difference <= MAX_RELATIVE_DIFFERENCE * contrast)


def _candidates(
    fingerprints: UInt64[np.ndarray, " n"],
) -> Iterator[tuple[Int64[np.ndarray, " m"], Int64[np.ndarray, " m"]]]:
    """Pairs that have a band in common up to one bit: all pairs within `MAX_BITS`, and others."""
    for keys in _bands(fingerprints):
        order = np.argsort(keys, kind="stable")
        ordered = keys[order]
        for flipped in (0, *(1 << bit for bit in range(16))):
            wanted = ordered ^ flipped
            first = np.searchsorted(ordered, wanted, "left")
            last = np.searchsorted(ordered, wanted, "right")
            # Each pair once: the partner stands further on in the order.
            first = np.maximum(first, np.arange(1, len(keys) + 1))
            for left, right in _expand(first, np.maximum(first, last)):
                yield order[left], order[right]


def _bands(fingerprints: UInt64[np.ndarray, " n"]) -> Iterator[Int64[np.ndarray, " n"]]:
    """Four keys of 16 bits, together all 64.

    Bits that are nearly always the same (a white margin) tell little. The bits are dealt in the
    order of how much they tell, so that no band is left with such bits only.
    """
    octets = fingerprints.astype(">u8").view(np.uint8).reshape(-1, 8)
    bits = np.unpackbits(octets, axis=1)
    order = np.argsort(np.abs(bits.mean(0) - 0.5), kind="stable")
    weights = 1 << np.arange(64 // _BANDS)
    for band in range(_BANDS):
        yield bits[:, order[band::_BANDS]].astype(np.int64) @ weights


def _expand(
    first: Int64[np.ndarray, " n"], last: Int64[np.ndarray, " n"]
) -> Iterator[tuple[Int64[np.ndarray, " m"], Int64[np.ndarray, " m"]]]:
    """All (i, j) with first[i] <= j < last[i], in blocks of bounded size."""
    counts = last - first
    ends = np.cumsum(counts)
    total = int(ends[-1]) if len(ends) else 0
    for start in range(0, total, _BLOCK):
        flat = np.arange(start, min(start + _BLOCK, total))
        left = np.searchsorted(ends, flat, "right")
        yield left, first[left] + flat - (ends[left] - counts[left])


class _Groups:
    """Connected groups: every position carries the smallest position of its group as a label."""

    def __init__(self, size: int):
        self.labels: Int64[np.ndarray, " n"] = np.arange(size)

    def join(self, left: Int64[np.ndarray, " m"], right: Int64[np.ndarray, " m"]) -> None:
        """Connect pairs."""
        parent = {int(label): int(label) for label in self.labels[np.concatenate([left, right])]}

        def root(label: int) -> int:
            while parent[label] != label:
                parent[label] = label = parent[parent[label]]
            return label

        for a, b in zip(self.labels[left].tolist(), self.labels[right].tolist(), strict=True):
            low, high = sorted((root(a), root(b)))
            parent[high] = low
        if parent:
            roots = np.arange(len(self.labels))
            for label in parent:
                roots[label] = root(label)
            self.labels = roots[self.labels]

    def of_several(self) -> list[list[int]]:
        """All groups of two and more."""
        labels, counts = np.unique(self.labels, return_counts=True)
        several = labels[counts > 1]
        groups: dict[int, list[int]] = {int(label): [] for label in several}
        for position in np.flatnonzero(np.isin(self.labels, several)).tolist():
            groups[int(self.labels[position])].append(position)
        return list(groups.values())
