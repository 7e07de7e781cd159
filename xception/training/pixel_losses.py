"""Losses of networks that answer for every pixel. Pixels whose truth is IGNORED have none.

None of them is a mean over a batch: how a mean is taken, so that several processes and accumulated
parts give the gradient of one batch, `objectives` decides.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from xception.data.masks import IGNORED

SMALLEST_MISS = 1e-6  # keeps the slope of (1 - p)^focusing finite where p is 1


def pixel_cross_entropy(
    logits: Float[Tensor, "b k h w"],
    targets: Int64[Tensor, "b h w"],
    *,
    weights: Float[Tensor, "k"] | None = None,
    smoothing: float = 0.0,
    focusing: float = 0.0,
) -> Float[Tensor, "b h w"]:
    """-w log p for the probability p of each pixel's class, 0 where the pixel is ignored.

    Args:
        logits: of each pixel.
        targets: the class of each pixel, or IGNORED.
        weights: one a class, or None.
        smoothing: share of the truth that is spread evenly over all classes.
        focusing: the exponent γ of Lin et al. 2017 (focal loss), arXiv:1708.02002, equation 4: each
            pixel counts (1 - p)^γ, so that the many easy ones do not drown the few hard ones.
    """
    losses = F.cross_entropy(
        logits,
        targets,
        weight=weights,
        ignore_index=IGNORED,
        label_smoothing=smoothing,
        reduction="none",
    )
    if focusing:
        log_p = -F.cross_entropy(logits, targets, ignore_index=IGNORED, reduction="none")
        losses = losses * (-torch.expm1(log_p)).clamp(min=SMALLEST_MISS) ** focusing
    return losses


def dice(logits: Float[Tensor, "b k h w"], targets: Int64[Tensor, "b h w"]) -> Float[Tensor, "b"]:
    """1 - the Dice coefficient of each photo, the mean over the classes that it has.

    2 Σ p t / (Σ p + Σ t) of a class, with the probabilities p and the truths t of all pixels that
    count; Milletari et al. 2016, arXiv:1606.04797, §3, but with sums in place of sums of squares.
    A class that has no pixel in the photo is left out: cross-entropy already says what it is not.
    A photo without a pixel that counts has the loss 0.
    """
    counted = targets != IGNORED
    truth = targets.where(counted, 0)
    p = logits.softmax(1)
    own = p.gather(1, truth[:, None])[:, 0] * counted
    empty = p.new_zeros(p.shape[:2])
    common = empty.scatter_add(1, truth.flatten(1), own.flatten(1))
    area = empty.scatter_add(1, truth.flatten(1), counted.flatten(1).to(p.dtype))
    claimed = (p * counted[:, None]).sum((2, 3))
    present = area > 0
    # Where a class is present the divisor is at least 1; elsewhere the quotient is not looked at.
    misses = 1 - 2 * common / (claimed + area).clamp(min=1)
    return misses.where(present, 0).sum(1) / present.sum(1).clamp(min=1)
