import keras
import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn

from xception.layers import SeparableConv2d
from xception.layers.separable import Order, segment_sizes, separable_conv2d_reference

PADDINGS = st.sampled_from(["same", "valid", 0, 1, 2, (0, 1, 0, 1), (2, 0, 1, 3)])
ACTIVATIONS = {
    "none": lambda v: v,
    "relu": lambda v: np.maximum(v, 0),
    "elu": lambda v: np.where(v > 0, v, np.expm1(v)),
}


@st.composite
def cases(draw, most_pixels=14):
    """Options and channels of a layer, the shape of an image on which a window fits, and a seed."""
    options = {
        "kernel_size": draw(st.integers(1, 4)),
        "stride": draw(st.integers(1, 3)),
        "dilation": draw(st.integers(1, 12)),
        "padding": draw(PADDINGS),
        "depth_multiplier": draw(st.integers(1, 4)),
        "order": draw(st.sampled_from(["depthwise_first", "pointwise_first"])),
        "activation": draw(st.sampled_from(list(ACTIVATIONS))),
        "bias": draw(st.booleans()),
    }
    inside = draw(st.integers(1, 5))
    outside = draw(st.integers(1, 5))
    mixed = inside if options["order"] == "depthwise_first" else outside
    options["segments"] = draw(st.sampled_from([None, *range(1, mixed + 1)]))
    if options["order"] == "pointwise_first":
        outside *= options["depth_multiplier"]
    height, width = draw(st.integers(1, most_pixels)), draw(st.integers(1, most_pixels))
    if options["padding"] != "same":
        padding = options["padding"]
        left, right, top, bottom = (
            padding if isinstance(padding, tuple) else (0 if padding == "valid" else padding,) * 4
        )
        reach = (options["kernel_size"] - 1) * options["dilation"] + 1
        assume(height + top + bottom >= reach)
        assume(width + left + right >= reach)
    seed = draw(st.integers(0, 2**20))
    return options, (inside, outside), (draw(st.integers(1, 2)), inside, height, width), seed


def build(case):
    """The layer and its image; not within the strategy, where checked types may draw no numbers."""
    options, channels, shape, seed = case
    torch.manual_seed(seed)
    layer = SeparableConv2d(*channels, **options).double()
    return layer, dict(options), torch.randn(shape, dtype=torch.float64)


def meaning(layer, options, x, depthwise=None, pointwise=None):
    parts = [part for part in (layer.depthwise, layer.smaller) if part is not None]
    second = [layer.pointwise] if options["order"] == "depthwise_first" else parts
    return separable_conv2d_reference(
        x,
        array(layer.depthwise.weight) if depthwise is None else depthwise,
        array(layer.pointwise.weight) if pointwise is None else pointwise,
        smaller=None if layer.smaller is None else array(layer.smaller.weight),
        stride=options["stride"],
        dilation=options["dilation"],
        padding=options["padding"],
        order=options["order"],
        between=ACTIVATIONS[options["activation"]],
        bias=np.concatenate([array(one.bias) for one in second]) if options["bias"] else None,
    )


def array(tensor):
    return tensor.detach().numpy()


@given(cases())
@settings(deadline=None, max_examples=150, derandomize=True)
def test_forward_is_the_loop(case):
    layer, options, x = build(case)
    np.testing.assert_allclose(array(layer(x)), meaning(layer, options, array(x)), atol=1e-12)


@pytest.mark.no_cover  # loops in Python, twice as long while each line is counted
@given(cases(most_pixels=6))
@settings(deadline=None, max_examples=40, derandomize=True)
def test_gradients_are_the_differences_of_the_loop(case):
    layer, options, x = build(case)
    options["activation"] = "none"  # linear in each argument: a difference of any step is exact
    layer.activation = nn.Identity()
    x.requires_grad_()
    out = layer(x)
    weights = torch.randn_like(out)
    arguments = (x, layer.depthwise.weight, layer.pointwise.weight)
    gradients = torch.autograd.grad((out * weights).sum(), arguments)
    values = [array(one) for one in arguments]
    rng = np.random.default_rng(0)
    for k, gradient in enumerate(gradients):
        for flat in rng.choice(values[k].size, min(values[k].size, 6), replace=False):
            place = np.unravel_index(flat, values[k].shape)
            ends = []
            for step in (0.5, -0.5):
                moved = [value.copy() for value in values]
                moved[k][place] += step
                ends.append((meaning(layer, options, *moved) * weights.numpy()).sum())
            assert array(gradient)[place] == pytest.approx(ends[0] - ends[1], abs=1e-9)


