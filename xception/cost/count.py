"""What a network costs on paper: parameters, multiply-accumulates and bytes, layer by layer.

Nothing is computed: the network runs on shapes alone (torch's meta device), so an image of any size
costs no memory.

- `parameters`: trainable values. Running statistics are not among them.
- `macs`: multiply-accumulates of convolutions and linear layers for one image, one multiply-add
  being 1. Padding counts like any pixel. Biases, normalisation (which folds into the convolution
  before it), activations, pooling and sums are left out, as papers do.
- `bytes`: what the layers move for one image in float32, each on its own: its weights and
  statistics read, its input read, its output written. Fusing layers moves less.
"""

from copy import deepcopy
from dataclasses import dataclass
from typing import Any, Literal, TypedDict

import torch
from torch import Tensor, nn

Kind = Literal["depthwise", "pointwise", "regular", "linear", "norm", "other"]

FLOAT32_BYTES = 4
NORMS = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm)


class Total(TypedDict):
    """The sums over a network."""

    parameters: int
    macs: int
    bytes: int


class Layer(TypedDict):
    """One module; a module that runs several times stands once, with the sum of its work."""

    name: str
    kind: Kind
    parameters: int
    macs: int
    bytes: int
    output: list[int]  # shape of its (last) output, without the batch


@dataclass(frozen=True)
class Cost:
    """What one image costs."""

    total: Total
    layers: tuple[Layer, ...]  # in the order in which they run
    uncounted: tuple[str, ...]  # types of the modules whose arithmetic is not in `macs`, sorted

    def share(self, kind: Kind) -> float:
        """The share of one kind of layer in the MACs, 0 … 1."""
        macs = sum(layer["macs"] for layer in self.layers if layer["kind"] == kind)
        return macs / max(self.total["macs"], 1)


def count(model: nn.Module, size: int, in_channels: int = 3) -> Cost:
    """What the network costs for one image; the network itself is left untouched.

    Only work done inside modules is seen, which for MACs means `nn.Conv2d` and `nn.Linear` and
    what derives from them. Any other module is named in `uncounted`.

    Args:
        model: takes one tensor of `b in_channels size size`, on any device, in any mode.
        size: side of the image in pixels.
        in_channels: channels of the image.
    """
    shapes = deepcopy(model).to("meta").eval()
    layers: dict[str, Layer] = {}
    uncounted: set[str] = set()
    for name, module in shapes.named_modules():
        if not any(True for _ in module.children()) or _own_values(module):
            module.register_forward_hook(_recorder(name, layers, uncounted), with_kwargs=True)
    with torch.no_grad():
        shapes(torch.empty(1, in_channels, size, size, device="meta"))
    total = Total(
        parameters=sum(p.numel() for p in model.parameters()),  # a shared one counts once
        macs=sum(layer["macs"] for layer in layers.values()),
        bytes=sum(layer["bytes"] for layer in layers.values()),
    )
    return Cost(total, tuple(layers.values()), tuple(sorted(uncounted)))


def _recorder(name: str, layers: dict[str, Layer], uncounted: set[str]) -> Any:
    """The hook that notes a module's work each time it has run."""

    def record(
        module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any
    ) -> None:
        written = [output] if isinstance(output, Tensor) else []
        moved = [*_tensors(args), *_tensors(kwargs.values()), *written, *_own_values(module)]
        kind = _kind(module)
        if kind == "other":
            uncounted.add(type(module).__name__)
        before = layers.get(name)
        layers[name] = Layer(
            name=name,
            kind=kind,
            parameters=sum(p.numel() for p in module.parameters(recurse=False)),
            macs=_macs(module, output) + (before["macs"] if before else 0),
            bytes=FLOAT32_BYTES * sum(t.numel() for t in moved)
            + (before["bytes"] if before else 0),
            output=list(written[0].shape[1:]) if written else [],
        )

    return record


def _kind(module: nn.Module) -> Kind:
    if isinstance(module, nn.Conv2d):
        if module.groups > 1 and module.groups == module.in_channels:
            return "depthwise"
        if module.kernel_size == (1, 1) and module.groups == 1:
            return "pointwise"
        return "regular"
    if isinstance(module, nn.Linear):
        return "linear"
    return "norm" if isinstance(module, NORMS) else "other"


def _macs(module: nn.Module, output: Any) -> int:
    if isinstance(module, nn.Conv2d):  # every weight is used once for each place of the output
        return module.weight.numel() * output.shape[-2] * output.shape[-1]
    if isinstance(module, nn.Linear):
        return module.weight.numel() * (output.numel() // module.out_features)
    return 0


def _own_values(module: nn.Module) -> list[Tensor]:
    """The floating-point parameters and buffers of the module itself, without its children's."""
    own = [*module.parameters(recurse=False), *module.buffers(recurse=False)]
    return [tensor for tensor in own if tensor.is_floating_point()]


def _tensors(values: Any) -> list[Tensor]:
    return [value for value in values if isinstance(value, Tensor)]
