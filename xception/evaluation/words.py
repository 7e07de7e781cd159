"""What the figures of an evaluation say, in words and in small tables for the page of a report."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

THIN = "\u202f"  # narrow space that does not break, between a number and its unit
SMALL_GAP = 0.03  # a difference of confidence and accuracy that is called good


def percent(share: float | None, digits: int = 1) -> str:
    """0.724 -> "72.4 %"; a share that does not exist is a dash."""
    return "–" if share is None else f"{100 * share:.{digits}f}{THIN}%"


def count(number: int) -> str:
    """22855952 -> "22,855,952"."""
    return f"{number:,}"


def magnitude(number: float) -> str:
    """22855952 -> "22.9 M", to three digits, in powers of a thousand."""
    for unit, size in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= size:
            return f"{number / size:.3g}{THIN}{unit}"
    return f"{number:.3g}"


def duration(seconds: float) -> str:
    """151 -> "2 min 31 s"; the two largest units."""
    if seconds < 10:
        return f"{seconds:.1f}{THIN}s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}{THIN}h {minutes}{THIN}min"
    return f"{minutes}{THIN}min {rest}{THIN}s" if minutes else f"{rest}{THIN}s"


def photos(number: int, kind: str = "") -> str:
    """Counted photos: "1 photo", "214 test photos"; those of all splits have no kind."""
    kind = "" if kind == "all" else kind
    return f"{number:,} {kind + ' ' if kind else ''}photo{'' if number == 1 else 's'}"


def guessing(metrics: Mapping[str, Any]) -> tuple[str, float]:
    """The most common class of the split, and the accuracy of always answering it."""
    per_class = metrics["per_class"]
    name = max(per_class, key=lambda c: per_class[c]["support"])
    return name, per_class[name]["support"] / metrics["samples"]


def guessing_pixels(metrics: Mapping[str, Any]) -> tuple[str, float, float]:
    """The most common class of the pixels; accuracy and mean IoU of answering it everywhere."""
    supports = {name: row["support"] for name, row in metrics["per_class"].items()}
    name = max(supports, key=lambda c: supports[c])
    share = supports[name] / metrics["pixels"]
    return name, share, share / sum(support > 0 for support in supports.values())


def mistaken(metrics: Mapping[str, Any]) -> int:
    """How many photos were taken for something else."""
    return metrics["samples"] - int(np.trace(metrics["confusion"]))


def confused_pairs(
    metrics: Mapping[str, Any], classes: Sequence[str], limit: int = 8
) -> list[dict[str, Any]]:
    """The mistakes that occur most: truth, predicted, count and share of the true class."""
    matrix = np.array(metrics["confusion"])
    np.fill_diagonal(matrix, 0)
    order = np.argsort(-matrix, axis=None, kind="stable")[:limit]
    pairs = []
    for truth, predicted in zip(*np.unravel_index(order, matrix.shape), strict=True):
        if number := int(matrix[truth, predicted]):
            support = metrics["per_class"][classes[truth]]["support"]
            pairs.append(
                {
                    "truth": classes[truth],
                    "predicted": classes[predicted],
                    "count": number,
                    "share": number / support,
                }
            )
    return pairs


def hardest_first(metrics: Mapping[str, Any], by: str) -> list[tuple[str, dict[str, Any]]]:
    """The classes that were measured, the one with the lowest figure `by` first."""
    measured = [(name, row) for name, row in metrics["per_class"].items() if row["support"]]
    return sorted(measured, key=lambda item: item[1][by])


def unmeasured(metrics: Mapping[str, Any]) -> list[str]:
    """The classes without a sample in this split."""
    return [name for name, row in metrics["per_class"].items() if not row["support"]]


def calibration(metrics: Mapping[str, Any]) -> str:
    """Whether the confidence of a classification can be taken at its word."""
    bins = [row for row in metrics["reliability"] if row["samples"]]
    claimed = sum(row["samples"] * row["confidence"] for row in bins) / metrics["samples"]
    gap = claimed - metrics["top1"]
    verdict = (
        "about as sure as it should be"
        if abs(gap) < SMALL_GAP
        else f"{'a little' if abs(gap) < 0.1 else 'far'} too {'sure' if gap > 0 else 'modest'}"
    )
    return (
        f"On average it claims {percent(claimed)} and is right in {percent(metrics['top1'])} of "
        f"cases: {verdict}."
    )
