from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from xception import create_model
from xception.cost.count import count
from xception.errors import UserError
from xception.studies.catalogue import STUDIES
from xception.studies.cells import Cell, cells
from xception.studies.claims import Better
from xception.studies.preflight import settle
from xception.studies.study import Arm, Equal, Study


@pytest.fixture
def photos(tmp_path: Path):
    """Makes photos of so many classes."""

    def make(classes: int) -> Path:
        for number in range(classes):
            folder = tmp_path / f"photos-{classes}" / f"class-{number:03d}"
            folder.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (8, 8)).save(folder / "one.png")
        return tmp_path / f"photos-{classes}"

    return make


def settled(name: str, photos: Path, settings: dict[str, Any], seeds: int = 1) -> list[Cell]:
    grid = cells(STUDIES[name], "tiny", seeds, photos.parent / "study", settings)
    return settle(STUDIES[name], "tiny", grid, photos)


def parameters(cell: Cell, classes: int) -> int:
    with torch.device("meta"):
        network = create_model(cell.config.model, **cell.config.model_options, num_classes=classes)
    return sum(values.numel() for values in network.parameters())


@pytest.mark.parametrize("name", ["segments", "segments-macs", "inception-vs-xception"])
def test_with_ten_classes_the_studies_own_numbers_are_right(name: str, photos: Any):
    grid = settled(name, photos(10), {})
    own = cells(STUDIES[name], "tiny", 1, Path("anywhere"))
    # Cells of earlier versions keep their settings.
    assert [cell.config for cell in grid] == [cell.config for cell in own]


@pytest.mark.parametrize(
    ("name", "classes", "settings"),
    [
        ("segments", 100, {}),
        ("segments", 10, {"model_options.middle": 4}),
        ("segments", 10, {"model_options.width": 0.5}),
        ("inception-vs-xception", 100, {}),
        ("inception-vs-xception", 10, {"model_options.width": 0.36}),
    ],
)
def test_the_budget_is_that_of_the_measure_with_these_photos_and_settings(
    name: str, classes: int, settings: dict[str, Any], photos: Any
):
    grid = settled(name, photos(classes), settings)
    sizes = {cell.arm: parameters(cell, classes) for cell in grid}
    measure = sizes["depthwise" if name == "segments" else "inception-v3"]
    assert all(abs(size - measure) <= 0.01 * measure for size in sizes.values())
    assert measure not in (729_914, 701_858)  # of 10 classes and no settings


def test_equal_multiply_adds_stay_equal_with_larger_pictures(photos: Any):
    grid = settled("segments-macs", photos(10), {"preprocess.size": 40})
    found = []
    for cell in grid:
        with torch.device("meta"):
            network = create_model("xception", **cell.config.model_options, num_classes=10)
        found.append(count(network, 40).total["macs"])
    assert max(found) <= 1.02 * min(found)


def test_networks_that_are_not_equal_are_refused_with_their_numbers(photos: Any):
    with pytest.raises(UserError) as caught:
        settled("segments-macs", photos(10), {"model_options.middle": 8})
    message = str(caught.value)
    assert "not within 1 % of as many multiply-adds: segments-1 " in message
    with torch.device("meta"):
        network = create_model("xception", width=0.25, middle=8, stem_stride=1, num_classes=10)
    assert f"depthwise {count(network, 32).total['macs']:,};" in message
    assert not (photos(2).parent / "study").exists()  # nothing was begun


def test_a_budget_that_no_width_gives_names_the_network(photos: Any):
    with pytest.raises(UserError, match=r"study segments, arm segments-1: .*no width gives"):
        settled("segments", photos(10), {"model_options.width": 0.01})


def test_a_measure_that_is_no_arm():
    arms = (Arm("a"), Arm("b"))
    with pytest.raises(ValueError, match="letters: no arm is called"):
        Study("letters", "", "", "", Better("b", than=("a",)), arms, equal=Equal("macs", "c"))


def test_an_option_that_a_network_does_not_have_is_named_before_anything_is_trained(photos: Any):
    with pytest.raises(UserError, match=r"study order, arm depthwise-first: .*'midle'.*'middle'"):
        settled("order", photos(2), {"model_options.midle": 1})


def test_settings_of_which_nothing_came_are_not_held_against_the_study(photos: Any):
    before = settled("order", photos(2), {"epochs": 3})
    for cell in before:
        cell.prepare()  # and the training failed
    first, _ = settled("order", photos(2), {"epochs": 4})
    before[0].run.mkdir()
    (before[0].run / "config.yaml").touch()
    assert first.begun
    with pytest.raises(UserError, match="begun with other settings"):
        settled("order", photos(2), {"epochs": 4})
    settled("order", photos(2), {"epochs": 3})


def test_a_finished_cell_keeps_its_settings(photos: Any):
    first, _ = settled("order", photos(2), {"epochs": 3})
    first.prepare()
    first.result.touch()
    with pytest.raises(UserError, match="begun with other settings"):
        settled("order", photos(2), {"epochs": 4})
