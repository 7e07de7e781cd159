import builtins
import sys

import oracles
import pytest
import torch
from model_files import card_of
from torch import nn

from xception.cost.count import count
from xception.errors import UserError
from xception.evaluation.explain import grad_cam
from xception.models.timm_models import TimmClassifier
from xception.models.zoo import create_model, find_entry, list_models
from xception.weights.card import Architecture
from xception.weights.model_file import load_model, load_weights, save_model

pytestmark = pytest.mark.filterwarnings("default::DeprecationWarning")


@pytest.fixture(scope="module")
def timm():
    return oracles.timm()


def parameters(model):
    return sum(p.numel() for p in model.parameters())


@pytest.mark.usefixtures("timm")
@pytest.mark.parametrize(
    ("name", "size", "published"),  # parameters with 1000 classes: of torchvision's tables
    [
        ("vgg16", 224, 138_357_544),
        ("resnet152", 224, 60_192_808),
        ("resnet18", 224, 11_689_512),
        ("legacy_xception", 299, 22_855_952),
    ],
)
def test_networks_have_their_published_parameters(name, size, published):
    entry = find_entry(f"timm:{name}")
    assert entry.size == size
    assert entry.name == f"timm:{name}"
    with torch.device("meta"):
        model = entry.build()
    assert parameters(model) == published


@pytest.mark.parametrize(
    "name",
    [
        "vgg11",
        "resnet18",
        "mobilenetv3_small_050",  # a convolution behind the pooling
        "convnext_atto",  # a normalisation behind the pooling
        "dpn68",  # its last layer is a convolution
        "swin_tiny_patch4_window7_224",  # channels last
        "vit_tiny_patch16_224",  # tokens
        "levit_128s",  # two last layers
    ],
)
@pytest.mark.usefixtures("timm")
def test_any_network_keeps_the_contract(name):
    with torch.device("meta"):
        model = create_model(f"timm:{name}", num_classes=4, in_channels=1).eval()
        assert isinstance(model, TimmClassifier)
        x = torch.zeros(2, 1, model.size, model.size)
        assert model.embed(x).shape == (2, model.num_features)
        assert model(x).shape == (2, 4)
        again = create_model(f"timm:{name}", **model.options)
        shapes = {name: value.shape for name, value in model.state_dict().items()}
        assert {name: value.shape for name, value in again.state_dict().items()} == shapes
        if model.has_maps:
            *_, last = model.forward_features(x).values()
            assert model.head(model.embedding_of(last)).shape == (2, 4)
        else:
            with pytest.raises(UserError, match="lists of tokens"):
                model.forward_features(x)
    assert model.has_maps == (name not in ("vit_tiny_patch16_224", "levit_128s"))


@pytest.mark.parametrize(
    "name",
    [pytest.param("vgg11", marks=pytest.mark.slow), "test_resnet", "mobilenetv3_small_050"],
)
def test_answers_are_those_of_timm(timm, name):
    torch.manual_seed(0)
    theirs = timm.create_model(name, num_classes=5).eval()
    model = create_model(f"timm:{name}", num_classes=5).eval()
    assert isinstance(model, TimmClassifier)
    source = theirs.state_dict()
    last = theirs.default_cfg["classifier"]
    model.backbone.load_state_dict({k: v for k, v in source.items() if not k.startswith(last)})
    model.classifier.weight.data.copy_(source[f"{last}.weight"])
    model.classifier.bias.data.copy_(source[f"{last}.bias"])
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        expected, stages = theirs(x), model.forward_features(x)
        torch.testing.assert_close(model(x), expected, atol=1e-5, rtol=0)
        torch.testing.assert_close(model.embedding_of(stages["features"]), model.embed(x))
    sides = [stage.shape[-1] for stage in stages.values()]
    assert sides == sorted(sides, reverse=True)
    assert grad_cam(model, x, torch.tensor([2])).shape == (1, 64, 64)


@pytest.mark.usefixtures("timm")
def test_every_parameter_learns():
    torch.manual_seed(0)
    model = create_model("timm:test_resnet", num_classes=3, dropout=0.2)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):  # timm begins with some that let nothing through
            nn.init.uniform_(module.weight, 0.5, 1.5)
    model(torch.randn(4, 3, 64, 64)).square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


