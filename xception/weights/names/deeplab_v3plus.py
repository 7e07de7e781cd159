"""DeepLab V3+ over aligned Xception under the names of its TensorFlow code."""

from collections.abc import Collection, Iterator

from xception.weights.names.aligned_xception import tensorflow_backbone, tensorflow_separable
from xception.weights.names.table import Part


def tensorflow_parts(ours: Collection[str], scope: str) -> Iterator[Part]:
    """The backbone, the pyramid, the decoder where there is one, and the logits.

    Args:
        ours: the names of our state dict.
        scope: of the backbone, `xception_65`.
    """
    yield from tensorflow_backbone(ours, scope, "backbone.")
    for place, theirs in (("pooling", "image_pooling"), ("branches.0", "aspp0")):
        if f"aspp.{place}.0.weight" in ours:
            yield from _conv(f"aspp.{place}", theirs)
    rates = {name.split(".")[2] for name in ours if name.startswith("aspp.branches.")} - {"0"}
    for number in sorted(rates, key=int):
        yield from _either(ours, f"aspp.branches.{number}", f"aspp{number}", f"aspp{number}")
    yield from _conv("aspp.project", "concat_projection")
    if "decoder.reduce.0.weight" in ours:
        yield from _conv("decoder.reduce", "decoder/feature_projection0")
        for i in range(2):
            # Regular ones are made by `slim.repeat`, which numbers them within a scope.
            regular = f"decoder/decoder_conv0/decoder_conv0_{i + 1}"
            yield from _either(ours, f"decoder.refine.{i}", f"decoder/decoder_conv{i}", regular)
    yield Part("head.classifier", "logits/semantic", "biased")


def _conv(ours: str, theirs: str) -> Iterator[Part]:
    yield Part(f"{ours}.0", theirs, "conv")
    yield Part(f"{ours}.1", theirs, "norm")


def _either(ours: Collection[str], here: str, separable: str, regular: str) -> Iterator[Part]:
    """A separable convolution, or a regular one, which may have another name there."""
    if f"{here}.0.depthwise.weight" in ours:
        yield from tensorflow_separable(f"{here}.0", separable)
    else:
        yield from _conv(here, regular)
