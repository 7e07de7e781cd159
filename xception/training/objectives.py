"""What a network is trained for: its loss, and how one sees that it learns.

A step may be computed in parts, one after the other and in several processes. Each part's loss is
its share of the loss of the whole step, so that the gradients of the parts add up to the gradient
that the step has in one piece.
"""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from xception.data.masks import IGNORED
from xception.training.config import PixelLoss
from xception.training.losses import multi_label, single_label
from xception.training.pixel_losses import dice, pixel_cross_entropy


@runtime_checkable
class Objective(Protocol):
    """A loss over the targets of a feed."""

    def counts(self, targets: Tensor) -> Int64[Tensor, "n"]:
        """What the means of the loss are divided by, e.g. photos; adds up over the parts."""
        ...

    def loss(
        self, logits: Tensor, targets: Tensor, counts: Float[Tensor, "n"]
    ) -> Float[Tensor, ""]:
        """The share of a part in the loss of a step whose targets have these `counts`."""
        ...

    def right(self, logits: Tensor, targets: Tensor) -> Int64[Tensor, "2"]:
        """Right answers, and of how many; 0 of 0 where answers are not right or wrong as such."""
        ...


@dataclass(frozen=True)
class PhotoLabels:
    """Classes of whole photos: the mean of a loss over the photos of the step."""

    multilabel: bool
    """Any number of classes a photo (sigmoid), or one (softmax)."""
    weights: Float[Tensor, "k"] | None = None
    smoothing: float = 0.0

    def counts(self, targets: Float[Tensor, "b k"]) -> Int64[Tensor, "1"]:
        """The number of photos."""
        return torch.full((1,), len(targets), device=targets.device)

    def loss(
        self,
        logits: Float[Tensor, "b k"],
        targets: Float[Tensor, "b k"],
        counts: Float[Tensor, "1"],
    ) -> Float[Tensor, ""]:
        """See `losses`."""
        loss = multi_label if self.multilabel else single_label
        mean = loss(logits, targets, weights=self.weights, smoothing=self.smoothing)
        return mean * (len(targets) / counts[0])

    def right(
        self, logits: Float[Tensor, "b k"], targets: Float[Tensor, "b k"]
    ) -> Int64[Tensor, "2"]:
        """Photos whose likeliest class is that of the target; none of none with several labels."""
        if self.multilabel:
            return torch.zeros(2, dtype=torch.int64, device=logits.device)
        right = (logits.argmax(1) == targets.argmax(1)).sum()
        return torch.stack([right, torch.full_like(right, len(targets))])


@dataclass(frozen=True)
class PixelLabels:
    """One class a pixel: softmax, and a sum of cross-entropy (or focal loss) and Dice.

    Cross-entropy is a mean over all pixels of the step that count, Dice one over all its photos
    that have such pixels. A step without any has the loss 0.
    """

    parts: PixelLoss
    weights: Float[Tensor, "k"] | None = None
    smoothing: float = 0.0

    def counts(self, targets: Int64[Tensor, "b h w"]) -> Int64[Tensor, "2"]:
        """Pixels that count, and photos that have any."""
        pixels = (targets != IGNORED).flatten(1).sum(1)
        return torch.stack([pixels.sum(), (pixels > 0).sum()])

    def loss(
        self,
        logits: Float[Tensor, "b k h w"],
        targets: Int64[Tensor, "b h w"],
        counts: Float[Tensor, "2"],
    ) -> Float[Tensor, ""]:
        """See `pixel_losses`."""
        pixels, photos = counts.where(counts > 0, 1)  # 0 divided by 1: no loss, no gradient
        total = logits.new_zeros(())
        if self.parts.cross_entropy:
            losses = pixel_cross_entropy(
                logits,
                targets,
                weights=self.weights,
                smoothing=self.smoothing,
                focusing=self.parts.focusing,
            )
            total = total + self.parts.cross_entropy * losses.sum() / pixels
        if self.parts.dice:
            total = total + self.parts.dice * dice(logits, targets).sum() / photos
        return total

    def right(
        self, logits: Float[Tensor, "b k h w"], targets: Int64[Tensor, "b h w"]
    ) -> Int64[Tensor, "2"]:
        """Pixels whose likeliest class is the true one, of those that count."""
        right = (logits.argmax(1) == targets).sum()  # no class is called IGNORED
        return torch.stack([right, (targets != IGNORED).sum()])
