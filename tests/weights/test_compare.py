import pytest
import torch
from torch import nn

from xception.errors import UserError
from xception.models.inception_v3 import InceptionV3
from xception.models.mobilenet_v1 import MobileNetV1
from xception.weights.compare import compare


@pytest.fixture
def pair() -> tuple[MobileNetV1, MobileNetV1]:
    torch.manual_seed(0)
    one = MobileNetV1(width=0.25, num_classes=3).eval()
    other = MobileNetV1(width=0.25, num_classes=3).eval()
    other.load_state_dict(one.state_dict())
    return one, other


def test_equal_networks(pair):
    found = compare(*pair, size=64)
    assert found.first is None
    assert set(found.stages().values()) == {0.0}
    assert list(found.stages()) == ["stem", *(f"stage{i}" for i in range(1, 6)), "head"]
    assert found.options == {}
    with torch.inference_mode():
        assert all(not module._forward_hooks for model in pair for module in model.modules())


def test_the_layer_whose_weights_differ(pair):
    with torch.no_grad():
        pair[1].stage3[1].get_submodule("0.pointwise").weight[5] += 0.5
    found = compare(*pair, size=64)
    assert found.first is not None
    assert found.first.name == "stage3.1.0.pointwise"
    assert not found.first.same_weights
    assert found.stages()["stage2"] == 0
    # By hand: one filter has half more everywhere, so it gives half the sum over the channels more.
    inside = {}
    layer = pair[0].stage3[1].get_submodule("0.activation")
    layer.register_forward_hook(lambda module, inputs, value: inside.update(x=value.clone()))
    generator = torch.Generator().manual_seed(0)
    with torch.inference_mode():
        pair[0](torch.rand((1, 3, 64, 64), generator=generator) * 2 - 1)
    expected = 0.5 * inside["x"][0].sum(0).max().item()
    assert found.first.largest == pytest.approx(expected, rel=1e-3)


def test_weights_that_make_no_difference_are_named(pair):
    with torch.no_grad():
        for model in pair:  # nothing flows through this channel
            model.stage3[1].get_submodule("0.norm_between").weight[7] = 0
        pair[1].stage3[1].get_submodule("0.pointwise").weight[5, 7] += 0.5
    found = compare(*pair, size=64)
    assert found.first is None
    assert found.other_weights == ["stage3.1.0.pointwise"]


def test_the_same_weights_in_another_definition(pair):
    other = MobileNetV1(width=0.25, num_classes=3, padding="symmetric").eval()
    other.load_state_dict(pair[0].state_dict())
    found = compare(pair[0], other, size=64)
    assert found.first is not None
    assert found.first.name == "stem.0"
    assert found.first.same_weights
    assert found.options == {"padding": ("keras", "symmetric")}


def test_values_that_are_no_numbers_and_other_shapes_part(pair):
    with torch.no_grad():
        pair[1].classifier.bias[1] = torch.nan
    found = compare(*pair, size=64)
    assert found.first is not None
    assert (found.first.name, found.first.largest) == ("head.classifier", torch.inf)
    pair[1].reset_head(4)
    assert compare(*pair, size=64).first is not None


def test_what_cannot_be_compared(pair):
    with pytest.raises(UserError, match="MobileNetV1 and Other cannot be compared"):
        compare(pair[0], type("Other", (MobileNetV1,), {})(width=0.25), size=64)
    with pytest.raises(UserError, match="one network takes colour images, the other not"):
        compare(pair[0], MobileNetV1(width=0.25, in_channels=1), size=64)
    pair[1].head.add_module("more", nn.ReLU())
    with pytest.raises(UserError, match=r"only one has head\.more"):
        compare(*pair, size=64)


def test_infinite_values_agree_only_where_they_are_the_same(pair):
    one, other = pair
    for model in pair:
        nn.init.constant_(model.classifier.bias, torch.inf)
    assert compare(one, other, size=32).first is None
    nn.init.constant_(other.classifier.bias, -torch.inf)
    first = compare(one, other, size=32).first
    assert first is not None
    assert (first.name, first.largest) == ("head.classifier", torch.inf)


def test_a_tower_that_only_one_has_is_no_difference():
    with_tower = InceptionV3(num_classes=2, width=0.02, multiple=1, auxiliary=True).eval()
    without = InceptionV3(num_classes=2, width=0.02, multiple=1).eval()
    without.load_state_dict(with_tower.state_dict(), strict=False)
    found = compare(with_tower, without, size=75)
    assert found.first is None
    assert found.options == {"auxiliary": (True, False)}
