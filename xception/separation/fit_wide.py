"""Depthwise first for layers too wide to know what all their channels have in common.

The depthwise kernels are chosen for each channel by itself, by the covariance of its own taps.
What they give has few enough channels for a full covariance, which a second pass over the photos
sums up; the mixing follows by least squares, and so the channels make up for each other here too.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float64
from torch import Tensor

from xception.separation.spectrum import Factors, rebuild, slices_of, weight_of
from xception.separation.statistics import PatchStatistics, Replay


class WideFit(NamedTuple):
    """What two passes came to."""

    slices: Float64[Tensor, "s a k"]
    bias: Float64[Tensor, "g n"]
    lost: float
    """As `Moments.lost` has it."""


def fit_wide(statistics: PatchStatistics, ranks: Sequence[int], replay: Replay) -> WideFit:
    """The best mixing of depthwise kernels that are best for each channel alone."""
    moments = statistics.moments
    groups, outputs = moments.y.shape
    kernels = _leading(statistics, ranks)
    owner = torch.repeat_interleave(torch.arange(len(ranks)), torch.tensor(tuple(ranks)))
    terms = len(owner) // groups
    split = (kernels.unflatten(0, (groups, terms)), owner.view(groups, terms))
    sums = _Sums(groups, terms, outputs)
    for x, y in replay():
        for rows, targets in statistics.rows(x, y):
            sums.add(_filtered(rows.cpu(), *split), targets.cpu())
    z, answer = sums.z / sums.count, sums.y / sums.count
    gram = sums.gram / sums.count - z[:, :, None] * z[:, None, :]
    cross = sums.cross / sums.count - answer[:, :, None] * z[:, None, :]
    # The same ridge as everywhere: noise in each tap, which the original answers.
    same = owner.view(groups, terms, 1) == owner.view(groups, 1, terms)
    noisy = moments.noise * same * (split[0] @ split[0].mT)
    own = slices_of(weight_of(statistics.conv), groups, "depthwise_first")[owner]  # t n k
    answered = torch.einsum("tnk,tk->tn", own, kernels).unflatten(0, (groups, terms)).mT
    factor = torch.linalg.cholesky(gram + noisy)
    wanted = cross + moments.noise * answered
    mixing = torch.cholesky_solve(wanted.mT, factor).mT  # g n t
    squares = (mixing @ gram * mixing).sum(2) - 2 * (mixing * cross).sum(2)
    variance = (sums.squares / sums.count - answer.square()).clamp_min(0)
    return WideFit(
        rebuild(Factors(kernels, mixing.mT.flatten(0, 1)), ranks),
        answer - (mixing * z[:, None, :]).sum(2),
        moments.share(variance + squares),
    )


class _Sums:
    """Sums over places of depthwise outputs z and answers y, by group."""

    def __init__(self, groups: int, terms: int, outputs: int):
        def zeros(*shape: int) -> Tensor:
            return torch.zeros(groups, *shape, dtype=torch.float64)

        self.count = 0
        self.z, self.y, self.squares = zeros(terms), zeros(outputs), zeros(outputs)
        self.gram, self.cross = zeros(terms, terms), zeros(outputs, terms)

    def add(self, z: Tensor, y: Tensor) -> None:
        """Add places: z is (g, p, t), y is (p, g, n)."""
        self.count += len(y)
        self.z += z.sum(1)
        self.y += y.sum(0)
        self.squares += y.square().sum(0)
        self.gram.baddbmm_(z.mT, z)
        self.cross.baddbmm_(y.permute(1, 2, 0), z)


def _leading(statistics: PatchStatistics, ranks: Sequence[int]) -> Float64[Tensor, "t k"]:
    """The kernels, slice after slice, that do most in each channel alone."""
    _, _, right = torch.linalg.svd(statistics.whitened("depthwise_first"), full_matrices=False)
    kept = torch.arange(right.shape[1]) < torch.tensor(tuple(ranks))[:, None]
    roots = statistics.moments.tap_roots
    return torch.linalg.solve_triangular(roots, right, upper=False, left=False)[kept]


def _filtered(rows: Tensor, kernels: Tensor, owner: Tensor) -> Tensor:
    """What the kernels (g, t, k) of the channels that own them give at each place: (g, p, t)."""
    groups, _, taps = kernels.shape
    seen = rows.unflatten(2, (-1, taps)).flatten(1, 2)  # p s k, the slices of all groups
    out = [
        torch.einsum("ptk,tk->pt", seen[:, owner[group]], kernels[group]) for group in range(groups)
    ]
    return torch.stack(out)
