import math
from typing import Any

import pytest
import torch
from networks import lively
from torch import nn
from torch.nn import functional as F

from xception.errors import UserError
from xception.models.deeplab_v3plus import BACKBONES, DeepLabV3Plus
from xception.models.zoo import create_model

SMALL: dict[str, Any] = {
    "num_classes": 5,
    "backbone_options": {"width": 0.03, "middle": 1},
    "encoder_channels": 12,
    "low_level_channels": 3,
    "decoder_channels": 10,
}
NARROW: dict[str, dict[str, Any]] = {  # the backbones, quickly
    name: {"width": 0.05} | ({} if name == "mobilenet_v1" else {"middle": 1}) for name in BACKBONES
}
VARIANTS: list[dict[str, Any]] = [
    {},
    {"output_stride": 8, "dropout": 0.5},
    {"decoder": False},
    {"separable": False},
    {"image_pooling": False, "in_channels": 1},
    {"rates": [], "output_stride": 32},
    {"rates": [2, 5]},
    *({"backbone": name, "backbone_options": NARROW[name]} for name in BACKBONES),
]


def parameters(model):
    return sum(p.numel() for p in model.parameters())


def small(**options: Any) -> DeepLabV3Plus:
    """A network of few channels, every path of which can be seen in its answer."""
    torch.manual_seed(0)
    return lively(DeepLabV3Plus(**SMALL | options), 48)


def test_parameters_of_the_released_network_and_its_variations():
    with torch.device("meta"):
        count = {
            (separable, decoder): parameters(DeepLabV3Plus(separable=separable, decoder=decoder))
            for separable in (True, False)
            for decoder in (True, False)
        }
    backbone = 39_916_312 - 2049 * 1000  # without the classifier of ImageNet

    def one(before, after):  # 1x1 and its normalisation
        return before * after + 2 * after

    def three(before, after, separable):
        if separable:
            return 9 * before + 2 * before + one(before, after)
        return 9 * before * after + 2 * after

    for (separable, decoder), found in count.items():
        expected = backbone + 2 * one(2048, 256) + 3 * three(2048, 256, separable)
        expected += one(5 * 256, 256) + 256 * 21 + 21
        if decoder:
            expected += one(256, 48)
            expected += three(304, 256, separable) + three(256, 256, separable)
        assert found == expected
    assert count[True, True] == 41_055_413


@pytest.mark.parametrize(
    ("output_stride", "side", "rates"),
    [(16, 33, [6, 12, 18]), (8, 65, [12, 24, 36]), (32, 17, [3, 6, 9])],
)
def test_stages_and_rates_of_a_513_pixel_image(output_stride, side, rates):
    with torch.device("meta"):
        model = create_model("deeplab_v3plus", output_stride=output_stride).eval()
        stages = model.forward_features(torch.zeros(1, 3, 513, 513))
        logits = model(torch.zeros(1, 3, 513, 513))
    shapes = {name: tuple(stage.shape[1:]) for name, stage in stages.items()}
    assert shapes["low_level"] == (256, 129, 129)
    assert shapes["exit"] == (2048, side, side)
    assert shapes["encoder"] == (256, side, side)
    assert shapes["decoder"] == (256, 129, 129)
    assert logits.shape == (1, 21, 513, 513)
    assert isinstance(model, DeepLabV3Plus)
    dilated = [m for m in model.aspp.modules() if isinstance(m, nn.Conv2d) and m.kernel_size[0] > 1]
    assert [conv.dilation for conv in dilated] == [(rate, rate) for rate in rates]


# The whole network behind the backbone, written down plainly from the weights alone.


def normalized(x, w, name):
    one = {key: w[f"{name}.{key}"][:, None, None] for key in ("weight", "bias")}
    mean, variance = w[f"{name}.running_mean"], w[f"{name}.running_var"]
    x = (x - mean[:, None, None]) / (variance[:, None, None] + 1e-5).sqrt()
    return x * one["weight"] + one["bias"]


def pointwise(x, w, name):
    x = torch.einsum("bchw,fc->bfhw", x, w[f"{name}.0.weight"][:, :, 0, 0])
    return F.relu(normalized(x, w, f"{name}.1"))


def window(x, w, name, rate):
    """3x3 taps at a distance, each a shifted image; nothing lies outside."""
    height, width = x.shape[2:]
    padded = F.pad(x, [rate] * 4)
    taps = [
        (i, j, padded[:, :, i * rate : i * rate + height, j * rate : j * rate + width])
        for i in range(3)
        for j in range(3)
    ]
    if f"{name}.0.weight" in w:  # regular
        kernel = w[f"{name}.0.weight"]
        x = sum(torch.einsum("bchw,fc->bfhw", tap, kernel[:, :, i, j]) for i, j, tap in taps)
        return F.relu(normalized(x, w, f"{name}.1"))
    kernel = w[f"{name}.0.depthwise.weight"][:, 0]
    x = sum(tap * kernel[:, i, j, None, None] for i, j, tap in taps)
    x = F.relu(normalized(x, w, f"{name}.0.norm_between"))
    x = torch.einsum("bchw,fc->bfhw", x, w[f"{name}.0.pointwise.weight"][:, :, 0, 0])
    return F.relu(normalized(x, w, f"{name}.0.norm_after"))


