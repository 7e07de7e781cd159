"""What networks of eight bits are calibrated with and judged by."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from segmenters import small_segmenter
from small_networks import small

from xception.data.folders import Photo, PhotoSet
from xception.data.pairs import open_pairs
from xception.data.scenes import SCENE_CLASSES, write_scenes
from xception.data.store import FolderStore
from xception.deploy.engines import Engine
from xception.deploy.material import pair_material, photo_material
from xception.deploy.metadata import Precision
from xception.deploy.segment import PhotoSegmenter
from xception.errors import UserError
from xception.weights.card import Card


class Exported:
    """An engine that is not torch's: every pixel is of the first class."""

    name, minimum_size = "exported", 1
    precision: Precision = "fp32"

    def __init__(self, card: Card):
        self.card = card
        self.seen: list[tuple[int, int]] = []

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        height, width = x.shape[2:]
        self.seen.append((height, width))
        logits = x.new_zeros(1, len(self.card.classes), height, width)
        logits[:, 0] = 1
        return logits


class Smaller(PhotoSegmenter):
    """What an exported network sees at once is small."""

    def __init__(self, engine: Engine, **options: Any):
        super().__init__(engine, whole_pixels=150 * 150, **options)


def test_of_photos_too_large_for_an_exported_network_the_middle_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("xception.deploy.material.PhotoSegmenter", Smaller)
    write_scenes(tmp_path, 10, 170, seed=0)
    names = tuple(name for name, _ in SCENE_CLASSES)
    card = small_segmenter().card.model_copy(update={"classes": names})
    pairs = open_pairs(tmp_path).like(names)
    lines: list[str] = []
    material = pair_material(pairs, card, calibration=1, questions=1, held_out=1, say=lines.append)
    assert material.metric == "miou"
    engine = Exported(card)
    score = material.score(engine)
    # A tenth off the longer side at a time: 170, 153, 137; with its border that makes 145.
    for seen in (*engine.seen, *(tuple(x.shape[2:]) for x in material.inputs())):
        assert seen == (145, 145)
    assert len(engine.seen) == len(lines) == 1

    with Image.open(tmp_path / "validation/masks/0007.png") as mask:
        truth = np.asarray(mask)[16:153, 16:153]
    counted = truth[truth != 255]
    # The IoU of the first class is its share, that of the others that occur is 0.
    expected = (counted == 0).mean() / len(np.unique(counted))
    assert score == pytest.approx(expected)


def test_photos_that_show_no_class_measure_nothing(tmp_path: Path):
    """Average precision needs a photo that shows the class: refused before anything is computed."""
    card = small("mobilenet_v1", size=32).card.model_copy(update={"task": "multilabel"})

    def material(*labels: tuple[int, ...]):
        held_out = tuple(Photo(f"{i}.png", some, "validation") for i, some in enumerate(labels))
        photos = (Photo("seen.png", (0,), "train"), *held_out)
        chosen = PhotoSet(FolderStore(tmp_path), card.classes, photos, True, (), ())
        return photo_material(chosen, card, calibration=1, questions=1, held_out=9)

    with pytest.raises(UserError, match="nothing to measure: the validation photos"):
        material((), ())
    assert material((), (1,)).held_out == 2
