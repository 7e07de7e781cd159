"""The atrous depthwise convolution against torch's own, and who may see which of the two."""

import warnings

import pytest
import torch
from torch import nn
from torch.autograd import forward_ad
from torch.nn import functional as F

from xception.cost.trace import Trace
from xception.layers import Conv2d, SeparableConv2d, atrous
from xception.layers.atrous import atrous_depthwise

SIZES = [(1, 1), (1, 6), (2, 3), (5, 4), (7, 12), (16, 16), (13, 25)]
LAST = torch.channels_last


def plain(x, kernel, bias, rate):
    """What it means."""
    padding = rate * (kernel.shape[-1] // 2)
    return F.conv2d(x, kernel, bias, 1, padding, rate, x.shape[1])


def drawn(shape, kernel, *, bias, dtype=torch.float64):
    """An image, kernels, a bias or None, and weights of the results; all but those learn."""
    generator = torch.Generator().manual_seed(sum(shape) * 10 + kernel)
    channels = shape[1]
    sizes = [shape, (channels, 1, kernel, kernel), (channels,), shape]
    x, taps, shift, weights = (torch.randn(s, generator=generator, dtype=dtype) for s in sizes)
    x = x.to(memory_format=LAST)
    inputs = [x.requires_grad_(), taps.requires_grad_(), shift.requires_grad_() if bias else None]
    return inputs, weights


def answers(function, inputs, rate, weights):
    """The result and the gradients by all that learns."""
    y = function(*inputs, rate)
    learners = [one for one in inputs if one is not None]
    return y, *torch.autograd.grad((y * weights).sum(), learners)


@pytest.fixture(params=[6, None], ids=["in one piece", "by phases"])
def way(request, monkeypatch):
    """The ways in which small rates are computed, whatever the processor."""
    monkeypatch.setattr(atrous, "_widest_padding", lambda: request.param)


@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize("rate", range(1, 25))
def test_it_is_the_convolution_and_so_are_its_gradients(rate, kernel, monkeypatch):
    for widest in (None, 6) if rate <= 6 else (None,):
        monkeypatch.setattr(atrous, "_widest_padding", lambda widest=widest: widest)
        for i, (height, width) in enumerate(SIZES):
            batch, bias = (1, True) if (i + rate) % 2 else (3, False)
            inputs, weights = drawn((batch, 3, height, width), kernel, bias=bias)
            expected = answers(plain, inputs, rate, weights)
            got = answers(atrous_depthwise, inputs, rate, weights)
            for one, other in zip(got, expected, strict=True):
                torch.testing.assert_close(one, other, rtol=0, atol=1e-10)


def test_by_hand():
    """Three pixels of a row two apart: each tap reads one of them, or nothing."""
    x = torch.tensor([[[[1.0, 10.0, 100.0]]]]).to(memory_format=LAST)
    kernel = torch.arange(1.0, 10.0).reshape(1, 1, 3, 3)  # the middle row is 4, 5, 6
    y = atrous_depthwise(x, kernel, torch.tensor([0.5]), 2)
    assert y.tolist() == [[[[5 + 600 + 0.5, 50 + 0.5, 4 + 500 + 0.5]]]]


def test_beyond_the_map_only_the_middle_tap_reads():
    (x, kernel, _), weights = drawn((2, 4, 5, 7), 3, bias=False)
    y, of_x, of_kernel = answers(atrous_depthwise, (x, kernel, None), 7, weights)
    middle = kernel[:, 0, 1, 1]
    torch.testing.assert_close(y, x * middle[:, None, None])
    torch.testing.assert_close(of_x, weights * middle[:, None, None])
    expected = torch.zeros_like(kernel)
    expected[:, 0, 1, 1] = (x * weights).sum((0, 2, 3))
    torch.testing.assert_close(of_kernel, expected)


@pytest.mark.parametrize("channels", [16, 37])
@pytest.mark.parametrize("rate", [2, 4, 6, 7, 12, 18])
def test_in_float32_it_is_no_farther_from_the_truth(rate, channels, way):
    """Here oneDNN computes: images of one to three rows or columns, and many of them."""
    for height, width in ((33, 33), (16, 17), (19, 36)):
        exact, weights = drawn((2, channels, height, width), 3, bias=True)
        inputs = [one.detach().float().requires_grad_() for one in exact if one is not None]
        expected = answers(plain, exact, rate, weights)
        usual = answers(plain, inputs, rate, weights.float())
        for one, truth, other in zip(
            answers(atrous_depthwise, inputs, rate, weights.float()), expected, usual, strict=True
        ):
            error = (one - truth).abs().max()
            assert error <= 2 * (other - truth).abs().max() + 1e-6 * truth.abs().max()


def test_it_keeps_to_channels_last(way):
    (x, kernel, bias), weights = drawn((2, 8, 9, 9), 3, bias=True)
    y, of_x, of_kernel, _ = answers(atrous_depthwise, (x, kernel, bias), 2, weights)
    assert y.is_contiguous(memory_format=LAST)
    assert of_x.is_contiguous(memory_format=LAST)
    assert of_kernel.is_contiguous()


def test_any_strides_will_do(way):
    (x, kernel, bias), weights = drawn((2, 4, 12, 13), 3, bias=True)
    expected = answers(plain, (x, kernel, bias), 3, weights)
    outer = torch.full((2, 6, 15, 15), torch.nan, dtype=torch.float64)
    outer[:, 1:5, 2:14, :13] = x.detach()
    outer.requires_grad_()
    got = answers(atrous_depthwise, (outer[:, 1:5, 2:14, :13], kernel, bias), 3, weights)
    y = atrous_depthwise(outer[:, 1:5, 2:14, :13], kernel, bias, 3)
    (of_outer,) = torch.autograd.grad((y * weights).sum(), outer)
    torch.testing.assert_close(got[0], expected[0])
    torch.testing.assert_close(of_outer[:, 1:5, 2:14, :13], expected[1])
    torch.testing.assert_close(got[2:], expected[2:])


def test_gradients_that_are_one_number_everywhere(way):
    """`sum` sends back an expanded tensor, of which all places share their memory."""
    (x, kernel, _), _ = drawn((1, 4, 9, 8), 3, bias=False)
    got = torch.autograd.grad(atrous_depthwise(x, kernel, None, 4).sum(), (x, kernel))
    expected = torch.autograd.grad(plain(x, kernel, None, 4).sum(), (x, kernel))
    torch.testing.assert_close(got, expected)


def test_only_what_learns_gets_a_gradient(way):
    for still in range(3):
        (x, kernel, bias), weights = drawn((2, 4, 9, 8), 3, bias=True)
        inputs = [x, kernel, bias]
        everything = answers(plain, inputs, 4, weights)[1:]
        inputs[still].requires_grad_(False)
        learners = [one for one in inputs if one.requires_grad]
        got = torch.autograd.grad((atrous_depthwise(x, kernel, bias, 4) * weights).sum(), learners)
        expected = [one for i, one in enumerate(everything) if i != still]
        torch.testing.assert_close(list(got), expected)


def test_nothing_learns_where_nothing_is_to(way):
    (x, kernel, bias), _ = drawn((2, 4, 9, 8), 3, bias=True)
    assert not atrous_depthwise(x.detach(), kernel.detach(), bias.detach(), 4).requires_grad
    with torch.inference_mode():
        torch.testing.assert_close(atrous_depthwise(x, kernel, bias, 4), plain(x, kernel, bias, 4))


def test_every_place_is_written_and_nothing_else(way):
    (x, kernel, bias), weights = drawn((2, 4, 11, 13), 3, bias=True)
    kept = [one.detach().clone() for one in (x, kernel, bias, weights)]
    torch.use_deterministic_algorithms(True)  # fills what is new with NaN
    try:
        runs = [answers(atrous_depthwise, (x, kernel, bias), 5, weights) for _ in range(3)]
    finally:
        torch.use_deterministic_algorithms(False)
    assert all(torch.isfinite(one).all() for one in runs[0])
    for run in runs[1:]:
        assert all(torch.equal(one, other) for one, other in zip(run, runs[0], strict=True))
    now = (x, kernel, bias, weights)
    assert all(torch.equal(one, other) for one, other in zip(now, kept, strict=True))


@pytest.mark.parametrize("rate", [2, 7])
def test_gradients_of_gradients_are_right(rate):
    inputs, _ = drawn((2, 2, 5, 4), 3, bias=True)

    def function(x, kernel, bias):
        return atrous_depthwise(x, kernel, bias, rate)

    assert torch.autograd.gradcheck(function, inputs)
    assert torch.autograd.gradgradcheck(function, inputs)


@pytest.mark.parametrize("shape", [(3, 1, 2, 2), (3, 1, 3, 5), (3, 3, 3, 3), (6, 1, 3, 3)])
def test_other_kernels_are_refused(shape, unchecked_types):
    with pytest.raises(ValueError, match="one odd square kernel for each of 3 channels, not"):
        atrous_depthwise(torch.zeros(1, 3, 4, 4), torch.zeros(shape), None, 2)


# Where Conv2d takes it.


@pytest.fixture
def taken(monkeypatch):
    """The rates of the convolutions that took the fast way; any processor counts as quick."""
    rates = []

    def spy(x, kernel, bias, rate):
        rates.append(rate)
        return atrous_depthwise(x, kernel, bias, rate)

    monkeypatch.setattr("xception.layers.conv.atrous_depthwise", spy)
    monkeypatch.setattr(atrous, "_widest_padding", lambda: 6)
    return rates


def depthwise(**options):
    """A layer of 64 channels."""
    torch.manual_seed(0)
    return Conv2d(64, 64, 3, groups=64, **{"dilation": 2, "bias": False, **options})


def image(side=48):
    return torch.randn(1, 64, side, side).to(memory_format=LAST)


@pytest.mark.parametrize("padding", ["same", 2, (2, 2, 2, 2)])
def test_a_layer_that_learns_takes_it(taken, padding):
    layer = depthwise(padding=padding)
    x = image().requires_grad_()
    y = layer(x)
    assert taken == [2]
    torch.testing.assert_close(y, plain(x, layer.weight, None, 2))
    y.sum().backward()
    assert x.grad is not None
    assert layer.weight.grad is not None


def test_a_separable_convolution_takes_it(taken):
    SeparableConv2d(64, 8, dilation=3)(image())
    assert taken == [3]


@pytest.mark.parametrize(
    ("batch", "side", "fast"),
    [
        (24, 4, True),  # 24 × 64 images × channels, all phases alike: one call
        (23, 4, False),
        (24, 5, False),  # phases of two and three pixels a side: four calls
        (96, 5, True),
    ],
)
def test_many_small_images_take_it_when_they_learn(taken, batch, side, fast):
    x = torch.randn(batch, 64, side, side).to(memory_format=LAST)
    depthwise()(x)
    assert bool(taken) == fast


def test_many_small_images_do_not_when_they_do_not(taken):
    with torch.no_grad():
        depthwise(dilation=7)(torch.randn(24, 64, 4, 4).to(memory_format=LAST))
    assert taken == []


def test_without_gradients_torch_is_quick_at_small_rates(taken):
    with torch.no_grad():
        for rate in (2, 6, 7, 12):
            depthwise(dilation=rate)(image())
    assert taken == [7, 12]


@pytest.mark.parametrize(
    ("options", "x"),
    [
        ({"dilation": 1}, image()),
        ({"stride": 2}, image()),
        ({"padding": "valid"}, image()),
        ({"padding": 1}, image()),
        ({"padding": (2, 2, 2, 1)}, image()),
        ({}, image().contiguous()),
        ({}, image(45)),  # too small
        ({}, nn.Parameter(image())),
    ],
)
def test_other_layers_and_images_are_left_to_torch(taken, options, x):
    layer = depthwise(**options)
    layer(x)
    assert taken == []


@pytest.mark.parametrize("layer", [(64, 64, 5, 64), (64, 128, 3, 64), (64, 64, 3, 32)])
def test_other_kernels_are_left_to_torch(taken, layer):
    before, after, size, groups = layer
    Conv2d(before, after, size, groups=groups, dilation=2)(image())
    assert taken == []


def test_other_numbers_are_left_to_torch(taken):
    depthwise().double()(image().double())
    depthwise().bfloat16()(image().bfloat16())
    assert taken == []
    with torch.autocast("cpu", torch.bfloat16):
        assert depthwise()(image()).dtype == torch.bfloat16
    assert taken == []


def test_other_processors_are_left_to_torch(taken, monkeypatch):
    monkeypatch.setattr(atrous, "_widest_padding", lambda: None)
    depthwise(dilation=12)(image())
    assert taken == []


def test_a_network_on_no_device_is_left_to_torch(taken):
    assert depthwise().to("meta")(image().to("meta")).shape == (1, 64, 48, 48)
    assert taken == []


def test_which_processors_are_quick(monkeypatch):
    for name, widest in (("AVX512", 6), ("AVX2", 4), ("DEFAULT", None)):
        monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda name=name: name)
        assert atrous._widest_padding() == widest
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    assert atrous._widest_padding() is None


