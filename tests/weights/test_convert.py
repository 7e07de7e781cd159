"""What conversion refuses, fills in, leaves out and says; parity is tested in tests/parity."""

import os
from pathlib import Path

import h5py
import numpy as np
import pytest
import safetensors.torch
import torch

from xception.errors import UserError
from xception.models.mobilenet_v1 import MobileNetV1
from xception.models.zoo import create_model
from xception.weights.card import Architecture, Card, read_card
from xception.weights.convert import (
    NO_CLASSIFIER,
    Wishes,
    card_of,
    convert_file,
    is_ours,
    load_any,
    read_foreign,
    to_foreign,
)
from xception.weights.foreign_files import choose_source, write_foreign
from xception.weights.model_file import load_model, save_model, start_from
from xception.weights.names.source import Source, averaged_names, keras_names
from xception.weights.names.sources import SOURCES
from xception.weights.readers.stored import ForeignFileError

TIMM = {"width": 0.25, "padding": "symmetric", "norm_epsilon": 1e-5}


def source_of(layout: str, model: str = "mobilenet_v1") -> Source:
    return next(one for one in SOURCES if (one.layout, one.model) == (layout, model))


@pytest.fixture
def state() -> dict[str, torch.Tensor]:
    """A small MobileNet under timm's names."""
    torch.manual_seed(0)
    arrays = to_foreign(MobileNetV1(num_classes=4, **TIMM), source_of("timm"))
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "theirs ü.safetensors"


def test_the_card(state, file: Path, tmp_path: Path):
    safetensors.torch.save_file(state, file)
    out = tmp_path / "ours.safetensors"
    wishes = Wishes(classes=["a", "b", "c", "d"], license="MIT", origin={"repo": "some/where"})
    written = convert_file(file, out, wishes)
    assert all(value.is_meta for value in written.model.parameters())
    assert not is_ours(file)
    assert is_ours(out)
    card = read_card(out)
    assert card == written.model.card
    assert card.classes == ("a", "b", "c", "d")
    assert card.license == "MIT"
    assert card.preprocess.size == 224
    assert (card.preprocess.crop, card.preprocess.interpolation) == (0.875, "bicubic")
    assert card.source["repo"] == "some/where"
    assert card.source["library"] == "timm"
    assert card.architecture.options.items() >= TIMM.items()
    loaded, again = load_model(out), load_any(file)
    assert card_of(file).classes == ("0", "1", "2", "3")
    assert all(
        torch.equal(one, two)
        for one, two in zip(loaded.state_dict().values(), again.state_dict().values(), strict=True)
    )


def test_what_older_files_lack_and_halves(state, file: Path):
    counted = [name for name in state if name.endswith("num_batches_tracked")]
    for name in counted:
        del state[name]
    state = {name: value.half() for name, value in state.items()}
    safetensors.torch.save_file(state, file)
    found = read_foreign(file).model.state_dict()
    assert found["stem.0.weight"].dtype == torch.float32
    assert torch.equal(found["stem.0.weight"], state["conv_stem.weight"].float())
    assert found["stem.1.num_batches_tracked"] == 0


def test_without_a_classifier(state, file: Path, tmp_path: Path):
    kept = {name: value for name, value in state.items() if not name.startswith("classifier.")}
    safetensors.torch.save_file(kept, file)
    converted = read_foreign(file)
    assert converted.headless
    assert converted.model.card.classes == NO_CLASSIFIER
    again = tmp_path / "again.pth"
    source = choose_source(again, "mobilenet_v1", "timm")
    assert source is not None
    write_foreign(again, converted.model, source)
    assert torch.load(again, weights_only=True).keys() == kept.keys()
    target = MobileNetV1(num_classes=1, **TIMM)
    left = start_from(target, converted.model, file, classes=("cat",))
    assert sorted(left) == ["head.classifier.bias", "head.classifier.weight"]
    with pytest.raises(UserError, match="has no classifier, so no classes to name"):
        read_foreign(file, Wishes(classes=["a"]))
    with pytest.raises(UserError, match="has no background class to drop"):
        read_foreign(file, Wishes(background=False))


def test_the_background_class_can_be_dropped(state, file: Path):
    safetensors.torch.save_file(state, file)
    model = read_foreign(file, Wishes(background=False)).model
    assert model.options["num_classes"] == 3
    found = model.state_dict()
    assert torch.equal(found["head.classifier.weight"], state["classifier.weight"][1:])
    assert torch.equal(found["head.classifier.bias"], state["classifier.bias"][1:])


