"""Where two networks part: the same image through both, layer by layer."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from xception.errors import UserError
from xception.models.network import JSON, Network

TOLERANCE = 1e-4


class Difference(NamedTuple):
    """What one layer gives in the two networks."""

    name: str  # the layer's path
    shape: tuple[int, ...]  # of what it gives in the first network
    largest: float  # difference of two values; infinite where the shapes differ or a value is NaN
    scale: float  # the largest magnitude in the first network
    same_weights: bool

    @property
    def parts(self) -> bool:
        """Whether this is more than rounding."""
        return self.largest == torch.inf or not self.largest <= TOLERANCE * self.scale


class Comparison(NamedTuple):
    """All layers in the order of computing, and what the two networks say of themselves."""

    layers: list[Difference]
    options: dict[str, tuple[JSON, JSON]]  # those that differ

    @property
    def first(self) -> Difference | None:
        """The first layer where the networks part; None if they agree."""
        return next((layer for layer in self.layers if layer.parts), None)

    @property
    def other_weights(self) -> list[str]:
        """The layers whose weights are not the same."""
        return [layer.name for layer in self.layers if not layer.same_weights]

    def stages(self) -> dict[str, float]:
        """The largest difference in each part of the network, shallow to deep."""
        largest: dict[str, float] = {}
        for layer in self.layers:
            stage = layer.name.split(".")[0]
            largest[stage] = max(largest.get(stage, 0.0), layer.largest)
        return largest


def compare(one: Network, other: Network, *, size: int, seed: int = 0) -> Comparison:
    """Run the same random image in [-1, 1] through two networks of the same architecture.

    Args:
        one: in evaluation mode, as `load_model` gives it.
        other: the same.
        size: side of the image, in pixels.
        seed: of the image.

    Raises:
        UserError: the two are not of the same architecture, or take other images.
    """
    if type(one) is not type(other):
        raise UserError(f"{type(one).__name__} and {type(other).__name__} cannot be compared")
    here, there = _layers(one), _layers(other)
    if here.keys() != there.keys():
        alone = sorted(here.keys() ^ there.keys())
        raise UserError(f"the networks have other layers: only one has {alone[0]}")
    channels = {model.options["in_channels"] for model in (one, other)}
    if len(channels) > 1:
        raise UserError("one network takes colour images, the other not")
    generator = torch.Generator().manual_seed(seed)
    image = torch.rand((1, channels.pop(), size, size), generator=generator) * 2 - 1
    outputs: dict[str, list[Tensor]] = {name: [] for name in here}
    _run(one, image, lambda name, value: outputs[name].append(value))
    found: list[Difference] = []

    def judge(name: str, value: Tensor) -> None:
        # Kept until here only: what has been compared makes room.
        first = outputs[name].pop(0)
        found.append(_difference(name, first, value, here[name], there[name]))

    _run(other, image, judge)
    differ = {
        key: (one.options.get(key), other.options.get(key))
        for key in one.options | other.options
        if one.options.get(key) != other.options.get(key)
    }
    return Comparison(found, differ)


def _layers(model: Network) -> dict[str, nn.Module]:
    """The modules that compute, by path; those that only hold others are none, nor is a tower."""
    towers = {layer.split(".")[0] for layer in model.SIDE_LAYERS}
    return {
        name: module
        for name, module in model.named_modules()
        if not any(True for _ in module.children())
        and not isinstance(module, nn.Identity)
        and name.split(".")[0] not in towers
    }


def _run(
    model: Network, image: Float[Tensor, "1 c h w"], see: Callable[[str, Tensor], None]
) -> None:
    """Show what each layer gives, in the order of computing."""

    def hook(name: str) -> Callable[[nn.Module, object, Tensor], None]:
        # A copy: the next layer may write over it.
        return lambda module, inputs, value: see(name, value.clone())

    hooks = [layer.register_forward_hook(hook(name)) for name, layer in _layers(model).items()]
    try:
        with torch.inference_mode():
            model(image)
    finally:
        for handle in hooks:
            handle.remove()


def _difference(
    name: str, one: Tensor, other: Tensor, here: nn.Module, there: nn.Module
) -> Difference:
    largest = torch.inf
    if torch.equal(one, other):
        largest = 0.0  # also where both overflow alike
    elif one.shape == other.shape:
        largest = (one - other).abs().max().item()
        largest = torch.inf if largest != largest else largest
    ours, theirs = here.state_dict(), there.state_dict()
    same = ours.keys() == theirs.keys() and all(
        torch.equal(ours[key], theirs[key])
        for key in ours
        if not key.endswith("num_batches_tracked")
    )
    return Difference(name, tuple(one.shape), largest, one.abs().max().item(), same)
