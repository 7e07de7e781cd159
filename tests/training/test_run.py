import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import trainings

from xception.errors import UserError
from xception.training.checkpoint import load_checkpoint
from xception.training.config import read_config, to_yaml
from xception.training.interrupts import Interrupted
from xception.training.progress import Silent
from xception.training.run import train
from xception.training.trained import TrainedClassifier
from xception.weights.card import read_card
from xception.weights.model_file import load_model

from .conftest import COLOURS, paint, tiny


@pytest.fixture(scope="module")
def finished(photos, tmp_path_factory):
    """A training that nothing interrupted."""
    folder = tmp_path_factory.mktemp("run") / "squares"
    return train(photos, tiny(epochs=6), folder)


def test_it_learns_three_colours(finished):
    assert finished.split == "test"
    assert finished.metrics["samples"] == 12
    assert finished.metrics["top1"] >= 0.9  # chance is 0.33


def test_the_run_folder_is_complete(finished):
    names = {name for name in os.listdir(finished.folder) if not name.startswith(".")}
    assert names == {"model.safetensors", "last.ckpt", "config.yaml", "metrics.csv"}
    assert read_config(finished.folder / "config.yaml") == finished.config
    assert len((finished.folder / "metrics.csv").read_text().splitlines()) == 1 + 6


def test_the_card_says_what_the_file_is(finished):
    card = read_card(finished.folder / "model.safetensors")
    assert card.classes == ("blue", "green", "red")
    assert card.task == "classification"
    assert card.preprocess.size == 16
    assert card.training is not None
    assert card.training["epochs"] == 6
    best = max(finished.history, key=lambda row: (row["val_top1"], -row["val_loss"]))
    assert card.metrics["validation"] == {key: best[key] for key in ("val_top1", "val_loss")}


class Signals(Silent):
    """Sends this process a signal at a step, as a person or a batch system would."""

    def __init__(self, step, signum):
        self.at, self.signum = step, signum

    def step(self, step, row):
        if step == self.at:
            os.kill(os.getpid(), self.signum)


@pytest.mark.parametrize(
    ("step", "signum"), [(1, signal.SIGTERM), (10, signal.SIGINT), (17, signal.SIGTERM)]
)
def test_a_stopped_and_resumed_run_ends_with_the_same_bytes(
    photos, finished, tmp_path, step, signum
):  # 5 steps an epoch: after the first, at the end of an epoch, in the middle
    folder = tmp_path / "run"
    with pytest.raises(Interrupted) as caught:
        train(photos, tiny(epochs=6), folder, progress=Signals(step, signum))
    assert caught.value.signum == signum
    assert load_checkpoint(folder / "last.ckpt")["position"]["step"] == step
    train(photos, None, folder, resume=True)
    whole, resumed = (f / "model.safetensors" for f in (finished.folder, folder))
    assert resumed.read_bytes() == whole.read_bytes()


