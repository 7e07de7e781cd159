"""What a layer sees and what it should answer, as sums over places: all that a fit needs of photos.

The layer's patches are never kept. A place of the output sees the patch x' (the taps of all
channels) in the network as it is now, and should answer y, as the original network did; the two may
come from different networks, so that a layer can make up for what was lost before it. Summed up are
x', y, x'x'ᵀ, yx'ᵀ and y², in float64.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float, Float64
from torch import Tensor, nn

from xception.cost.count import evaluation
from xception.errors import UserError
from xception.layers.separable import Order
from xception.separation.spectrum import slices_of, weight_of
from xception.separation.windows import patches

WIDEST = 6144  # taps of all channels up to which their full covariance is kept: 300 MB
CHUNK = 1 << 22  # values of patches at a time
STRIPE = 512  # rows of the covariance at a time
RIDGE = 1e-4
FORM = ("in_channels", "out_channels", "kernel_size", "stride", "dilation", "padding", "groups")

Replay = Callable[[], Iterable[tuple[Tensor, Tensor]]]
"""Gives the layer's inputs, as they are now, and the original's outputs: the same at each call."""


class PatchStatistics:
    """Sums over the places of a layer; one pass over photos serves any number of fits.

    Args:
        conv: the original convolution.
        places: of each image at most so many places, drawn at random; None takes all.
        seed: of the places.
        importance: how much a squared error in each output channel matters, for instance (γ/σ)² of
            a normalisation behind it; None is all alike. At least one must be above 0.
        ridge: keeps the fit near the original weights where the photos say nothing. It is as if
            each tap also saw noise that the original answers, with this share of the mean variance.

    Raises:
        ValueError: an importance below 0, of another length than the output or 0 throughout, or a
            number of places or a ridge that is not above 0.
    """

    def __init__(
        self,
        conv: nn.Conv2d,
        *,
        places: int | None = None,
        seed: int = 0,
        importance: Float[Tensor, " n"] | None = None,
        ridge: float = RIDGE,
    ):
        if ridge <= 0 or (places is not None and places < 1):
            raise ValueError(f"ridge ({ridge}) and places ({places}) must be above 0")
        self.conv = conv
        self.ridge = ridge
        self.samples = 0
        """Places that were added up."""
        self.replay: Replay | None = None
        """Runs through the photos once more, if it was set: a wide layer's fit has to."""
        self._places = places
        self._random = torch.Generator().manual_seed(seed)
        groups = conv.groups
        self._taps = conv.kernel_size[0] * conv.kernel_size[1]
        self._channels = conv.in_channels // groups
        outputs = conv.out_channels // groups
        self.importance = _checked(importance, conv.out_channels).view(groups, outputs)
        """By group; their mean is 1."""
        self.width = width = self._channels * self._taps
        """Taps of all channels of a group."""
        self.joint = width <= WIDEST
        """Whether what channels have in common is known, and not only each for itself."""

        self._values: dict[Order, Tensor] = {}

        device = weight_of(conv).device

        def zeros(*shape: int) -> Tensor:
            return torch.zeros(groups, *shape, dtype=torch.float64, device=device)

        self._x, self._y = zeros(width), zeros(outputs)
        self._cross, self._squares = zeros(outputs, width), zeros(outputs)
        if self.joint:
            self._gram = zeros(width, width)
        else:
            self._gram = zeros(self._channels, self._taps, self._taps)
            self._mixed = zeros(self._channels, self._channels)

    @torch.no_grad()
    def update(
        self,
        x_new: Float[Tensor, "b c h w"],
        y_original: Float[Tensor, "b n i j"] | None = None,
    ) -> None:
        """Add the places of a batch.

        Args:
            x_new: the layer's inputs as the network gives them now, before any padding.
            y_original: what the original layer answered in the original network, bias included;
                None is what it answers to `x_new`.

        Raises:
            ValueError: the two do not belong together.
            UserError: they are not all finite numbers.
        """
        y = self.answers(x_new) if y_original is None else y_original
        if not (torch.isfinite(x_new).all() and torch.isfinite(y).all()):
            raise UserError("the layer's inputs or outputs are not all finite numbers")
        if len(x_new) != len(y):
            raise ValueError(f"{len(x_new)} inputs, but outputs of {len(y)}")
        for rows, targets in self.rows(x_new, y):
            self.samples += len(rows)
            self._x += rows.sum(0)
            self._y += targets.sum(0)
            self._squares += targets.square().sum(0)
            by_group = rows.transpose(0, 1)
            self._cross.baddbmm_(targets.permute(1, 2, 0), by_group)
            if self.joint:
                for start in range(0, self.width, STRIPE):  # the upper triangle is enough
                    stripe = slice(start, start + STRIPE)
                    own = by_group[:, :, stripe].mT
                    self._gram[:, stripe, start:].baddbmm_(own, by_group[:, :, start:])
            else:
                taps = rows.unflatten(2, (self._channels, self._taps))
                self._gram += torch.einsum("pgia,pgib->giab", taps, taps)
                self._mixed += torch.einsum("pgia,pgja->gij", taps, taps)
        vars(self).pop("moments", None)
        self._values.clear()

    @torch.no_grad()
    def answers(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b n i j"]:
        """What the layer itself answers, evaluated."""
        with evaluation(self.conv):
            return self.conv(x)

    def check(self, conv: nn.Conv2d) -> None:
        """Raise ValueError where a convolution is not of the same form as the one watched."""
        if any(getattr(conv, form) != getattr(self.conv, form) for form in FORM):
            raise ValueError("these statistics are of another layer")

    def rows(self, x: Tensor, y: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Patches (p, g, d) and outputs (p, g, n) of a batch, in float64, in parts."""
        groups = self.conv.groups
        width = self._x.numel()  # of all groups
        places = y.shape[2] * y.shape[3]
        images = max(1, CHUNK // (width * places))
        for start in range(0, len(x), images):
            seen = patches(self.conv, x[start : start + images])  # b, g, d, p
            answers = y[start : start + images].flatten(2).unflatten(1, (groups, -1))
            if len(seen) != len(answers) or seen.shape[3] != answers.shape[3]:
                raise ValueError(f"{tuple(y.shape)} is no output for {tuple(x.shape)}")
            if self._places is not None and self._places < places:
                chosen = self._draw(len(seen), places).to(x.device)[:, None, None]
                seen = seen.gather(3, chosen.expand(-1, *seen.shape[1:3], -1))
                answers = answers.gather(3, chosen.expand(-1, *answers.shape[1:3], -1))
            rows = seen.permute(0, 3, 1, 2).flatten(0, 1)
            targets = answers.permute(0, 3, 1, 2).flatten(0, 1)
            step = max(1, CHUNK // width)
            for part, wanted in zip(rows.split(step), targets.split(step), strict=True):
                yield part.double(), wanted.double()

    def _draw(self, images: int, places: int) -> Tensor:
        """For each image some of its places, each once."""
        lots = torch.rand(images, places, generator=self._random)
        return lots.argsort(dim=1)[:, : self._places]

    @cached_property
    def moments(self) -> "Moments":
        """Means and covariances so far, with the ridge.

        Raises:
            UserError: there are no places yet, or all inputs are constant.
        """
        if not self.samples:
            raise UserError("there are no inputs to fit to")
        count = self.samples
        x, y = self._x.cpu() / count, self._y.cpu() / count
        cross = self._cross.cpu() / count - y[:, :, None] * x[:, None, :]
        variance = (self._squares.cpu() / count - y.square()).clamp_min(0)
        if self.joint:
            upper = self._gram.cpu().triu()
            gram = upper.add_(upper.triu(1).mT).div_(count)
            gram.baddbmm_(x[:, :, None], x[:, None, :], alpha=-1)
            diagonal = gram.diagonal(dim1=1, dim2=2)
        else:
            taps = x.unflatten(1, (self._channels, self._taps))
            gram = self._gram.cpu() / count - taps[..., :, None] * taps[..., None, :]
            diagonal = gram.diagonal(dim1=2, dim2=3)
        noise = self.ridge * float(diagonal.mean())
        if not noise > 0:
            raise UserError("the layer's inputs are constant: nothing can be fitted to them")
        diagonal += noise
        weight = weight_of(self.conv).to("cpu", torch.float64).flatten(1)
        cross += noise * weight.unflatten(0, (self.conv.groups, -1))
        return Moments(self, x, y, cross, gram, variance, noise)

    def singular_values(self, order: Order) -> Float64[Tensor, "s r"]:
        """Those of the whitened slices, kept until there are more places."""
        if order not in self._values:
            self._values[order] = torch.linalg.svdvals(self.whitened(order))
        return self._values[order]

    def whitened(self, order: Order) -> Float64[Tensor, "s a k"]:
        """The slices of the best regular kernel, in units of what each does to the output."""
        best = self.moments.best * self.importance.sqrt()[:, :, None]
        kernel = best.flatten(0, 1).unflatten(1, (self._channels, *self.conv.kernel_size))
        slices = slices_of(kernel, self.conv.groups, order)
        if order == "depthwise_first":
            return slices @ self.moments.tap_roots
        channels, taps = self.moments.kronecker
        by_group = slices.unflatten(0, (self.conv.groups, -1))
        return (channels.mT[:, None] @ by_group @ taps[:, None]).flatten(0, 1)


@dataclass(frozen=True, eq=False)
class Moments:
    """Means and covariances of patches and outputs by group, ridge included."""

    statistics: PatchStatistics
    x: Float64[Tensor, "g d"]
    y: Float64[Tensor, "g n"]
    cross: Float64[Tensor, "g n d"]
    gram: Tensor  # g d d; of wide layers g c k k
    variance: Float64[Tensor, "g n"]
    noise: float  # the variance that the ridge adds to each tap

    @cached_property
    def best(self) -> Float64[Tensor, "g n d"]:
        """The best regular kernel for these inputs; of a wide layer the original's."""
        if not self.statistics.joint:
            weight = weight_of(self.statistics.conv).to("cpu", torch.float64)
            return weight.flatten(1).unflatten(0, (self.statistics.conv.groups, -1))
        factor = torch.linalg.cholesky(self.gram)
        return torch.cholesky_solve(self.cross.mT, factor).mT

    @cached_property
    def floor(self) -> float:
        """What is lost even with the best regular kernel."""
        return self.lost(self.best)

    @cached_property
    def tap_roots(self) -> Float64[Tensor, "c k k"]:
        """For each input channel the Cholesky factor of its taps' covariance."""
        return torch.linalg.cholesky(self._blocks.flatten(0, 1))

    @cached_property
    def kronecker(self) -> tuple[Float64[Tensor, "g c c"], Float64[Tensor, "g k k"]]:
        """Cholesky factors of covariances of channels and of taps, whose product stands for all."""
        statistics = self.statistics
        taps = self._blocks.mean(dim=1)
        if statistics.joint:
            grid = self.gram.unflatten(2, (statistics._channels, -1))
            grid = grid.unflatten(1, (statistics._channels, -1))
            channels = torch.einsum("giaja->gij", grid) / taps.shape[1]
        else:
            means = self.x.unflatten(1, (statistics._channels, -1))
            channels = statistics._mixed.cpu() / statistics.samples - means @ means.mT
            channels /= taps.shape[1]
            channels.diagonal(dim1=1, dim2=2).add_(self.noise)
        # Their product has the trace of the whole covariance twice over.
        scale = taps.diagonal(dim1=1, dim2=2).mean(1)
        taps = taps / scale[:, None, None]
        return torch.linalg.cholesky(channels), torch.linalg.cholesky(taps)

    @property
    def _blocks(self) -> Float64[Tensor, "g c k k"]:
        """The covariance of each channel's taps."""
        if not self.statistics.joint:
            return self.gram
        channels = self.statistics._channels
        grid = self.gram.unflatten(2, (channels, -1)).unflatten(1, (channels, -1))
        return torch.diagonal(grid, dim1=1, dim2=3).movedim(3, 1)

    def lost(self, kernel: Float64[Tensor, "g n d"]) -> float:
        """√(E|y - ŷ|² / E|y - E y|²) with this kernel and the best bias, by importance.

        Raises:
            ValueError: the layer is too wide for that to be known.
        """
        if not self.statistics.joint:
            raise ValueError("what the channels of a wide layer have in common is not known")
        weight = weight_of(self.statistics.conv).to("cpu", torch.float64).flatten(1)
        cross = self.cross - self.noise * weight.unflatten(0, kernel.shape[:2])
        squared = (kernel @ self.gram * kernel).sum(2) - self.noise * kernel.square().sum(2)
        each = self.variance - 2 * (kernel * cross).sum(2) + squared
        return self.share(each)

    def share(self, squares: Float64[Tensor, "g n"]) -> float:
        """√ of mean squared errors of the outputs as a share of their variance, by importance."""
        importance = self.statistics.importance
        whole = float((self.variance * importance).sum())
        lost = max(float((squares * importance).sum()), 0.0)
        return (lost / whole) ** 0.5 if whole else 0.0


def _checked(importance: Tensor | None, outputs: int) -> Float64[Tensor, " n"]:
    """The importance of each output, with a mean of 1."""
    if importance is None:
        return torch.ones(outputs, dtype=torch.float64)
    given = importance.detach().to("cpu", torch.float64)
    if given.shape != (outputs,) or not (given >= 0).all() or not given.sum() > 0:
        raise ValueError(f"importance must be {outputs} numbers ≥ 0, not all of them 0")
    return given / given.mean()
