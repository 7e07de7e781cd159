import functools
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from xception.data.masks import IGNORED
from xception.data.pair_loader import evaluation_pairs
from xception.data.pairs import open_pairs
from xception.data.splits import Split
from xception.errors import UserError
from xception.evaluation.any_size import WHOLE_PIXELS, AnyPhoto
from xception.evaluation.inference import WholePhoto
from xception.evaluation.segmentation import PixelCounts, evaluate_pairs
from xception.models.segmenter import Segmenter
from xception.models.zoo import create_model
from xception.training import pair_feed
from xception.training.distributed import World
from xception.training.pair_feed import PairFeed, count_pixels, refuse_too_large
from xception.training.run import train

from .conftest import tiny_masks


@pytest.fixture
def feed(scenes):
    return PairFeed(open_pairs(scenes), tiny_masks(), World(), workers=0)


def test_crops_are_normalised_and_targets_are_classes(feed):
    assert feed.steps_per_epoch == 3  # of 14 scenes, four at a time
    batches = list(feed.training(2, 5))
    assert len(batches) == 3
    for images, targets in batches:
        assert images.shape == (4, 3, 33, 33)
        assert images.is_contiguous(memory_format=torch.channels_last)
        assert -1 <= float(images.min()) < float(images.max()) <= 1
        assert targets.dtype == torch.int64
        assert set(targets.unique().tolist()) <= {*range(len(feed.pairs.classes)), IGNORED}


def test_any_step_can_be_the_first(feed):
    later = list(feed.training(0, 5))[3:]
    for (x, y), (a, b) in zip(feed.training(3, 5), later, strict=True):
        assert torch.equal(x, a)
        assert torch.equal(y, b)


def test_validation_counts_every_pixel_of_every_validation_scene(feed):
    model = create_model(
        "deeplab_v3plus", **feed.config.model_options, num_classes=len(feed.pairs.classes)
    )
    for parameter in model.classifier.parameters():
        torch.nn.init.zeros_(parameter)
    with torch.no_grad():  # it says class 1, whatever it sees
        model.classifier.get_parameter("bias")[1] = 5
    masks = [feed.pairs.mask(pair) for pair in feed.pairs.of("validation")]
    truths = np.concatenate([mask[mask != IGNORED] for mask in masks])
    share = float((truths == 1).mean())
    judged = feed.validation(model)
    assert judged is not None
    assert judged.figures["val_pixel_accuracy"] == pytest.approx(share)
    assert judged.score == judged.figures["val_miou"] == pytest.approx(share / len(set(truths)))


def test_a_network_for_whole_photos_is_refused(feed):
    with pytest.raises(TypeError, match="pixels"):
        feed.validation(torch.nn.Linear(1, 1))


