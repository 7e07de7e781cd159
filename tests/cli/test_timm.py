import json
from pathlib import Path

import oracles
import pytest
import torch
from safetensors.torch import save_file

from xception.weights.card import read_card
from xception.weights.model_file import load_classifier

SMALL = ["--set", "model_options={}", "--size", "32", "--batch-size", "8", "--workers", "0"]


@pytest.mark.filterwarnings("default::DeprecationWarning")
def test_a_network_of_timm_is_separated(xception, photos: Path, tmp_path: Path):
    torch.manual_seed(0)
    network = oracles.timm().create_model("test_resnet", num_classes=3)
    weights, out = tmp_path / "w é.safetensors", tmp_path / "new"
    save_file(network.state_dict(), weights)
    words = ["--weights", weights, "--size", "32", "--data", photos, "--out", out, "--rank", "1"]
    words += ["--calibrate", "0", "--curve", "none", "--workers", "0", "--device", "cpu"]
    done = xception("separate", "timm:test_resnet", *words, "--json", "--quiet")
    assert done.status == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["after"]["macs"] < report["before"]["macs"]
    assert {one["ranks"] for one in report["layers"]} == {1}
    changed = load_classifier(out / "model.safetensors")
    assert [one.layer for one in changed.surgery] == [one["name"] for one in report["layers"]]


@pytest.mark.filterwarnings("default::DeprecationWarning")
def test_a_network_of_timm_from_photos_to_answers(xception, photos: Path, tmp_path: Path):
    oracles.timm()
    run = tmp_path / "run"
    words = ["--model", "timm:test_resnet", "--epochs", "1", "--device", "cpu", "--quiet"]
    done = xception("train", photos, "--out", run, *SMALL, *words)
    assert done.status == 0, done.stderr
    card = read_card(run / "model.safetensors")
    assert card.architecture.name == "timm:test_resnet"
    assert card.architecture.options["architecture"] == "test_resnet"
    photo = photos / "test" / "red" / "0.png"
    answer = xception("predict", run, photo, "--json", "--explain", tmp_path / "where")
    assert answer.status == 0, answer.stderr
    (found,) = json.loads(answer.stdout)
    assert {one["label"] for one in found["top"]} == {"blue", "green", "red"}
    assert Path(found["explanation"]).is_file()
    measured = xception("evaluate", run, photos, "--json")
    assert measured.status == 0, measured.stderr
    assert json.loads(measured.stdout)["samples"] == 12


def test_a_wrong_name_is_answered_in_a_line(xception, photos: Path, tmp_path: Path):
    oracles.timm()
    done = xception("train", photos, "--out", tmp_path / "run", "--model", "timm:resnet81")
    assert done.status == 2
    assert "did you mean timm:resnet" in done.stderr
    assert "Traceback" not in done.stderr
