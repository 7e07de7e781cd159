"""What Keras writes: `.h5` of Keras 1 and 2, `.weights.h5` and `.keras` of Keras 3.

Names:

- `.h5`, a whole model or weights only: `LAYER/WEIGHT`, in the order of the attributes `layer_names`
  and `weight_names`. WEIGHT is the end of the weight's path, without `:0`: of
  `/model_weights/conv1/model/conv1/kernel:0` it makes `conv1/kernel`, and of Keras 1's
  `conv1/conv1_W` `conv1/W`. Where these ends are not distinct (a model in a model), it is the whole
  path: `inner/conv1/kernel`. Tensors that no layer names (the optimizer's) follow under their path.
- `.weights.h5` and `.keras`: the path as it is stored, `layers/conv2d/vars/0`; numbers in names
  are sorted as numbers. `meta["layer_names"]` has what newer versions of Keras say about these
  paths: `{"layers/conv2d": "block1_conv1"}`.
"""

import re
from typing import Any, NamedTuple

from pydantic import JsonValue

from xception.weights.header import parse_json
from xception.weights.readers.hdf5 import Member, walk
from xception.weights.readers.hdf5_types import Attributes
from xception.weights.readers.hdf5_values import Dataset, dataset
from xception.weights.readers.source import MAX_TENSORS, Collection, Source, Unsound
from xception.weights.readers.stored import Foreign

WEIGHTS_GROUP = "model_weights"  # of a whole model of Keras 1 and 2
MAX_PARTS = 1000  # of a list of names; each holds 64 KB, and one is enough for most files
VARIABLES = "vars"  # the group that holds a layer's variables in Keras 3


class _Tree(NamedTuple):
    """All members of a file, by their paths."""

    groups: dict[str, Member]
    datasets: dict[str, Dataset]


def read_hdf5(source: Source) -> Foreign:
    """The tensors of an HDF5 file of any version of Keras.

    Raises:
        Unsound: it is damaged, leads out of itself, or Keras did not write it.
    """
    tree = _Tree({}, {})
    for member in walk(source):
        if member.is_dataset:
            tree.datasets[member.path] = dataset(source, member)
        else:
            tree.groups[member.path] = member
    tensors = Collection(source.size)
    said = Attributes(source)
    for prefix in (f"{WEIGHTS_GROUP}/", ""):
        group = tree.groups.get(prefix.rstrip("/"))
        layers = _names(said, group, "layer_names") if group else None
        if layers is not None:
            _add_layers(said, tensors, tree, prefix, layers)
            return Foreign("keras_h5", tensors.tensors, _meta(said, tree))
    if any(VARIABLES in path.split("/")[:-1] for path in tree.datasets):
        for path in sorted(tree.datasets, key=_natural):
            _add(tensors, path, tree.datasets[path])
        return Foreign("keras_weights_h5", tensors.tensors, _meta(said, tree))
    raise Unsound("an HDF5 file, but not one with weights of Keras")


def _add_layers(
    said: Attributes, tensors: Collection, tree: _Tree, prefix: str, layers: list[str]
) -> None:
    """Put the tensors that the layers name first, then all others."""
    left = dict(tree.datasets)
    if len(set(layers)) != len(layers):
        raise Unsound("a layer is announced twice")
    for layer in layers:
        group = tree.groups.get(prefix + layer)
        weights = _names(said, group, "weight_names") if group else None
        if weights is None:
            raise Unsound(f"layer {layer!r:.80} is announced, but not there")
        for weight, short in zip(weights, _short(layer, weights), strict=True):
            found = left.pop(f"{prefix}{layer}/{weight}", None)
            if found is None:
                raise Unsound(f"weight {weight!r:.80} of layer {layer!r:.80} is not there")
            _add(tensors, f"{layer}/{short}", found)
    for path, found in left.items():
        _add(tensors, path.removesuffix(":0"), found)


def _short(layer: str, weights: list[str]) -> list[str]:
    """The weights' names without what is said twice; see the top of this file."""
    paths = [weight.removesuffix(":0").removeprefix(f"{layer}/") for weight in weights]
    ends = [path.rsplit("/", 1)[-1].removeprefix(f"{layer}_") for path in paths]
    return ends if len(set(ends)) == len(ends) else paths


def _add(tensors: Collection, name: str, found: Dataset) -> None:
    tensors.add(name, found.shape, found.dtype, found.read)


def _names(said: Attributes, group: Member, name: str) -> list[str] | None:
    """A list of names; Keras spreads one that is too long over attributes NAME0, NAME1, …"""
    names = said.texts(group, name)
    if names is not None:
        return names
    parts: list[list[str]] = []
    count = 0
    while (part := said.texts(group, f"{name}{len(parts)}")) is not None:
        parts.append(part)
        count += len(part)
        if count > MAX_TENSORS or len(parts) > MAX_PARTS:
            raise Unsound(f"{name} is spread over more than {MAX_PARTS} attributes, or too long")
    return [one for part in parts for one in part] if parts else None


def _meta(said: Attributes, tree: _Tree) -> dict[str, JsonValue]:
    """What the file says of itself."""
    meta: dict[str, JsonValue] = {}
    root = tree.groups[""]
    if (config := said.text(root, "model_config")) is not None:
        meta["config"] = json_object(config, "model_config")
    for name in ("keras_version", "backend"):
        for group in (root, tree.groups.get(WEIGHTS_GROUP)):
            if group and name not in meta and (found := said.text(group, name)):
                meta[name] = found[:100]
    names: dict[str, JsonValue] = {}
    for path, group in tree.groups.items():
        if path.endswith(f"/{VARIABLES}") and (name := said.text(group, "name")):
            names[path.removesuffix(f"/{VARIABLES}")] = name[:1000]
    if names:
        meta["layer_names"] = names
    return meta


def json_object(content: str, what: str) -> dict[str, Any]:
    """The object that a piece of JSON in a file stands for.

    Raises:
        Unsound: it is none.
    """
    try:
        return parse_json(content)
    except ValueError as error:
        raise Unsound(f"{what} is not sound: {error}") from error


def _natural(path: str) -> list[tuple[int, str]]:
    """Sorts `vars/10` behind `vars/9`, and `conv2d_10` behind `conv2d_9`."""
    parts = re.split(r"(\d+)", path)
    return [(len(part), part) if part.isdecimal() else (0, part) for part in parts]
