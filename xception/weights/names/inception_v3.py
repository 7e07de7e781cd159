"""Inception V3 under the names of Keras, torchvision (and timm), and TF-slim.

All list a module's branches in the same order; the tables follow it.
"""

from collections.abc import Collection, Iterator, Sequence
from itertools import groupby

from xception.weights.names.table import Part

STEM = ("Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3", "Conv2d_3b_1x1", "Conv2d_4a_3x3")
MODULES = (
    *("Mixed_5b", "Mixed_5c", "Mixed_5d"),
    *("Mixed_6a", "Mixed_6b", "Mixed_6c", "Mixed_6d", "Mixed_6e"),
    *("Mixed_7a", "Mixed_7b", "Mixed_7c"),
)


def _numbered(name: str, last: int) -> tuple[str, ...]:
    return tuple(f"{name}_{number}" for number in range(1, last + 1))


# torchvision's names of the convolutions of each module.
_GRID35 = ("branch1x1", *_numbered("branch5x5", 2), *_numbered("branch3x3dbl", 3), "branch_pool")
_GRID17 = ("branch1x1", *_numbered("branch7x7", 3), *_numbered("branch7x7dbl", 5), "branch_pool")
_GRID8 = (
    *("branch1x1", "branch3x3_1", "branch3x3_2a", "branch3x3_2b"),
    *("branch3x3dbl_1", "branch3x3dbl_2", "branch3x3dbl_3a", "branch3x3dbl_3b", "branch_pool"),
)
TORCH = (
    *[_GRID35] * 3,
    ("branch3x3", *_numbered("branch3x3dbl", 3)),
    *[_GRID17] * 4,
    (*_numbered("branch3x3", 2), *_numbered("branch7x7x3", 4)),
    *[_GRID8] * 2,
)

# TF-slim's, by branch; where its names break its own rules, so did the code that wrote the files.
_SLIM35 = ("0a_1x1", "0a_1x1 0b_5x5", "0a_1x1 0b_3x3 0c_3x3", "0b_1x1")
_SLIM17 = ("0a_1x1", "0a_1x1 0b_1x7 0c_7x1", "0a_1x1 0b_7x1 0c_1x7 0d_7x1 0e_1x7", "0b_1x1")
_LAST_BRANCHES = ("0a_1x1 0b_3x3 0c_1x3 0d_3x1", "0b_1x1")
SLIM = (
    _SLIM35,
    ("0a_1x1", "0b_1x1 Conv_1_0c_5x5", *_SLIM35[2:]),
    _SLIM35,
    ("1a_1x1", "0a_1x1 0b_3x3 1a_1x1"),
    *[_SLIM17] * 4,
    ("0a_1x1 1a_3x3", "0a_1x1 0b_1x7 0c_7x1 1a_3x3"),
    ("0a_1x1", "0a_1x1 0b_1x3 0b_3x1", *_LAST_BRANCHES),
    ("0a_1x1", "0a_1x1 0b_1x3 0c_3x1", *_LAST_BRANCHES),
)
TOWER = ("auxiliary.convs.0", "auxiliary.convs.1", "auxiliary.classifier")


def keras_parts(ours: Collection[str]) -> Iterator[Part]:
    """In the order of Keras' `model.layers`; only the classifier has a name there.

    Keras numbers layers as they are made, which is our order too, but lists and stores them by
    their distance from the output.
    """
    stem, *modules = _convolutions(ours)
    number = 0
    for members in (stem, *modules):
        made = [(number + i, conv) for i, conv in enumerate(members, start=1)]
        number += len(members)
        for i, conv in sorted(made, key=lambda pair: -_distance(pair[1], members)):
            yield Part(f"{conv}.conv", f"conv2d_{i}", "conv")
            yield Part(f"{conv}.norm", f"batch_normalization_{i}", "norm")
    yield Part("head.classifier", "predictions", "dense")


def torch_parts(ours: Collection[str]) -> Iterator[Part]:
    """torchvision's, and timm's, with the auxiliary tower where ours has one."""
    stem, *modules = _convolutions(ours)
    theirs = [f"{m}.{conv}" for m, convs in zip(MODULES, TORCH, strict=True) for conv in convs]
    pairs = list(zip(_flat(stem, modules), (*STEM, *theirs), strict=True))
    if f"{TOWER[0]}.conv.weight" in ours:
        pairs += [(TOWER[0], "AuxLogits.conv0"), (TOWER[1], "AuxLogits.conv1")]
    for conv, name in pairs:
        yield Part(f"{conv}.conv", f"{name}.conv", "conv")
        yield Part(f"{conv}.norm", f"{name}.bn", "norm")
    if f"{TOWER[2]}.weight" in ours:
        yield Part(TOWER[2], "AuxLogits.fc", "dense")
    yield Part("head.classifier", "fc", "dense")


def slim_parts(ours: Collection[str]) -> Iterator[Part]:
    """TF-slim's, with the auxiliary tower where ours has one."""
    stem, *modules = _convolutions(ours)
    theirs = [
        f"{module}/Branch_{b}/{conv if conv.startswith('Conv') else f'Conv2d_{conv}'}"
        for module, branches in zip(MODULES, SLIM, strict=True)
        for b, branch in enumerate(branches)
        for conv in branch.split()
    ]
    pairs = list(zip(_flat(stem, modules), (*STEM, *theirs), strict=True))
    if f"{TOWER[0]}.conv.weight" in ours:
        pairs += [
            (TOWER[0], "AuxLogits/Conv2d_1b_1x1"),
            (TOWER[1], "AuxLogits/Conv2d_2a_5x5"),
        ]
    for conv, name in pairs:
        yield Part(f"{conv}.conv", f"InceptionV3/{name}", "conv")
        yield Part(f"{conv}.norm", f"InceptionV3/{name}", "norm")
    if f"{TOWER[2]}.weight" in ours:
        yield Part(TOWER[2], "InceptionV3/AuxLogits/Conv2d_2b_1x1", "dense_conv")
    yield Part("head.classifier", "InceptionV3/Logits/Conv2d_1c_1x1", "dense_conv")


def _convolutions(ours: Collection[str]) -> list[list[str]]:
    """Our convolutions in order: those of the stem, then those of each module."""
    paths = [name.removesuffix(".conv.weight") for name in ours if name.endswith(".conv.weight")]
    paths = [path for path in paths if not path.startswith("auxiliary.")]
    groups = groupby(paths, key=lambda path: path.split(".")[1] if ".mixed" in path else "stem")
    return [list(members) for _, members in groups]


def _flat(stem: Sequence[str], modules: Sequence[Sequence[str]]) -> list[str]:
    return [*stem, *(conv for module in modules for conv in module)]


def _distance(conv: str, members: Sequence[str]) -> int:
    """Layers between a convolution and the end of its module, or of the stem.

    Each convolution brings three layers, and a fork at the end of a branch a concatenation.
    """
    if ".mixed" not in conv:
        return 3 * (len(members) - members.index(conv))
    branch, place = _place(conv)
    places = [_place(other) for other in members]
    last = max(p[0] for b, p in places if b == branch)
    forked = any(len(p) > 1 for b, p in places if b == branch)
    return 3 * (last - place[0]) + forked


def _place(conv: str) -> tuple[int, tuple[int, ...]]:
    """`grid8.mixed9.1.1.0` -> branch 1, layer 1, first of its fork."""
    _, _, branch, *place = conv.split(".")
    return int(branch), tuple(map(int, place))
