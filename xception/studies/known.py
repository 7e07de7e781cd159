"""What other studies have trained already: the network without changes stands in most of them.

On one machine training is a function of settings, photos, seed, the number of threads and the
versions of ours and of torch. Where a finished cell of a study in the folder beside has all of them
in common with a cell of this one, its result is taken over, and the table says from where. The
timings are then those of that training.
"""

import hashlib
import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from xception._version import __version__
from xception.errors import UserError
from xception.evaluation.machine import environment
from xception.studies.alone import taken
from xception.studies.cells import Cell
from xception.studies.photos import ZIP
from xception.training.config import TrainConfig, read_config
from xception.training.distributed import pick_device
from xception.training.lock import held
from xception.weights.atomic import write_whole

_ALIKE = ("xception", "torch", "system", "processor", "threads", "device")


def take_over(grid: Sequence[Cell], folder: Path, threads: str) -> None:
    """Finish the cells of the study in `folder` whose training lies in a folder beside it.

    Only cells that no training has begun, nor is about to begin, and only where all are trained on
    the same photos: the zips made for the studies are compared.

    Nothing from another machine or another number of threads: the result would be another in its
    last digits, and its timings would not compare.

    A study whose files cannot be read has nothing to offer.

    Args:
        grid: the cells.
        folder: of their study.
        threads: of each training.

    Raises:
        UserError: this folder cannot be written to.
    """
    missing = [
        cell
        for cell in grid
        if not (cell.result.exists() or cell.begun or taken(cell.folder) or held(cell.run))
    ]
    if not missing or not (folder / ZIP).exists():
        return
    photos, digests = _digest(folder / ZIP), dict[Path, str]()
    for result in sorted(folder.parent.glob("*/cells/*/seed-*/result.json")):
        home = result.parents[3]
        if home.resolve() == folder.resolve() or not (home / ZIP).exists():
            continue
        if home not in digests:
            digests[home] = _digest(home / ZIP)
        if digests[home] != photos:
            continue
        try:
            settings = _settings(read_config(result.with_name("config.yaml")))
            row = json.loads(result.read_text(encoding="utf-8"))
            history = (result.parent / "run" / "metrics.csv").read_bytes()
        except (UserError, OSError, ValueError):
            continue
        if not isinstance(row, dict):
            continue
        here = _here(settings.device, threads)
        if any(row.get(name) != value for name, value in here.items()):
            continue
        for cell in missing:
            if not cell.result.exists() and _settings(cell.config) == settings:
                _put(row, history, cell)


def _put(row: dict[str, Any], history: bytes, cell: Cell) -> None:
    """Last the result, which says that the cell is done."""
    cell.prepare()
    cell.run.mkdir(exist_ok=True)
    write_whole(cell.run / "metrics.csv", lambda file: file.write(history))
    row = row | {"study": cell.study, "arm": cell.arm}  # `trained_in` stays
    write_whole(cell.result, lambda file: file.write(json.dumps(row, indent=2).encode()))


@cache
def _here(device: str, threads: str) -> dict[str, str]:
    """What a training here would note of its versions and of the machine."""
    found = environment(pick_device(device)) | {"xception": __version__, "threads": threads}
    return {name: found[name] for name in _ALIKE}


def _settings(config: TrainConfig) -> TrainConfig:
    """All that decides what a training comes to: the name of its recipe does not."""
    return config.model_copy(update={"recipe": ""})


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
