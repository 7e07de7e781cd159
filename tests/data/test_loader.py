import dataclasses
import itertools
import multiprocessing
import os
import pickle
import signal
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from xception.data.folders import PhotoSet, open_photos
from xception.data.images import ImageError
from xception.data.loader import (
    Batch,
    BatchKey,
    BatchMaker,
    LoaderError,
    TrainingStream,
    evaluation_batches,
)
from xception.data.preprocess import Preprocess
from xception.data.store import FolderStore
from xception.data.transforms import Augment
from xception.errors import UserError

PREPROCESS = Preprocess(size=8)
AUGMENT = Augment(crop_scale=(0.3, 1.0), pad_crop=1, flip=True, brightness=0.4, erase=0.3)
COUNTS = {"train/cat": 12, "train/dog": 5, "validation/cat": 3, "validation/dog": 4, "test/cat": 1}


def save_photos(folder: Path) -> None:
    rng = np.random.default_rng(0)
    for group, count in COUNTS.items():
        (folder / group).mkdir(parents=True)
        for i in range(count):
            pixels = rng.integers(0, 256, (10 + i, 14, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / group / f"{i:02}.jpg")


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> PhotoSet:
    folder = tmp_path_factory.mktemp("photos")
    save_photos(folder)
    return open_photos(folder)


def stream(photos: PhotoSet, **changes) -> TrainingStream:
    arguments = {
        "preprocess": PREPROCESS,
        "augment": AUGMENT,
        "batch_size": 4,
        "seed": 3,
        "first_step": 0,
        "last_step": 9,
        "workers": 0,
    }
    return TrainingStream(photos, **(arguments | changes))


def same(left: list[Batch], right: list[Batch]) -> bool:
    return len(left) == len(right) and all(
        torch.equal(a, b)
        for one, other in zip(left, right, strict=True)
        for a, b in zip(one, other, strict=True)
    )


def test_an_epoch_takes_each_photo_once_in_a_new_order(photos):
    # 17 photos in batches of 4: 4 steps an epoch, one photo waits.
    batches = list(stream(photos, last_step=8))
    epochs = [
        torch.cat([b.positions for b in part]).tolist() for part in (batches[:4], batches[4:])
    ]
    for epoch in epochs:
        assert len(set(epoch)) == 16
        assert set(epoch) <= set(range(17))
    assert epochs[0] != epochs[1]


def test_batches_are_uint8_with_their_labels(photos):
    for batch in stream(photos, last_step=4):
        assert batch.pixels.shape == (4, 8, 8, 3)
        assert batch.pixels.dtype == torch.uint8
        assert batch.targets.dtype == batch.positions.dtype == torch.int64
        for position, target in zip(batch.positions, batch.targets, strict=True):
            name = photos.of("train")[int(position)].name
            assert name.startswith(f"train/{photos.classes[int(target)]}/")


def test_without_augmentation_the_pixels_are_those_of_evaluation(photos):
    (batch,) = stream(photos, augment=Augment(), last_step=1)
    for pixels, position in zip(batch.pixels, batch.positions, strict=True):
        photo = photos.of("train")[int(position)]
        expected = PREPROCESS.tensor(photos.read(photo), photo.name)
        assert torch.equal(PREPROCESS.normalize(pixels[None]), expected)


def test_the_number_of_workers_changes_nothing(photos):
    alone = list(stream(photos))
    for workers in (1, 2):
        assert same(alone, list(stream(photos, workers=workers)))
    assert not same(alone, list(stream(photos, seed=4)))


@pytest.mark.parametrize("sampler", ["shuffle", "balanced"])
def test_a_stream_started_later_is_the_tail(photos, sampler):
    whole = list(stream(photos, sampler=sampler))
    for first in range(10):
        assert same(whole[first:], list(stream(photos, sampler=sampler, first_step=first)))
    assert len(stream(photos, first_step=7)) == 2


@pytest.mark.parametrize("sampler", ["shuffle", "balanced"])
def test_processes_share_each_batch(photos, sampler):
    whole = list(stream(photos, sampler=sampler))
    parts = [list(stream(photos, sampler=sampler, rank=rank, world=2)) for rank in (0, 1)]
    joined = [
        Batch(*(torch.cat(both) for both in zip(a, b, strict=True)))
        for a, b in zip(*parts, strict=True)
    ]
    assert same(whole, joined)


def test_fewer_photos_than_a_batch_are_a_batch(photos):
    batches = list(stream(photos, batch_size=100, last_step=3))
    for batch in batches:
        assert sorted(batch.positions.tolist()) == list(range(17))


def test_batches_that_cannot_be_shared_are_refused(photos):
    with pytest.raises(LoaderError, match="3 processes cannot share a batch of 4"):
        stream(photos, world=3)
    with pytest.raises(LoaderError, match="a batch size that 2 divides, of at most 17"):
        stream(photos, batch_size=100, world=2)
    with pytest.raises(LoaderError, match="choose a batch size that 4 divides instead of 6"):
        stream(photos, batch_size=6, world=2, augment=Augment(mixup=0.2))
    stream(photos, batch_size=6, world=2)


def test_no_training_photos_is_an_error(photos):
    empty = photos.without(photo.name for photo in photos.of("train"))
    with pytest.raises(LoaderError, match="no training photos"):
        stream(empty)


def test_balanced_draws_the_classes_evenly(photos):
    batches = list(
        stream(photos, sampler="balanced", augment=Augment(), batch_size=16, last_step=60)
    )
    shares = np.bincount(torch.cat([b.targets for b in batches]), minlength=2) / 960
    np.testing.assert_allclose(shares, 0.5, atol=0.065)  # 4 standard deviations; 0.71 unbalanced
    seen = torch.cat([b.positions for b in batches]).unique()
    assert len(seen) == 17


def test_a_photo_drawn_twice_is_changed_anew(photos):
    (batch,) = stream(photos, sampler="balanced", batch_size=16, last_step=1)
    pixels = [image.numpy().tobytes() for image in batch.pixels]
    assert len(batch.positions.unique()) < 16
    assert len(set(pixels)) == 16


@pytest.mark.parametrize("world", [1, 2, 3, 9])
def test_evaluation_counts_each_photo_once(photos, world):
    positions = [
        batch.positions.tolist()
        for rank in range(world)
        for batch in evaluation_batches(
            photos,
            "validation",
            preprocess=PREPROCESS,
            batch_size=3,
            workers=0,
            rank=rank,
            world=world,
        )
    ]
    assert list(itertools.chain(*positions)) == list(range(7))
    assert max(map(len, positions)) <= 3


def test_evaluation_is_the_same_with_workers(photos):
    alone, two = (
        list(
            evaluation_batches(
                photos, "validation", preprocess=PREPROCESS, batch_size=2, workers=workers
            )
        )
        for workers in (0, 2)
    )
    assert same(alone, two)
    photo = photos.of("validation")[6]
    expected = PREPROCESS.tensor(photos.read(photo), photo.name)
    assert torch.equal(PREPROCESS.normalize(alone[3].pixels), expected)
    assert alone[3].targets.tolist() == list(photo.labels)


def test_grey_input(photos):
    (batch,) = stream(photos, preprocess=Preprocess(size=8, channels=1), last_step=1)
    assert batch.pixels.shape == (4, 8, 8, 1)


def test_several_labels_are_rows_of_zeros_and_ones(tmp_path):
    lines = ["path,label,split"]
    splits = ["train"] * 4 + ["validation", "test"]
    for i, labels in enumerate(["red|round", "round", "red|soft", "soft", "red", "red"]):
        Image.new("RGB", (8, 8), (i, i, i)).save(tmp_path / f"{i}.png")
        lines.append(f"{i}.png,{labels},{splits[i]}")
    (tmp_path / "labels.csv").write_text("\n".join(lines))
    photos = open_photos(tmp_path / "labels.csv")
    assert photos.classes == ("red", "round", "soft")
    (batch,) = stream(photos, last_step=1)
    assert batch.targets.dtype == torch.float32
    rows = {int(p): t.tolist() for p, t in zip(batch.positions, batch.targets, strict=True)}
    named = {photos.of("train")[p].name: row for p, row in rows.items()}
    assert named == {
        "0.png": [1, 1, 0],
        "1.png": [0, 1, 0],
        "2.png": [1, 0, 1],
        "3.png": [0, 0, 1],
    }


def test_a_zip_gives_the_same_batches_as_its_folder(photos, tmp_path):
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        for photo in photos.photos:
            archive.writestr(photo.name, photos.read(photo))
    zipped = open_photos(tmp_path / "photos.zip")
    assert same(list(stream(photos)), list(stream(zipped, workers=1)))


@pytest.mark.parametrize("workers", [0, 1])
def test_an_unreadable_photo_is_named(photos, tmp_path, workers):
    save_photos(tmp_path / "damaged")
    damaged = open_photos(tmp_path / "damaged")
    victim = damaged.of("train")[3]
    (tmp_path / "damaged" / victim.name).write_bytes(b"\xff\xd8\xff\xe0 nothing more")
    with pytest.raises(ImageError) as raised:
        list(stream(damaged, workers=workers))
    assert raised.value.name == victim.name
    assert "Traceback" not in str(raised.value)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_photo_that_went_away_is_named(photos, tmp_path, workers):
    save_photos(tmp_path / "less")
    less = open_photos(tmp_path / "less")
    victim = less.of("validation")[2]
    (tmp_path / "less" / victim.name).unlink()
    batches = evaluation_batches(
        less, "validation", preprocess=PREPROCESS, batch_size=2, workers=workers
    )
    next(batches)
    with pytest.raises(UserError, match=victim.name):
        next(batches)


class FaultyStore(FolderStore):
    def read(self, name: str) -> bytes:
        raise RuntimeError("a fault in the code")


@pytest.mark.parametrize("workers", [0, 1])
def test_a_fault_of_ours_is_not_taken_for_a_dead_worker(photos, workers):
    faulty = dataclasses.replace(photos, store=FaultyStore(photos.store.path))
    with pytest.raises(RuntimeError, match="a fault in the code"):
        list(stream(faulty, workers=workers))


def test_a_killed_worker_is_an_error_and_not_a_hang(photos):
    before = set(multiprocessing.active_children())
    batches = iter(stream(photos, workers=2, last_step=1000))
    next(batches)
    for worker in set(multiprocessing.active_children()) - before:
        assert worker.pid is not None
        os.kill(worker.pid, signal.SIGKILL)
    with pytest.raises(LoaderError, match="worker died"):
        for _ in batches:
            pass


def test_a_worker_ignores_interrupts(photos):
    before = set(multiprocessing.active_children())
    batches = iter(stream(photos, workers=1, last_step=30))
    seen = [next(batches)]
    for worker in set(multiprocessing.active_children()) - before:
        assert worker.pid is not None
        os.kill(worker.pid, signal.SIGINT)
    seen += batches
    assert same(seen, list(stream(photos, last_step=30)))


def test_stopping_early_stops_the_workers(photos):
    before = set(multiprocessing.active_children())
    batches = iter(stream(photos, workers=2, last_step=1000))
    next(batches)
    assert len(set(multiprocessing.active_children()) - before) == 2
    del batches
    assert set(multiprocessing.active_children()) <= before


def test_the_process_is_left_as_it_was(photos):
    state, handler = torch.get_rng_state(), signal.getsignal(signal.SIGCHLD)
    batches = iter(stream(photos, workers=1))
    next(batches)
    assert torch.equal(torch.get_rng_state(), state)
    assert signal.getsignal(signal.SIGCHLD) is handler
    del batches


def test_spawned_workers_give_the_same(photos):
    spawned = stream(photos, workers=1, start_method="spawn", last_step=2)
    assert same(list(stream(photos, last_step=2)), list(spawned))


def test_early_epochs_have_photos_of_the_sizes_asked_for(photos):
    # Four steps an epoch: two epochs of 6 and 10 pixels, then those of the preprocessing.
    grown = list(stream(photos, sizes=(6, 10)))
    sides = [batch.pixels.shape[1:3] for batch in grown]
    assert sides == [(6, 6)] * 4 + [(10, 10)] * 4 + [(PREPROCESS.size, PREPROCESS.size)]
    for first, size in ((0, 6), (4, 10)):
        plain = PREPROCESS.model_copy(update={"size": size})
        alone = stream(photos, preprocess=plain, first_step=first, last_step=first + 4)
        assert same(grown[first : first + 4], list(alone))
    assert same(grown[8:], list(stream(photos, first_step=8)))
    assert same(grown[3:6], list(stream(photos, sizes=(6, 10), first_step=3, last_step=6)))


def test_what_goes_to_a_worker_can_be_pickled(photos):
    maker = BatchMaker(photos, photos.of("train"), PREPROCESS, AUGMENT, 3)
    key = BatchKey(1, 4, [2, 0])
    made, copied = maker[key], pickle.loads(pickle.dumps(maker))[key]
    assert isinstance(made, Batch)
    assert isinstance(copied, Batch)
    assert same([made], [copied])
