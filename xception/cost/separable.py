"""The comparison that started it all: a separable convolution, and the regular one it replaces.

A regular convolution of k x k from M to N channels takes k²MN multiply-accumulates per place of its
output. A depthwise one with m kernels per channel takes k²Mm, the pointwise one behind it MmN:
together m (1/N + 1/k²) of that (Howard et al. 2017, arXiv:1704.04861, §3.1, where m is 1). Stride
and dilation change nothing in this ratio, as both parts then work at the places of the output. With
the pointwise convolution first, as in Inception, it is 1/M + s²/(m k²) at stride s: the pointwise
one works at the places of the input, of which there are s² times as many.
"""

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple, TypedDict

from xception.cost.count import Cost, Total
from xception.cost.operators import Convolution
from xception.cost.trace import Operator

Order = Literal["depthwise_first", "pointwise_first"]


class Exchange(TypedDict):
    """One separable convolution of a network, and the regular convolution that it replaces."""

    depthwise: str  # names of layers
    pointwise: str
    order: Order
    in_channels: int
    out_channels: int
    kernel: list[int]
    stride: list[int]
    dilation: list[int]
    depth_multiplier: int
    output: list[int]  # height and width
    macs: int  # of the two together
    parameters: int  # weights of the two, without biases
    regular_macs: int
    regular_parameters: int
    ratio: float  # of the MACs, counted
    theory: float  # the same by the formula
    norms: int  # parameters of normalisation between the two, which a regular one has no place for


class Comparison(NamedTuple):
    """A whole network, and what it would be with regular convolutions."""

    separable: tuple[Exchange, ...]  # in the order in which they run
    alone: tuple[str, ...]  # depthwise convolutions with no pointwise one beside them
    regular: Total  # bytes are not known and 0


def theory(
    kernel: Sequence[int],
    stride: Sequence[int],
    in_channels: int,
    out_channels: int,
    multiplier: int = 1,
    order: Order = "depthwise_first",
) -> float:
    """The share of a regular convolution's MACs that a separable one takes, by the formula."""
    taps = math.prod(kernel)
    if order == "depthwise_first":
        return multiplier * (1 / out_channels + 1 / taps)
    return 1 / in_channels + math.prod(stride) / (multiplier * taps)


def compare(cost: Cost) -> Comparison:
    """Every separable convolution of a network beside the regular one it replaces.

    They are found by what runs, whatever the network calls them: a depthwise convolution of more
    than 1x1 whose result a pointwise one takes, or that takes a pointwise one's, with nothing
    between them but what works channel by channel and place by place (normalisation, activation,
    padding, gates). A 1x1 convolution on channels that lie last, which is an `nn.Linear`, is
    pointwise too. Where there is one on both sides, the one behind is meant (as in an inverted
    residual), unless only the one before is of the same module.
    """
    pairs = []
    alone = []
    taken: set[int] = set()
    for index, operator in enumerate(cost.operators):
        conv = operator.convolution
        if conv is None or conv.kind != "depthwise" or math.prod(conv.kernel) == 1:
            continue
        if conv.transposed:
            continue
        partner = _partner(cost, index, taken)
        if partner is None:
            alone.append(cost.layers[cost.steps[index]]["name"])
        else:
            taken |= {index, partner}
            pairs.append(_exchange(cost, index, partner))
    saved_macs = sum(one["regular_macs"] - one["macs"] for one in pairs)
    weights = {(one["depthwise"], one["pointwise"]): one for one in pairs}  # a shared pair once
    saved = sum(
        one["regular_parameters"] - one["parameters"] - one["norms"] for one in weights.values()
    )
    regular = Total(
        parameters=cost.total["parameters"] + saved, macs=cost.total["macs"] + saved_macs, bytes=0
    )
    return Comparison(tuple(pairs), tuple(alone), regular)


def _partner(cost: Cost, depthwise: int, taken: set[int]) -> int | None:
    """Index of the pointwise convolution that makes a depthwise one separable."""
    operators = cost.operators
    behind = [
        i
        for i, one in enumerate(operators)
        if one.takes == depthwise and i > depthwise and i not in taken and is_pointwise(one)
    ]
    before = operators[depthwise].takes
    if before is not None and (before in taken or not is_pointwise(operators[before])):
        before = None
    if before is None:
        return behind[0] if behind else None
    module = _parent(cost, depthwise)
    if not behind:
        return before
    only_before = _parent(cost, before) == module and _parent(cost, behind[0]) != module
    return before if only_before else behind[0]


def is_pointwise(operator: Operator) -> bool:
    """Whether it is a 1x1 convolution with stride 1 in one group, or the like on rows."""
    conv = operator.convolution
    if conv is None:
        return operator.kind == "linear" and operator.takes is not None
    return conv.kind == "pointwise" and math.prod(conv.stride) == 1 and not conv.transposed


def _parent(cost: Cost, index: int) -> str:
    return cost.layers[cost.steps[index]]["name"].rpartition(".")[0]


def _exchange(cost: Cost, depthwise: int, pointwise: int) -> Exchange:
    first, second = cost.operators[depthwise], cost.operators[pointwise]
    conv = first.convolution
    assert conv is not None
    mixing = _mixing(second)
    order: Order = "depthwise_first" if pointwise > depthwise else "pointwise_first"
    multiplier = conv.out_channels // conv.in_channels
    inside = conv.in_channels if order == "depthwise_first" else mixing[0]
    outside = mixing[1] if order == "depthwise_first" else conv.out_channels
    weights = math.prod(conv.kernel) * inside * outside
    macs = (first.macs or 0) + (second.macs or 0)
    between = range(min(depthwise, pointwise) + 1, max(depthwise, pointwise))
    norms = [i for i in between if cost.operators[i].passes and cost.operators[i].kind == "norm"]
    return Exchange(
        depthwise=cost.layers[cost.steps[depthwise]]["name"],
        pointwise=cost.layers[cost.steps[pointwise]]["name"],
        order=order,
        in_channels=inside,
        out_channels=outside,
        kernel=list(conv.kernel),
        stride=list(conv.stride),
        dilation=list(conv.dilation),
        depth_multiplier=multiplier,
        output=list(first.output[2:]),
        macs=macs,
        parameters=conv.out_channels * math.prod(conv.kernel) + mixing[0] * mixing[1],
        regular_macs=weights * conv.places,
        regular_parameters=weights,
        ratio=macs / (weights * conv.places),
        theory=theory(conv.kernel, conv.stride, inside, outside, multiplier, order),
        norms=sum(cost.values[name] for i in norms for name in cost.operators[i].weights),
    )


def _mixing(operator: Operator) -> tuple[int, int]:
    """Channels into and out of a pointwise convolution."""
    conv: Convolution | None = operator.convolution
    if conv:
        return conv.in_channels, conv.out_channels
    outside = operator.output[-1]
    return (operator.macs or 0) // max(math.prod(operator.output), 1), outside
