"""From a path of photos to what a network is calibrated with and measured by."""

import shutil
from pathlib import Path

import click
import pytest
from PIL import Image
from segmenters import small_segmenter
from small_networks import small

from xception.cli import bench, export
from xception.cli.material import MaskOptions, open_material, photos_to_compare
from xception.data.scenes import SCENE_CLASSES, write_scenes
from xception.errors import UserError
from xception.weights.card import Card

NAMES = tuple(name for name, _ in SCENE_CLASSES)


@pytest.fixture(scope="module")
def card() -> Card:
    return small_segmenter().card


@pytest.fixture
def scenes(tmp_path: Path) -> Path:
    write_scenes(tmp_path / "scenes", 20, 40, seed=2)
    return tmp_path / "scenes"


def test_damaged_pairs_are_left_out_and_counted(
    card: Card, scenes: Path, capsys: pytest.CaptureFixture[str]
):
    named = card.model_copy(update={"classes": NAMES})
    held_out = len(list((scenes / "validation/images").iterdir()))
    mask, photo = (
        next((scenes / place).iterdir()) for place in ("validation/masks", "train/images")
    )
    for damaged in (mask, photo):
        damaged.write_bytes(damaged.read_bytes()[:60])
    material = open_material(scenes, named, calibration=99, held_out=99, quiet=False)
    assert "skipping 2 unusable pairs" in capsys.readouterr().err
    assert material.held_out == held_out - 1
    assert len(list(material.questions())) == min(held_out - 1, 8)


def test_masks_are_read_as_the_training_read_them(
    card: Card, scenes: Path, capsys: pytest.CaptureFixture[str]
):
    """The last value does not count: a model of three classes knows no fourth."""
    (scenes / "classes.txt").unlink()
    masks = MaskOptions(ignore=(len(NAMES) - 1,))
    fewer = card.model_copy(update={"classes": tuple(f"class {i}" for i in range(len(NAMES) - 1))})
    with pytest.raises(UserError):
        open_material(scenes, fewer, calibration=2, held_out=2, quiet=True)
    found = open_material(scenes, fewer, calibration=2, held_out=2, quiet=True, masks=masks)
    assert (found.calibration, found.held_out) == (2, 2)


def test_options_of_masks_are_refused_where_there_are_none(tmp_path: Path):
    network = small("mobilenet_v1", size=32)
    masks = MaskOptions(layout="voc", ignore=(3,))
    with pytest.raises(UserError, match=r"--layout, --ignore: for models that segment"):
        open_material(tmp_path, network.card, calibration=1, held_out=1, quiet=True, masks=masks)


@pytest.mark.parametrize("verb", [bench.command, export.command], ids=["bench", "export"])
def test_both_verbs_take_the_options_of_masks(verb: click.Command):
    assert {"layout", "classes", "ignore"} <= {option.name for option in verb.params}


def test_a_table_is_a_data_set_to_compare_on(tmp_path: Path):
    for number in range(40):
        Image.new("RGB", (number + 1, 1)).save(tmp_path / f"{number}.png")
    shutil.copy(tmp_path / "0.png", tmp_path / "not in the table.png")
    table = tmp_path / "photos.csv"
    table.write_text("path,label\n" + "".join(f"{n}.png,a\n" for n in range(20, 40)))
    widths = [photo.width for photo in photos_to_compare(table)]
    assert widths == list(range(21, 37))
    for number in range(20, 40):
        (tmp_path / f"{number}.png").write_bytes(b"nothing")
    with pytest.raises(UserError, match=r"photos\.csv: not one photo can be read"):
        photos_to_compare(table)