def stretching(before, after):
    """The matrix that interpolates a row linearly, its ends on the ends."""
    matrix = torch.zeros(after, before, dtype=torch.float64)
    for i in range(after):
        place = i * (before - 1) / (after - 1) if after > 1 else 0.0
        left = min(math.floor(place), max(before - 2, 0))
        matrix[i, left] = 1 - (place - left)
        if before > 1:
            matrix[i, left + 1] = place - left
    return matrix


def stretched(x, height, width):
    down, along = stretching(x.shape[2], height), stretching(x.shape[3], width)
    return torch.einsum("ih,bchw,jw->bcij", down, x, along)


def head_by_hand(model: DeepLabV3Plus, stages, height, width):
    w, options = model.state_dict(), model.options
    x = stages["exit"]
    views = []
    if options["image_pooling"]:
        mean = x.sum((2, 3), keepdim=True) / (x.shape[2] * x.shape[3])
        pooled = pointwise(mean, w, "aspp.pooling")
        views.append(stretched(pooled, *x.shape[2:]))
    views.append(pointwise(x, w, "aspp.branches.0"))
    for i, rate in enumerate(options["rates"], start=1):
        views.append(window(x, w, f"aspp.branches.{i}", rate * 16 // options["output_stride"]))
    x = pointwise(torch.cat(views, 1), w, "aspp.project")
    if options["decoder"]:
        details = pointwise(stages["low_level"], w, "decoder.reduce")
        x = torch.cat([stretched(x, *details.shape[2:]), details], 1)
        x = window(window(x, w, "decoder.refine.0", 1), w, "decoder.refine.1", 1)
    weight, bias = w["head.classifier.weight"][:, :, 0, 0], w["head.classifier.bias"]
    logits = torch.einsum("bchw,fc->bfhw", x, weight) + bias[:, None, None]
    return stretched(logits, height, width)


@pytest.mark.parametrize(
    ("options", "size"),
    [
        ({}, (97, 65)),
        ({}, (64, 83)),
        ({}, (9, 17)),  # features of 1x2 places: all atrous taps but one are outside
        ({"output_stride": 8}, (66, 49)),
        ({"separable": False}, (50, 65)),
        ({"decoder": False}, (50, 65)),
        ({"image_pooling": False, "rates": [1, 3]}, (80, 81)),
        ({"rates": [], "output_stride": 32}, (80, 81)),
    ],
)
def test_the_head_by_hand(options, size):
    model = small(**options).double()
    x = torch.randn(2, 3, *size, dtype=torch.float64)
    with torch.no_grad():
        logits = model(x)
        expected = head_by_hand(model, model.forward_features(x), *size)
    assert logits.shape == (2, 5, *size)
    assert expected.std() > 0.05
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("backbone", list(BACKBONES))
@pytest.mark.parametrize("size", [(65, 97), (50, 64)])
def test_output_strides_share_their_weights_and_their_places(backbone, size):
    """What a backbone computes at 16 is every second pixel of what it computes at 8."""
    # "same" padding puts the windows on odd pixels where a size is even.
    symmetric = NARROW[backbone] | {"padding": "symmetric"}
    coarse = small(backbone=backbone, backbone_options=symmetric).double()
    options: dict[str, Any] = coarse.options | {"output_stride": 8}
    fine = DeepLabV3Plus(**options).double().eval()
    fine.load_state_dict(coarse.state_dict())
    x = torch.randn(1, 3, *size, dtype=torch.float64)
    with torch.no_grad():
        expected, got = coarse.backbone.forward_features(x), fine.backbone.forward_features(x)
        assert fine(x).shape == coarse(x).shape == (1, 5, *size)
    low_level = coarse.backbone.LOW_LEVEL
    torch.testing.assert_close(got[low_level], expected[low_level])
    last = list(expected)[-1]
    assert expected[last].std() > 1e-3
    torch.testing.assert_close(got[last][:, :, ::2, ::2], expected[last], rtol=0, atol=1e-9)


@pytest.mark.parametrize("backbone", ["xception41", "mobilenet_v1"])
def test_features_stand_on_every_sixteenth_pixel_from_the_first_to_the_last(backbone):
    """With mirrored windows, a network whose features do not drift is its own mirror image."""
    model = small(backbone=backbone, backbone_options=NARROW[backbone]).double()
    for conv in model.modules():
        if isinstance(conv, nn.Conv2d):
            conv.weight.data = (conv.weight.data + conv.weight.data.flip(3)) / 2
    x = torch.randn(1, 3, 49, 65, dtype=torch.float64)
    with torch.no_grad():
        *_, features = model.backbone.forward_features(x).values()
        mirrored = model(x.flip(3)).flip(3)
        torch.testing.assert_close(mirrored, model(x), rtol=1e-6, atol=1e-6)
    assert features.shape[2:] == (4, 5)


@pytest.mark.parametrize("backbone", list(BACKBONES))
def test_backbones_give_what_the_decoder_wants(backbone):
    with torch.device("meta"):
        model = DeepLabV3Plus(backbone=backbone).eval()
        stages = model.backbone.forward_features(torch.zeros(1, 3, 513, 513))
    channels = {name: stage.shape[1] for name, stage in stages.items()}
    assert channels == model.backbone.stage_channels
    unpadded = backbone == "xception"  # its first convolutions
    assert list(stages.values())[-1].shape[-1] == (32 if unpadded else 33)  # output stride 16
    assert stages[model.backbone.LOW_LEVEL].shape[-1] == (127 if unpadded else 129)  # a fourth


@pytest.mark.parametrize("options", VARIANTS)
def test_every_parameter_learns(options):
    torch.manual_seed(0)
    model = DeepLabV3Plus(**SMALL | options)
    logits = model(torch.randn(3, model.options["in_channels"], 75, 66))
    assert logits.shape == (3, 5, 75, 66)
    logits.square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("options", VARIANTS)
def test_options_build_the_same_model_again(options):
    model = DeepLabV3Plus(**SMALL | options)
    again = create_model("deeplab_v3plus", **model.options)
    assert again.options == model.options
    shapes = {name: value.shape for name, value in model.state_dict().items()}
    assert {name: value.shape for name, value in again.state_dict().items()} == shapes
    assert not any(name.startswith("backbone.head") for name in shapes)


def test_one_image_in_training():
    model = DeepLabV3Plus(**SMALL)
    x = torch.randn(1, 3, 40, 40)
    with pytest.raises(UserError, match="one image alone has no batch statistics"):
        model(x)
    assert DeepLabV3Plus(**SMALL, image_pooling=False)(x).shape == (1, 5, 40, 40)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()  # frozen statistics
    assert model.training
    assert model(x).shape == (1, 5, 40, 40)
    assert model.eval()(x).shape == (1, 5, 40, 40)


def test_memory_layout_does_not_change_the_answer():
    model = small().double()
    x = torch.randn(2, 3, 50, 43, dtype=torch.float64)
    expected = model(x)
    model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    got = model(x.contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(got, expected)


def test_dropout_works_in_training_only():
    model = small(dropout=0.5)
    x = torch.randn(2, 3, 40, 40)
    assert torch.equal(model(x), model(x))
    model.aspp.train()
    assert not torch.equal(model(x), model(x))


def test_a_new_head_keeps_all_before_it():
    model = small().double()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.reset_head(7)
    after = model.state_dict()
    changed = {name for name in before if before[name].shape != after[name].shape}
    assert changed == {"head.classifier.weight", "head.classifier.bias"}
    assert all(torch.equal(before[n], after[n]) for n in before.keys() - changed)
    assert model.options["num_classes"] == 7
    assert model(torch.zeros(1, 3, 32, 32, dtype=torch.float64)).shape == (1, 7, 32, 32)


def test_too_small_an_image_is_refused():
    options: dict[str, Any] = SMALL | {"backbone": "xception"}
    model = DeepLabV3Plus(**options).eval()
    least = model.MINIMUM_SIZE
    assert model(torch.zeros(1, 3, least, least)).shape == (1, 5, least, least)
    with pytest.raises(UserError, match=f"{least}x{least} is the least"):
        model(torch.zeros(1, 3, least - 1, 40))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_classes": 0}, "num_classes must be a whole number from 1 "),
        ({"in_channels": 0}, "in_channels"),
        ({"dropout": 1.0}, "dropout"),
        ({"backbone": "resnet"}, "backbone must be one of xception41, xception65, .*'resnet'"),
        ({"output_stride": 4}, "output_stride must be one of 8, 16, 32, not 4"),
        ({"rates": [0]}, "each of rates"),
        ({"rates": [1] * 9}, "at most 8"),
        ({"encoder_channels": 0}, "encoder_channels"),
        ({"low_level_channels": 0}, "low_level_channels"),
        ({"decoder_channels": 0}, "decoder_channels"),
        ({"norm_epsilon": 0.0}, "norm_epsilon"),
        ({"backbone_options": {"width": 0}}, "backbone xception65: width must be a number from"),
        ({"backbone_options": {"wdth": 1}}, "backbone xception65 has no option 'wdth'; did you"),
        ({"backbone_options": {"width": "1"}}, "backbone xception65: width must be a number"),
        ({"backbone_options": {"output_stride": 8}}, "backbone_options cannot have output_stride"),
        ({"backbone_options": [1]}, "backbone_options must be options with their values"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        create_model("deeplab_v3plus", **options)
