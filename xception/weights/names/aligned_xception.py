"""Aligned Xception under the names of timm and of DeepLab's TensorFlow code."""

from collections.abc import Collection, Iterator

from xception.weights.names.table import Part

STEM = (("stem.0", "stem.1"), ("stem.3", "stem.4"))
LAST = ("exit.1", "exit.3", "exit.5")  # behind the last shortcut; one block for the others


def timm_parts(ours: Collection[str]) -> Iterator[Part]:
    """Blocks are counted through, the layers behind the last shortcut are the last of them."""
    for i, (conv, norm) in enumerate(STEM):
        yield Part(conv, f"stem.{i}.conv", "conv")
        yield Part(norm, f"stem.{i}.bn", "norm")
    blocks = [block for flow in ("entry", "middle", "exit") for block in _blocks(ours, flow)]
    for k, block in enumerate([*blocks, ""]):
        for j, separable in enumerate(_separables(block), start=1):
            stack = f"blocks.{k}.stack.conv{j}"
            yield Part(f"{separable}.depthwise", f"{stack}.conv_dw", "conv")
            yield Part(f"{separable}.norm_between", f"{stack}.bn_dw", "norm")
            yield Part(f"{separable}.pointwise", f"{stack}.conv_pw", "conv")
            yield Part(f"{separable}.norm_after", f"{stack}.bn_pw", "norm")
        if block and f"{block}.shortcut.0.weight" in ours:
            yield Part(f"{block}.shortcut.0", f"blocks.{k}.shortcut.conv", "conv")
            yield Part(f"{block}.shortcut.1", f"blocks.{k}.shortcut.bn", "norm")
    yield Part("head.classifier", "head.fc", "dense")


def tensorflow_parts(ours: Collection[str], scope: str) -> Iterator[Part]:
    """The classifier of ImageNet too: a 1x1 convolution there.

    Args:
        ours: the names of our state dict.
        scope: `xception_65`, after the number of layers.
    """
    yield from tensorflow_backbone(ours, scope, "")
    yield Part("head.classifier", f"{scope}/logits", "dense_conv")


def tensorflow_backbone(ours: Collection[str], scope: str, prefix: str) -> Iterator[Part]:
    """All but the classifier; `prefix` stands before the names of ours."""
    for i, (conv, norm) in enumerate(STEM, start=1):
        yield Part(prefix + conv, f"{scope}/entry_flow/conv1_{i}", "conv")
        yield Part(prefix + norm, f"{scope}/entry_flow/conv1_{i}", "norm")
    for i, block in enumerate(_blocks(ours, f"{prefix}entry"), start=1):
        yield from _module(ours, block, f"{scope}/entry_flow/block{i}/unit_1")
    for i, block in enumerate(_blocks(ours, f"{prefix}middle"), start=1):
        yield from _module(ours, block, f"{scope}/middle_flow/block1/unit_{i}")
    yield from _module(ours, f"{prefix}exit.0", f"{scope}/exit_flow/block1/unit_1")
    last = f"{scope}/exit_flow/block2/unit_1/xception_module"
    for j, separable in enumerate(LAST, start=1):
        yield from tensorflow_separable(prefix + separable, f"{last}/separable_conv{j}")


def _module(ours: Collection[str], block: str, unit: str) -> Iterator[Part]:
    module = f"{unit}/xception_module"
    for j, separable in enumerate(_separables(block), start=1):
        yield from tensorflow_separable(separable, f"{module}/separable_conv{j}")
    if f"{block}.shortcut.0.weight" in ours:
        yield Part(f"{block}.shortcut.0", f"{module}/shortcut", "conv")
        yield Part(f"{block}.shortcut.1", f"{module}/shortcut", "norm")


def tensorflow_separable(ours: str, theirs: str) -> Iterator[Part]:
    """A separable convolution with a norm behind each half, in DeepLab's code."""
    yield Part(f"{ours}.depthwise", f"{theirs}_depthwise", "depthwise")
    yield Part(f"{ours}.norm_between", f"{theirs}_depthwise", "norm")
    yield Part(f"{ours}.pointwise", f"{theirs}_pointwise", "conv")
    yield Part(f"{ours}.norm_after", f"{theirs}_pointwise", "norm")


def _blocks(ours: Collection[str], flow: str) -> list[str]:
    """The blocks of a flow that have a shortcut, in order."""
    depth = len(flow.split("."))
    numbers = {
        int(name.split(".")[depth])
        for name in ours
        if name.startswith(f"{flow}.") and ".separables." in name
    }
    return [f"{flow}.{number}" for number in sorted(numbers)]


def _separables(block: str) -> tuple[str, ...]:
    return tuple(f"{block}.separables.{j}" for j in range(3)) if block else LAST
