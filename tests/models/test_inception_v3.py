import copy
import math

import pytest
import torch
from networks import lively
from torch import nn

from xception.errors import UserError
from xception.models.inception_v3 import TOWER_SIZE, InceptionV3
from xception.weights import model_file


def parameters(model):
    return sum(p.numel() for p in model.parameters())


def statistics(model):
    return sum(
        buffer.numel() for name, buffer in model.named_buffers() if name.endswith(("_mean", "_var"))
    )


@pytest.fixture(scope="module")
def full():
    torch.manual_seed(0)
    return lively(InceptionV3(num_classes=5, norm_scale=False), 96)


# torchvision's count without and with its tower; Keras' with the running statistics.
@pytest.mark.parametrize(
    ("options", "trainable", "total"),
    [
        ({}, 23_834_568, 23_834_568 + 2 * 17_216),
        ({"norm_scale": False}, 23_817_352, 23_851_784),
        ({"auxiliary": True}, 27_161_264, 27_161_264 + 2 * (17_216 + 128 + 768)),
        # two layers of 4096 behind 2048 features, and a classifier of 4096 in place of 2048
        (
            {"fully_connected": [4096, 4096]},
            23_834_568 + 2048 * 4096 + 4096 + 4096 * 4096 + 4096 + 2048 * 1000,
            None,
        ),
    ],
)
def test_parameters(options, trainable, total):
    with torch.device("meta"):
        model = InceptionV3(**options)
    assert parameters(model) == trainable
    assert total is None or parameters(model) + statistics(model) == total


def test_94_convolutions_and_their_channels():
    with torch.device("meta"):
        model = InceptionV3()
    convs = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
    assert len(convs) == 94
    assert sum(conv.out_channels for conv in convs) == 17_216
    assert sum(conv.weight.numel() for conv in convs) == 21_751_136


def test_stages_have_the_shapes_of_the_paper():
    with torch.device("meta"):
        model = InceptionV3(auxiliary=True).eval()
        x = torch.zeros(1, 3, 299, 299)
        stages = model.forward_features(x)
        logits, auxiliary = model.forward_both(x)
        parts = [model.grid35.mixed0, model.grid17.mixed3, model.grid8.mixed8]
        widths = [part[-1] for part in ((256,), (768,), (1280,))]
    assert {name: tuple(stage.shape[1:]) for name, stage in stages.items()} == {
        "stem1": (64, 147, 147),
        "stem2": (192, 71, 71),
        "grid35": (288, 35, 35),
        "grid17": (768, 17, 17),
        "grid8": (2048, 8, 8),
    }
    assert model.stage_channels == {name: stage.shape[1] for name, stage in stages.items()}
    assert logits.shape == auxiliary.shape == (1, 1000)
    for part, width, before in zip(parts, widths, (192, 288, 768), strict=True):
        assert isinstance(part, nn.Module)
        assert part(torch.zeros(1, before, 9, 9, device="meta")).shape[1] == width


def test_the_smallest_image(full):
    assert full.MINIMUM_SIZE == 75
    stages = full.forward_features(torch.zeros(1, 3, 75, 80))
    assert stages["grid8"].shape == (1, 2048, 1, 1)
    with pytest.raises(UserError, match=r"74x80 pixels are too small.*75x75"):
        full(torch.zeros(1, 3, 74, 80))


def test_75_is_indeed_the_least(full, monkeypatch):
    monkeypatch.setattr(full, "MINIMUM_SIZE", 1)
    with pytest.raises(RuntimeError, match=r"Kernel size|too small"):
        full(torch.zeros(1, 3, 74, 80))


def test_a_small_stem_is_for_small_images():
    """No stride in front and no pooling before the modules: 32 pixels leave 11, 5 and 2."""
    with torch.device("meta"):
        model = InceptionV3(num_classes=10, width=0.125, stem_stride=1).eval()
        stages = model.forward_features(torch.zeros(1, 3, 32, 32))
        sizes = [(name, stage.shape[-1]) for name, stage in stages.items()]
        assert sizes == [("stem1", 28), ("stem2", 11), ("grid35", 11), ("grid17", 5), ("grid8", 2)]
        assert model.MINIMUM_SIZE == 23
        assert model(torch.zeros(1, 3, 23, 30)).shape == (1, 10)
        with pytest.raises(UserError, match="23x23 is the least"):
            model(torch.zeros(1, 3, 22, 30))
        model.MINIMUM_SIZE = 1
        with pytest.raises(RuntimeError, match=r"Kernel size|too small"):  # it is indeed the least
            model(torch.zeros(1, 3, 22, 30))
    with pytest.raises(ValueError, match="tower needs stem_stride 2"):
        InceptionV3(stem_stride=1, auxiliary=True)


