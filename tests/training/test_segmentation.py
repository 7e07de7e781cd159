"""Training on photos with masks, from the pairs to the run folder."""

import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from xception.data.pairs import open_pairs
from xception.data.preprocess import Preprocess
from xception.data.splits import Split
from xception.errors import UserError
from xception.models.segmenter import Segmenter
from xception.models.zoo import create_model
from xception.training.assembly import build_network
from xception.training.checkpoint import load_checkpoint
from xception.training.config import parse
from xception.training.interrupts import Interrupted
from xception.training.progress import Silent
from xception.training.recipes import configure
from xception.training.run import train
from xception.training.segmentation import check_pairs
from xception.training.trained import TrainedSegmenter
from xception.weights.card import Architecture, Card, read_card
from xception.weights.model_file import load_model, save_model

from .conftest import tiny, tiny_masks
from .test_run import Signals, run_processes


@pytest.fixture(scope="module")
def finished(scenes, tmp_path_factory):
    """A training that nothing interrupted."""
    return train(scenes, tiny_masks(epochs=8), tmp_path_factory.mktemp("run") / "scenes")


def bytes_of(trained):
    return (trained.folder / "model.safetensors").read_bytes()


def test_it_learns(scenes, finished):
    assert isinstance(finished, TrainedSegmenter)
    assert finished.split == "test"
    assert finished.metrics["samples"] == len(finished.counts.photos) == 4
    first, last = finished.history[0], finished.history[-1]
    assert last["train_loss"] < 0.9 * first["train_loss"]
    assert last["train_accuracy"] > first["train_accuracy"]
    assert {"val_loss", "val_miou", "val_pixel_accuracy"} <= last.keys()


def test_the_card_says_what_the_file_is(scenes, finished):
    card = read_card(finished.folder / "model.safetensors")
    assert card.task == "segmentation"
    pairs = open_pairs(scenes)
    assert (card.classes, card.colours) == (pairs.classes, pairs.colours)
    assert card.architecture.name == "deeplab_v3plus"
    assert parse(card.training, "card").joint.crop == (33, 33)
    best = max(finished.history, key=lambda row: (row["val_miou"], -row["val_loss"]))
    names = ("val_loss", "val_miou", "val_pixel_accuracy")
    assert card.metrics["validation"] == {name: best[name] for name in names}


@pytest.mark.parametrize(("step", "signum"), [(4, signal.SIGTERM), (6, signal.SIGINT)])
def test_a_stopped_and_resumed_run_ends_with_the_same_bytes(
    scenes, finished, tmp_path, step, signum
):  # 3 steps an epoch: in the middle of one, and at the end
    folder = tmp_path / "run"
    with pytest.raises(Interrupted):
        train(scenes, tiny_masks(epochs=8), folder, progress=Signals(step, signum))
    assert load_checkpoint(folder / "last.ckpt")["position"]["step"] == step
    assert bytes_of(train(scenes, None, folder, resume=True)) == bytes_of(finished)


def test_resuming_with_a_mask_that_changed_is_refused(scenes, tmp_path):
    copy = tmp_path / "scenes"
    shutil.copytree(scenes, copy)
    train(copy, tiny_masks(epochs=1), tmp_path / "run")
    mask = copy / open_pairs(copy).of("train")[0].mask
    with Image.open(mask) as image:
        image.transpose(Image.Transpose.FLIP_TOP_BOTTOM).save(mask)
    with pytest.raises(UserError, match="other photos"):
        train(copy, None, tmp_path / "run", resume=True)


@pytest.mark.slow
def test_two_processes_give_the_numbers_of_one(scenes, tmp_path):
    settings = {
        "class_weights": "softened",
        "dropout": 0.5,
        "optimizer": {"name": "sgd", "learning_rate": 0.005},
        "pixel_loss": {"dice": 0.5},
    }
    one, two = (
        run_processes(count, scenes, tmp_path / str(count), settings, make="tiny_masks")
        for count in (1, 2)
    )
    for a, b in zip(one[0], two[0], strict=True):
        for key in ("train_loss", "train_accuracy", "val_loss", "val_miou", "step", "lr"):
            assert a[key] == pytest.approx(b[key], abs=1e-4), key
    assert one[1]["samples"] == two[1]["samples"] == 4  # every test scene counted once
    assert one[1]["pixels"] == two[1]["pixels"]
    assert one[1]["miou"] == pytest.approx(two[1]["miou"], abs=1e-4)


def ignore_all(root: Path, split: Split, first: int | None = None):
    """Masks of 255, which mean nothing."""
    for pair in open_pairs(root).of(split)[:first]:
        with Image.open(root / pair.mask) as image:
            blank = Image.fromarray(np.full((image.height, image.width), 255, np.uint8))
        blank.save(root / pair.mask)


def test_steps_without_a_pixel_that_counts_do_no_harm(scenes, tmp_path):
    copy = tmp_path / "scenes"
    shutil.copytree(scenes, copy)
    ignore_all(copy, "train", 12)  # of 14: some steps have two ignored scenes only
    config = tiny_masks(epochs=2, batch_size=2, pixel_loss={"dice": 1})
    result = train(copy, config, tmp_path / "run")
    assert all(np.isfinite(row["train_loss"]) for row in result.history)
    assert all(bool(p.isfinite().all()) for p in result.model.parameters())


