"""What a source is: a library's definition of one of our networks, with its table of names."""

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from xception.weights.names.table import Row
from xception.weights.readers.stored import Kind

KERAS_FILES: tuple[Kind, ...] = ("keras_h5",)
KERAS3_FILES: tuple[Kind, ...] = ("keras_weights_h5", "keras_zip")
TORCH_FILES: tuple[Kind, ...] = ("torch", "safetensors")
TENSORFLOW_FILES: tuple[Kind, ...] = ("tensorflow",)

Renamed = dict[str, str]
"""Names of a table -> names in a file."""


@dataclass(frozen=True)
class Source:
    """A library's definition of one of our networks."""

    layout: str
    """The library, as `--layout` names it: keras, timm, torchvision, …"""
    network: str
    """What the library calls the network."""
    model: str
    """What the zoo calls it."""
    kinds: tuple[Kind, ...]
    """Files that hold these names."""
    marks: tuple[str, ...]
    """Names of the table by which such a file is recognised."""
    rows: Callable[[Collection[str]], list[Row]]
    """The table, from the names of our state dict."""
    options: Mapping[str, Any]
    """What of our options the definition settles; the rest is read from shapes, or ours."""
    preprocess: Mapping[str, Any]
    """How the library feeds the network."""
    names: Callable[[Iterable[str]], Renamed]
    """The names of the table that stand for those in a file."""
    width_of: tuple[str, int] | None = None
    """Where the definition has a width: a tensor of ours that tells it, its length at width 1."""
    present: Mapping[str, str] = field(default_factory=dict)
    """Options that are true if a name is there."""
    note: str = ""
    """What a person should know of files whose tensors look alike and are fed otherwise."""

    @property
    def title(self) -> str:
        """For messages."""
        return f"{self.layout}'s {self.network}"


# What a checkpoint holds beside the network, by the end of the name.
NOT_WEIGHTS = re.compile(
    r"(?:^|/)(?:global_step|beta[12]_power|save_counter(?:/.*)?|_CHECKPOINTABLE_OBJECT_GRAPH)$"
    r"|/(?:Momentum|Nesterov|Adagrad|Ftrl|Ftrl_1|RMSProp|RMSProp_1|RMSProp_2|Adam|Adam_1)$"
    r"|^(?:optimizer|optimizer_weights|training|_optimizer)/|^optimizer\."
    r"|(?:^|\.)(?:total_ops|total_params)$|^n_averaged$"
)
AVERAGED = "/ExponentialMovingAverage"
OPTIONAL = ".num_batches_tracked"  # counters that older files lack


def plain_names(names: Iterable[str]) -> Renamed:
    """The names as they stand."""
    return {name: name for name in names}


def averaged_names(names: Iterable[str]) -> Renamed:
    """Of a variable and its moving average the average; the plain one where there is no other."""
    names = set(names)
    return {
        name.removesuffix(AVERAGED): name
        for name in names
        if name.endswith(AVERAGED) or name + AVERAGED not in names
    }


_AUTOMATIC = re.compile(r"(convolution2d|conv2d|batchnormalization|batch_normalization)(?:_(\d+))?")
_TODAY = {"convolution2d": "conv2d", "batchnormalization": "batch_normalization"}
_SYNONYMS = {"W": "kernel", "b": "bias", "running_mean": "moving_mean"}
_SYNONYMS |= {"running_std": "moving_variance"}  # a variance in spite of its name


def _today(automatic: re.Match[str]) -> str:
    """The kind of a layer as Keras calls it today."""
    kind = str(automatic[1])
    return _TODAY.get(kind, kind)


def keras_names(names: Iterable[str]) -> Renamed:
    """Names of Keras 1 and 2 files: `layer/tensor`.

    Layers without a name of their own are numbered on through a whole session, so that a file's
    first may be conv2d_95; in the table the first is conv2d_1. Keras 1 called tensors otherwise,
    and Keras 3 calls the kernel of a DepthwiseConv2D just kernel.
    """
    numbers: dict[str, set[int]] = {}
    split = []
    for name in names:
        layer, _, tensor = name.rpartition("/")
        found = _AUTOMATIC.fullmatch(layer)
        if found is not None:
            kind = _today(found)
            numbers.setdefault(kind, set()).add(int(found[2] or 0))
        split.append((name, layer, tensor, found))
    ranks = {kind: {n: i for i, n in enumerate(sorted(all_), 1)} for kind, all_ in numbers.items()}
    renamed: Renamed = {}
    for name, layer, tensor, found in split:
        tensor = tensor.removeprefix(f"{layer}_")
        tensor = _SYNONYMS.get(tensor, tensor)
        if found is not None:
            kind = _today(found)
            layer = f"{kind}_{ranks[kind][int(found[2] or 0)]}"
        elif layer.startswith("conv_dw_") and tensor == "kernel":
            tensor = "depthwise_kernel"
        renamed[f"{layer}/{tensor}"] = name
    return renamed


def keras3_names(names: Iterable[str]) -> Renamed:
    """Names of Keras 3 files; its first releases put the layers into another folder."""
    early = "_layer_checkpoint_dependencies/"
    return {
        f"layers/{name.removeprefix(early)}" if name.startswith(early) else name: name
        for name in names
    }
