"""Mixing of neighbours in a batch: mixup and CutMix.

Sample i meets sample i^1 (0 with 1, 2 with 3, …); the last one of an odd batch stays alone. Pairs
stay within even chunks, so a global batch split over several processes gives the same mixtures.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor


def neighbours(tensor: Float[Tensor, "b ..."]) -> Float[Tensor, "b ..."]:
    """Entry i^1 at position i; the last of an odd batch keeps its place. A copy."""
    count = len(tensor)
    order = torch.arange(count, device=tensor.device) ^ 1
    return tensor[order.clamp(max=count - 1)]


def mixup(
    images: Float[Tensor, "b c h w"], targets: Float[Tensor, "b k"], share: float
) -> tuple[Float[Tensor, "b c h w"], Float[Tensor, "b k"]]:
    """`share` of each sample plus 1 - `share` of its neighbour, images and targets alike.

    Zhang, Cisse, Dauphin, Lopez-Paz: "mixup: Beyond Empirical Risk Minimization" (2018).
    """
    return torch.lerp(neighbours(images), images, share), _blend(targets, share)


def cutmix(
    images: Float[Tensor, "b c h w"],
    targets: Float[Tensor, "b k"],
    share: float,
    centre: tuple[float, float],
) -> tuple[Float[Tensor, "b c h w"], Float[Tensor, "b k"]]:
    """Replace a rectangle of each image by its neighbour's, and the targets by the same share.

    The rectangle has the image's shape and 1 - `share` of its area, is centred on `centre` (row and
    column in [0, 1]) and cut at the borders; the targets follow the area that it really covers.
    Yun et al.: "CutMix: Regularization Strategy to Train Strong Classifiers with Localizable
    Features" (2019).
    """
    height, width = images.shape[2:]
    top, bottom = _extent(height, share, centre[0])
    left, right = _extent(width, share, centre[1])
    mixed = images.clone()
    mixed[:, :, top:bottom, left:right] = neighbours(images[:, :, top:bottom, left:right])
    kept = 1 - (bottom - top) * (right - left) / (height * width)
    return mixed, _blend(targets, kept)


def _blend(targets: Float[Tensor, "b k"], share: float) -> Float[Tensor, "b k"]:
    return torch.lerp(neighbours(targets), targets, share)


def _extent(length: int, share: float, centre: float) -> tuple[int, int]:
    half = length * math.sqrt(1 - share) / 2
    middle = length * centre
    return max(0, round(middle - half)), min(length, round(middle + half))