@pytest.fixture
def hears_interrupts():
    """What a shell starts in the background ignores SIGINT, and so would the tests."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("hears_interrupts")
@pytest.mark.parametrize("place", ["run.check_photos", "features._compute"])
def test_before_the_first_step_it_stops_at_once(photos, finished, tmp_path, monkeypatch, place):
    def interrupt(*args):
        os.kill(os.getpid(), signal.SIGINT)
        pytest.fail("it went on")

    monkeypatch.setattr(f"xception.training.{place}", interrupt)
    start = str(finished.folder / "model.safetensors")
    with pytest.raises(KeyboardInterrupt):
        train(photos, tiny(weights=start, freeze="backbone", epochs=1), tmp_path / "run")


@pytest.mark.usefixtures("hears_interrupts")
def test_while_it_is_judged_it_stops_at_once_and_can_be_judged_later(
    photos, finished, tmp_path, monkeypatch
):
    def interrupt(*args):
        os.kill(os.getpid(), signal.SIGINT)
        pytest.fail("it went on")

    folder = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr("xception.training.assembly.Assembly.judge", interrupt)
        with pytest.raises(KeyboardInterrupt):
            train(photos, tiny(epochs=1), folder)
    assert train(photos, None, folder, resume=True).metrics["samples"] == 12


def test_a_batch_of_one_photo_that_shrinks_to_one_pixel_is_refused(photos, tmp_path):
    config = tiny(batch_size=1, average_decay=None, augment={}, preprocess={"size": 8})
    with pytest.raises(UserError, match="larger batch_size"):
        train(photos, config, tmp_path / "run")


def test_a_finished_run_can_be_resumed_for_its_judgement(photos, finished):
    again = train(photos, None, finished.folder, resume=True)
    assert again.metrics == finished.metrics


def test_killed_at_any_moment_and_resumed_it_ends_with_the_same_bytes(photos, finished, tmp_path):
    folder = tmp_path / "run"
    for wait_for in ("config.yaml", "last.ckpt", "model.safetensors"):
        path = folder / wait_for
        seen = path.stat().st_mtime_ns if path.exists() else 0
        process = trainings.start(photos, tiny(epochs=6), folder)
        while process.is_alive():
            if path.exists() and path.stat().st_mtime_ns != seen:
                process.kill()
                break
            time.sleep(0.005)
        process.join()
        assert process.exitcode in (-signal.SIGKILL, 0)
    last = trainings.start(photos, tiny(epochs=6), folder)
    last.join()
    assert last.exitcode == 0
    whole, resumed = (f / "model.safetensors" for f in (finished.folder, folder))
    assert resumed.read_bytes() == whole.read_bytes()


def test_resuming_with_other_photos_is_refused(photos, finished, tmp_path):
    other = tmp_path / "photos"
    for number in range(6):
        for name, colour in COLOURS.items():
            paint(other / name / f"{number}.png", colour, number + 99)
    with pytest.raises(UserError, match="other photos"):
        train(other, None, finished.folder, resume=True)


def test_a_folder_that_holds_a_run_is_not_overwritten(photos, finished):
    with pytest.raises(UserError, match=r"already holds a run.*--resume"):
        train(photos, tiny(), finished.folder)


def test_a_folder_that_holds_something_else_is_not_touched(photos, tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(UserError, match="not empty"):
        train(photos, tiny(), tmp_path)
    assert os.listdir(tmp_path) == ["thesis.txt"]


def test_nothing_to_resume(photos, tmp_path):
    with pytest.raises(UserError, match="nothing to resume"):
        train(photos, tiny(), tmp_path / "run", resume=True)


def test_a_refused_resume_changes_nothing(photos, finished):
    path = finished.folder / "config.yaml"
    before = path.read_bytes()
    with pytest.raises(UserError, match="epochs was 6 and would be 9"):
        train(photos, tiny(epochs=9), finished.folder, resume=True)
    assert path.read_bytes() == before
    train(photos, tiny(epochs=6, checkpoint_minutes=1), finished.folder, resume=True)


def test_resuming_with_photos_that_changed_is_refused(photos, tmp_path):
    copy = tmp_path / "photos"
    shutil.copytree(photos, copy)
    train(copy, tiny(epochs=1), tmp_path / "run")
    paint(copy / "train" / "red" / "3.png", COLOURS["blue"], 5)
    with pytest.raises(UserError, match="other photos"):
        train(copy, None, tmp_path / "run", resume=True)


def test_two_trainings_in_one_folder_are_refused(photos, tmp_path):
    folder = tmp_path / "run"
    train(photos, tiny(epochs=1), folder)
    code = "import sys; from pathlib import Path; from xception.training.lock import hold\n"
    code += f"with hold(Path({str(folder)!r})): print('held', flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(UserError, match="another process is training"):
            train(photos, None, folder, resume=True)
        other.kill()
    train(photos, None, folder, resume=True)  # the lock went with its holder


def test_a_run_within_the_photos_is_refused_before_it_is_made(photos):
    with pytest.raises(UserError, match="within the photos"):
        train(photos, tiny(), photos / "run")
    assert not (photos / "run").exists()


def test_damaged_features_are_made_again(photos, finished, tmp_path):
    start = str(finished.folder / "model.safetensors")
    folder = tmp_path / "run"
    whole = train(photos, tiny(weights=start, freeze="backbone", epochs=1), folder)
    (folder / "features" / "train.npy").write_bytes(b"cut")
    again = train(photos, None, folder, resume=True)
    assert again.metrics == whole.metrics
    assert np.load(folder / "features" / "train.npy").shape[0] == 42


def test_a_folder_that_cannot_be_made(photos, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be made"):
        train(photos, tiny(), tmp_path / "file" / "run")


def test_unreadable_photos_are_skipped_and_listed(photos, tmp_path):
    copy = tmp_path / "photos"
    for path in photos.rglob("*.png"):
        target = copy / path.relative_to(photos)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    (copy / "train" / "red" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nno more")
    result = train(copy, tiny(epochs=1), tmp_path / "run")
    assert isinstance(result, TrainedClassifier)
    assert [Path(name).name for name in result.audit.unreadable] == ["broken.png"]
    assert len(result.photos.of("train")) == 42


def test_too_many_unreadable_photos_refuse(photos, tmp_path):
    copy = tmp_path / "photos"
    for number, path in enumerate(sorted(photos.rglob("*.png"))):
        target = copy / path.relative_to(photos)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes() if number % 10 else b"junk")
    with pytest.raises(UserError, match="xception check"):
        train(copy, tiny(epochs=1), tmp_path / "run")


def test_a_frozen_backbone_stays_and_its_features_are_kept(photos, finished, tmp_path):
    start = finished.folder / "model.safetensors"
    config = tiny(weights=str(start), freeze="backbone", epochs=3)
    result = train(photos, config, tmp_path / "run")
    before, after = load_model(start).state_dict(), result.model.state_dict()
    for name, value in before.items():
        same = torch.equal(value, after[name])
        assert same != name.startswith("head.classifier"), name
    assert isinstance(result, TrainedClassifier)
    features = np.load(tmp_path / "run" / "features" / "train.npy")
    assert features.shape == (42, result.model.num_features)
    assert result.metrics["top1"] >= 0.9


def test_a_frozen_run_resumes_with_the_same_bytes_and_does_not_compute_again(
    photos, finished, tmp_path, monkeypatch
):
    start = str(finished.folder / "model.safetensors")
    config = tiny(weights=start, freeze="backbone", epochs=3)
    whole = train(photos, config, tmp_path / "whole")
    with pytest.raises(Interrupted):
        train(photos, config, tmp_path / "cut", progress=Signals(7, signal.SIGTERM))
    monkeypatch.setattr("xception.training.features._compute", None)
    cut = train(photos, None, tmp_path / "cut", resume=True)
    files = [result.folder / "model.safetensors" for result in (whole, cut)]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_weights_start_another_set_of_classes(photos, finished, tmp_path):
    two = tmp_path / "two"
    for path in photos.rglob("*.png"):
        if path.parent.name != "red":
            target = two / path.relative_to(photos)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    config = tiny(weights=str(finished.folder / "model.safetensors"), epochs=1)
    result = train(two, config, tmp_path / "run")
    assert result.card.classes == ("blue", "green")


def test_weights_that_are_no_model_file(photos, tmp_path):
    (tmp_path / "w.safetensors").write_bytes(b"nothing")
    with pytest.raises(UserError, match=r"w\.safetensors"):
        train(photos, tiny(weights=str(tmp_path / "w.safetensors")), tmp_path / "run")


@pytest.fixture
def several_labels(photos, tmp_path):
    """A CSV whose photos are red, bright, both or neither: two labels that can be seen."""
    lines = ["path,label,split"]
    for path in sorted(photos.rglob("*.png")):
        split = path.relative_to(photos).parts[0]
        labels = {"red": "warm|strong", "green": "strong", "blue": ""}[path.parent.name]
        lines.append(f"{path.relative_to(photos)},{labels},{split}")
    table = photos / "labels.csv"
    table.write_text("\n".join(lines))
    yield table
    table.unlink()


def test_several_labels_a_photo(several_labels, tmp_path):
    config = tiny(epochs=8, class_weights="balanced", sampler="balanced", label_smoothing=0.05)
    result = train(several_labels, config, tmp_path / "run")
    assert result.card.task == "multilabel"
    assert set(result.card.classes) == {"strong", "warm"}
    assert result.metrics["map"] >= 0.9
    assert result.history[0]["train_accuracy"] is None
    assert "val_map" in result.history[0]


DISTRIBUTED = """
    import json, os, runpy, sys
    from pathlib import Path
    import torch
    torch.set_num_threads(1)
    from xception.training.run import train
    settings = runpy.run_path(sys.argv[1])[sys.argv[5]]
    # without augmentation photos are the same: the global batch is all that counts
    result = train(sys.argv[2], settings(epochs=2, **json.loads(sys.argv[4])), Path(sys.argv[3]))
    if result.leads:
        print(json.dumps([result.history, result.metrics]))
