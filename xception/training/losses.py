"""The two losses, each a mean over the photos of a step.

Dividing by the number of photos (not by the sum of the class weights) makes the loss of a batch the
mean of the losses of its equal parts, so that several processes and accumulated parts give the same
gradient as one batch.
"""

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def single_label(
    logits: Float[Tensor, "b k"],
    targets: Float[Tensor, "b k"],
    *,
    weights: Float[Tensor, "k"] | None,
    smoothing: float,
) -> Float[Tensor, ""]:
    """Cross-entropy against target probabilities, smoothed as in Szegedy et al. 2016 §7."""
    losses = F.cross_entropy(
        logits, targets, weight=weights, label_smoothing=smoothing, reduction="none"
    )
    return losses.mean()


def multi_label(
    logits: Float[Tensor, "b k"],
    targets: Float[Tensor, "b k"],
    *,
    weights: Float[Tensor, "k"] | None,
    smoothing: float,
) -> Float[Tensor, ""]:
    """Sigmoid cross-entropy summed over classes; `weights` multiply each class."""
    smoothed = targets * (1 - smoothing) + 0.5 * smoothing
    losses = F.binary_cross_entropy_with_logits(logits, smoothed, reduction="none")
    if weights is not None:
        losses = losses * weights
    return losses.sum(1).mean()


def class_weights(
    counts: Sequence[int], kind: Literal["none", "balanced", "softened"]
) -> Float[Tensor, "k"] | None:
    """Weights that fall with how often a class occurs, scaled so that their mean over labels is 1.

    Args:
        counts: labels (of photos, or of pixels) of each class. A class that never occurs weighs 1:
            it has no say in the loss of its own.
        kind: "balanced" is the inverse of the counts, so that every class has the same say;
            "softened" the inverse of their roots, for classes that differ by orders of magnitude,
            as those of pixels do; "none" is None.
    """
    if kind == "none":
        return None
    numbers = torch.tensor(counts, dtype=torch.float64)
    present = numbers > 0
    weights = torch.ones_like(numbers)
    found = numbers[present]
    inverse = 1 / found if kind == "balanced" else found.rsqrt()
    weights[present] = inverse * found.sum() / (inverse * found).sum()
    return weights.float()
