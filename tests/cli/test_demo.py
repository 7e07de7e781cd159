import json
from pathlib import Path

import pytest

from xception.cli import demo, demo_masks
from xception.cli.demo import free_folder


def test_the_whole_way_on_a_small_set(
    xception, photos: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    """The embedded photos take minutes; the way is the same with smaller ones."""
    monkeypatch.setattr(demo, "DEMO_PHOTOS", photos)
    tiny = {
        "model_options": {"width": 0.01, "middle": 0, "stem_stride": 1},
        "preprocess.size": 16,
        "batch_size": 8,
        "workers": 0,
        "device": "cpu",
    }
    monkeypatch.setattr(demo, "SETTINGS", tiny)
    monkeypatch.chdir(tmp_path)
    result = xception("demo", "--epochs", "1")
    assert result.status == 0
    assert "report: demo/report.html" in result.stdout
    assert "on 12 test photos" in result.stdout
    assert "epoch 1/1" in result.stderr
    rows = [line for line in result.stdout.splitlines() if line.startswith("test/")]
    assert len(rows) == 6
    assert {row.split("/")[1] for row in rows} == {"blue", "green", "red"}

    again = xception("demo", "--epochs", "1", "--quiet", "--json", "--seed", "1")
    answer = json.loads(again.stdout)
    assert again.stderr == ""
    assert answer["run"] == "demo-2"
    assert len(answer["examples"]) == 6
    report = json.loads((tmp_path / "demo-2/report.json").read_text("utf-8"))
    assert report["command"] == "xception demo --seed 1 --epochs 1"
    assert report["config"]["seed"] == 1


def test_scenes_with_masks(xception, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    tiny = {
        "model_options.backbone_options.width": 0.05,
        "model_options.encoder_channels": 8,
        "joint.crop": 33,
        "batch_size": 7,
        "workers": 0,
        "device": "cpu",
    }
    monkeypatch.setattr(demo_masks, "SETTINGS", demo_masks.SETTINGS | tiny)
    monkeypatch.setattr(demo_masks, "SCENES", 20)
    monkeypatch.setattr(demo_masks, "SIDE", 40)
    out = tmp_path / "Szenen é"
    result = xception("demo", "--masks", "--epochs", "1", "--out", out)
    assert result.status == 0, result.stderr
    assert "epoch 1/1" in result.stderr
    assert f"report: {out / 'report.html'}" in result.stdout
    rows = [line for line in result.stdout.splitlines() if line.startswith("test/")]
    assert len(rows) == 4
    assert all("ground" in row for row in rows)
    assert len(list((out / "masks").glob("*.overlay.jpg"))) == 4
    report = json.loads((out / "report.json").read_text("utf-8"))
    assert report["command"] == "xception demo --masks --seed 0 --epochs 1"


def test_folders_are_never_reused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.chdir(tmp_path)
    assert free_folder() == Path("demo")
    for name in ("demo", "demo-2"):
        Path(name).mkdir()
    assert free_folder() == Path("demo-3")
