"""A cell whose loss was no longer a number: that a network cannot be trained so is a result too."""

import json
from datetime import UTC, datetime
from pathlib import Path

from xception._version import __version__
from xception.cost.count import count
from xception.data.folders import open_photos
from xception.data.splits import Split
from xception.evaluation.machine import environment
from xception.studies.cells import MACHINE, Cell
from xception.studies.preflight import network_of, parameters
from xception.training.distributed import pick_device
from xception.weights.atomic import write_whole


def write_down(cell: Cell, photos: Path, threads: str) -> None:
    """Finish a cell that diverged. It counts as chance: one class of all, whatever is seen.

    Args:
        cell: the training came to an end with `Diverged.status`.
        photos: what it was trained on, one label each.
        threads: of the training.
    """
    there = open_photos(photos)
    split: Split = "test" if there.of("test") else "validation"
    classes, seen = len(there.classes), cell.config.preprocess
    network = network_of(cell, classes)
    history = cell.history()  # of the epochs before
    machine = environment(pick_device(cell.config.device)) | {"threads": threads}
    row = {
        "study": cell.study,
        "arm": cell.arm,
        "seed": cell.seed,
        "parameters": parameters(network),
        "macs": count(network, seen.size, seen.channels).total["macs"],
        "epochs": len(history),
        "steps": int(history[-1]["step"]) if history else 0,
        "split": split,
        "samples": len(there.of(split)),
        "top1": 1 / classes,
        "steps_per_second": None,
        "seconds": float(history[-1]["seconds"]) if history else 0.0,
        "date": datetime.now(UTC).date().isoformat(),
        "trained_in": f"{cell.study}/{cell.arm}",
        "xception": __version__,
        **{name: machine[name] for name in MACHINE},
        "diverged": True,
    }
    write_whole(cell.result, lambda file: file.write(json.dumps(row, indent=2).encode()))