@given(cases(most_pixels=5))
@settings(deadline=None, max_examples=15, derandomize=True)
def test_gradients_with_an_activation_are_numerical_differences(case):
    layer, _, x = build(case)
    arguments = (x.requires_grad_(), layer.depthwise.weight, layer.pointwise.weight)
    # A ReLU has no derivative at 0, where padding puts pointwise-first values: move away from it.
    layer.activation = nn.Softplus() if isinstance(layer.activation, nn.ReLU) else layer.activation

    def run(x, depthwise, pointwise):
        weights = {"depthwise.weight": depthwise, "pointwise.weight": pointwise}
        return torch.func.functional_call(layer, weights, x)

    assert torch.autograd.gradcheck(run, arguments, fast_mode=True)


@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize("multiplier", [1, 3])
@pytest.mark.parametrize(
    ("kernel", "stride", "dilation", "height", "width"),
    [
        (3, 1, 1, 1, 1),
        (3, 2, 1, 8, 7),
        (3, 2, 1, 10, 10),
        (3, 3, 1, 11, 12),
        (5, 2, 1, 9, 12),
        (2, 1, 1, 5, 6),
        (3, 1, 2, 9, 8),
        (3, 1, 12, 33, 26),
    ],
)
def test_equals_keras(padding, multiplier, kernel, stride, dilation, height, width):
    reach = (kernel - 1) * dilation + 1
    if padding == "valid" and min(height, width) < reach:
        height, width = height + reach, width + reach
    rng = np.random.default_rng(0)
    x = torch.from_numpy(rng.standard_normal((2, height, width, 3), dtype=np.float32))
    theirs = keras.layers.SeparableConv2D(
        4,
        kernel,
        strides=stride,
        padding=padding,
        dilation_rate=dilation,
        depth_multiplier=multiplier,
        bias_initializer="random_normal",
    )
    theirs.build(x.shape)
    ours = SeparableConv2d(
        3,
        4,
        kernel,
        stride=stride,
        padding=padding,
        dilation=dilation,
        depth_multiplier=multiplier,
        bias=True,
    )
    depthwise, pointwise, bias = (weight.value.detach() for weight in theirs.weights)
    ours.load_state_dict(
        {
            # TensorFlow: height, width, input, multiplier
            "depthwise.weight": depthwise.permute(2, 3, 0, 1).reshape(-1, 1, kernel, kernel),
            "pointwise.weight": pointwise.permute(3, 2, 0, 1),
            "pointwise.bias": bias,
        }
    )
    got = ours(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
    torch.testing.assert_close(got, theirs(x), atol=1e-5, rtol=0)


def test_the_oracle_computes_with_torch():
    assert keras.backend.backend() == "torch"


def test_normalisations_and_activation_stand_where_they_are_asked_for():
    seen = []

    class Note(nn.Module):
        def __init__(self, name):
            super().__init__()
            self.name = name

        def forward(self, x):
            seen.append((self.name, x.shape[1]))
            return x

    layer = SeparableConv2d(
        2,
        8,
        depth_multiplier=2,
        norm_between=lambda channels: Note(f"between {channels}"),
        norm_after=lambda channels: Note(f"after {channels}"),
        activation=Note("activation"),
    )
    layer(torch.zeros(1, 2, 3, 3))
    assert seen == [("between 4", 4), ("activation", 4), ("after 8", 8)]


def test_bias_belongs_to_the_second_convolution():
    layer = SeparableConv2d(2, 4, bias=True)
    assert layer.depthwise.bias is None
    assert layer.pointwise.bias is not None
    turned = SeparableConv2d(2, 4, bias=True, order="pointwise_first")
    assert turned.depthwise.bias is not None
    assert turned.pointwise.bias is None


def parameters(layer):
    return sum(p.numel() for p in layer.parameters())


def test_parameters_follow_the_formula():
    layer = SeparableConv2d(5, 7, 3, depth_multiplier=2)
    assert parameters(layer) == 5 * 2 * 9 + 5 * 2 * 7


@pytest.mark.parametrize(
    ("segments", "weights"),
    [(1, 6 * 6), (2, 3 * 3 * 2), (3, 2 * 2 * 3), (4, 2 * 2 * 2 + 2), (5, 2 * 2 + 4), (6, 6)],
)
def test_parameters_between_the_ends_of_the_spectrum(segments, weights):
    for multiplier in (1, 2):
        layer = SeparableConv2d(6, 7, 3, depth_multiplier=multiplier, segments=segments)
        assert parameters(layer) == 9 * weights * multiplier + 6 * multiplier * 7
        turned = SeparableConv2d(
            7,
            6 * multiplier,
            3,
            depth_multiplier=multiplier,
            segments=segments,
            order="pointwise_first",
        )
        assert parameters(turned) == 9 * weights * multiplier + 7 * 6


@pytest.mark.parametrize(
    ("channels", "segments", "sizes"),
    [
        (8, 1, [8]),
        (8, 3, [3, 3, 2]),
        (8, 4, [2, 2, 2, 2]),
        (8, 5, [2, 2, 2, 1, 1]),
        (3, 3, [1, 1, 1]),
    ],
)
def test_segments_share_the_channels_out(channels, segments, sizes):
    shared = [size for size, number in segment_sizes(channels, segments) for _ in range(number)]
    assert shared == sizes


def test_one_segment_is_a_regular_convolution_and_a_1x1():
    torch.manual_seed(0)
    x = torch.randn(2, 6, 7, 8, dtype=torch.float64)
    orders: tuple[tuple[Order, int], ...] = (("depthwise_first", 6), ("pointwise_first", 4))
    for order, mixed in orders:
        layer = SeparableConv2d(6, 4, 3, segments=1, order=order).double()
        kernels = layer.depthwise.weight
        assert kernels.shape == (mixed, mixed, 3, 3)
        if order == "depthwise_first":
            mixing = layer.pointwise.weight[:, :, 0, 0]
            whole = torch.einsum("om,mikl->oikl", mixing, kernels)
        else:
            whole = torch.einsum("omkl,mi->oikl", kernels, layer.pointwise.weight[:, :, 0, 0])
        expected = nn.functional.conv2d(x, whole, padding=1)
        torch.testing.assert_close(layer(x), expected, atol=1e-12, rtol=0)


@pytest.mark.parametrize("segments", [1, 2, 3, 4])
def test_a_segment_sees_its_own_channels_only(segments):
    torch.manual_seed(0)
    layer = SeparableConv2d(5, 5, 3, segments=segments).double()
    with torch.no_grad():
        layer.pointwise.weight.copy_(torch.eye(5)[:, :, None, None])
    x = torch.randn(1, 5, 4, 4, dtype=torch.float64, requires_grad=True)
    sizes = {1: [5], 2: [3, 2], 3: [2, 2, 1], 4: [2, 1, 1, 1]}[segments]
    owner = [i for i, size in enumerate(sizes) for _ in range(size)]
    for channel in range(5):
        (gradient,) = torch.autograd.grad(layer(x)[0, channel].sum(), x)
        seen = gradient[0].abs().sum((1, 2)) > 0
        assert seen.tolist() == [one == owner[channel] for one in owner]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kernel_size": 0}, "at least 1"),
        ({"stride": 0}, "at least 1"),
        ({"padding": "full"}, "padding"),
        ({"order": "both"}, "depthwise_first or pointwise_first"),
        ({"activation": "gelu"}, "relu"),
        ({"order": "pointwise_first", "depth_multiplier": 3}, "multiple"),
        ({"segments": 0}, "segments of 2 channels must be 1 to 2, not 0"),
        ({"segments": 3}, "segments of 2 channels must be 1 to 2, not 3"),
        ({"segments": 5, "order": "pointwise_first"}, "segments of 4 channels"),
    ],
)
@pytest.mark.usefixtures("unchecked_types")
def test_wrong_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        SeparableConv2d(2, 4, **options)