@pytest.mark.usefixtures("timm")
@pytest.mark.parametrize("name", ["test_resnet", "test_vit_relpos"])
def test_model_files_build_the_network_again(tmp_path, name):
    """The second has tables that its state does not hold, and must make them when it is loaded."""
    torch.manual_seed(0)
    model = create_model(f"timm:{name}", num_classes=3).eval()
    assert isinstance(model, TimmClassifier)
    path = tmp_path / "network.safetensors"
    architecture = Architecture(name=f"timm:{name}", options=model.options)
    save_model(path, model, card_of(model, architecture=architecture))
    loaded = load_model(path)
    assert loaded.options == model.options
    x = torch.randn(2, 3, model.size, model.size)
    assert torch.equal(loaded(x), model(x))
    target = create_model(f"timm:{name}", num_classes=4)
    assert load_weights(target, path) == ["head.classifier.weight", "head.classifier.bias"]
    other = create_model("timm:test_efficientnet", num_classes=3)
    with pytest.raises(UserError, match=rf"architecture {name}.*architecture test_efficientnet"):
        load_weights(other, path)


@pytest.mark.usefixtures("timm")
def test_a_new_head_keeps_all_before_it():
    model = create_model("timm:test_resnet", num_classes=3).eval()
    assert isinstance(model, TimmClassifier)
    x = torch.randn(1, 3, 64, 64)
    before = model.embed(x)
    model.reset_head(7)
    assert model.options["num_classes"] == 7
    assert torch.equal(model.embed(x), before)
    assert model(x).shape == (1, 7)


@pytest.mark.usefixtures("timm")
def test_what_it_costs():
    model = create_model("timm:resnet18")
    total = count(model, 224).total
    assert total["parameters"] == 11_689_512
    assert total["macs"] == 1_814_073_344  # torchvision's table: 1.814 GFLOPS


@pytest.mark.usefixtures("timm")
@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("timm:resnet81", {}, "timm has no network called 'resnet81'; did you mean timm:resnet"),
        ("timm:qqqqqqqqqqqq", {}, "timm has no network called 'qqqqqqqqqqqq'; it has "),
        ("timm:", {}, "timm has no network called ''"),
        ("timm:resnet18.a1_in1k", {}, "names weights, and none are fetched; timm:resnet18 is"),
        ("timm:hf-hub:someone/net", {}, "timm has no network called 'hf-hub:someone/net'"),
        ("timm:resnet18", {"width": 2}, "timm:resnet18 has no option 'width'; known are arch"),
        ("timm:resnet18", {"dropout": 1.0}, "timm:resnet18: dropout must be a number"),
        ("timm:resnet18", {"num_classes": "3"}, "num_classes must be a whole number, not '3'"),
        ("timm:resnet18", {"architecture": "vgg16"}, "must be 'resnet18', or be left out"),
    ],
)
def test_what_was_asked_for_wrongly_is_told_in_one_line(name, options, message):
    with pytest.raises(UserError) as caught:
        create_model(name, **options)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("timm")
@pytest.mark.parametrize(
    ("name", "side", "message"),
    [
        ("timm:test_resnet", 31, "31x31 pixels are too small for this network: 32x32"),
        ("timm:vit_tiny_patch16_224", 223, "too small for this network: 224x224"),
        ("timm:vit_tiny_patch16_224", 240, "images of 224x224 pixels only, not 240x240"),
    ],
)
def test_images_that_a_network_does_not_take(name, side, message):
    with torch.device("meta"):
        model = create_model(name)
        with pytest.raises(UserError, match=message):
            model(torch.zeros(1, 3, side, side))


def without(monkeypatch, error):
    real = builtins.__import__

    def refuse(name, *rest):
        if name == "timm":
            raise error
        return real(name, *rest)

    monkeypatch.delitem(sys.modules, "timm", raising=False)
    monkeypatch.setattr(builtins, "__import__", refuse)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ModuleNotFoundError("No module", name="timm"), r'pip install "xception\[timm\]"'),
        (ModuleNotFoundError("No module", name="torchvision"), "but lacks torchvision"),
        (
            RuntimeError("operator torchvision::nms does not exist\nmore"),
            "does not import: operator torchvision::nms does not exist$",
        ),
        (OSError(), "does not import: OSError$"),
    ],
)
def test_without_timm_the_rest_of_the_zoo_is_there(monkeypatch, error, message):
    without(monkeypatch, error)
    with pytest.raises(UserError, match=message):
        create_model("timm:resnet18")
    with pytest.raises(UserError, match=message):
        find_entry("timm:resnet18")
    assert not any(name.startswith("timm:") for name in list_models())
    assert isinstance(create_model("xception", width=0.01, middle=0), nn.Module)
    with pytest.raises(UserError, match="did you mean"):
        create_model("xeption")