@pytest.mark.parametrize(("width", "multiple"), [(0.5, 8), (0.3, 4), (2, 1)])
def test_width_scales_every_convolution(width, multiple):
    with torch.device("meta"):
        full = InceptionV3(auxiliary=True)
        model = InceptionV3(auxiliary=True, width=width, multiple=multiple).eval()
        assert model(torch.zeros(1, 3, 75, 75)).shape == (1, 1000)
    for one, other in zip(full.modules(), model.modules(), strict=True):
        if isinstance(one, nn.Conv2d) and isinstance(other, nn.Conv2d):
            nearest = max(1, math.floor(one.out_channels * width / multiple + 0.5)) * multiple
            assert other.out_channels == nearest
    assert model.options["width"] == width


def test_the_tower_needs_the_size_of_the_paper(monkeypatch):
    with torch.device("meta"):
        model = InceptionV3(num_classes=5, auxiliary=True)
        with pytest.raises(UserError, match=r"298x299 pixels are too small for the aux.*299x299"):
            model.forward_both(torch.zeros(2, 3, 298, 299))
        assert model(torch.zeros(2, 3, 298, 299)).shape == (2, 5)
        monkeypatch.setattr("xception.models.inception_v3.TOWER_SIZE", 1)
        with pytest.raises(RuntimeError, match="Kernel size"):  # it is indeed the least
            model.forward_both(torch.zeros(2, 3, 298, 299))
        assert TOWER_SIZE == 299


def test_without_a_tower_there_are_no_second_logits(full):
    with pytest.raises(ValueError, match="auxiliary=True"):
        full.forward_both(torch.zeros(1, 3, 299, 299))


def test_the_tower_learns_and_teaches_the_trunk():
    torch.manual_seed(0)
    model = InceptionV3(num_classes=5, auxiliary=True)
    logits, auxiliary = model.forward_both(torch.randn(2, 3, 299, 299))
    auxiliary.square().sum().backward()
    assert model.auxiliary is not None
    reached = (model.stem1, model.grid17, model.auxiliary)
    assert all(p.grad is not None and p.grad.any() for part in reached for p in part.parameters())
    assert all(p.grad is None for p in model.grid8.parameters())
    assert logits.shape == (2, 5)


def test_a_new_head_is_that_of_the_tower_too():
    with torch.device("meta"):
        model = InceptionV3(num_classes=5, auxiliary=True, fully_connected=[16])
        before = {name: value.shape for name, value in model.state_dict().items()}
        model.reset_head(7)
        after = {name: value.shape for name, value in model.state_dict().items()}
        again = InceptionV3(**model.options)
    assert {name for name in before if before[name] != after[name]} == {
        f"{part}.{kind}"
        for part in ("head.classifier", "auxiliary.classifier")
        for kind in ("weight", "bias")
    }
    assert model.options["num_classes"] == 7
    assert {name: value.shape for name, value in again.state_dict().items()} == after


def test_weights_of_other_classes_leave_both_last_layers_fresh(monkeypatch):
    with torch.device("meta"):
        source, model = (InceptionV3(num_classes=n, auxiliary=True) for n in (5, 7))
    monkeypatch.setattr(model_file, "load_model", lambda path: source)
    assert set(model_file.load_weights(model, "inception.safetensors")) == {
        f"{part}.{kind}"
        for part in ("head.classifier", "auxiliary.classifier")
        for kind in ("weight", "bias")
    }


def test_every_parameter_learns():
    torch.manual_seed(0)
    model = InceptionV3(num_classes=5, in_channels=1, dropout=0.5, norm_scale=False)
    model(torch.randn(4, 1, 96, 80)).square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_the_answer_is_the_head_of_the_embedding(full):
    x = torch.randn(2, 3, 80, 75)
    embedding = full.embed(x)
    assert embedding.shape == (2, full.num_features)
    torch.testing.assert_close(full.head(embedding), full(x))


def test_working_in_place_changes_no_stage(full):
    careful = copy.deepcopy(full)
    for module in careful.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = False
    x = torch.randn(1, 3, 80, 75)
    with torch.no_grad():
        seen, again = careful.forward_features(x), full.forward_features(x)
    assert all(torch.equal(seen[name], again[name]) for name in seen)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pool_border": "reflect"}, "pool_border must be one of exclude, include, not 'reflect'"),
        ({"norm_epsilon": -1.0}, "norm_epsilon"),
        ({"fully_connected": [0]}, "each of fully_connected"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        InceptionV3(**options)
