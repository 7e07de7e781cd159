"""Chollet's Xception under the names of Keras and of its ports to PyTorch."""

from collections.abc import Collection, Iterator
from typing import NamedTuple

from xception.weights.names.table import Part


class Names(NamedTuple):
    """How a library calls the parts; blocks are counted from the first with a shortcut."""

    stem: tuple[tuple[str, str], ...]  # convolution and norm
    separable: tuple[str, str]  # endings of the two convolutions of a separable one
    kinds: tuple[str, str]  # of the two, in the library's dialect
    classifier: str


KERAS = Names(
    (("block1_conv1", "block1_conv1_bn"), ("block1_conv2", "block1_conv2_bn")),
    ("", ""),
    ("depthwise", "pointwise"),
    "predictions",
)
TORCH = Names(
    (("conv1", "bn1"), ("conv2", "bn2")), (".conv1", ".pointwise"), ("conv", "conv"), "fc"
)
CADENE = TORCH._replace(classifier="last_linear")
MATRICES = TORCH._replace(kinds=("conv", "flat"))  # xception-b5690688: pointwise as matrices

STEM = (("stem.0", "stem.1"), ("stem.3", "stem.4"))
LAST = ("exit.1", "exit.3")


def keras_parts(ours: Collection[str]) -> Iterator[Part]:
    """In the order of Keras' `model.layers`; shortcuts there have numbers for names."""
    yield from _stem(KERAS)
    projections = 0
    blocks = _blocks(ours)
    for k, block in enumerate(blocks, start=2):
        for j, separable in enumerate(_separables(ours, block), start=1):
            yield from _separable(
                KERAS, separable, f"block{k}_sepconv{j}", f"block{k}_sepconv{j}_bn"
            )
        if f"{block}.shortcut.0.weight" in ours:
            projections += 1
            yield Part(f"{block}.shortcut.0", f"conv2d_{projections}", "conv")
            yield Part(f"{block}.shortcut.1", f"batch_normalization_{projections}", "norm")
    for j, separable in enumerate(LAST, start=1):
        name = f"block{len(blocks) + 2}_sepconv{j}"
        yield from _separable(KERAS, separable, name, f"{name}_bn")
    yield Part("head.classifier", KERAS.classifier, "dense")


def torch_parts(ours: Collection[str], names: Names = TORCH) -> Iterator[Part]:
    """Blocks there are sequences: ReLU, separable convolution, norm, …; the first has no ReLU."""
    yield from _stem(names)
    for k, block in enumerate(_blocks(ours), start=1):
        first = 0 if k == 1 else 1
        for j, separable in enumerate(_separables(ours, block)):
            place = first + 3 * j
            yield from _separable(
                names, separable, f"block{k}.rep.{place}", f"block{k}.rep.{place + 1}"
            )
        if f"{block}.shortcut.0.weight" in ours:
            yield Part(f"{block}.shortcut.0", f"block{k}.skip", "conv")
            yield Part(f"{block}.shortcut.1", f"block{k}.skipbn", "norm")
    for j, separable in enumerate(LAST, start=3):
        yield from _separable(names, separable, f"conv{j}", f"bn{j}")
    yield Part("head.classifier", names.classifier, "dense")


def _stem(names: Names) -> Iterator[Part]:
    for (conv, norm), (their_conv, their_norm) in zip(STEM, names.stem, strict=True):
        yield Part(conv, their_conv, "conv")
        yield Part(norm, their_norm, "norm")


def _separable(names: Names, ours: str, theirs: str, norm: str) -> Iterator[Part]:
    for part, ending, kind in zip(
        ("depthwise", "pointwise"), names.separable, names.kinds, strict=True
    ):
        yield Part(f"{ours}.{part}", f"{theirs}{ending}", kind)
    yield Part(f"{ours}.norm_after", norm, "norm")


def _blocks(ours: Collection[str]) -> list[str]:
    """Our blocks with a shortcut, in order."""
    repeated = {name.split(".")[1] for name in ours if name.startswith("middle.")}
    middle = [f"middle.{i}" for i in range(len(repeated))]
    return ["entry1", "entry2", "entry3", *middle, "exit.0"]


def _separables(ours: Collection[str], block: str) -> list[str]:
    """The separable convolutions of a block, in order."""
    ending = ".depthwise.weight"
    found = [name for name in ours if name.startswith(f"{block}.body.") and name.endswith(ending)]
    return sorted((name.removesuffix(ending) for name in found), key=_place)


def _place(name: str) -> int:
    return int(name.rsplit(".", 1)[1])
