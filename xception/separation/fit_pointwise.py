"""Mixing and depthwise kernels that answer as a layer should, pointwise first.

Here each output is a problem of its own: its slice (inputs x taps) shall have rank r, and the error
weighs it by the covariance of the whole patch, for which there is no closed form. The start takes
the covariance for a product of one of channels and one of taps: then the truncated singular value
decomposition between their roots is the best. With the mixing held, the kernels follow by least
squares with the true covariance, and with the kernels held, the mixing.
"""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float64
from torch import Tensor

from xception.separation.statistics import PatchStatistics

CHUNK = 1 << 24  # values at a time
SOLVED = 1 << 10  # unknowns of one output's mixing up to which it is solved for


def fit_pointwise_first(
    statistics: PatchStatistics, ranks: Sequence[int], sweeps: int
) -> Float64[Tensor, "g n d"]:
    """The kernel for these statistics whose slices have these ranks, by group.

    Of a wide layer, whose channels are not known together, it is the start.
    """
    moments = statistics.moments
    groups, outputs = moments.y.shape
    each = torch.tensor(tuple(ranks)).view(groups, outputs)
    channels, taps = moments.kronecker
    fitted = []
    for group in range(groups):
        roots = (channels[group], taps[group])
        slices = moments.best[group].unflatten(1, (len(roots[0]), len(roots[1])))
        found = torch.empty_like(slices)
        for rank in each[group].unique().tolist():
            own = each[group] == rank
            mixing, kernels = _start(slices[own], roots, rank)
            if statistics.joint:
                problem = _Problem(moments.gram[group], moments.cross[group][own], rank)
                kernels = problem.kernels(mixing)
                for _ in range(sweeps):
                    if rank * len(roots[0]) > SOLVED:
                        break
                    mixing = problem.mixing(kernels)
                    kernels = problem.kernels(mixing)
            found[own] = mixing @ kernels
        fitted.append(found.flatten(1))
    return torch.stack(fitted)


def _start(slices: Tensor, roots: tuple[Tensor, Tensor], rank: int) -> tuple[Tensor, Tensor]:
    """Mixing (o, c, r) and kernels (o, r, k) that are best for a product of covariances."""
    channels, taps = roots
    whitened = channels.mT @ slices @ taps
    left, values, right = torch.linalg.svd(whitened, full_matrices=False)
    mixing = left[:, :, :rank] * values[:, None, :rank]
    mixing = torch.linalg.solve_triangular(channels.mT, mixing, upper=True)
    kernels = torch.linalg.solve_triangular(taps, right[:, :rank], upper=False, left=False)
    return mixing, kernels


class _Problem:
    """Outputs of one rank in one group, each by itself."""

    def __init__(self, gram: Tensor, cross: Tensor, rank: int):
        self.rank = rank
        self.width = len(gram)
        self.outputs = len(cross)
        self._gram, self._cross = gram, cross

    def kernels(self, mixing: Tensor) -> Tensor:
        """The best kernels (o, r, k) of every output, given its mixing (o, c, r)."""
        channels = mixing.shape[1]
        taps = self.width // channels
        grid = self._gram.view(channels, taps * self.width)
        cross = self._cross.view(-1, channels, taps)
        found = []
        for part, aim in self._parts(mixing, cross, taps * self.width * self.rank):
            # Σ over i, j of p_i p_j G[(i, a), (j, b)]: the covariance of the mixed maps' taps.
            half = (part.mT.flatten(0, 1) @ grid).view(-1, self.rank * taps, channels, taps)
            gram = torch.einsum("oxjb,ojq->oxqb", half, part).flatten(2)
            seen = (part.mT @ aim).flatten(1)
            found.append(_solved(gram, seen).unflatten(1, (self.rank, taps)))
        return torch.cat(found)

    def mixing(self, kernels: Tensor) -> Tensor:
        """The best mixing (o, c, r) of every output, given its kernels (o, r, k)."""
        taps = kernels.shape[2]
        channels = self.width // taps
        grid = self._gram.view(channels, taps, channels, taps).permute(1, 3, 0, 2).flatten(2)
        grid = grid.reshape(taps * taps, -1)
        cross = self._cross.view(-1, channels, taps)
        unknowns = self.rank * channels
        found = []
        for part, aim in self._parts(kernels, cross, unknowns**2):
            pairs = torch.einsum("ora,oqb->orqab", part, part).flatten(3)  # o r q ab
            gram = (pairs @ grid).unflatten(3, (channels, channels))  # o r q i j
            gram = gram.transpose(2, 3).flatten(3).flatten(1, 2)
            seen = (part @ aim.mT).flatten(1)
            found.append(_solved(gram, seen).unflatten(1, (self.rank, channels)).mT)
        return torch.cat(found)

    def _parts(self, first: Tensor, second: Tensor, each: int) -> list[tuple[Tensor, Tensor]]:
        """Both in chunks of outputs, for each of which so many values are held."""
        size = max(1, math.floor(CHUNK / each))
        return list(zip(first.split(size), second.split(size), strict=True))


def _solved(gram: Tensor, seen: Tensor) -> Tensor:
    """The solution for each output; the least one where its terms say the same twice."""
    scale = gram.diagonal(dim1=1, dim2=2).mean(1)
    jitter = 1e-12 * torch.where(scale > 0, scale, 1.0)
    gram = gram + jitter[:, None, None] * torch.eye(gram.shape[1], dtype=torch.float64)
    return torch.cholesky_solve(seen[:, :, None], torch.linalg.cholesky(gram))[:, :, 0]