# Who wants to see, or to do, something else.


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")  # by torch itself
def test_transformed_functions_are_left_to_torch(taken):
    layer = depthwise()
    x = image()
    weights = dict(layer.named_parameters())

    def loss(weights, x):
        return torch.func.functional_call(layer, weights, (x,)).square().sum()

    grads = torch.func.grad(loss)(weights, x)
    (expected,) = torch.autograd.grad(loss(weights, x), layer.weight)
    assert taken == [2]  # the last one only
    torch.testing.assert_close(grads["weight"], expected, rtol=1e-4, atol=1e-3)
    images = torch.stack([x, 2 * x])
    torch.testing.assert_close(torch.vmap(layer)(images)[1], layer(2 * x))
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(x, torch.ones_like(x))
        tangent = forward_ad.unpack_dual(layer(dual)).tangent
    torch.testing.assert_close(tangent, layer(torch.ones_like(x)))
    assert taken == [2, 2, 2]


def test_traces_and_exported_networks_show_a_plain_convolution(taken, unchecked_types):
    layer, x = depthwise(dilation=12, padding=12), image()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # torch wants torch.export used
        traced = torch.jit.trace(layer, (x,), check_trace=False)
    assert isinstance(traced, torch.jit.ScriptModule)
    graphs = [str(traced.inlined_graph)]
    graphs.append(str(torch.export.export(layer, (x,)).graph))
    graphs.append(str(torch.fx.symbolic_trace(layer).graph))

    def backend(module, inputs):
        graphs.append(str(module.graph))
        return module.forward

    torch.compile(layer, backend=backend, fullgraph=True)(x)
    names = ["aten::_convolution(", "aten.conv2d.default]", "torch.conv2d]", "torch.conv2d]"]
    for graph, name in zip(graphs, names, strict=True):
        assert graph.count(name) == 1, graph
        assert "xception::" not in graph
        assert "ops.xception" not in graph
    assert taken == []


def test_who_counts_operators_sees_one_convolution(taken):
    layer, x = depthwise(dilation=12), image()
    trace = Trace(layer, [*layer.named_parameters()])
    trace.begin(x)
    with torch.no_grad(), trace.watch(), trace:
        layer(x)
    assert taken == [12]
    (one,) = trace.operators
    assert (one.name, one.kind, one.weights) == ("convolution", "depthwise", ("weight",))
    assert one.macs == 64 * 9 * 48 * 48
    assert one.convolution is not None
    assert one.convolution.dilation == (12, 12)
