"""One cell of a study: an arm and a seed, trained by `xception train` in a process of its own.

A cell leaves a run folder like any other training, and beside it `result.json`, written whole and
last: where that stands the cell is done and never run again. A killed cell goes on from its
checkpoint and comes to the same result.
"""

import csv
import json
import shutil
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from xception._version import __version__
from xception.errors import UserError
from xception.studies.study import NOTHING, Arm, Scale, Settings, Study
from xception.training.config import TrainConfig, read_config, to_yaml
from xception.weights.atomic import write_whole

# What a row of results.csv says of a cell, of what its training reports.
MEASURES = (
    "top1", "top5", "balanced_accuracy", "macro_f1", "micro_f1", "map", "map_at_k", "log_loss",
    "ece",
)  # fmt: skip
TIMINGS = ("steps_per_second", "seconds", "date")  # that differ from one run to the next
MACHINE = ("python", "torch", "system", "processor", "threads", "device")


class Cell(NamedTuple):
    """Where a cell lives, and what it is trained with."""

    study: str
    arm: str
    seed: int
    folder: Path
    config: TrainConfig
    settings: Settings = NOTHING  # what a person changed of the study's own

    @property
    def run(self) -> Path:
        """The run folder of the training."""
        return self.folder / "run"

    @property
    def result(self) -> Path:
        """The row of `results.csv`, once the cell is done."""
        return self.folder / "result.json"

    @property
    def answer(self) -> Path:
        """What the process that trains or judges it printed: one JSON document."""
        return self.folder / "answer.json"

    @property
    def log(self) -> Path:
        """What it said besides."""
        return self.folder / "log.txt"

    @property
    def begun(self) -> bool:
        """Whether a training lives in the run folder, and not what was killed before it could."""
        return (self.run / "config.yaml").exists()

    @property
    def epochs_done(self) -> int:
        """How far the training is."""
        return len(self.history())

    def history(self) -> list[dict[str, str]]:
        """The rows of the training's `metrics.csv`, none before its first epoch is over."""
        try:
            with (self.run / "metrics.csv").open(newline="", encoding="utf-8") as file:
                return list(csv.DictReader(file))
        except FileNotFoundError:
            return []

    def command(self, photos: Path, launcher: list[str] | None = None) -> list[str]:
        """What trains the cell, or goes on with it.

        Args:
            photos: what it is trained on.
            launcher: what starts python's modules; None is this interpreter.
        """
        start = [*(launcher or [sys.executable]), "-m", "xception", "train", str(photos)]
        start += ["--out", str(self.run), "--json", "--quiet"]
        if self.begun:
            return [*start, "--resume"]
        return [*start, "--config", str(self.folder / "config.yaml")]

    def judging(self, photos: Path, weights: Path) -> list[str]:
        """What measures the trained cell with a weight for each class."""
        verb = [sys.executable, "-m", "xception", "evaluate", str(self.run), str(photos)]
        return [*verb, "--split", "test", "--class-weights", str(weights), "--json", "--quiet"]

    def check(self) -> None:
        """UserError if the folder holds a cell with other settings, and something came of it.

        Settings with which a training ended before it began are not held against the study.
        """
        settings = self.folder / "config.yaml"
        kept = self.begun or self.result.exists()
        if kept and settings.exists() and read_config(settings) != self.config:
            raise UserError(
                f"{self.folder} was begun with other settings: --out names another folder"
            )

    def prepare(self) -> None:
        """Make the folder, and clear away a run that was killed before its first file was whole.

        Raises:
            UserError: the folder cannot be written to.
        """
        if self.run.exists() and not self.begun:
            shutil.rmtree(self.run)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"{self.folder} cannot be made: {error.strerror}") from None
        text = to_yaml(self.config).encode()
        write_whole(self.folder / "config.yaml", lambda file: file.write(text))

    def _answered(self) -> dict[str, Any]:
        """What was printed, with a training behind it; UserError where there is none."""
        try:
            answer = json.loads(self.answer.read_bytes())
        except ValueError:  # neither JSON nor UTF-8
            answer = None
        if not isinstance(answer, dict) or "split" not in answer or not self.history():
            raise UserError(
                f"{self.answer} does not hold what `xception train --json` prints: --launcher must "
                "run it, in this folder, and print nothing itself"
            )
        return answer

    def finish(self) -> None:
        """Write down what the training came to.

        Raises:
            UserError: nothing was trained, or what it printed is not its answer alone.
        """
        answer = self._answered()
        metrics = answer.get("metrics", answer)  # of a training, or of an evaluation
        report = json.loads((self.run / "report.json").read_text(encoding="utf-8"))
        history = self.history()
        steps = int(history[-1]["step"])
        training = sum(1 / float(row["images_per_second"]) for row in history) / len(history)
        row = {
            "study": self.study,
            "arm": self.arm,
            "seed": self.seed,
            "parameters": report["cost"]["parameters"],
            "macs": report["cost"]["macs"],
            "epochs": len(history),
            "steps": steps,
            "split": answer["split"],
            "samples": metrics["samples"],
            **{name: metrics.get(name) for name in MEASURES},
            "steps_per_second": 1 / (training * self.config.batch_size),
            "seconds": float(history[-1]["seconds"]),  # with validation
            "date": datetime.now(UTC).date().isoformat(),
            "trained_in": f"{self.study}/{self.arm}",  # another study's, where it was taken over
            "xception": __version__,
            **{name: report["environment"][name] for name in MACHINE},
        }
        write_whole(self.result, lambda file: file.write(json.dumps(row, indent=2).encode()))

    def row(self) -> dict[str, Any] | None:
        """The row of a finished cell, None of another.

        Raises:
            UserError: the file is damaged.
        """
        try:
            row = json.loads(self.result.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except ValueError:
            row = None
        if not isinstance(row, dict):
            raise UserError(f"{self.result} is damaged: remove it, and the cell is measured again")
        return row


def cells(
    study: Study, scale: Scale, seeds: int, folder: Path, settings: Settings = NOTHING
) -> list[Cell]:
    """All cells of a study, seed by seed, so that all arms are equally far whenever it stops.

    Args:
        study: what is compared.
        scale: "tiny" or "full".
        seeds: trainings of each arm.
        folder: of the study.
        settings: what all cells change of the study's own settings.

    Raises:
        UserError: there is no such setting, or it is the study's own.
    """
    study.refuse(scale, settings)

    def cell(arm: Arm, seed: int) -> Cell:
        home = folder / "cells" / arm.name / f"seed-{seed}"
        config = study.config(arm, seed, scale, settings)
        return Cell(study.name, arm.name, seed, home, config, settings)

    return [cell(arm, seed) for seed in range(seeds) for arm in study.arms]
