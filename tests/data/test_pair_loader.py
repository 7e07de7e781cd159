import dataclasses
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from mask_files import encoded, halves, mask, photo, write_files
from PIL import Image

from xception.data.images import ImageError, decode
from xception.data.joint import JointAugment
from xception.data.loader import BatchKey, LoaderError
from xception.data.masks import MaskError, UnknownValues
from xception.data.pair_loader import (
    PairBatch,
    PairMaker,
    PairStream,
    evaluation_pairs,
    read_pair,
)
from xception.data.pairs import PairSet, open_pairs
from xception.data.preprocess import Preprocess

PREPROCESS = Preprocess(size=8)
AUGMENT = JointAugment(crop=(9, 11), scale=(0.5, 2.0), scale_step=0.25, flip=True, brightness=0.4)
COUNTS = {"train": 11, "validation": 5, "test": 2}


def files() -> dict[str, bytes]:
    """Photos of growing size, whose masks hold their number and a border that does not count."""
    made = {}
    for split, count in COUNTS.items():
        for i in range(count):
            values = halves(10 + i, 14, left=i % 3, right=2)
            values[0] = 255
            made[f"{split}/images/{i:02}.jpg"] = photo(10 + i, 14, seed=i)
            made[f"{split}/masks/{i:02}.png"] = mask(values)
    return made


@pytest.fixture(scope="module")
def pairs(tmp_path_factory) -> PairSet:
    return open_pairs(write_files(tmp_path_factory.mktemp("pairs"), files()))


def stream(pairs: PairSet, **changes) -> PairStream:
    arguments = {
        "preprocess": PREPROCESS,
        "augment": AUGMENT,
        "batch_size": 4,
        "seed": 3,
        "first_step": 0,
        "last_step": 6,
        "workers": 0,
    }
    return PairStream(pairs, **(arguments | changes))


def same(left: list[PairBatch], right: list[PairBatch]) -> bool:
    return len(left) == len(right) and all(
        torch.equal(a, b)
        for one, other in zip(left, right, strict=True)
        for a, b in zip(one, other, strict=True)
    )


def test_batches(pairs: PairSet) -> None:
    for batch in stream(pairs):
        assert batch.pixels.shape == (4, 9, 11, 3)
        assert batch.targets.shape == (4, 9, 11)
        assert batch.pixels.dtype == batch.targets.dtype == torch.uint8
        assert batch.positions.dtype == torch.int64
        assert set(batch.targets.unique().tolist()) <= {0, 1, 2, 255}


def test_an_epoch_takes_each_photo_once_in_a_new_order(pairs: PairSet) -> None:
    batches = list(stream(pairs, last_step=4))  # 11 photos in batches of 4: 2 steps an epoch
    epochs = [
        torch.cat([b.positions for b in part]).tolist() for part in (batches[:2], batches[2:])
    ]
    for epoch in epochs:
        assert len(set(epoch)) == 8
    assert epochs[0] != epochs[1]


def test_photo_and_mask_stay_together(tmp_path: Path) -> None:
    # The mask is in the photo: red stands where the class is 1.
    rng = np.random.default_rng(0)
    made = {}
    for i in range(8):
        values = np.kron(rng.integers(0, 2, (4, 5)), np.ones((8, 8))).astype(np.uint8)
        split = "train" if i < 6 else "val"
        red = np.stack([values * 255, values * 0, values * 0], axis=-1)
        made[f"{split}/images/{i}.png"] = mask(red)
        made[f"{split}/masks/{i}.png"] = mask(values)
    drawn = open_pairs(write_files(tmp_path, made))
    augment = JointAugment(crop=(24, 24), scale=(0.5, 2.0), flip=True)
    black = Preprocess(size=8, mean=(0.0,), std=(1.0,))
    for batch in stream(drawn, augment=augment, preprocess=black, last_step=10):
        counted = batch.targets != 255
        red = batch.pixels[..., 0]
        # Right at an edge the photo is a blend; at a corner a quarter of it is enough.
        wrong = counted & ((red > 200) & (batch.targets == 0) | (red < 55) & (batch.targets == 1))
        assert not wrong.any()
        assert (red[~counted] == 0).all()
        assert counted.any()


def test_the_number_of_workers_changes_nothing(pairs: PairSet) -> None:
    alone = list(stream(pairs))
    assert same(alone, list(stream(pairs, workers=2)))
    assert not same(alone, list(stream(pairs, seed=4)))


def test_a_stream_started_later_is_the_tail(pairs: PairSet) -> None:
    whole = list(stream(pairs))
    for first in range(7):
        assert same(whole[first:], list(stream(pairs, first_step=first)))
    assert len(stream(pairs, first_step=4)) == 2


def test_processes_share_each_batch(pairs: PairSet) -> None:
    parts = [list(stream(pairs, rank=rank, world=2)) for rank in (0, 1)]
    joined = [
        PairBatch(*(torch.cat(both) for both in zip(a, b, strict=True)))
        for a, b in zip(*parts, strict=True)
    ]
    assert same(list(stream(pairs)), joined)


