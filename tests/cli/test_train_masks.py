"""`xception train` on photos with masks."""

import json
import shutil
from pathlib import Path

import pytest
import yaml

from xception.cli.main import run
from xception.data.scenes import write_scenes
from xception.weights.card import read_card

TINY = {
    "backbone": "mobilenet_v1",
    "backbone_options": {"width": 0.05, "padding": "symmetric"},
    "rates": [1],
    "encoder_channels": 8,
    "low_level_channels": 4,
    "decoder_channels": 8,
}
SETTINGS = ["--set", f"model_options={json.dumps(TINY)}", "--size", "33", "--batch-size", "4"]
SETTINGS += ["--epochs", "1", "--workers", "0", "--device", "cpu", "--set", "joint.shorter_side=36"]


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("cli") / "Szenen é"
    write_scenes(root, 20, 40, 1)
    return root


@pytest.fixture(scope="module")
def trained(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "scenes 1"
    assert run(["train", str(scenes), "--out", str(folder), *SETTINGS, "--quiet"]) == 0
    return folder


def test_masks_are_found_and_the_run_is_complete(trained: Path, scenes: Path):
    config = yaml.safe_load((trained / "config.yaml").read_text("utf-8"))
    assert (config["recipe"], config["model"]) == ("segment", "deeplab_v3plus")
    assert config["joint"]["crop"] == [33, 33]
    assert config["preprocess"]["size"] == 33
    names = {path.name for path in trained.iterdir()}
    assert names >= {"model.safetensors", "last.ckpt", "metrics.csv", "report.html", "report.json"}
    assert read_card(trained / "model.safetensors").task == "segmentation"
    header = (trained / "metrics.csv").read_text("utf-8").splitlines()[0]
    assert "val_miou" in header


def test_the_answer_for_programs(xception, trained: Path, scenes: Path):
    result = xception("train", scenes, "--out", trained, "--resume", "--json", "--quiet")
    assert (result.status, result.stderr) == (0, "")
    answer = json.loads(result.stdout)
    assert answer["split"] == "test"
    assert 0 <= answer["metrics"]["miou"] <= 1
    assert set(answer["metrics"]["iou"]) == set(read_card(trained / "model.safetensors").classes)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--recipe", "scratch"], "recipe segment"),
        (["--model", "xception41"], "model_options.backbone=xception41"),
        (["--set", "sampler=balanced"], "sampler is a setting for other photos"),
        (["--layout", "vok"], "--layout"),
        (["--classes", "nowhere.txt"], "nowhere.txt"),
    ],
)
def test_wrong_wishes(
    xception, scenes: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
    arguments: list[str], message: str,
):  # fmt: skip
    monkeypatch.chdir(tmp_path)
    result = xception("train", scenes, *arguments, "--quiet")
    assert result.status == 2
    assert message in result.stderr
    assert len(result.stderr.splitlines()) <= 2


def test_classes_that_do_not_count(xception, scenes: Path, tmp_path: Path):
    folder = tmp_path / "run"
    result = xception(
        "train", scenes, "--out", folder, *SETTINGS, "--ignore", "1", "--ignore", "7", "--quiet"
    )
    assert result.status == 0
    assert read_card(folder / "model.safetensors").classes == ("ground", "square", "triangle")
    config = yaml.safe_load((folder / "config.yaml").read_text("utf-8"))
    assert config["masks"]["ignore"] == [1, 7]
    result = xception("train", scenes, "--out", folder, "--resume", "--quiet")
    assert result.status == 0  # with the same classes


@pytest.mark.parametrize("said", [["--layout", "folders"], ["--set", "masks.layout=folders"]])
def test_what_is_said_of_masks_goes_before_a_table(
    xception, scenes: Path, tmp_path: Path, said: list[str]
):
    set_with_table = tmp_path / "set"
    shutil.copytree(scenes, set_with_table)
    photo = next(set_with_table.rglob("images/*")).relative_to(set_with_table)
    (set_with_table / "captions.csv").write_text(f"path,label\n{photo.as_posix()},a disc\n")
    folder = tmp_path / "run"
    result = xception("train", set_with_table, "--out", folder, *SETTINGS, *said, "--quiet")
    assert result.status == 0
    assert read_card(folder / "model.safetensors").task == "segmentation"
    assert yaml.safe_load((folder / "config.yaml").read_text("utf-8"))["joint"]["crop"] == [33, 33]
    # A resumed run knows it from its own configuration.
    result = xception("train", set_with_table, "--out", folder, "--resume", "--quiet")
    assert result.status == 0


def test_settings_for_masks_are_refused_for_classes(xception, photos: Path, tmp_path: Path):
    result = xception("train", photos, "--out", tmp_path / "run", "--layout", "voc")
    assert result.status == 2
    assert "no photo with a mask there (voc)" in result.stderr
