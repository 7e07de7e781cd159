"""Depthwise kernels and their mixing that answer as a layer should, depthwise first.

Sought is the kernel Ŵ whose slice of input channel i has rank r_i and for which the error of the
output, E|y - Ŵx' - b|², is least. In one channel alone this is reduced-rank regression: of the
covariance C = LLᵀ of its taps and the cross moment A with what the others leave of y, the answer is
the truncated singular value decomposition of A L⁻ᵀ, times L⁻¹ (Izenman 1975). All channels together
have no closed form. They start from the best regular kernel, each for itself; then the mixing is
solved for jointly, by least squares over all depthwise outputs, and in every sweep each channel is
solved anew given the others, and the mixing again. No step raises the error.

Whitening and making up between channels are of He et al. 2019, arXiv:1910.09455; solving for what
the changed network gives, of Zhang et al. 2015, arXiv:1505.06798.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float64
from torch import Tensor

from xception.separation.statistics import PatchStatistics


def fit_depthwise_first(
    statistics: PatchStatistics, ranks: Sequence[int], sweeps: int
) -> Float64[Tensor, "g n d"]:
    """The kernel for these statistics whose slices have these ranks, by group."""
    moments = statistics.moments
    groups = len(moments.gram)
    each = torch.tensor(tuple(ranks)).view(groups, -1).tolist()
    roots = moments.tap_roots.unflatten(0, (groups, -1))
    scale = statistics.importance.sqrt()[:, :, None]
    fitted = []
    for group in range(groups):
        problem = _Problem(
            moments.gram[group], moments.cross[group] * scale[group], roots[group], each[group]
        )
        kernels = problem.start(moments.best[group] * scale[group])
        for _ in range(sweeps):
            kernels = problem.sweep(problem.mix(kernels))
        # How much an output matters counts for the kernels, which all share, not for its mixing.
        fitted.append(problem.mix(kernels, moments.cross[group]))
    return torch.stack(fitted)


class _Problem:
    """One group of channels: covariance of its patches, cross moment with its weighted outputs."""

    def __init__(self, gram: Tensor, cross: Tensor, roots: Tensor, ranks: list[int]):
        self.gram, self.cross, self.ranks = gram, cross, ranks
        self.roots = roots  # c k k
        taps = roots.shape[-1]
        identity = torch.eye(taps, dtype=torch.float64).expand_as(roots)
        self.inverse = torch.linalg.solve_triangular(roots, identity, upper=False)
        self.places = [slice(start, start + taps) for start in range(0, len(gram), taps)]

    def start(self, best: Tensor) -> list[Tensor]:
        """Of each channel the kernels that do most for what the best regular kernel answers."""
        kernels = []
        for i, place in enumerate(self.places):
            kernels.append(self._leading(best[:, place] @ self.roots[i], i))
        return kernels

    def mix(self, kernels: list[Tensor], cross: Tensor | None = None) -> Tensor:
        """The kernel with the best mixing of what these depthwise kernels give."""
        cross = self.cross if cross is None else cross
        places = list(zip(self.places, kernels, strict=True))
        half = torch.cat([own @ self.gram[place] for place, own in places])
        gram = torch.cat([half[:, place] @ own.mT for place, own in places], dim=1)
        seen = torch.cat([cross[:, place] @ own.mT for place, own in places], dim=1)
        mixing = torch.cholesky_solve(seen.mT, torch.linalg.cholesky(gram)).mT
        parts = mixing.split(self.ranks, dim=1)
        return torch.cat([one @ own for one, own in zip(parts, kernels, strict=True)], dim=1)

    def sweep(self, kernel: Tensor) -> list[Tensor]:
        """Each channel solved anew, given what the others answer by now."""
        kernel = kernel.clone()
        kernels = []
        left = self.cross - kernel @ self.gram  # what is not answered yet
        for i, place in enumerate(self.places):
            block = self.gram[place, place]
            aim = left[:, place] + kernel[:, place] @ block
            whitened = aim @ self.inverse[i].mT
            own = self._leading(whitened, i)
            # In whitened taps the rows are orthonormal: projecting on them is the best there is.
            basis = own @ self.roots[i]
            changed = whitened @ basis.mT @ own
            left -= (changed - kernel[:, place]) @ self.gram[place]
            kernel[:, place] = changed
            kernels.append(own)
        return kernels

    def _leading(self, whitened: Tensor, channel: int) -> Tensor:
        """The channel's kernels: its leading right singular vectors, taken back to taps."""
        _, vectors = torch.linalg.eigh(whitened.mT @ whitened)  # ascending
        first = len(vectors) - self.ranks[channel]
        return vectors[:, first:].mT @ self.inverse[channel]
