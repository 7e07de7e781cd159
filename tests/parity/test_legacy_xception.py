import oracles
import pytest
import torch
from torch import nn

from xception.layers import SeparableConv2d
from xception.models.xception import Xception


def modules(network):
    """The layers with weights in the order in which they stand, `separable` ones taken apart."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.BatchNorm2d | nn.Linear):
            yield module


def inside(block):
    """The layers of one of our blocks in timm's order: those of the shortcut come first there."""
    return [*modules(block.shortcut), *modules(block.body)]


@pytest.fixture(scope="module")
def theirs():
    """timm's port with random weights and statistics."""
    timm = oracles.timm()
    torch.manual_seed(0)
    model = timm.create_model("legacy_xception", num_classes=10).eval()
    for norm in (m for m in model.modules() if isinstance(m, nn.BatchNorm2d)):
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.normal_(norm.bias, std=0.3)
        norm.momentum = 1.0
    with torch.no_grad():
        model.train()(torch.randn(8, 3, 96, 96))
        nn.init.normal_(model.fc.weight, std=0.1)
        nn.init.normal_(model.fc.bias)
    return model.eval()


@pytest.fixture(scope="module")
def ours(theirs):
    """Ours with the weights of theirs, layer by layer."""
    model = Xception(num_classes=10, padding="symmetric", norm_epsilon=1e-5).eval()
    blocks = (model.entry1, model.entry2, model.entry3, *model.middle, model.exit[0])
    mine = [*modules(model.stem)]
    for block in blocks:
        mine += inside(block)
    mine += [*modules(model.exit[1]), *modules(model.exit[3]), model.classifier]
    for target, source in zip(mine, modules(theirs), strict=True):
        target.load_state_dict(source.state_dict())
    return model


@pytest.mark.parametrize(("height", "width"), [(299, 299), (150, 224)])
def test_logits_equal_timm_at_odd_and_even_sizes(ours, theirs, height, width):
    x = torch.randn(1, 3, height, width, generator=torch.Generator().manual_seed(height))
    with torch.no_grad():
        expected, got = theirs(x), ours(x)
    assert expected.std() > 1
    difference = (got - expected).abs().max().item()
    print(f"{height}x{width}: {difference:.1e}")
    assert difference <= 1e-4


def test_stages_equal_timm(ours, theirs):
    """The details that decoders take, too: timm's are behind the ReLU that ours is before."""
    x = torch.randn(1, 3, 97, 64, generator=torch.Generator().manual_seed(1))
    seen = {}
    theirs.block2.rep[-2].register_forward_hook(lambda m, i, o: seen.update(unpooled=o.clone()))
    with torch.no_grad():
        features = theirs.forward_features(x)
        stages = ours.forward_features(x)
    assert any(isinstance(m, SeparableConv2d) for m in ours.modules())
    torch.testing.assert_close(stages["entry2_unpooled"], seen["unpooled"], atol=1e-4, rtol=0)
    torch.testing.assert_close(stages["exit"], features, atol=1e-4, rtol=0)