def test_masks_of_nothing_but_ignored_pixels_are_refused_before_training(scenes, tmp_path):
    copy = tmp_path / "scenes"
    shutil.copytree(scenes, copy)
    ignore_all(copy, "validation")
    with pytest.raises(UserError, match="ignored"):
        train(copy, tiny_masks(), tmp_path / "run")


def test_masks_that_cannot_be_used(scenes, tmp_path):
    copy = tmp_path / "scenes"
    shutil.copytree(scenes, copy)
    first, second, third, *_ = open_pairs(copy).of("train")
    torn = copy / first.mask
    torn.write_bytes(torn.read_bytes()[:60])
    checked = check_pairs(copy, tiny_masks(), Silent())  # one of twenty is left out
    assert set(checked.audit.unreadable) == {first.photo}
    assert first.photo not in {pair.photo for pair in checked.pairs.pairs}
    with Image.open(copy / second.mask) as image:
        image.crop((0, 0, 36, 35)).save(copy / second.mask)
    with pytest.raises(UserError, match=r"36 × 35 pixels, but its photo has 36 × 36"):
        train(copy, tiny_masks(), tmp_path / "run")
    shutil.copy(scenes / second.mask, copy / second.mask)
    Image.fromarray(np.full((36, 36), 9, np.uint8)).save(copy / third.mask)
    with pytest.raises(UserError, match=rf"9 \(1,296 pixels in 1 mask: {third.mask}\)"):
        train(copy, tiny_masks(), tmp_path / "run")
    assert not (tmp_path / "run/last.ckpt").exists()


def test_a_network_for_whole_photos_is_refused(scenes, tmp_path):
    config = tiny_masks(model="xception41", model_options={"width": 0.01})
    with pytest.raises(UserError, match=r"model_options.backbone=xception41"):
        train(scenes, config, tmp_path / "run")


def test_settings_for_other_photos_are_refused(scenes, photos, tmp_path):
    with pytest.raises(UserError, match=r"augment is a setting for other photos.*recipe segment"):
        train(scenes, tiny_masks(augment={"flip": True}), tmp_path / "run")
    with pytest.raises(UserError, match="pixel_loss is a setting for other photos"):
        train(photos, tiny(pixel_loss={"dice": 1}), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def subject(scenes):
    return check_pairs(scenes, tiny_masks(), Silent())


def test_a_classifier_gives_its_backbone(scenes, tmp_path):
    torch.manual_seed(5)
    source = create_model("xception", num_classes=3, width=0.01, middle=1)
    card = Card(
        architecture=Architecture(name="xception", options=source.options),
        task="classification",
        classes=("a", "b", "c"),
        preprocess=Preprocess(size=64, mean=(0.4,), std=(0.25,), mirror=True),
    )
    path = tmp_path / "classifier.safetensors"
    save_model(path, source, card)
    config = configure(settings={"weights": str(path), "epochs": 1}, task="segmentation")
    assert config.recipe == "segment"
    assert (config.model, config.model_options["backbone"]) == ("deeplab_v3plus", "xception")
    assert config.preprocess.mean == (0.4, 0.4, 0.4)
    assert config.preprocess.std == (0.25, 0.25, 0.25)
    assert not config.preprocess.mirror
    assert config.preprocess.size == max(config.joint.crop)
    model = build_network(subject(scenes), config)
    assert isinstance(model, Segmenter)
    backbone, given = model.backbone.state_dict(), source.state_dict()
    assert {name for name in given if not name.startswith("head.")} == backbone.keys()
    assert all(torch.equal(backbone[name], given[name]) for name in backbone)


def test_a_segmenter_of_other_classes_gives_all_but_its_head(finished, tmp_path, scenes):
    other = tmp_path / "scenes"
    shutil.copytree(scenes, other)
    text = (other / "classes.txt").read_text("utf-8")
    (other / "classes.txt").write_text(text.replace(finished.card.classes[1], "something else"))
    settings = {"weights": str(finished.folder), "model_options.output_stride": 8}
    config = configure(settings=settings, task="segmentation")
    model = build_network(subject(other), config)
    assert model.options["output_stride"] == 8
    before, after = finished.model.state_dict(), model.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"head.classifier.weight", "head.classifier.bias"}


def test_a_second_stage_keeps_the_statistics_of_the_first(finished, scenes, tmp_path):
    settings = {
        **{name: finished.config.model_dump()[name] for name in ("joint", "workers", "device")},
        **{"weights": str(finished.folder), "epochs": 1, "batch_size": 1},
    }
    config = configure(recipe="deeplab-voc-os8", settings=settings, task="segmentation")
    assert config.model_options["output_stride"] == 8
    assert config.model_options["encoder_channels"] == 8  # of the first stage
    result = train(scenes, config, tmp_path / "run")  # one scene a step: no statistics are made
    before = load_model(finished.folder / "model.safetensors").state_dict()
    after = result.model.state_dict()
    statistics = [name for name in before if "running_" in name]
    assert statistics
    assert all(torch.equal(before[name], after[name]) for name in statistics)
    assert not torch.equal(before["aspp.project.0.weight"], after["aspp.project.0.weight"])
