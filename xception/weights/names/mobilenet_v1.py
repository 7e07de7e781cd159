"""MobileNet V1 under the names of Keras and timm."""

from collections.abc import Collection, Iterator

from xception.weights.names.table import Part

DEEPEST = ("stage5.1.0.norm_after.bias", 1024)  # tells the width, with its channels at width 1


def keras_parts(ours: Collection[str]) -> Iterator[Part]:
    """In the order of Keras' `model.layers`; its classifier is a 1x1 convolution."""
    yield Part("stem.0", "conv1", "conv")
    yield Part("stem.1", "conv1_bn", "norm")
    for k, (_, _, separable) in enumerate(_separables(ours), start=1):
        yield Part(f"{separable}.depthwise", f"conv_dw_{k}", "depthwise_alone")
        yield Part(f"{separable}.norm_between", f"conv_dw_{k}_bn", "norm")
        yield Part(f"{separable}.pointwise", f"conv_pw_{k}", "conv")
        yield Part(f"{separable}.norm_after", f"conv_pw_{k}_bn", "norm")
    yield Part("head.classifier", "conv_preds", "dense_conv")


def timm_parts(ours: Collection[str]) -> Iterator[Part]:
    """As timm's builder of efficient networks calls them: stage and place in it."""
    yield Part("stem.0", "conv_stem", "conv")
    yield Part("stem.1", "bn1", "norm")
    for stage, place, separable in _separables(ours):
        block = f"blocks.{stage - 1}.{place}"
        yield Part(f"{separable}.depthwise", f"{block}.conv_dw", "conv")
        yield Part(f"{separable}.norm_between", f"{block}.bn1", "norm")
        yield Part(f"{separable}.pointwise", f"{block}.conv_pw", "conv")
        yield Part(f"{separable}.norm_after", f"{block}.bn2", "norm")
    yield Part("head.classifier", "classifier", "dense")


def _separables(ours: Collection[str]) -> list[tuple[int, int, str]]:
    """Stage (from 1), place in it (from 0) and path of each separable convolution, in order."""
    ending = ".0.depthwise.weight"
    paths = (name.removesuffix(".depthwise.weight") for name in ours if name.endswith(ending))
    split = ((path.split(".")[:2], path) for path in paths)
    return sorted(
        (int(stage.removeprefix("stage")), int(place), path) for (stage, place), path in split
    )
