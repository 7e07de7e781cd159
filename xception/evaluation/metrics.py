"""What the outcomes of an evaluation amount to: plain numbers that JSON can hold.

The state of a classification is its confusion matrix; every figure is a sum over samples divided
once, in float64. A figure that does not exist (the recall of a class without samples) is None,
which JSON writes as null: never NaN, and never a made-up zero.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from xception.errors import UserError

RELIABILITY_BINS = 15  # Guo et al. 2017, §5
DECISION_THRESHOLD = 0.5  # a label is predicted from this probability on
NORMAL_975 = 1.959963984540054  # 97.5 % point of the normal distribution: 95 % on both sides
SMALLEST_PROBABILITY = float(np.finfo(np.float32).eps)  # bounds the log loss of a sure mistake


def classification(
    probabilities: Float[np.ndarray, "n k"],
    targets: Int[np.ndarray, " n"],
    classes: Sequence[str],
) -> dict[str, Any]:
    """Measures a classifier that gives each sample one class.

    Args:
        probabilities: one row per sample, one column per class, each row summing to 1.
        targets: the index of each sample's true class.
        classes: the names of the k classes, in the order of the columns.

    Returns:
        `samples`, `top1`, `top1_interval` (95 %, Wilson), `top5` and `top5_interval`: with fewer
        than five classes `top5` is top-k, which is always 1; `top_k` tells which (5, or k below).
        `log_loss` (nats per sample), `ece` and `reliability` (see `reliability_bins`),
        `balanced_accuracy` (mean recall of the classes that have samples), `macro_f1` (mean F1 of
        the classes that occur among truths or predictions), `per_class` (name -> precision,
        recall, f1, support; None where the quotient is 0/0) and `confusion` (rows are truths).

    Equal probabilities are ranked by class index, as argmax does, so that `top1` is the share
    of the confusion matrix's diagonal.

    Raises:
        UserError: there is no sample.
        ValueError: shapes, classes and targets do not fit together.
    """
    _check(probabilities, classes)
    samples, k = probabilities.shape
    if targets.shape != (samples,) or targets.min() < 0 or targets.max() >= k:
        raise ValueError(f"expected {samples} targets in 0..{k - 1}, got {targets}")

    predictions = probabilities.argmax(axis=1)
    confusion = np.zeros((k, k), dtype=np.int64)
    np.add.at(confusion, (targets, predictions), 1)

    truth = np.take_along_axis(probabilities, targets[:, None], axis=1)  # n x 1
    before = (probabilities == truth) & (np.arange(k) < targets[:, None])
    ranks = (probabilities > truth).sum(axis=1) + before.sum(axis=1)  # 0: the truth comes first
    top_k = min(5, k)
    top1, topk = int((ranks == 0).sum()), int((ranks < top_k).sum())

    hits = np.diagonal(confusion)
    per_class = _per_class(hits, confusion.sum(axis=0), confusion.sum(axis=1), classes)
    bins = reliability_bins(probabilities.max(axis=1), ranks == 0)
    return {
        "samples": samples,
        "top1": top1 / samples,
        "top1_interval": list(wilson(top1, samples)),
        "top5": topk / samples,
        "top5_interval": list(wilson(topk, samples)),
        "top_k": top_k,
        "log_loss": float(-np.log(truth.clip(SMALLEST_PROBABILITY).astype(np.float64)).mean()),
        "balanced_accuracy": _mean(row["recall"] for row in per_class.values()),
        "macro_f1": _mean(row["f1"] for row in per_class.values()),
        "ece": calibration_error(bins),
        "reliability": bins,
        "per_class": per_class,
        "confusion": confusion.tolist(),
    }


def multilabel(
    probabilities: Float[np.ndarray, "n k"],
    targets: Float[np.ndarray, "n k"],
    classes: Sequence[str],
    *,
    weights: Mapping[str, float | int] | None = None,
    k: int = 100,
) -> dict[str, Any]:
    """Measures a classifier that gives each sample any number of labels.

    Args:
        probabilities: one row per sample, one column per class, each value on its own in [0, 1].
        targets: 1 where the sample has the label, 0 where not.
        classes: the names of the classes, in the order of the columns.
        weights: how much each class counts in `map_at_k`; None counts all alike.
        k: how many predictions of a sample count in `map_at_k`.

    Returns:
        `samples`, `positives` (labels given in truth), `map` (mean average precision over the
        classes that have positives), `map_at_k`, its `k` and whether it is `weighted`, `micro_f1`
        and `macro_f1` of the labels predicted with at least 0.5 (macro: over classes that occur
        among truths or predictions), `log_loss` (mean binary cross-entropy, nats per label
        decision) and `per_class` (name -> ap, precision, recall, f1, support; None where it does
        not exist).

    `map_at_k` follows FastEval14k as far as Chollet 2017, §4.1 tells: mean average precision for
    the top 100 predictions, where the contribution of each class is weighted by a score of how
    common the class is. Our exact reading: each sample proposes its k most probable classes; a
    class ranks the samples that propose it by probability; its average precision is divided by
    all its positives, proposed or not; the result is sum(w_c AP_c) / sum(w_c) over the classes
    with positives. With k at least the number of classes and equal weights it equals `map`.

    Raises:
        UserError: there is no sample, or the weights do not name exactly the classes.
        ValueError: shapes, classes and targets do not fit together.
    """
    _check(probabilities, classes)
    truth = targets == 1
    if targets.shape != probabilities.shape or not (truth | (targets == 0)).all():
        raise ValueError("targets of a multi-label evaluation are zeros and ones, one per class")
    if k < 1:
        raise ValueError(f"k is at least 1, got {k}")

    precisions = [_average_precision(p, t) for p, t in zip(probabilities.T, truth.T, strict=True)]
    proposed = np.where(_top_mask(probabilities, k), probabilities, -np.inf)
    limited = [_average_precision(p, t) for p, t in zip(proposed.T, truth.T, strict=True)]

    predicted = probabilities >= DECISION_THRESHOLD
    hits, guesses, support = (m.sum(axis=0) for m in (predicted & truth, predicted, truth))
    per_class = _per_class(hits, guesses, support, classes)
    given = np.where(truth, probabilities, 1 - probabilities).clip(SMALLEST_PROBABILITY)
    return {
        "samples": len(probabilities),
        "positives": int(truth.sum()),
        "map": _mean(precisions),
        "map_at_k": _mean(limited, _weights(weights, classes)),
        "k": k,
        "weighted": weights is not None,
        "micro_f1": _ratio(2 * hits.sum(), guesses.sum() + support.sum()),
        "macro_f1": _mean(row["f1"] for row in per_class.values()),
        "log_loss": float(-np.log(given.astype(np.float64)).mean()),
        "per_class": {
            name: {"ap": precision, **per_class[name]}
            for name, precision in zip(classes, precisions, strict=True)
        },
    }


def wilson(successes: int, samples: int) -> tuple[float, float]:
    """The 95 % interval of a share (Wilson 1927): honest for few samples and near 0 and 1."""
    share, z2 = successes / samples, NORMAL_975**2
    centre = (share + z2 / (2 * samples)) / (1 + z2 / samples)
    spread = math.sqrt(share * (1 - share) / samples + z2 / (4 * samples**2))
    half = NORMAL_975 * spread / (1 + z2 / samples)
    return max(0.0, centre - half), min(1.0, centre + half)


def reliability_bins(
    confidence: Float[np.ndarray, " n"], correct: Bool[np.ndarray, " n"]
) -> list[dict[str, Any]]:
    """Confidence against truth in 15 bins of equal width (low, high], after Guo et al. 2017.

    Returns per bin: `low`, `high`, `samples`, and the mean `confidence` and `accuracy` of its
    samples (None in an empty bin).
    """
    edges = np.linspace(0, 1, RELIABILITY_BINS + 1)
    index = np.searchsorted(edges[1:-1], confidence)
    bins = []
    for number in range(RELIABILITY_BINS):
        inside = index == number
        count = int(inside.sum())
        bins.append(
            {
                "low": float(edges[number]),
                "high": float(edges[number + 1]),
                "samples": count,
                "confidence": _ratio(confidence[inside].sum(dtype=np.float64), count),
                "accuracy": _ratio(correct[inside].sum(), count),
            }
        )
    return bins


def calibration_error(bins: Sequence[Mapping[str, Any]]) -> float:
    """The expected calibration error: mean |confidence - accuracy| of bins, by their samples."""
    filled = [row for row in bins if row["samples"]]
    total = sum(row["samples"] for row in filled)
    return sum(row["samples"] * abs(row["confidence"] - row["accuracy"]) for row in filled) / total


def _check(probabilities: np.ndarray, classes: Sequence[str]) -> None:
    if len(probabilities) == 0:
        raise UserError("there is nothing to measure: no photo was evaluated")
    if probabilities.shape[1] != len(classes) or len(set(classes)) != len(classes):
        raise ValueError(f"{probabilities.shape[1]} columns for the classes {tuple(classes)}")
    if not (np.isfinite(probabilities).all() and (probabilities >= 0).all()):
        raise ValueError("probabilities must be finite and not negative")


def _per_class(
    hits: np.ndarray, guesses: np.ndarray, support: np.ndarray, classes: Sequence[str]
) -> dict[str, dict[str, Any]]:
    return {
        name: {
            "precision": _ratio(hit, guess),
            "recall": _ratio(hit, true),
            "f1": _ratio(2 * hit, guess + true),
            "support": int(true),
        }
        for name, hit, guess, true in zip(classes, hits, guesses, support, strict=True)
    }


def _average_precision(scores: np.ndarray, truth: np.ndarray) -> float | None:
    """Area under the steps of precision over recall; samples of equal score enter together.

    A score of -inf is "not proposed": its sample counts among the positives, never as a hit.
    """
    positives = int(truth.sum())
    if positives == 0:
        return None
    order = np.argsort(-scores, kind="stable")
    order = order[np.isfinite(scores[order])]
    if order.size == 0:
        return 0.0
    last_of_tie = np.append(np.diff(scores[order]) != 0, True)
    hits = truth[order].cumsum()[last_of_tie]
    seen = np.flatnonzero(last_of_tie) + 1
    return float((np.diff(hits, prepend=0) * hits / seen).sum() / positives)


def _top_mask(probabilities: np.ndarray, k: int) -> np.ndarray:
    """True at the k largest of each row; equal ones by index."""
    chosen = np.argsort(-probabilities, axis=1, kind="stable")[:, :k]
    mask = np.zeros(probabilities.shape, dtype=bool)
    np.put_along_axis(mask, chosen, True, axis=1)
    return mask


def _weights(weights: Mapping[str, float | int] | None, classes: Sequence[str]) -> list[float]:
    if weights is None:
        return [1.0] * len(classes)
    if odd := set(weights) ^ set(classes):
        raise UserError(f"class weights must name exactly the classes; these differ: {sorted(odd)}")
    if any(not (math.isfinite(w) and w >= 0) for w in weights.values()):
        raise UserError("class weights must be finite numbers, none below zero")
    return [float(weights[name]) for name in classes]


def _ratio(part: Any, whole: Any) -> float | None:
    return float(part / whole) if whole else None


def _mean(values: Any, weights: Sequence[float] | None = None) -> float | None:
    """The (weighted) mean of the values that exist."""
    values = list(values)
    kept = [
        (value, weight)
        for value, weight in zip(values, weights or [1.0] * len(values), strict=True)
        if value is not None
    ]
    return _ratio(sum(v * w for v, w in kept), sum(w for _, w in kept))
