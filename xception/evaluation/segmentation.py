"""How well pixels are told apart: every pixel of every photo counted once, in one matrix.

Sums over all pixels, divided once (not means over photos), as in the PASCAL VOC challenge and Chen
et al. 2018, arXiv:1802.02611, §4. Pixels whose truth is `IGNORED` count nowhere. Along the
boundaries the same is counted in bands ("trimaps") of several widths, as in that paper's study of
its decoder (§4.4).
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor

from xception.data.masks import IGNORED as IGNORED
from xception.data.pair_loader import PairBatch
from xception.errors import UserError
from xception.evaluation.metrics import SMALLEST_PROBABILITY

TRIMAP_WIDTHS = (1, 2, 4, 8, 16, 32)  # pixels on either side of a boundary
CHUNK_PIXELS = 2**21  # counted at once: what that takes stays small beside a large photo


class Piece(NamedTuple):
    """The answer for a rectangle of a photo; the pieces of a photo cover each pixel once."""

    top: int
    left: int
    probabilities: Float[Tensor, "k h w"]


Segment = Callable[[UInt8[Tensor, "h w c"]], Iterable[Piece]]
"""From the pixels of a photo to its pieces: `inference.WholePhoto`, or `any_size.AnyPhoto`."""


class PhotoScore(NamedTuple):
    """One photo alone; only to tell good from bad ones, never averaged."""

    miou: float | None
    """Over the classes that occur in it; None where all its pixels are ignored."""
    accuracy: float | None


@dataclass
class PixelCounts:
    """What was counted so far. Counts of several processes are put together by `combine`.

    Args:
        counts: pixels by ring (the first of `TRIMAP_WIDTHS` whose band holds them, or none), true
            class and answer.
        ignored: pixels without a truth.
        loss: sum over the counted pixels of -log(probability of the truth), in nats.
        photos: position -> how that photo alone fared.
    """

    counts: Int64[np.ndarray, "rings k k"]
    ignored: int = 0
    loss: float = 0.0
    photos: dict[int, PhotoScore] = field(default_factory=dict)

    @classmethod
    def empty(cls, num_classes: int) -> "PixelCounts":
        """Nothing counted yet. Raises `ValueError` for more classes than a mask can hold."""
        if not 1 <= num_classes <= IGNORED:
            raise ValueError(f"1 to {IGNORED} classes fit into a mask, not {num_classes}")
        return cls(np.zeros((len(TRIMAP_WIDTHS) + 1, num_classes, num_classes), np.int64))

    @staticmethod
    def combine(parts: Sequence["PixelCounts"]) -> "PixelCounts":
        """The counts of several processes as one.

        Raises:
            ValueError: a photo was counted more than once.
        """
        photos = {position: score for part in parts for position, score in part.photos.items()}
        if len(photos) != sum(len(part.photos) for part in parts):
            raise ValueError("the parts overlap: a photo was counted more than once")
        return PixelCounts(
            np.stack([part.counts for part in parts]).sum(axis=0),
            sum(part.ignored for part in parts),
            sum(part.loss for part in parts),
            dict(sorted(photos.items())),
        )

    @property
    def confusion(self) -> Int64[np.ndarray, "k k"]:
        """All counted pixels; rows are truths, columns answers."""
        return self.counts.sum(axis=0)

    def add(
        self,
        position: int,
        truth: UInt8[np.ndarray, "h w"],
        answer: UInt8[np.ndarray, "h w"],
        loss: float = 0.0,
    ) -> None:
        """Count a photo.

        Args:
            position: where it stands in its split.
            truth: the class of each pixel, or IGNORED.
            answer: the class that the network gives it.
            loss: of all its counted pixels together.

        Raises:
            ValueError: it was counted already, or a class is out of range.
        """
        rings, k, _ = self.counts.shape
        if position in self.photos:
            raise ValueError(f"photo {position} was counted already")
        counted = truth != IGNORED
        if answer.max(initial=0) >= k or truth.max(initial=0, where=counted) >= k:
            raise ValueError(f"photo {position}: a mask has a class that is none of 0 to {k - 1}")
        band = boundary_rings(truth)
        found = np.zeros(rings * k * k, np.int64)
        rows = max(CHUNK_PIXELS // max(truth.shape[1], 1), 1)
        for top in range(0, len(truth), rows):
            part = slice(top, top + rows)
            here = counted[part]
            places = (band[part][here].astype(np.int64) * k + truth[part][here]) * k
            found += np.bincount(places + answer[part][here], minlength=len(found))
        own = found.reshape(rings, k, k)
        self.counts += own
        self.ignored += int(truth.size - counted.sum())
        self.loss += loss
        matrix = own.sum(axis=0)
        self.photos[position] = PhotoScore(mean(ious(matrix)), _accuracy(matrix))

    def figures(self, classes: Sequence[str]) -> dict[str, Any]:
        """What it amounts to, in plain numbers that JSON can hold.

        Args:
            classes: the names of the k classes.

        Returns:
            `samples` (photos), `pixels` (counted) and `ignored` (not counted); `miou`,
            `pixel_accuracy`, `mean_accuracy` (mean recall of the classes that occur), `log_loss`
            (nats per pixel); `iou` (class -> intersection over union), `per_class` (class -> iou,
            precision, recall, support in pixels), `absent` (the classes that neither the truth nor
            an answer has: their IoU is None and not part of the mean); `trimap` (width -> mean IoU
            of the pixels within so many pixels of a boundary); `confusion` (rows are truths).

        Raises:
            UserError: there is no photo, or no pixel that counts.
            ValueError: another number of classes.
        """
        matrix = self.confusion
        if len(classes) != len(matrix):
            raise ValueError(f"{len(classes)} names for {len(matrix)} classes")
        pixels = int(matrix.sum())
        if not pixels:
            what = "every pixel of the masks is ignored" if self.photos else "there are no photos"
            raise UserError(f"nothing to measure: {what}")
        hits, truths, answers = np.diagonal(matrix), matrix.sum(axis=1), matrix.sum(axis=0)
        recalls = _quotients(hits, truths)
        rows = zip(ious(matrix), _quotients(hits, answers), recalls, truths.tolist(), strict=True)
        names = ("iou", "precision", "recall", "support")
        per_class = {
            name: dict(zip(names, row, strict=True))
            for name, row in zip(classes, rows, strict=True)
        }
        within = self.counts.cumsum(axis=0)  # a wide band holds the narrower ones
        return {
            "samples": len(self.photos),
            "pixels": pixels,
            "ignored": self.ignored,
            "miou": mean(ious(matrix)),
            "pixel_accuracy": _accuracy(matrix),
            "mean_accuracy": mean(recalls),
            "log_loss": self.loss / pixels,
            "iou": {name: row["iou"] for name, row in per_class.items()},
            "per_class": per_class,
            "absent": [name for name, row in per_class.items() if row["iou"] is None],
            "trimap": {
                str(width): mean(ious(within[ring])) for ring, width in enumerate(TRIMAP_WIDTHS)
            },
            "confusion": matrix.tolist(),
        }


def evaluate_pairs(
    segment: Segment, pairs: Iterable[PairBatch], *, num_classes: int
) -> PixelCounts:
    """Shows every photo to a network and counts its pixels, at the size of the mask.

    Args:
        segment: gives the pieces of a photo.
        pairs: photos and masks, as `data.pair_loader.evaluation_pairs` gives them.
        num_classes: of the network and the masks.

    Raises:
        UserError: the network answers with NaN or infinity.
        ValueError: a mask or an answer has a class that there is not, or a photo comes twice.
    """
    counts = PixelCounts.empty(num_classes)
    for batch in pairs:
        rows = zip(batch.pixels, batch.targets, batch.positions.tolist(), strict=True)
        for pixels, target, position in rows:
            answer, loss = judge(segment(pixels), target)
            counts.add(position, target.numpy(), answer, loss)
    return counts


def judge(
    pieces: Iterable[Piece], target: UInt8[Tensor, "h w"]
) -> tuple[UInt8[np.ndarray, "h w"], float]:
    """The class of each pixel, and the sum of -log(probability of the truth) where there is one."""
    answer = torch.zeros_like(target)
    loss = 0.0
    for piece in pieces:
        _, height, width = piece.probabilities.shape
        place = slice(piece.top, piece.top + height), slice(piece.left, piece.left + width)
        answer[place] = piece.probabilities.argmax(0).to(torch.uint8).cpu()
        truth = target[place].to(piece.probabilities.device).long()
        counted = truth != IGNORED
        chosen = piece.probabilities.gather(0, truth.where(counted, 0)[None])[0][counted]
        loss -= float(chosen.clamp(min=SMALLEST_PROBABILITY).log().sum(dtype=torch.float64))
    return answer.numpy(), loss


def ious(confusion: Int64[np.ndarray, "k k"]) -> list[float | None]:
    """Intersection over union of each class; None where neither truth nor answer has it."""
    hits = np.diagonal(confusion)
    return _quotients(hits, confusion.sum(axis=0) + confusion.sum(axis=1) - hits)


def mean(values: Iterable[float | None]) -> float | None:
    """The mean of those that exist."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def boundary_rings(truth: UInt8[np.ndarray, "h w"]) -> UInt8[np.ndarray, "h w"]:
    """For each pixel the index of the narrowest of `TRIMAP_WIDTHS` whose band holds it.

    The band of width w holds the w pixels on either side of each boundary, measured along rows,
    columns and diagonals (a square dilation). A boundary is where two neighbours in a row or a
    column differ; where ignored pixels begin is one too, because there are datasets (PASCAL VOC)
    that ignore the very pixels along the outlines of things.
    """
    band = np.zeros(truth.shape, bool)
    for axis in (0, 1):
        lines, marked = np.moveaxis(truth, axis, 0), np.moveaxis(band, axis, 0)
        differ = lines[1:] != lines[:-1]
        marked[1:] |= differ
        marked[:-1] |= differ
    ring = np.full(truth.shape, len(TRIMAP_WIDTHS), np.uint8)
    ring -= band
    for narrow, wide in pairwise(TRIMAP_WIDTHS):
        band = dilated(band, wide - narrow)
        ring -= band
    return ring


def dilated(band: Bool[np.ndarray, "h w"], by: int) -> Bool[np.ndarray, "h w"]:
    """All pixels of which a pixel of the band is at most `by` rows and `by` columns away."""
    for axis in (0, 1):
        reach = 0
        while reach < by:
            step = min(reach + 1, by - reach)  # more would leap over what lies beyond the edge
            lines = np.moveaxis(band, axis, 0)
            grown = lines.copy()
            grown[step:] |= lines[:-step]
            grown[:-step] |= lines[step:]
            band, reach = np.moveaxis(grown, 0, axis), reach + step
    return band


def _quotients(
    parts: Int64[np.ndarray, " k"], wholes: Int64[np.ndarray, " k"]
) -> list[float | None]:
    pairs = zip(parts.tolist(), wholes.tolist(), strict=True)
    return [part / whole if whole else None for part, whole in pairs]


def _accuracy(confusion: Int64[np.ndarray, "k k"]) -> float | None:
    total = int(confusion.sum())
    return int(np.trace(confusion)) / total if total else None
