"""One training from photos to a run folder: the order of things, each done elsewhere."""

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xception.data.audit import Audit, audit
from xception.data.folders import PhotoSet, open_photos
from xception.data.splits import Split
from xception.errors import UserError
from xception.evaluation.evaluate import Outcomes
from xception.models.classifier import Classifier
from xception.training.allocator import keep_freed_memory
from xception.training.assembly import FREE_SETTINGS, Assembly
from xception.training.board import Board
from xception.training.config import TrainConfig, read_config, to_yaml
from xception.training.distributed import join_world, lead, place
from xception.training.feeds import evaluate_photos
from xception.training.interrupts import stop_on_signals
from xception.training.lock import hold
from xception.training.progress import Progress, Silent
from xception.weights.atomic import write_whole
from xception.weights.card import Card
from xception.weights.model_file import load_classifier


@dataclass(frozen=True)
class Trained:
    """What a finished training hands over to whoever judges it."""

    folder: Path
    model: Classifier  # the best, in evaluation mode
    card: Card
    photos: PhotoSet  # without the unreadable ones
    audit: Audit
    config: TrainConfig
    history: list[dict[str, Any]]
    split: Split  # that `outcomes` are of: test where there is one
    outcomes: Outcomes
    metrics: dict[str, Any]
    leads: bool  # whether this process is the one to write


def train(
    photos_path: str | Path,
    config: TrainConfig | None,
    folder: Path,
    *,
    resume: bool = False,
    progress: Progress | None = None,
) -> Trained:
    """Train on a folder, CSV or zip of photos, and judge the best network on the test photos.

    Args:
        photos_path: see `xception.data.folders.open_photos`.
        config: complete; None together with `resume` takes the run's own.
        folder: the run folder; new or empty unless `resume`.
        resume: go on where `last.ckpt` stands.
        progress: told how it fares; None is silent.

    Raises:
        UserError: anything the photos, the settings or the machine make impossible.
        Interrupted: a signal came; the run can be resumed.
    """
    with stop_on_signals() as stop, ExitStack() as held:
        if config is None:
            config = read_config(folder / "config.yaml")
        world = held.enter_context(join_world(config.device))
        told: Progress = progress if progress is not None and world.leads else Silent()
        if world.device.type == "cpu":
            keep_freed_memory()

        def prepare() -> tuple[PhotoSet, Audit]:
            prepare_folder(folder, config, photos_path, resume)
            held.enter_context(hold(folder))
            checked = check_photos(photos_path, config, told)
            if not resume:
                write_whole(
                    folder / "config.yaml", lambda file: file.write(to_yaml(config).encode())
                )
            return checked

        photos, findings = lead(world, prepare)
        if config.tensorboard and world.leads:
            told = Board(folder, told)
        assembly = Assembly(photos, findings.digest, config, folder, world)
        trainer = assembly.trainer(told)
        if resume and (folder / "last.ckpt").exists():
            trainer.resume()
            told.note(f"resumed after step {trainer.at.step}")
        trainer.run(stop)
        return judge(assembly, folder, findings, trainer.at.history)


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
    if not resume and any(folder.iterdir()):
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


def check_photos(
    path: str | Path, config: TrainConfig, progress: Progress
) -> tuple[PhotoSet, Audit]:
    """The readable photos and what is wrong with the others."""
    photos = open_photos(path)
    findings = audit(photos, config.preprocess.size)
    if findings.refusal is not None:
        raise UserError(f"{findings.refusal}; `xception check {path}` says more")
    if findings.unreadable:
        progress.note(f"skipping {len(findings.unreadable)} unreadable photos (see the report)")
    return photos.without(findings.unreadable), findings


def judge(
    assembly: Assembly, folder: Path, findings: Audit, history: list[dict[str, Any]]
) -> Trained:
    """Measure the best network once on the test photos, or on validation if there are none."""
    photos, config, world = assembly.photos, assembly.config, assembly.world
    model = place(load_classifier(folder / "model.safetensors"), world.device)
    split: Split = "test" if photos.of("test") else "validation"
    outcomes = evaluate_photos(model, photos, split, config, world, assembly.workers)
    if outcomes is None:
        raise RuntimeError(f"the split {split} is empty, although the photos were checked")
    return Trained(
        folder=folder,
        model=model,
        card=model.card,
        photos=photos,
        audit=findings,
        config=config,
        history=history,
        split=split,
        outcomes=outcomes,
        metrics=outcomes.measure(photos.classes, assembly.task),
        leads=world.leads,
    )
