"""The report of a finished training, from everything that is known of it."""

import os
import platform
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch

from xception._version import __version__
from xception.cost.count import count
from xception.data.loader import TrainingStream
from xception.evaluation.pictures import Pictures, collect, samples
from xception.evaluation.report import Data, Epoch, Report, write_report
from xception.training.run import Trained

SAMPLES = 24  # inputs shown as the network sees them


def publish(trained: Trained, *, command: str, title: str) -> Path:
    """Write `report.json`, `report.html` and `plots/` into the run folder.

    Returns:
        The path of the page.
    """
    config, photos = trained.config, trained.photos
    device = next(trained.model.parameters()).device
    mistakes, explained = collect(
        trained.model,
        photos,
        trained.outcomes,
        config.preprocess,
        split=trained.split,
        device=device,
    )
    total = count(trained.model, config.preprocess.size, config.preprocess.channels).total
    best = [row["epoch"] for row in trained.history if row["best"]]
    report = Report(
        title=title,
        created_by=f"xception {__version__}",
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        command=command,
        task=trained.card.task,
        classes=photos.classes,
        split=trained.split,
        metrics=trained.metrics,
        model=config.model,
        cost={key: total[key] for key in ("parameters", "macs", "bytes")},
        data=Data.of(photos, trained.audit),
        history=tuple(
            Epoch.model_validate({k: row[k] for k in Epoch.model_fields if k in row})
            for row in trained.history
        ),
        best_epoch=best[-1] if best else None,
        mistakes=mistakes,
        config=config.model_dump(mode="json"),
        environment=describe_machine(device),
        timing={"training": trained.history[-1]["seconds"]},
    )
    pictures = Pictures(samples=_first_inputs(trained), mistakes=explained)
    return write_report(trained.folder, report, pictures)


def describe_machine(device: torch.device) -> dict[str, str]:
    """Versions and hardware, for whoever repeats the run."""
    processor = platform.processor() or platform.machine()
    cpus = Path("/proc/cpuinfo")
    if cpus.exists():
        names = [line for line in cpus.read_text().splitlines() if line.startswith("model name")]
        processor = names[0].partition(":")[2].strip() if names else processor
    place = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "system": f"{platform.system()} {platform.release()}",
        "processor": f"{processor}, {os.cpu_count()} cores",
        "threads": str(torch.get_num_threads()),
        "device": place,
    }


def _first_inputs(trained: Trained) -> tuple:
    """Photos of the first step, augmented as they were."""
    config = trained.config
    stream = TrainingStream(
        trained.photos,
        preprocess=config.preprocess,
        augment=config.augment,
        batch_size=min(SAMPLES, len(trained.photos.of("train"))),
        seed=config.seed,
        first_step=0,
        last_step=1,
        workers=0,
    )
    return samples(next(iter(stream)), trained.photos.classes, SAMPLES)
