import copy
from typing import Any

import jaxtyping
import keras
import pytest
import torch
from networks import lively
from torch import nn

from xception.errors import UserError
from xception.layers import MaxPool2d, SeparableConv2d
from xception.models.xception import Xception
from xception.models.zoo import create_model

SMALL: dict[str, Any] = {
    "num_classes": 5,
    "width": 0.1,
    "middle": 2,
}  # every path of the network, quickly
VARIANTS: list[dict[str, Any]] = [
    {},
    {"residual": False},
    {"activation": "relu"},
    {"activation": "elu", "stem_stride": 1},
    {"fully_connected": [24, 12], "dropout": 0.5},
    {"in_channels": 1, "middle": 0},
    {"segments": 3, "padding": "symmetric", "norm_epsilon": 1e-5},
    {"output_stride": 8, "stem_stride": 1, "multiple": 2},
    {"output_stride": 16, "residual": False},
]


def parameters(model):
    return sum(p.numel() for p in model.parameters())


@pytest.fixture(scope="module")
def full():
    """Figure 5 at full size, as a network that has seen data: no statistic is 0 or 1."""
    torch.manual_seed(0)
    model = Xception()
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.normal_(norm.bias, std=0.3)
        norm.momentum = 1.0
    with torch.no_grad():
        model(torch.randn(8, 3, 96, 96))
        for norm in norms:
            mean, variance = norm.get_buffer("running_mean"), norm.get_buffer("running_var")
            mean += 0.1 * torch.randn_like(mean)
            variance *= torch.empty_like(variance).uniform_(0.8, 1.2)
        nn.init.normal_(model.classifier.weight, std=0.1)
        nn.init.normal_(model.classifier.bias)
    return model.eval()


def test_parameters_are_those_of_table_3(full):
    assert parameters(full) == 22_855_952
    statistics = sum(
        buffer.numel() for name, buffer in full.named_buffers() if name.endswith(("_mean", "_var"))
    )
    assert parameters(full) + statistics == 22_910_480


def test_36_convolutional_layers_in_14_modules(full):
    separable = [m for m in full.modules() if isinstance(m, SeparableConv2d)]
    projections = [m for m in full.modules() if isinstance(m, nn.Conv2d) and m.stride == (2, 2)]
    assert len(separable) == 34  # and the two of the stem
    assert len(projections) == 1 + 4  # the first layer, and the shortcuts at each pooling
    assert len(full.middle) == 8


def test_stages_have_the_shapes_of_figure_5(full):
    with torch.no_grad():
        stages = full.forward_features(torch.zeros(1, 3, 299, 299))
    assert {name: tuple(stage.shape[1:]) for name, stage in stages.items()} == {
        "stem": (64, 147, 147),
        "entry1": (128, 74, 74),
        "entry2_unpooled": (256, 74, 74),
        "entry2": (256, 37, 37),
        "entry3": (728, 19, 19),
        "middle": (728, 19, 19),
        "exit": (2048, 10, 10),
    }
    assert full.stage_channels == {name: stage.shape[1] for name, stage in stages.items()}
    assert full.num_features == 2048


@pytest.mark.parametrize("options", [{}, {"residual": False}])
def test_details_for_a_decoder_are_those_before_the_stride(options):
    torch.manual_seed(0)
    model = Xception(**SMALL | options).eval()
    stages = model.forward_features(torch.randn(1, 3, 65, 96))
    body: Any = model.entry2 if options else model.entry2.body
    # The second separable convolution, before its ReLU and pooling.
    by_hand = body[3](body[2](body[1](body[0](stages["entry1"]))))
    assert torch.equal(stages[model.LOW_LEVEL], by_hand)
    assert isinstance(body[4], MaxPool2d)
    assert torch.equal(stages["entry2"], model.entry2(stages["entry1"]))
    assert stages[model.LOW_LEVEL].shape[2:] == (15, 23)  # a fourth, less the stem's edges
    assert model.stage_channels == {name: stage.shape[1] for name, stage in stages.items()}