def test_batches_that_cannot_be_shared_are_refused(pairs: PairSet) -> None:
    with pytest.raises(LoaderError, match="3 processes cannot share a batch of 4"):
        stream(pairs, world=3)
    none = dataclasses.replace(pairs, pairs=pairs.of("test"))
    with pytest.raises(LoaderError, match="no training photos"):
        stream(none)
    (batch,) = stream(pairs, batch_size=100, last_step=1)
    assert sorted(batch.positions.tolist()) == list(range(11))


def evaluated(pairs: PairSet, **changes) -> list[PairBatch]:
    arguments = {"preprocess": PREPROCESS, "workers": 0}
    return list(evaluation_pairs(pairs, "validation", **(arguments | changes)))


def test_evaluation_shows_each_photo_once_at_its_own_size(pairs: PairSet) -> None:
    batches = evaluated(pairs)
    assert [batch.positions.tolist() for batch in batches] == [[i] for i in range(5)]
    for i, (batch, pair) in enumerate(zip(batches, pairs.of("validation"), strict=True)):
        assert batch.pixels.shape == (1, 10 + i, 14, 3)
        image = decode(pairs.photo(pair), pair.photo)
        assert np.array_equal(batch.pixels[0].numpy(), np.array(image))
        assert np.array_equal(batch.targets[0].numpy(), pairs.mask(pair))
        assert (batch.targets[0, 0] == 255).all()


def test_processes_share_the_evaluation(pairs: PairSet) -> None:
    for world in (2, 3, 7):
        parts = [
            batch for rank in range(world) for batch in evaluated(pairs, rank=rank, world=world)
        ]
        assert same(parts, evaluated(pairs))


def test_evaluation_in_workers_and_in_grey(pairs: PairSet) -> None:
    assert same(evaluated(pairs), evaluated(pairs, workers=1))
    grey = evaluated(pairs, preprocess=Preprocess(size=8, channels=1))
    assert grey[0].pixels.shape == (1, 10, 14, 1)


def test_a_turned_photo_is_read_upright(tmp_path: Path) -> None:
    turned = Image.Exif()
    turned[0x0112] = 6
    made = files() | {"train/images/00.jpg": photo(14, 10, exif=turned)}
    pairs = open_pairs(write_files(tmp_path, made))
    read = read_pair(pairs, pairs.of("train")[0])
    assert read.image.size == (14, 10)
    assert read.mask.shape == (10, 14)


@pytest.mark.parametrize("workers", [0, 1])
def test_what_is_wrong_with_a_pair_is_said_by_its_name(tmp_path: Path, workers: int) -> None:
    for number, (name, data, error, message) in enumerate(
        (
            ("masks/03.png", mask(halves(13, 15)), MaskError, "15 × 13 pixels, but its photo"),
            ("masks/03.png", mask(halves(14, 13)), MaskError, "before that was turned upright"),
            ("masks/03.png", mask(halves(13, 14, right=9)), UnknownValues, "unknown mask values"),
            ("images/03.jpg", photo(13, 14)[:300], ImageError, "truncated or damaged JPEG"),
        )
    ):
        made = files() | {"classes.txt": b"a\nb\nc\n", f"train/{name}": data}
        pairs = open_pairs(write_files(tmp_path / str(number), made))
        with pytest.raises(error, match=f"03.*{message}"):
            list(stream(pairs, workers=workers, batch_size=11))


def test_a_large_photo_is_decoded_no_larger_than_needed(tmp_path: Path) -> None:
    made = {}
    for split in ("train", "val"):
        made[f"{split}/images/0.jpg"] = photo(400, 600)
        made[f"{split}/masks/0.png"] = mask(halves(400, 600))
    pairs = open_pairs(write_files(tmp_path, made))
    pair = pairs.of("train")[0]
    assert read_pair(pairs, pair).image.size == (600, 400)
    assert read_pair(pairs, pair, scaled_side=lambda size: 100).image.size == (150, 100)
    small = JointAugment(crop=(50, 75), shorter_side=50)
    (batch,) = stream(pairs, augment=small, batch_size=1, last_step=1)
    exact = np.array(decode(pairs.photo(pair), "p").resize((75, 50), Image.Resampling.BILINEAR))
    assert np.abs(batch.pixels[0].numpy().astype(int) - exact).mean() < 2
    assert np.array_equal(batch.targets[0].numpy(), halves(50, 75))


def test_the_maker_survives_pickling(pairs: PairSet) -> None:
    maker = PairMaker(pairs, pairs.of("train"), PREPROCESS, AUGMENT, 3)
    key = BatchKey(0, 0, [2, 5])
    again = pickle.loads(pickle.dumps(maker))
    made, remade = maker[key], again[key]
    assert isinstance(made, PairBatch)
    assert isinstance(remade, PairBatch)
    assert same([made], [remade])


def test_photos_that_are_no_jpegs(tmp_path: Path) -> None:
    made = {name.replace(".jpg", ".png"): data for name, data in files().items()}
    for name in made:
        if "images" in name:
            image = decode(made[name], name)
            made[name] = encoded(image)
    pairs = open_pairs(write_files(tmp_path, made))
    assert len(list(stream(pairs, last_step=2))) == 2
