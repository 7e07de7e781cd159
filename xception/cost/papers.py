"""What the papers print about cost, row by row, to be laid beside what is counted here.

MobileNet: Howard et al. 2017, arXiv:1704.04861. DeepLab V3+: Chen et al. 2018, arXiv:1802.02611.
Xception: Chollet 2017, arXiv:1610.02357.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from xception.cost.count import Cost
from xception.cost.operators import Kind
from xception.cost.separable import compare

TOLERANCE = 0.003  # where the digits printed are more than that


class Row(NamedTuple):
    """One printed number, and what to count for it."""

    table: str
    row: str
    quantity: str  # one of QUANTITIES
    printed: str  # its digits say how it was rounded
    unit: float
    model: str
    options: Mapping[str, Any]
    sizes: tuple[int, ...]  # of the image; several are summed
    times: int = 1  # 2: every image is seen mirrored too
    note: str = ""


def share_of_macs(kind: Kind) -> Callable[[Cost], float]:
    """Per cent of the MACs."""
    return lambda cost: 100 * cost.share(kind)


def share_of_weights(kind: Kind) -> Callable[[Cost], float]:
    """Per cent of all that is multiplied by: no biases, no normalisation."""

    def share(cost: Cost) -> float:
        weights = [
            (one.kind, sum(cost.values[name] for name in one.factor)) for one in cost.operators
        ]
        whole = sum(number for _, number in weights)
        return 100 * sum(number for other, number in weights if other == kind) / whole

    return share


def space_to_batch_macs(cost: Cost) -> int:
    """The MACs as TensorFlow's profiler saw them in 2018.

    An atrous convolution of rate r was a plain one on every r-th pixel, of an image padded until
    its sides are multiples of r: places that are cropped afterwards are computed, and counted.
    """
    total = cost.total["macs"]
    for one in cost.operators:
        conv = one.convolution
        if conv is None or one.macs is None or max(conv.dilation) == 1:
            continue
        sides = one.output[2:]
        computed = [
            (-(-(n + (k - 1) * d) // d) - (k - 1)) * d
            for n, k, d in zip(sides, conv.kernel, conv.dilation, strict=True)
        ]
        total += one.macs // math.prod(sides) * (math.prod(computed) - math.prod(sides))
    return total


QUANTITIES: Mapping[str, Callable[[Cost], float]] = {
    "MACs": lambda cost: cost.total["macs"],
    "parameters": lambda cost: cost.total["parameters"],
    "MACs, regular": lambda cost: compare(cost).regular["macs"],
    "parameters, regular": lambda cost: compare(cost).regular["parameters"],
    "MACs, space to batch": space_to_batch_macs,
    **{f"% of MACs, {kind}": share_of_macs(kind) for kind in ("pointwise", "depthwise")},
    **{f"% of MACs, {kind}": share_of_macs(kind) for kind in ("regular", "linear")},
    **{f"% of weights, {kind}": share_of_weights(kind) for kind in ("pointwise", "depthwise")},
    **{f"% of weights, {kind}": share_of_weights(kind) for kind in ("regular", "linear")},
}


def here(row: Row, cost: Callable[[Row, int], Cost]) -> float:
    """The number counted here, in the row's unit; `cost` gives the model's at a size."""
    counted = sum(QUANTITIES[row.quantity](cost(row, size)) for size in row.sizes)
    return row.times * counted / row.unit


def agrees(row: Row, counted: float) -> bool:
    """Whether it rounds to what is printed, or differs by less than TOLERANCE.

    The latter is for numbers of three digits and more, but for those that are printed in full.
    """
    printed = float(row.printed.replace(",", ""))
    last = 10.0 ** -len(row.printed.partition(".")[2])
    allowed = 0.0 if "," in row.printed or last > printed / 100 else TOLERANCE * printed
    return abs(counted - printed) <= max(last / 2, allowed)


MILLION, BILLION = 1e6, 1e9


def _mobilenet() -> list[Row]:
    rows = []
    for kind, macs, weights in (
        ("pointwise", "94.86", "74.59"),
        ("depthwise", "3.06", "1.06"),
        ("regular", "1.19", "0.02"),
        ("linear", "0.18", "24.33"),
    ):
        note = "misprint for 1.91: the printed column adds up to 99.29" if macs == "1.19" else ""
        for what, printed in (("MACs", macs), ("weights", weights)):
            quantity = f"% of {what}, {kind}"
            said = note if what == "MACs" else ""
            rows.append(
                Row("MobileNet, Table 2", kind, quantity, printed, 1, "mobilenet_v1", {}, (224,),
                    note=said)
            )  # fmt: skip
    for row, suffix, macs, parameters, note in (
        ("Conv MobileNet", ", regular", "4866", "29.3", "4866.3 without the last layer"),
        ("MobileNet", "", "569", "4.2", ""),
    ):
        rows += _pair("MobileNet, Table 4", row, macs, parameters, {}, 224, suffix, note)
    for width, macs, parameters in (
        (1.0, "569", "4.2"),
        (0.75, "325", "2.6"),
        (0.5, "149", "1.3"),
        (0.25, "41", "0.5"),
    ):
        name = f"{width} MobileNet-224"
        rows += _pair("MobileNet, Table 6", name, macs, parameters, {"width": width}, 224)
    for size, macs in ((224, "569"), (192, "418"), (160, "290"), (128, "186")):
        note = "cut off, not rounded" if size == 160 else ""
        name = f"1.0 MobileNet-{size}"
        rows += _pair("MobileNet, Table 7", name, macs, "4.2", {}, size, "", note)
    return rows


def _pair(
    table: str,
    row: str,
    macs: str,
    parameters: str,
    options: Mapping[str, Any],
    size: int,
    suffix: str = "",
    note: str = "",
) -> list[Row]:
    """The two rows of a network whose table gives millions of both."""
    rest = ("mobilenet_v1", options, (size,))
    return [
        Row(table, row, f"MACs{suffix}", macs, MILLION, *rest, note=note),
        Row(table, row, f"parameters{suffix}", parameters, MILLION, *rest),
    ]


SCALES = (257, 385, 513, 641, 769, 897)  # 0.5 to 1.75 times 512, and one
SINGLE = (513,)

# Output stride, decoder, separable -> (sizes, mirrored too, printed), as often as it is printed.
DEEPLAB_TABLE_5: Mapping[tuple[int, bool, bool], Sequence[tuple[tuple[int, ...], bool, str]]] = {
    (16, False, False): (
        (SINGLE, False, "68.00"),
        (SCALES, False, "601.74"),
        (SCALES, True, "1203.34"),
    ),
    (8, False, False): (
        (SINGLE, False, "240.85"),
        (SCALES, False, "2149.91"),
        (SCALES, True, "4299.68"),
    ),
    (16, True, False): (
        (SINGLE, False, "89.76"),
        (SCALES, False, "790.12"),
        (SCALES, True, "1580.10"),
    ),
    (8, True, False): (
        (SINGLE, False, "262.59"),
        (SCALES, False, "2338.15"),
        (SCALES, True, "4676.16"),
    ),
    (16, True, True): ((SINGLE, False, "54.17"), (SCALES, True, "928.81")),
    (8, True, True): ((SINGLE, False, "177.10"), (SCALES, True, "3055.35")),
}


def _deeplab() -> list[Row]:
    rows = []
    for (stride, decoder, separable), printed in DEEPLAB_TABLE_5.items():
        options = {"output_stride": stride, "decoder": decoder, "separable": separable}
        for sizes, mirrored, number in printed:
            words = [f"output stride {stride}"]
            words += ["decoder"] if decoder else []
            words += ["separable"] if separable else []
            words += ["six scales"] if len(sizes) > 1 else []
            words += ["mirrored"] if mirrored else []
            rows.append(
                Row("DeepLab V3+, Table 5", ", ".join(words),
                    "MACs" if separable else "MACs, space to batch", number, BILLION,
                    "deeplab_v3plus", options, sizes, 2 if mirrored else 1)
            )  # fmt: skip
    return rows


ROWS: tuple[Row, ...] = (
    Row("Xception, Table 3", "Inception V3", "parameters", "23,626,728", 1, "inception_v3_2016",
        {}, (299,)),
    Row("Xception, Table 3", "Xception", "parameters", "22,855,952", 1, "xception", {}, (299,)),
    *_mobilenet(),
    *_deeplab(),
)  # fmt: skip

# MobileNet, Table 1: (type and stride, filter shape, input size) of the 28 layers with weights.
MOBILENET_TABLE_1: tuple[tuple[str, str, str], ...] = (
    ("Conv / s2", "3x3x3x32", "224x224x3"),
    ("Conv dw / s1", "3x3x32 dw", "112x112x32"),
    ("Conv / s1", "1x1x32x64", "112x112x32"),
    ("Conv dw / s2", "3x3x64 dw", "112x112x64"),
    ("Conv / s1", "1x1x64x128", "56x56x64"),
    ("Conv dw / s1", "3x3x128 dw", "56x56x128"),
    ("Conv / s1", "1x1x128x128", "56x56x128"),
    ("Conv dw / s2", "3x3x128 dw", "56x56x128"),
    ("Conv / s1", "1x1x128x256", "28x28x128"),
    ("Conv dw / s1", "3x3x256 dw", "28x28x256"),
    ("Conv / s1", "1x1x256x256", "28x28x256"),
    ("Conv dw / s2", "3x3x256 dw", "28x28x256"),
    ("Conv / s1", "1x1x256x512", "14x14x256"),
    *(
        ("Conv dw / s1", "3x3x512 dw", "14x14x512"),
        ("Conv / s1", "1x1x512x512", "14x14x512"),
    )
    * 5,
    ("Conv dw / s2", "3x3x512 dw", "14x14x512"),
    ("Conv / s1", "1x1x512x1024", "7x7x512"),
    ("Conv dw / s2", "3x3x1024 dw", "7x7x1024"),
    ("Conv / s1", "1x1x1024x1024", "7x7x1024"),
    ("FC / s1", "1024x1000", "1x1x1024"),
)
MISPRINTED_IN_TABLE_1 = 25  # place of the row whose stride must be 1: 7x7 goes in and comes out


def body(cost: Cost, image: tuple[int, ...]) -> list[tuple[str, str, str]]:
    """A network of layers in a row, as MobileNet's Table 1 writes it.

    Args:
        cost: of the network.
        image: channels, height and width of its input.
    """
    multiplying = [one for one in cost.operators if one.macs is not None]
    inputs = [image, *(before.output[1:] for before, _ in pairwise(multiplying))]
    rows = []
    for one, (channels, *sides) in zip(multiplying, inputs, strict=True):
        conv = one.convolution
        if conv is None:
            rows.append(("FC / s1", f"{channels}x{one.output[-1]}", f"1x1x{channels}"))
            continue
        window = "x".join(map(str, conv.kernel))
        depthwise = conv.kind == "depthwise"
        filters = (
            f"{conv.in_channels} dw" if depthwise else f"{conv.in_channels}x{conv.out_channels}"
        )
        rows.append(
            (
                f"Conv{' dw' if depthwise else ''} / s{conv.stride[0]}",
                f"{window}x{filters}",
                f"{'x'.join(map(str, sides))}x{channels}",
            )
        )
    return rows