@pytest.fixture(scope="module")
def theirs(full):
    """Keras' Xception with the weights of ours, put there by the names of its layers."""
    assert keras.backend.backend() == "torch"
    # Keras annotates the two as `str`, and documents that they may be None.
    model = keras.applications.Xception(
        weights=None,  # pyright: ignore[reportArgumentType]
        classifier_activation=None,  # pyright: ignore[reportArgumentType]
    )

    def fill(layer, *tensors):
        assert len(layer.weights) == len(tensors)
        for weight, tensor in zip(layer.weights, tensors, strict=True):
            assert tuple(weight.shape) == tuple(tensor.shape)
            weight.value.data.copy_(tensor)

    def fill_conv(layer, conv):
        fill(layer, conv.weight.permute(2, 3, 1, 0))

    def fill_separable(layer, separable):
        depthwise = separable.depthwise.weight.permute(2, 3, 0, 1)  # height, width, input, 1
        fill(layer, depthwise, separable.pointwise.weight.permute(2, 3, 1, 0))

    def fill_norm(layer, norm):
        fill(layer, norm.weight, norm.bias, norm.running_mean, norm.running_var)

    blocks = {2: full.entry1, 3: full.entry2, 4: full.entry3, 13: full.exit[0]}
    blocks |= {5 + i: block for i, block in enumerate(full.middle)}
    fill_conv(model.get_layer("block1_conv1"), full.stem[0])
    fill_norm(model.get_layer("block1_conv1_bn"), full.stem[1])
    fill_conv(model.get_layer("block1_conv2"), full.stem[3])
    fill_norm(model.get_layer("block1_conv2_bn"), full.stem[4])
    for number, block in blocks.items():
        separables = [m for m in block.body if isinstance(m, SeparableConv2d)]
        for i, separable in enumerate(separables, start=1):
            fill_separable(model.get_layer(f"block{number}_sepconv{i}"), separable)
            fill_norm(model.get_layer(f"block{number}_sepconv{i}_bn"), separable.norm_after)
    for i, place in ((1, 1), (2, 3)):
        fill_separable(model.get_layer(f"block14_sepconv{i}"), full.exit[place])
        fill_norm(model.get_layer(f"block14_sepconv{i}_bn"), full.exit[place].norm_after)
    # The layers of the shortcuts have no names of their own, only an order.
    shortcuts = [blocks[number].shortcut for number in (2, 3, 4, 13)]
    unnamed = [layer for layer in model.layers if not layer.name.startswith("block")]
    convs = [layer for layer in unnamed if isinstance(layer, keras.layers.Conv2D)]
    norms = [layer for layer in unnamed if isinstance(layer, keras.layers.BatchNormalization)]
    for shortcut, conv, norm in zip(shortcuts, convs, norms, strict=True):
        fill_conv(conv, shortcut[0])
        fill_norm(norm, shortcut[1])
    fill(model.get_layer("predictions"), full.classifier.weight.T, full.classifier.bias)
    return model


@pytest.mark.no_cover  # most of what runs is Keras, twice as long while each line is counted
@pytest.mark.parametrize("size", [299, 224, 150])
def test_logits_equal_keras_at_odd_and_even_sizes(full, theirs, size):
    x = torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(size)) * 2 - 1
    with torch.no_grad():
        expected = theirs.call(x.permute(0, 2, 3, 1), training=False)  # takes images of any size
        logits = full(x)
        shifted = full_with_symmetric_pooling(full)(x)
    assert expected.std() > 1  # logits as a trained network has them
    difference = (logits - expected).abs().max().item()
    print(f"{size}: {difference:.1e}")
    assert difference <= 1e-4
    # The test notices padding on both sides: each of the sizes leads to an even one at a pooling.
    assert (shifted - expected).abs().max() > 1e-2


def full_with_symmetric_pooling(model):
    model = copy.deepcopy(model)
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, MaxPool2d):
                setattr(module, name, nn.MaxPool2d(3, 2, padding=1))
    return model


@pytest.mark.parametrize("options", VARIANTS)
def test_every_parameter_learns(options):
    torch.manual_seed(0)
    model = Xception(**SMALL | options)
    logits = model(torch.randn(4, model.options["in_channels"], 32, 32))
    assert logits.shape == (4, 5)
    logits.square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("options", VARIANTS)
def test_options_build_the_same_model_again(options):
    model = Xception(**SMALL | options)
    again = Xception(**model.options)
    assert again.options == model.options
    shapes = {name: value.shape for name, value in model.state_dict().items()}
    assert {name: value.shape for name, value in again.state_dict().items()} == shapes