def with_photo(scenes: Path, folder: Path, split: Split, size: tuple[int, int]) -> Path:
    """The scenes, and a photo of this width and height whose left half is class 0, and right 1."""
    shutil.copytree(scenes, folder)
    first = open_pairs(folder).of(split)[0]
    width, height = size
    columns = np.linspace(0, 255, width).astype(np.uint8)
    photo = np.broadcast_to(columns[None, :, None], (height, width, 3))
    mask = np.broadcast_to((np.arange(width) >= width // 2).astype(np.uint8), (height, width))
    for name, picture in ((first.photo, photo), (first.mask, mask)):
        path = (folder / name).with_name("a large one.png")
        Image.fromarray(np.ascontiguousarray(picture)).save(path)
    return folder


def segmenter(feed: PairFeed) -> Segmenter:
    """In training, with answers and statistics that depend on the place."""
    torch.manual_seed(3)
    model = create_model(
        "deeplab_v3plus", **feed.config.model_options, num_classes=len(feed.pairs.classes)
    )
    assert isinstance(model, Segmenter)
    with torch.no_grad():
        for images, _ in feed.training(0, 3):
            model.train()(images)
    return model


def counted_whole(model: Segmenter, feed: PairFeed, split: Split) -> PixelCounts:
    """What the network makes of whole photos."""
    whole = WholePhoto(
        model,
        feed.config.preprocess,
        device="cpu",
        output_stride=model.options["output_stride"],
        minimum_size=model.MINIMUM_SIZE,
        shorter_side=feed.config.joint.shorter_side,
    )
    batches = evaluation_pairs(feed.pairs, split, preprocess=feed.config.preprocess, workers=0)
    return evaluate_pairs(whole, batches, num_classes=len(feed.pairs.classes))


def assert_alike(found: PixelCounts, expected: PixelCounts) -> None:
    """Every pixel was counted; a few on the edge between two classes may go either way."""
    a, b = found.confusion, expected.confusion
    assert a.sum() == b.sum()
    assert np.abs(a - b).sum() <= 2e-3 * b.sum()
    assert found.loss == pytest.approx(expected.loss, rel=1e-4)
    assert found.photos.keys() == expected.photos.keys()


def test_a_large_validation_photo_is_measured_in_bands(scenes, tmp_path):
    """2 x 4300 pixels are an image of 2.3 million pixels at a shorter side of 33."""
    folder = with_photo(scenes, tmp_path / "scenes", "validation", (4300, 2))
    config = tiny_masks(joint={"crop": (33, 33), "scale": (1.0, 1.0), "shorter_side": 33})
    feed = PairFeed(open_pairs(folder), config, World(), workers=0)
    model = segmenter(feed)
    expected = counted_whole(model, feed, "validation")
    seen: list[int] = []
    model.register_forward_hook(lambda module, args, logits: seen.append(args[0][0, 0].numel()))
    found = count_pixels(model, feed.pairs, "validation", config, World(), 0)
    assert found is not None
    assert found.confusion.sum() >= 2 * 4300
    assert len(seen) == 2  # scenes of the fixture, whole
    assert max(seen) < WHOLE_PIXELS
    assert_alike(found, expected)
    judged = feed.validation(model)
    assert judged is not None
    assert judged.figures["val_loss"] == pytest.approx(expected.loss / expected.confusion.sum())
    assert model.training


def test_two_processes_count_in_bands_what_one_counts_whole(
    feed: PairFeed, monkeypatch: pytest.MonkeyPatch
):
    narrow = functools.partial(AnyPhoto, whole_pixels=1, band_bytes=20_000)
    monkeypatch.setattr(pair_feed, "AnyPhoto", narrow)
    model = segmenter(feed)
    expected = counted_whole(model, feed, "test")
    parts: list[Any] = []
    monkeypatch.setattr(pair_feed, "gather", lambda world, mine: parts.append(mine) or parts)
    found = None
    for rank in range(2):
        world = World(rank=rank, size=2)
        found = count_pixels(model, feed.pairs, "test", feed.config, world, 0)
    assert [len(part.photos) for part in parts] == [2, 2]
    assert found is not None
    assert_alike(found, expected)


@pytest.mark.parametrize("split", ["validation", "test"])
def test_a_photo_too_large_to_be_measured_is_named_before_training(scenes, tmp_path, split):
    """4000 / 1 times 384: the network would see 1.5 million rows of 385 pixels."""
    folder = with_photo(scenes, tmp_path / "scenes", split, (1, 4000))
    pairs = open_pairs(folder)
    (name,) = [pair.photo for pair in pairs.of(split) if "a large one" in pair.photo]
    config = tiny_masks(joint={"crop": (33, 33), "shorter_side": 384})
    network = segmenter(PairFeed(open_pairs(scenes), tiny_masks(), World(), workers=0))
    with pytest.raises(UserError) as caught:
        refuse_too_large(network, pairs, config)
    first, second = str(caught.value).splitlines()
    assert first.startswith(f"{name}: an image of 1536001x385 pixels is too large")
    assert f"training can begin without {name}" in second
    refuse_too_large(network, pairs.without([name]), config)
    refuse_too_large(network, pairs, tiny_masks())  # 1 x 4000 as it is
    with pytest.raises(UserError, match="too large"):
        train(folder, config, tmp_path / "run")
    assert not (tmp_path / "run" / "last.ckpt").exists()


def test_training_photos_may_be_of_any_shape(scenes, tmp_path):
    """Of those the network sees crops."""
    folder = with_photo(scenes, tmp_path / "scenes", "train", (1, 4000))
    config = tiny_masks(joint={"crop": (33, 33), "shorter_side": 384})
    feed = PairFeed(open_pairs(folder), config, World(), workers=0)
    refuse_too_large(segmenter(feed), feed.pairs, config)
    assert feed.steps_per_epoch == 3
