import json
import shutil
from pathlib import Path

from xception.training.recipes import configure


def test_counts_and_findings(xception, photos: Path):
    result = xception("check", photos, "--size", "16")
    assert result.status == 0
    lines = [line.split() for line in result.stdout.splitlines()]
    assert lines[:4] == [
        ["class", "train", "validation", "test"],
        ["blue", "12", "4", "4"],
        ["green", "12", "4", "4"],
        ["red", "12", "4", "4"],
    ]
    assert "60 photos of 3 classes can be read." in result.stdout
    assert result.stderr == ""


def test_json(xception, photos: Path):
    answer = json.loads(xception("check", photos, "--json").stdout)
    assert answer["photos"] == 60
    assert answer["counts"]["train"] == {"blue": 12, "green": 12, "red": 12}
    assert answer["unreadable"] == {}
    assert answer["refusal"] is None
    assert answer["size"] == configure().preprocess.size  # what `train` would use
    (small,) = [f for f in answer["findings"] if f["kind"] == "small_images"]
    assert len(small["files"]) == 60


def test_status_1_where_training_would_refuse(xception, photos: Path, tmp_path: Path):
    copy = tmp_path / "copy"
    shutil.copytree(photos, copy)
    for number in range(4):
        (copy / "train/red" / f"{number}.png").write_bytes(b"\x89PNG\r\n\x1a\n no more")
    result = xception("check", copy, "--size", "16")
    assert result.status == 1
    assert "error: 4 of 60 photos cannot be read" in result.stdout
    assert result.stderr.startswith("training would refuse: 4 of 60")
    assert json.loads(xception("check", copy, "--json").stdout)["refusal"] is not None


def test_photos_that_are_no_set_are_refused_in_json_too(xception, photos: Path, tmp_path: Path):
    one = tmp_path / "one"
    shutil.copytree(photos / "train/red", one / "red")
    (tmp_path / "empty").mkdir()
    for folder, reason in ((one, "only the class 'red'"), (tmp_path / "empty", "no photos there")):
        result = xception("check", folder, "--json")
        assert result.status == 1
        assert reason in json.loads(result.stdout)["refusal"]
        plain = xception("check", folder)
        assert (plain.status, plain.stdout) == (1, "")
        assert plain.stderr.startswith(f"training would refuse: {folder}")


def test_a_path_that_is_not_there(xception, photos: Path):
    result = xception("check", photos.with_name("bunte Bilder e"))
    assert result.status == 2
    assert f"did you mean {photos}?" in result.stderr
