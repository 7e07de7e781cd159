import json
from pathlib import Path

import pytest
import safetensors.torch
import torch
import yaml

from xception.models.mobilenet_v1 import MobileNetV1
from xception.training import recipes
from xception.weights.card import read_card
from xception.weights.convert import to_foreign
from xception.weights.hub import PUBLISHED, Fetched
from xception.weights.names.sources import SOURCES


@pytest.fixture
def theirs(tmp_path: Path) -> Path:
    """A small MobileNet as timm saves it."""
    torch.manual_seed(0)
    model = MobileNetV1(num_classes=3, width=0.25, padding="symmetric", norm_epsilon=1e-5)
    source = next(one for one in SOURCES if (one.layout, one.model) == ("timm", "mobilenet_v1"))
    arrays = to_foreign(model, source)
    path = tmp_path / "fremde Gewichte é.safetensors"
    safetensors.torch.save_file({k: torch.from_numpy(v) for k, v in arrays.items()}, path)
    return path


def test_what_a_file_is(xception, theirs: Path):
    result = xception("convert", theirs)
    assert result.status == 0
    assert "timm's mobilenetv1_100, here mobilenet_v1" in result.stdout
    assert "padding symmetric" in result.stdout


def test_there_and_back(xception, theirs: Path, tmp_path: Path):
    ours, again = tmp_path / "ours.safetensors", tmp_path / "again.pth"
    names = tmp_path / "names.txt"
    names.write_text("Hund\nKatze\nMaus\n\n", "utf-8-sig")  # as Windows' editors write it
    result = xception(
        "convert", theirs, "--to", ours, "--classes", names, "--license", "MIT", "--json"
    )
    assert result.status == 0
    answer = json.loads(result.stdout)
    assert answer["source"] == "timm's mobilenetv1_100"
    assert (answer["model"], answer["out"], answer["layout"]) == (
        "mobilenet_v1",
        str(ours),
        "xception",
    )
    assert answer["left_out"] == []
    assert answer["note"] == ""
    assert answer["classifier"] is True
    assert read_card(ours).classes == ("Hund", "Katze", "Maus")
    assert read_card(ours).license == "MIT"
    assert xception("convert", ours, "--to", again).status == 0
    before, after = safetensors.torch.load_file(theirs), torch.load(again, weights_only=True)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_where_two_files_part(xception, theirs: Path, tmp_path: Path):
    state = safetensors.torch.load_file(theirs)
    state["blocks.2.1.conv_dw.weight"] += 1
    other = tmp_path / "other.pth"
    torch.save(state, other)
    result = xception("convert", theirs, "--compare", other, "--size", "64")
    assert result.status == 0
    assert "they part at stage3.1.0.depthwise, whose weights differ" in result.stdout
    answer = json.loads(xception("convert", theirs, "--compare", other, "--json").stdout)
    assert answer["comparison"]["equal"] is False
    assert answer["comparison"]["first"] == "stage3.1.0.depthwise"
    assert answer["comparison"]["stages"]["stage2"] == 0
    same = xception("convert", theirs, "--compare", theirs, "--size", "64")
    assert "they agree within" in same.stdout


def test_what_is_asked_for_wrongly(xception, theirs: Path, tmp_path: Path):
    out = tmp_path / "out.safetensors"
    out.write_bytes(b"mine")
    names = tmp_path / "names.txt"
    names.write_text("a\nb\na\n", "utf-8")
    unknown = tmp_path / "unknown.safetensors"
    safetensors.torch.save_file({"a": torch.zeros(1)}, unknown)
    for arguments, message in (
        ((theirs, "--to", out), "it exists; --overwrite replaces it"),
        ((theirs, "--to", tmp_path / "a.onnx"), "what kind of file?"),
        ((theirs, "--classes", names), "'a' stands there twice"),
        ((theirs, "--classes", tmp_path / "none.txt"), "No such file"),
        ((theirs, "--drop-background", "--to", tmp_path / "missing" / "a.safetensors"), "cannot"),
        ((unknown,), "of such files these are: timm's legacy_xception"),
        ((tmp_path / "nothing.h5",), "No such file"),
        (("imagenet:vgg16",), "no weights are published for vgg16"),
    ):
        result = xception("convert", *arguments)
        assert result.status == 2, arguments
        assert message in result.stderr, arguments
        assert "Traceback" not in result.stderr
    assert out.read_bytes() == b"mine"
    assert xception("convert", theirs, "--to", out, "--overwrite").status == 0
    result = xception("convert", out, "--license", "MIT")
    assert result.status == 2
    assert "a model file of ours" in result.stderr


def test_a_run_is_a_file_of_ours(xception, trained: Path, tmp_path: Path):
    result = xception("convert", trained, "--json")
    assert json.loads(result.stdout)["source"] == "xception"
    result = xception("convert", trained, "--to", tmp_path / "a.weights.h5")
    assert result.status == 2
    assert "this model is not keras's Xception" in result.stderr


def test_a_training_starts_from_another_library_s_file(
    xception, theirs: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    fetched: list[str] = []

    def fetch(model: str) -> Fetched:
        fetched.append(model)
        return Fetched(theirs, "0" * 64, PUBLISHED[model])

    monkeypatch.setattr(recipes, "fetch", fetch)
    for weights in (str(theirs), "imagenet"):
        out = tmp_path / Path(weights).stem
        result = xception(
            "train", photos, "--out", out, "--weights", weights, "--model", "mobilenet_v1",
            "--freeze", "backbone", "--size", "32", "--epochs", "1", "--batch-size", "8",
            "--workers", "0", "--device", "cpu", "--quiet",
        )  # fmt: skip
        assert result.status == 0, result.stderr
        config = yaml.safe_load((out / "config.yaml").read_text("utf-8"))
        assert config["weights"] == str(theirs)
        assert config["model_options"]["padding"] == "symmetric"
        trained, before = (
            safetensors.torch.load_file(path) for path in (out / "model.safetensors", theirs)
        )
        assert torch.equal(trained["stem.0.weight"], before["conv_stem.weight"])
    assert fetched == ["mobilenet_v1"]