@pytest.mark.parametrize("options", VARIANTS)
def test_working_in_place_changes_no_gradient_and_no_stage(options):
    torch.manual_seed(0)
    careful = Xception(**SMALL | options | {"dropout": 0.0}).double()
    quick = copy.deepcopy(careful)
    for module in careful.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = False
    x = torch.randn(2, careful.options["in_channels"], 21, 32, dtype=torch.float64)
    x.requires_grad_()
    seen, again = careful.forward_features(x), quick.forward_features(x)
    for name in seen:
        assert torch.equal(seen[name], again[name]), name
    # The first layer of each block must leave its input, a stage, as it was.
    deeper = quick.entry2(again["entry1"])
    assert torch.equal(again["entry2"], deeper)
    grads = [torch.autograd.grad(m(x).square().sum(), x)[0] for m in (careful, quick)]
    torch.testing.assert_close(*grads)


def test_gradients_through_a_shortcut_are_right():
    torch.manual_seed(0)
    model = Xception(num_classes=2, width=0.01, middle=1).double()
    x = torch.randn(2, 8, 4, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(model.entry2, (x,), fast_mode=True)
    assert torch.autograd.gradcheck(model.middle, (x,), fast_mode=True)


def test_memory_layout_does_not_change_the_answer():
    torch.manual_seed(0)
    model = Xception(**SMALL).double().eval()
    x = torch.randn(2, 3, 50, 43, dtype=torch.float64)
    expected = model(x)
    model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    got = model(x.contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(got, expected)


def test_the_answer_is_the_head_of_the_embedding():
    torch.manual_seed(0)
    model = Xception(**SMALL, fully_connected=[16]).eval()
    x = torch.randn(2, 3, 40, 40)
    embedding = model.embed(x)
    assert embedding.shape == (2, model.num_features)
    torch.testing.assert_close(embedding, model.forward_features(x)["exit"].mean((2, 3)))
    assert torch.equal(model.head(embedding), model(x))


@pytest.mark.parametrize(("stem_stride", "least"), [(2, 7), (1, 5)])
def test_the_smallest_image(stem_stride, least):
    model = Xception(**SMALL, stem_stride=stem_stride).eval()
    assert least == model.MINIMUM_SIZE
    assert model(torch.zeros(1, 3, least, least)).shape == (1, 5)
    with pytest.raises(UserError, match=f"{least - 1}x40 pixels are too small.*{least}x{least}"):
        model(torch.zeros(1, 3, least - 1, 40))


def test_width_goes_to_the_nearest_multiple_of_8():
    model = Xception(num_classes=5, width=0.3)
    stages = model.eval().forward_features(torch.zeros(1, 3, 32, 32))
    widths = [stage.shape[1] for stage in stages.values()]
    # 0.3 times 64, 128, 256, 256, 728, 728, 2048 is 19.2, 38.4, 76.8, 76.8, 218.4, 218.4, 614.4
    assert widths == [16, 40, 80, 80, 216, 216, 616]
    assert model.num_features == 616
    tiny = Xception(num_classes=5, width=0.01)
    assert tiny.stem[0].out_channels == 8
    fine = Xception(num_classes=5, width=0.3, multiple=2)
    assert list(fine.stage_channels.values()) == [20, 38, 76, 76, 218, 218, 614]


def test_stem_stride_1_keeps_the_resolution():
    model = Xception(**SMALL, stem_stride=1).eval()
    assert model.forward_features(torch.zeros(1, 3, 32, 32))["stem"].shape[2:] == (28, 28)


def test_fully_connected_layers_of_the_jft_variant():
    with torch.device("meta"):
        plain = Xception()
        wide = Xception(fully_connected=[4096, 4096])
    first, second = 2048 * 4096 + 4096, 4096 * 4096 + 4096
    assert parameters(wide) == parameters(plain) + first + second + (4096 - 2048) * 1000


def test_without_residuals_there_is_no_projection():
    with torch.device("meta"):
        plain, bare = Xception(), Xception(residual=False)
    shortcuts = ((64, 128), (128, 256), (256, 728), (728, 1024))
    dropped = sum(a * b + 2 * b for a, b in shortcuts)
    assert parameters(bare) == parameters(plain) - dropped


FINER = {  # how many pixels of the dense stages stand for one of the plain ones
    32: {},
    16: {"exit": 2},
    8: {"entry3": 2, "middle": 2, "exit": 4},
}


@pytest.mark.parametrize("output_stride", [32, 16, 8])
@pytest.mark.parametrize("padding", ["same", "symmetric"])
@pytest.mark.parametrize("options", [{}, {"residual": False, "segments": 3}])
def test_a_dense_network_has_the_features_of_the_plain_one(output_stride, padding, options):
    """At odd and even sizes, the edges included: no window sees what its twin does not see."""
    torch.manual_seed(0)
    options = SMALL | options | {"padding": padding}
    plain = lively(Xception(**options)).double()  # of numbers around 1, not of thousands
    dense = Xception(**options, output_stride=output_stride).double().eval()
    dense.load_state_dict(plain.state_dict())  # the weights are the same, name by name
    for height, width in ((97, 129), (70, 64), (96, 111)):
        x = torch.randn(1, 3, height, width, dtype=torch.float64)
        expected, got = plain.forward_features(x), dense.forward_features(x)
        for name, stage in expected.items():
            step = FINER[output_stride].get(name, 1)
            thinned = got[name][:, :, ::step, ::step]
            torch.testing.assert_close(thinned, stage, atol=1e-12, rtol=0)
        side = -(-(width - 6) // output_stride)  # the stem takes 6 pixels for its windows
        assert abs(got["exit"].shape[3] - side) <= 1


@pytest.mark.parametrize(
    ("stem_stride", "output_stride", "rates"),
    [  # of entry3, of the middle, and of the last two layers; TensorFlow's DeepLab has the same
        (2, 32, (1, 1, 1)),
        (2, 16, (1, 1, 2)),
        (2, 8, (1, 2, 4)),
        (1, 32, (1, 1, 1)),  # with a stem of stride 1 the network ends at 16
        (1, 16, (1, 1, 1)),
        (1, 8, (1, 1, 2)),
    ],
)
def test_a_module_that_loses_its_stride_keeps_its_dilation(stem_stride, output_stride, rates):
    with torch.device("meta"):
        model = Xception(stem_stride=stem_stride, output_stride=output_stride, width=0.1)
    parts = (model.entry3, model.middle, model.exit[1:])
    for part, rate in zip(parts, rates, strict=True):
        convs = [m.depthwise for m in part.modules() if isinstance(m, SeparableConv2d)]
        assert {conv.dilation for conv in convs} == {(rate, rate)}
    inside = [m.depthwise for m in model.exit[0].modules() if isinstance(m, SeparableConv2d)]
    assert {conv.dilation for conv in inside} == {(rates[1], rates[1])}
    pools = [m for m in model.modules() if isinstance(m, MaxPool2d)]
    steps = [1 if pool.dense else 2 for pool in pools]
    assert stem_stride * steps[0] * steps[1] * steps[2] * steps[3] == min(
        output_stride, 16 * stem_stride
    )


def test_pointwise_first_filters_what_comes_out_of_the_mixing():
    """The nine taps stand on the output channels: 9 (after - before) more in each convolution."""
    with torch.device("meta"):
        first, second = Xception(), Xception(order="pointwise_first")
        layers = [m for m in second.modules() if isinstance(m, SeparableConv2d)]
        assert second(torch.zeros(1, 3, 71, 71)).shape == (1, 1000)
    chain = [(64, 128), (128, 128), (128, 256), (256, 256), (256, 728), (728, 728)]
    chain += [(728, 728)] * 25 + [(728, 1024), (1024, 1536), (1536, 2048)]
    assert len(layers) == len(chain) == 34
    assert [layer.depthwise.in_channels for layer in layers] == [after for _, after in chain]
    more = sum(9 * (after - before) for before, after in chain)
    assert parameters(second) - parameters(first) == more


def test_segments_lead_from_regular_to_separable_convolutions():
    with torch.device("meta"):
        counts = [parameters(Xception(segments=s)) for s in (1, 2, 3, 64, 728, 2048)]
        assert parameters(Xception()) == counts[-1] == 22_855_952
    assert counts == sorted(counts, reverse=True)
    # Regular kernels where depthwise ones stood: 9·(c² - c) more for each number c of channels
    # that a separable convolution takes.
    taken = [64, 128, 128, 256, 256, 728, *[728] * 24, 728, 728, 1024, 1536]
    assert counts[0] == 22_855_952 + sum(9 * (c * c - c) for c in taken)


def test_options_of_older_model_files_build_the_same_network():
    """All options there were before there were `segments`, `padding` and the rest."""
    old = {
        "num_classes": 3,
        "in_channels": 3,
        "dropout": 0.0,
        "fully_connected": [],
        "residual": True,
        "activation": "none",
        "width": 0.1,
        "stem_stride": 2,
        "middle": 1,
    }
    model = create_model("xception", **old)
    assert model.options == old | {
        "multiple": 8,
        "order": "depthwise_first",
        "segments": None,
        "norm_epsilon": 1e-3,
        "padding": "same",
        "output_stride": 32,
    }
    names = set(model.state_dict())
    assert {"entry2.body.1.depthwise.weight", "entry2.shortcut.0.weight"} <= names
    assert "middle.0.body.5.norm_after.running_var" in names
    convs, norms = 2 + 2 * 13 + 4, 2 + 13 + 4
    assert len(names) == convs + 5 * norms + 2  # 13 separable convolutions, 4 shortcuts, the head


def test_epsilon_is_that_of_every_normalisation():
    model = Xception(**SMALL, norm_epsilon=1e-5)
    assert {m.eps for m in model.modules() if isinstance(m, nn.BatchNorm2d)} == {1e-5}


def test_dropout_works_in_training_only():
    torch.manual_seed(0)
    model = Xception(**SMALL, dropout=0.5)
    x = torch.randn(2, 3, 32, 32)
    model.eval()
    assert torch.equal(model(x), model(x))
    model.head.train()
    assert not torch.equal(model(x), model(x))


def test_a_new_head_keeps_all_before_it():
    torch.manual_seed(0)
    model = Xception(**SMALL, fully_connected=[16]).double()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.reset_head(7)
    after = model.state_dict()
    assert {name for name in before if before[name].shape != after[name].shape} == {
        "head.classifier.weight",
        "head.classifier.bias",
    }
    assert all(torch.equal(before[n], after[n]) for n in before if "classifier" not in n)
    assert model.options["num_classes"] == 7
    assert model.eval()(torch.zeros(1, 3, 32, 32, dtype=torch.float64)).shape == (1, 7)


def test_a_fresh_network_gives_nearly_even_odds():
    torch.manual_seed(0)
    model = Xception(num_classes=10, width=0.25)
    probabilities = model(torch.randn(16, 3, 64, 64)).softmax(1)
    assert (probabilities - 0.1).abs().max() < 0.1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_classes": 0}, "num_classes must be a whole number from 1 "),
        ({"in_channels": 0}, "in_channels"),
        ({"dropout": 1.0}, "dropout"),
        ({"dropout": float("nan")}, "dropout"),
        ({"width": 0.0}, "width"),
        ({"width": 1e9}, "width"),
        ({"stem_stride": 3}, "stem_stride must be one of 1, 2, not 3"),
        ({"activation": "gelu"}, "activation must be one of none, relu, elu, not 'gelu'"),
        ({"middle": -1}, "middle"),
        ({"fully_connected": [0]}, "each of fully_connected"),
        ({"fully_connected": [1] * 9}, "at most 8"),
        ({"segments": 0}, "segments must be a whole number from 1 "),
        ({"multiple": 3}, "multiple must be one of 1, 2, 4, 8, not 3"),
        ({"norm_epsilon": 0.0}, "norm_epsilon"),
        ({"padding": "valid"}, "padding must be one of same, symmetric, not 'valid'"),
        ({"output_stride": 4}, "output_stride must be one of 8, 16, 32, not 4"),
        ({"parameters": 0}, "parameters must be a whole number from 1 "),
        ({"parameters": 10**6, "width": 0.5}, "follow from parameters"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Xception(**options)


def test_a_wrong_number_of_axes_is_a_programming_error():
    with pytest.raises(jaxtyping.TypeCheckError):
        Xception(**SMALL)(torch.zeros(3, 32, 32))
