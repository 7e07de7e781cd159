import pytest
import torch
from torch import nn

from xception.errors import UserError
from xception.models.classifier import Classifier, as_classifier
from xception.models.network import Network, initialize_classifier, initialize_layers, scaled
from xception.models.segmenter import Segmenter
from xception.models.zoo import create_model


def test_widths_go_to_the_nearest_multiple_of_8():
    # 0.3 times 64, 128, 256, 728 is 19.2, 38.4, 76.8, 218.4
    assert [scaled(c, 0.3) for c in (64, 128, 256, 728)] == [16, 40, 80, 216]
    assert scaled(32, 0.01) == 8
    assert scaled(12, 1.0) == 16  # half way goes up


def test_fresh_weights_are_those_of_he_by_fan_in():
    torch.manual_seed(0)
    depthwise = nn.Conv2d(4000, 4000, 3, groups=4000)
    pointwise = nn.Conv2d(200, 300, 1)
    initialize_layers(nn.Sequential(depthwise, pointwise).modules())
    for layer, fan_in in ((depthwise, 9), (pointwise, 200)):
        bound = (6 / fan_in) ** 0.5  # uniform of variance 2 / fan_in
        assert layer.weight.abs().max() <= bound
        assert layer.weight.var().item() == pytest.approx(2 / fan_in, rel=0.05)
        assert layer.bias is not None
        assert not layer.bias.any()


@pytest.mark.parametrize("layer", [nn.Linear(50, 60), nn.Conv2d(50, 60, 1)])
def test_a_fresh_last_layer_is_small(layer):
    initialize_classifier(layer)
    assert 0.019 < layer.weight.abs().max() <= 0.02
    assert not layer.bias.any()
    bare = nn.Conv2d(5, 6, 1, bias=False)
    initialize_classifier(bare)
    assert bare.weight.abs().max() <= 0.02


def test_what_a_network_must_bring_itself():
    network, segmenter = Network(), Segmenter()
    x = torch.zeros(1, 3, 8, 8)
    for call in (
        lambda: network.forward_features(x),
        lambda: network.classifier,
        lambda: network.reset_head(3),
        lambda: segmenter(x),
    ):
        with pytest.raises(NotImplementedError):
            call()


def test_kinds_of_networks_are_told_apart():
    classifier = create_model("xception", width=0.01, middle=0)
    assert isinstance(classifier, Classifier)
    assert as_classifier(classifier, "it") is classifier
    segmenter = create_model("deeplab_v3plus", backbone_options={"width": 0.01, "middle": 0})
    with pytest.raises(UserError, match=r"runs/x segments images \(DeepLabV3Plus\); a classifier"):
        as_classifier(segmenter, "runs/x")
    assert set(classifier.TASKS).isdisjoint(segmenter.TASKS)
