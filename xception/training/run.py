"""One training from photos to a run folder: the order of things, each done elsewhere."""

from contextlib import ExitStack
from pathlib import Path

import torch

from xception.data.kind import Task
from xception.errors import UserError
from xception.models.zoo import create_model
from xception.training.allocator import keep_freed_memory
from xception.training.assembly import FREE_SETTINGS, Assembly
from xception.training.board import Board
from xception.training.classification import check_photos
from xception.training.config import TrainConfig, read_config, refuse_settings, task_with, to_yaml
from xception.training.distributed import join_world, lead
from xception.training.interrupts import stop_on_signals
from xception.training.lock import LOCK_FILE, hold
from xception.training.progress import Progress, Silent
from xception.training.schedules import factor
from xception.training.segmentation import check_pairs
from xception.training.subject import Subject
from xception.training.trained import AnyTrained
from xception.weights.atomic import write_whole


def train(
    photos_path: str | Path,
    config: TrainConfig | None,
    folder: Path,
    *,
    resume: bool = False,
    progress: Progress | None = None,
) -> AnyTrained:
    """Train on photos with classes or with masks, and judge the best network on the test photos.

    Args:
        photos_path: see `data.folders.open_photos` and `data.pairs.open_pairs`; which of the two it
            is for, `config.task_with` finds out.
        config: complete; None together with `resume` takes the run's own.
        folder: the run folder; new or empty unless `resume`.
        resume: go on where `last.ckpt` stands.
        progress: told how it fares; None is silent.

    Raises:
        UserError: anything the photos, the settings or the machine make impossible.
        Interrupted: a signal came in training; what was learnt is saved, and can be resumed.
    """
    with ExitStack() as held:
        if config is None:
            config = read_config(folder / "config.yaml")
        world = held.enter_context(join_world(config.device))
        told: Progress = progress if progress is not None and world.leads else Silent()
        if world.device.type == "cpu":
            keep_freed_memory()

        def prepare() -> Subject:
            task = task_with(photos_path, config.masks)
            refuse_settings(config, task)
            try_out(config)
            prepare_folder(folder, config, photos_path, resume)
            held.enter_context(hold(folder))
            checked = check(task, photos_path, config, told)
            if not resume:
                write_whole(
                    folder / "config.yaml", lambda file: file.write(to_yaml(config).encode())
                )
            return checked

        subject = lead(world, prepare)
        if config.tensorboard and world.leads:
            told = Board(folder, told)
        begun = resume and (folder / "last.ckpt").exists()
        assembly = Assembly(subject, config, folder, world, resumed=begun)
        trainer = assembly.trainer(told)
        if begun:
            trainer.resume()
            told.note(f"resumed after step {trainer.at.step}")
        # Before and after, nothing is to be saved first: a signal stops it at once.
        with stop_on_signals() as stop:
            trainer.run(stop)
        return assembly.judge(trainer.at.history)


def try_out(config: TrainConfig) -> None:
    """Build the network on shapes alone, so that a wrong option leaves no run behind.

    Raises:
        UserError: there is no such model, an option is not right, or the schedule lacks something.
    """
    channels = config.preprocess.channels
    options = {**config.model_options, "num_classes": 2, "in_channels": channels}
    with torch.device("meta"):
        create_model(config.model, **{**options, "dropout": config.dropout})
    factor(config.schedule, config.epochs, epochs=config.epochs, samples_per_epoch=1)


def prepare_folder(folder: Path, config: TrainConfig, photos: str | Path, resume: bool) -> None:
    """Make the run folder, or refuse one in which something would be lost.

    Raises:
        UserError: it holds something else, lies within the photos, or was run with other settings.
    """
    started = (folder / "config.yaml").exists()
    if Path(photos).is_dir() and folder.resolve().is_relative_to(Path(photos).resolve()):
        raise UserError(f"{folder} lies within the photos: --out names a folder elsewhere")
    if resume and not started:
        raise UserError(f"nothing to resume: there is no run in {folder}")
    if started and not resume:
        raise UserError(f"{folder} already holds a run: --resume continues it, --out names another")
    if resume:
        refuse_changes(read_config(folder / "config.yaml"), config)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder} cannot be made: {error.strerror}") from None
    # A training that was refused leaves its lock: what was wrong with the photos is then mended.
    if not resume and any(path.name != LOCK_FILE for path in folder.iterdir()):
        raise UserError(f"{folder} is not empty: --out names another folder")


def refuse_changes(before: TrainConfig, now: TrainConfig) -> None:
    """UserError if a resumed run is given other settings than it was started with."""
    old, new = before.model_dump(mode="json"), now.model_dump(mode="json")
    for key in old:
        if old[key] != new[key] and key not in FREE_SETTINGS:
            raise UserError(
                f"a resumed run keeps its settings, but {key} was {old[key]} and would be "
                f"{new[key]}: leave that out, or start anew with another --out"
            )


def check(task: Task, path: str | Path, config: TrainConfig, progress: Progress) -> Subject:
    """The photos, checked. Raises UserError if they cannot be learnt from."""
    if task == "segmentation":
        return check_pairs(path, config, progress)
    return check_photos(path, config, progress)