"""


def run_processes(count, photos, folder, settings, make="tiny"):
    code = folder.parent / "distributed.py"
    code.write_text(textwrap.dedent(DISTRIBUTED))
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}"]
    conftest = str(Path(__file__).parent / "conftest.py")
    program = [str(code), conftest, str(photos), str(folder), json.dumps(settings), make]
    output = subprocess.run(
        [sys.executable, *(launcher if count > 1 else []), *program],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    ).stdout
    return json.loads(output.splitlines()[-1])


def test_two_processes_give_the_numbers_of_one(photos, tmp_path):
    config = tiny(
        epochs=2,
        class_weights="balanced",
        dropout=0.5,
        optimizer={"name": "sgd", "learning_rate": 0.005},
    )
    alone = train(photos, config, tmp_path / "1")
    one = [alone.history, alone.metrics]
    two = trainings.train_together(2, photos, config, tmp_path / "2")
    for a, b in zip(one[0], two[0], strict=True):
        for key in ("train_loss", "val_loss", "val_top1", "train_accuracy", "step", "lr"):
            assert a[key] == pytest.approx(b[key], abs=1e-4), key
    assert one[1]["samples"] == two[1]["samples"] == 12  # every test photo counted once
    assert one[1]["log_loss"] == pytest.approx(two[1]["log_loss"], abs=1e-4)
    assert one[1]["confusion"] == two[1]["confusion"]


def test_the_written_configuration_repeats_the_run(photos, finished, tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(to_yaml(finished.config))
    again = train(photos, read_config(path), tmp_path / "again")
    files = [folder / "model.safetensors" for folder in (finished.folder, again.folder)]
    assert files[0].read_bytes() == files[1].read_bytes()
