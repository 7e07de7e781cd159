import json
from pathlib import Path

import pytest
from mask_files import halves, mask, pairs_of, write_files

from xception.data.scenes import write_scenes


@pytest.fixture
def scenes(tmp_path: Path) -> Path:
    folder = tmp_path / "Szenen é 1"
    write_scenes(folder, 20, 32, 0)
    return folder


def test_what_is_found_and_what_is_in_it(xception, scenes: Path) -> None:
    result = xception("check", scenes)
    assert (result.status, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    assert lines[0] == "photos in train/images, masks in train/masks and so on."
    assert lines[1] == "4 classes from classes.txt."
    table = [line.split() for line in lines[3:8]]
    assert table[0] == ["class", "train", "validation", "test"]
    assert [row[0] for row in table[1:]] == ["ground", "disc", "square", "triangle"]
    shares = [float(row[1]) for row in table[1:]]
    assert sum(shares) == pytest.approx(100, abs=0.3)
    assert lines[-1] == "20 photos with masks of 4 classes: train 14, validation 2, test 4."


def test_json(xception, scenes: Path) -> None:
    answer = json.loads(xception("check", scenes, "--json").stdout)
    assert answer["task"] == "segmentation"
    assert answer["photos"] == 20
    assert answer["classes"] == ["ground", "disc", "square", "triangle"]
    assert answer["counts"] == {"train": 14, "validation": 2, "test": 4}
    assert sum(answer["pixels"]["test"].values()) == 4 * 32 * 32
    assert answer["refusal"] is None


def test_status_1_where_training_would_refuse(xception, scenes: Path) -> None:
    file = next((scenes / "train/masks").iterdir())
    file.write_bytes(mask(halves(32, 32, left=0, right=17)))
    result = xception("check", scenes)
    assert result.status == 1
    assert f"17 (512 pixels in 1 mask: train/masks/{file.name})" in result.stdout
    assert result.stderr.startswith("training would refuse: The masks hold values")
    answer = json.loads(xception("check", scenes, "--json").stdout)
    assert answer["unknown"] == {"17": {"pixels": 512, "files": [f"train/masks/{file.name}"]}}


def test_what_was_found_can_be_overridden(xception, tmp_path: Path) -> None:
    folder = write_files(tmp_path / "set", pairs_of(8, left=3, right=11))
    mine = tmp_path / "mine.txt"
    mine.write_text("3: road\n11: void\n12: sky\n")
    assert "class 11" in xception("check", folder).stdout
    result = xception("check", folder, "--classes", mine, "--json")
    assert json.loads(result.stdout)["classes"] == ["road", "sky"]
    assert result.status == 1  # no sky anywhere
    ignoring = json.loads(xception("check", folder, "--ignore", "11", "--json").stdout)
    assert "only 'class 3'" in ignoring["refusal"]
    camvid = json.loads(xception("check", folder, "--layout", "camvid", "--json").stdout)
    assert camvid["classes"][3] == "road"


def test_a_class_is_ignored_where_masks_are_read_by_colour(xception, scenes: Path) -> None:
    every = json.loads(xception("check", scenes, "--json").stdout)
    result = xception("check", scenes, "--ignore", "1", "--json")
    answer = json.loads(result.stdout)
    assert answer["classes"] == ["ground", "square", "triangle"]
    for split, pixels in every["pixels"].items():
        assert answer["ignored_pixels"][split] == pixels.pop("disc")
        assert answer["pixels"][split] == pixels


def test_wrong_wishes(xception, scenes: Path, tmp_path: Path) -> None:
    for arguments, message in (
        (("--size", "32"), "those with masks keep their size"),
        (("--classes", tmp_path / "gone.txt"), "no such file"),
    ):
        result = xception("check", scenes, *arguments)
        assert result.status == 2
        assert message in result.stderr
    result = xception("check", scenes, "--layout", "voc")
    assert result.status == 1
    assert "no photo with a mask there (voc)" in result.stderr