def test_the_background_class_is_dropped_from_a_tower_too(file: Path):
    source = source_of("torchvision", "inception_v3")
    with torch.device("meta"):
        options = {**source.options, "num_classes": 4, "auxiliary": True}
        ours = create_model("inception_v3", **options).state_dict()
    theirs = {row.theirs: ours[row.ours] for row in source.rows(ours)}
    halves = {k: torch.zeros(v.shape, dtype=torch.half) for k, v in theirs.items() if v.ndim}
    for name in ("fc.bias", "AuxLogits.fc.bias"):
        halves[name] += torch.arange(4)
    safetensors.torch.save_file(halves, file)
    model = read_foreign(file, Wishes(background=False)).model
    assert model.options["num_classes"] == 3
    for head in (model.head, model.get_submodule("auxiliary")):
        assert head.get_parameter("classifier.bias").tolist() == [1, 2, 3]
        assert head.get_parameter("classifier.weight").shape[0] == 3


def test_the_names_of_imagenet(state, file: Path):
    state["classifier.weight"], state["classifier.bias"] = torch.zeros(1001, 256), torch.zeros(1001)
    safetensors.torch.save_file(state, file)
    exact = read_foreign(file, Wishes(classes="imagenet")).model.card.classes
    assert exact[:3] == ("background", "tench", "goldfish")
    classes = read_foreign(file, Wishes(classes="imagenet", background=False)).model.card.classes
    assert classes == exact[1:]
    assert len(set(classes)) == 1000
    assert (classes[281], classes[999]) == ("tabby", "toilet tissue")
    assert classes[134] == "crane (n02012849)"
    state["classifier.weight"], state["classifier.bias"] = torch.zeros(5, 256), torch.zeros(5)
    safetensors.torch.save_file(state, file)
    with pytest.raises(UserError, match="has 5 logits: ImageNet has 1000 classes, not 5"):
        read_foreign(file, Wishes(classes="imagenet"))


def refusal(state: dict[str, torch.Tensor], file: Path) -> str:
    safetensors.torch.save_file(state, file)
    with pytest.raises(ForeignFileError) as caught:
        read_foreign(file)
    assert "\n" not in str(caught.value)
    return caught.value.reason


def test_nothing_is_left_unsaid(state, file: Path):
    lacking = {name: value for name, value in state.items() if name != "bn1.bias"}
    assert refusal(lacking, file) == "almost timm's mobilenetv1_100, but it lacks bn1.bias"
    more = state | {f"extra.{i}": torch.zeros(1) for i in range(5)}
    said = "almost timm's mobilenetv1_100, but it also has extra.0, extra.1, extra.2 and 2 more"
    assert refusal(more, file) == said
    thick = state | {"bn1.bias": torch.zeros(9)}
    assert refusal(thick, file).endswith("bn1.bias is (9,), not (8,)")
    assert "float64" in refusal(state | {"bn1.bias": torch.zeros(8).double()}, file)
    assert "known" in refusal({"a": torch.zeros(1)}, file)
    assert "counts in float32" in refusal(
        state | {"bn1.num_batches_tracked": torch.tensor(1.0)}, file
    )


def test_what_is_no_weight_is_left_out_by_name(state, file: Path):
    safetensors.torch.save_file(state | {"total_ops": torch.zeros(1)}, file)
    assert read_foreign(file).left_out == ("total_ops",)
    checkpoint = file.with_name("checkpoint.pth")
    torch.save({"state_dict": state, "state_dict_ema": state, "epoch": 3}, checkpoint)
    assert read_foreign(checkpoint).left_out == ("state_dict_ema",)
    averaged = {f"module.{name}": value for name, value in state.items()}
    torch.save(averaged | {"n_averaged": torch.tensor(5)}, checkpoint)
    assert read_foreign(checkpoint).left_out == ("n_averaged",)


def test_a_file_s_name_need_not_be_text(state, file: Path, tmp_path: Path):
    file = tmp_path / os.fsdecode(b"\xff\xe9.safetensors")
    file.write_bytes(safetensors.torch.save(state))
    convert_file(file, tmp_path / "ours.safetensors")
    assert read_card(tmp_path / "ours.safetensors").source["file"] == "??.safetensors"


def test_images_of_many_channels_cannot_be_fed(state, file: Path):
    state["conv_stem.weight"] = torch.zeros(8, 5, 3, 3)
    safetensors.torch.save_file(state, file)
    with pytest.raises(UserError, match="images of 5 channels"):
        read_foreign(file)


def test_the_wrong_number_of_classes(state, file: Path):
    safetensors.torch.save_file(state, file)
    with pytest.raises(UserError, match="has 4 logits, but 2 classes were named"):
        read_foreign(file, Wishes(classes=["a", "b"]))
    with pytest.raises(UserError, match=r"take 1,200,\d+ bytes of the card; 1,048,576 at most"):
        read_foreign(file, Wishes(classes=[letter * 300_000 for letter in "abcd"]))


