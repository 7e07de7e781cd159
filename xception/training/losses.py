"""The two losses, each a mean over the photos of a step.

Dividing by the number of photos (not by the sum of the class weights) makes the loss of a batch the
mean of the losses of its equal parts, so that several processes and accumulated parts give the same
gradient as one batch.
"""

from collections.abc import Sequence

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


def balanced_weights(labels: Sequence[Sequence[int]], classes: int) -> Float[Tensor, "k"]:
    """Weights inverse to how often a class occurs, scaled so that their mean over labels is 1.

    A class that never occurs weighs 1: it has no say in the loss of its own.
    """
    flat = torch.tensor([label for photo in labels for label in photo], dtype=torch.int64)
    counts = torch.bincount(flat, minlength=classes).double()
    present = counts > 0
    weights = torch.ones(classes, dtype=torch.float64)
    weights[present] = counts.sum() / (present.sum() * counts[present])
    return weights.float()
