import oracles
import pytest
import safetensors.torch
import torch

from xception.data.preprocess import Preprocess
from xception.errors import UserError
from xception.weights.card import read_card
from xception.weights.model_file import load_model, save_model
from xception.weights.names.sources import SOURCES
from xception.weights.readers.stored import ForeignFileError
from xception.weights.timm_files import read_timm

pytestmark = pytest.mark.filterwarnings("default::DeprecationWarning")


@pytest.fixture(scope="module")
def timm():
    return oracles.timm()


@pytest.fixture(scope="module")
def network(timm):
    torch.manual_seed(0)
    return timm.create_model("test_resnet", num_classes=5).eval()


@pytest.mark.parametrize("kind", ["safetensors", "torch"])
def test_it_answers_as_timms_own(network, tmp_path, kind):
    path = tmp_path / "weights"
    if kind == "torch":
        torch.save(network.state_dict(), path)
    else:
        safetensors.torch.save_file(network.state_dict(), path)
    model = read_timm("timm:test_resnet", path)
    size = model.card.preprocess.size
    assert size == network.default_cfg["input_size"][-1]
    assert model.card.preprocess.mean == tuple(network.default_cfg["mean"])
    assert model.card.classes == ("0", "1", "2", "3", "4")
    x = torch.randn(2, 3, size, size)
    torch.testing.assert_close(model(x), network(x))
    ours = tmp_path / "model.safetensors"
    save_model(ours, model, model.card)
    torch.testing.assert_close(load_model(ours)(x), network(x))
    assert read_card(ours).source["network"] == "test_resnet"


@pytest.mark.slow
def test_a_last_layer_that_is_a_convolution_there(timm, tmp_path):
    torch.manual_seed(0)
    theirs = timm.create_model("dpn48b", num_classes=3).eval()
    torch.save(theirs.state_dict(), tmp_path / "w.pth")
    model = read_timm("timm:dpn48b", tmp_path / "w.pth", size=64)
    x = torch.randn(1, 3, 64, 64)
    torch.testing.assert_close(model(x), theirs(x), rtol=1e-4, atol=1e-4)
    assert model.card.preprocess.size == 64


def test_what_the_logits_stand_for(timm, network, tmp_path):
    path = tmp_path / "w.pth"
    torch.save(network.state_dict(), path)
    likely = ("ant", "bee", "cat", "dog", "elk")
    assert read_timm("timm:test_resnet", path, likely=likely).card.classes == likely
    assert read_timm("timm:test_resnet", path, likely=("ant",)).card.classes[0] == "0"
    torch.save(timm.create_model("test_resnet").state_dict(), path)
    assert "tench" in read_timm("timm:test_resnet", path).card.classes[0]


def test_the_notes_name_the_files_that_are_fed_otherwise(timm):
    found = {}
    for architecture, layout in (("inception_v3", "torchvision"), ("xception65", "timm")):
        source = next(s for s in SOURCES if (s.layout, s.network) == (layout, architecture))
        fed = Preprocess(size=299, **source.preprocess)
        for name in timm.list_pretrained(f"{architecture}.*"):
            theirs = timm.get_pretrained_cfg(name)
            alike = (theirs.mean, theirs.std, theirs.crop_pct) == (fed.mean, fed.std, fed.crop)
            found[name] = alike
            last = source.note.rpartition(";")[2]
            assert (name.partition(".")[2] in last) is not alike
            assert name.partition(".")[2] in source.note
    assert [name for name, alike in found.items() if not alike] == [
        "inception_v3.gluon_in1k",
        "xception65.ra3_in1k",
    ]


def test_files_of_something_else(network, tmp_path):
    path = tmp_path / "w.pth"
    state = network.state_dict()
    torch.save({n: v for n, v in state.items() if n != "conv1.0.weight"}, path)
    with pytest.raises(ForeignFileError, match=r"it has no conv1|it lacks 'conv1"):
        read_timm("timm:test_resnet", path)
    torch.save(state | {"more": torch.zeros(3)}, path)
    with pytest.raises(ForeignFileError, match="it alone has 'more'"):
        read_timm("timm:test_resnet", path)
    torch.save({"weight": torch.zeros(3)}, path)
    with pytest.raises(ForeignFileError, match="is it of this network"):
        read_timm("timm:test_resnet", path)
    torch.save(state, path)
    with pytest.raises(UserError):
        read_timm("timm:test_vit", path)
    with pytest.raises(UserError, match="no network called"):
        read_timm("timm:resnet_of_mine", path)