def test_names_of_keras_1_and_2_whose_numbers_start_anywhere():
    renamed = keras_names(
        [
            *("conv2d_95/kernel", "conv2d_101/kernel", "conv2d_99/kernel"),
            *("batch_normalization/gamma", "batch_normalization_3/gamma"),
            *("convolution2d_7/convolution2d_7_W", "conv1/conv1_W", "conv1/b"),
            *("bn/running_std", "bn/bn_running_mean", "conv_dw_1/kernel", "predictions/kernel"),
        ]
    )
    assert renamed["conv2d_1/kernel"] in ("conv2d_95/kernel", "convolution2d_7/convolution2d_7_W")
    assert renamed["conv2d_3/kernel"] == "conv2d_99/kernel"
    assert renamed["conv2d_4/kernel"] == "conv2d_101/kernel"
    assert renamed["batch_normalization_1/gamma"] == "batch_normalization/gamma"
    assert renamed["batch_normalization_2/gamma"] == "batch_normalization_3/gamma"
    assert renamed["conv1/kernel"] == "conv1/conv1_W"
    assert renamed["conv1/bias"] == "conv1/b"
    assert renamed["bn/moving_variance"] == "bn/running_std"
    assert renamed["bn/moving_mean"] == "bn/bn_running_mean"
    assert renamed["conv_dw_1/depthwise_kernel"] == "conv_dw_1/kernel"
    assert renamed["predictions/kernel"] == "predictions/kernel"


def test_averages_come_before_plain_variables():
    average = "a/weights/ExponentialMovingAverage"
    assert averaged_names(["a/weights", average, "b/weights", "global_step"]) == {
        "a/weights": average,
        "b/weights": "b/weights",
        "global_step": "global_step",
    }


def test_a_definition_that_answers_otherwise_is_refused():
    ours = MobileNetV1(width=0.25)
    with pytest.raises(UserError, match=r"has padding symmetric, this model keras: there it would"):
        to_foreign(ours, source_of("timm"))
    assert to_foreign(ours, source_of("keras"))
    with torch.device("meta"):
        other = create_model("xception", middle=3)
    with pytest.raises(UserError, match="this model is not keras's Xception; it differs at"):
        to_foreign(other, source_of("keras", "xception"))


@pytest.mark.parametrize(
    ("name", "model", "layout", "message"),
    [
        ("a.onnx", "xception", None, "what kind of file"),
        ("a.pth", "xception", None, "--layout says whose names to write: timm, cadene, b5690688"),
        ("a.pth", "xception", "torchvision", "--layout may be timm, cadene, b5690688"),
        ("a.weights.h5", "xception65", None, "no library that has xception65 reads such files"),
        ("a.weights.h5", "xception", "timm", "timm has no xception in such files"),
    ],
)
def test_files_that_are_not_written(name: str, model: str, layout: str | None, message: str):
    with pytest.raises(UserError, match=message):
        choose_source(Path(name), model, layout)


def test_files_that_are_written():
    assert choose_source(Path("a.safetensors"), "xception", None) is None
    assert choose_source(Path("a.safetensors"), "xception", "xception") is None
    keras = choose_source(Path("A.WEIGHTS.H5"), "xception", None)
    assert keras is source_of("keras", "xception")
    only = choose_source(Path("a.pt"), "mobilenet_v1", None)
    assert only is source_of("timm")


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path, state, monkeypatch):
    model = MobileNetV1(width=0.25)
    out = tmp_path / "out.weights.h5"
    out.write_bytes(b"old")
    monkeypatch.setattr(h5py.File, "create_dataset", lambda *a, **k: (_ for _ in ()).throw(OSError))
    with pytest.raises(OSError):  # noqa: PT011
        write_foreign(out, model, source_of("keras"))
    assert out.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [out]


def test_the_card_tells_a_newer_field(tmp_path: Path):
    model = MobileNetV1(width=0.25, num_classes=1)
    path = tmp_path / "m.safetensors"
    card = Card(
        architecture=Architecture(name="mobilenet_v1", options=model.options),
        task="classification",
        classes=("a",),
        preprocess={"size": 32},  # pyright: ignore[reportArgumentType]
        source={"library": "timm"},
    )
    save_model(path, model, card)
    assert read_card(path).source == {"library": "timm"}
    assert np.array_equal(
        load_model(path).classifier.weight.numpy(force=True),
        model.classifier.weight.numpy(force=True),
    )
