from typing import Any

import pytest
import torch
from model_files import join, split

from xception.data.preprocess import Preprocess
from xception.errors import UserError
from xception.models.segmenter import Segmenter
from xception.models.zoo import create_model
from xception.weights.card import Architecture, Card, ModelFileError, read_card
from xception.weights.model_file import load_classifier, load_model, load_weights, save_model

BACKBONE = {"width": 0.01, "middle": 1}
OPTIONS: dict[str, Any] = {
    "num_classes": 3,
    "backbone_options": BACKBONE,
    "encoder_channels": 8,
    "low_level_channels": 4,
    "decoder_channels": 8,
}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "Straßen.safetensors"


def network(name: str, **options: Any):
    torch.manual_seed(0)
    model = create_model(name, **options)
    with torch.no_grad():
        model(torch.randn(4, model.options["in_channels"], 40, 33))
    return model.eval()


def card(name: str, model, **fields: Any) -> Card:
    standard: dict[str, Any] = {
        "architecture": Architecture(name=name, options=model.options),
        "task": model.TASKS[0],
        "classes": tuple(f"class {i}" for i in range(model.options["num_classes"])),
        "preprocess": Preprocess(size=32, channels=model.options["in_channels"]),
    }
    return Card(**standard | fields)


def saved(path, name: str, **options: Any):
    model = network(name, **options)
    save_model(path, model, card(name, model))
    return model


def test_what_is_loaded_is_what_was_saved(path):
    model = saved(path, "deeplab_v3plus", **OPTIONS)
    loaded = load_model(path)
    assert isinstance(loaded, Segmenter)
    assert loaded.card == read_card(path)
    assert (loaded.card.task, loaded.card.version) == ("segmentation", "1.2")
    assert loaded.options == model.options
    x = torch.randn(2, 3, 21, 30)
    assert torch.equal(loaded(x), model(x))


def test_a_card_of_the_wrong_task_is_refused(path):
    model = saved(path, "deeplab_v3plus", **OPTIONS)
    message = "task classification, but the network does segmentation"
    with pytest.raises(ValueError, match=message):
        save_model(path, model, card("deeplab_v3plus", model, task="classification"))
    header, content, values = split(path.read_bytes())
    path.write_bytes(join(header, content | {"task": "classification"}, values))
    with pytest.raises(ModelFileError, match=f"its card is wrong: {message}"):
        load_model(path)


def test_a_classifier_cannot_be_had_from_it(path):
    saved(path, "deeplab_v3plus", **OPTIONS)
    with pytest.raises(UserError, match=r"Straßen.safetensors segments images"):
        load_classifier(path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backbone_options": BACKBONE | {"output_stride": 8}}, "cannot have output_stride"),
        ({"backbone_options": BACKBONE | {"width": 10**9}}, "width must be a number from"),
        ({"backbone_options": BACKBONE | {"depth": 1}}, "has no option 'depth'"),
        ({"backbone_options": 3}, "must be options with their values, not 3"),
        ({"backbone": "resnet"}, "backbone must be one of"),
        ({"encoder_channels": 10**12}, "encoder_channels must be a whole number"),
    ],
)
def test_hostile_options_are_refused_in_one_line(path, options, message):
    saved(path, "deeplab_v3plus", **OPTIONS)
    header, content, values = split(path.read_bytes())
    content["architecture"]["options"] |= options
    path.write_bytes(join(header, content, values))
    with pytest.raises(ModelFileError, match=message) as caught:
        load_model(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("classes", "kept"), [(3, 0), (5, 2)])
def test_start_at_another_output_stride_and_with_other_classes(path, classes, kept):
    source = saved(path, "deeplab_v3plus", **OPTIONS)
    changed = {"output_stride": 8, "dropout": 0.5, "num_classes": classes}
    target = create_model("deeplab_v3plus", **source.options | changed)
    left = load_weights(target, path)
    assert left == ["head.classifier.weight", "head.classifier.bias"][:kept]
    weights = target.state_dict()
    for name, value in source.state_dict().items():
        assert name in left or torch.equal(value, weights[name]), name


@pytest.mark.parametrize("backbone", ["xception41", "xception", "mobilenet_v1"])
def test_a_classifier_starts_the_backbone(path, backbone):
    options = BACKBONE if backbone != "mobilenet_v1" else {"width": 0.05, "padding": "same"}
    source = saved(path, backbone, num_classes=7, **options)
    target = create_model(
        "deeplab_v3plus", **OPTIONS | {"backbone": backbone, "backbone_options": options}
    )
    before = {name: value.clone() for name, value in target.state_dict().items()}
    left = load_weights(target, path, classes=("road", "sky", "car"))
    after = target.state_dict()
    for name, value in source.state_dict().items():
        if not name.startswith("head."):
            assert torch.equal(after[f"backbone.{name}"], value), name
    assert set(left) == {name for name in after if not name.startswith("backbone.")}
    assert all(torch.equal(after[name], before[name]) for name in left)


def test_another_backbone_starts_nothing(path):
    source = saved(path, "xception41", **BACKBONE)
    wider = OPTIONS | {"backbone_options": BACKBONE | {"width": 0.05}}
    target = create_model("deeplab_v3plus", **wider)
    before = {name: value.clone() for name, value in target.state_dict().items()}
    with pytest.raises(UserError, match=r"holds a AlignedXception\(width 0.01\), which cannot"):
        load_weights(target, path)
    assert all(torch.equal(before[name], value) for name, value in target.state_dict().items())
    save_model(path, source, card("xception41", source))
    chollet = create_model("deeplab_v3plus", **OPTIONS | {"backbone": "xception"})
    with pytest.raises(UserError, match="holds a AlignedXception"):
        load_weights(chollet, path)


def test_a_segmentation_network_starts_no_classifier(path):
    saved(path, "deeplab_v3plus", **OPTIONS)
    with pytest.raises(UserError, match="holds a DeepLabV3Plus"):
        load_weights(create_model("xception65", **BACKBONE), path)
