"""`xception demo --masks`: the whole way, from scenes of shapes to a report and masks."""

import tempfile
from pathlib import Path
from typing import Any

from xception.cli.output import percent
from xception.cli.segmentation_reporting import report_segmentation
from xception.data.scenes import write_scenes
from xception.deploy.mask_files import segment_file
from xception.deploy.segment import open_segmenter
from xception.training.progress import Progress
from xception.training.recipes import configure
from xception.training.run import train
from xception.training.trained import TrainedSegmenter

SCENES, SIDE = 300, 96
SHOWN = 6  # scenes to segment at the end
MASKS = "masks"  # the folder in the run that gets them
# What differs from the recipe `segment`; by estimate, for a few minutes on two cores.
SETTINGS: dict[str, Any] = {
    "model_options.output_stride": 8,
    "joint.crop": 97,
    "joint.shorter_side": None,
    "joint.scale": [0.75, 1.5],
    "batch_size": 8,
    "epochs": 20,
    "optimizer.learning_rate": 0.003,
}


def demonstrate(
    out: Path, seed: int, epochs: int | None, command: str, progress: Progress | None
) -> tuple[TrainedSegmenter, Path, list[dict[str, Any]]]:
    """Train on scenes, report, and segment some that the training never saw.

    Args:
        out: the run folder.
        seed: of scenes and training.
        epochs: None is as many as are worth it.
        command: what repeats it.
        progress: told how it fares; None is silent.

    Returns:
        The training, its page, and for each of some scenes the mask and what it covers.
    """
    settings = SETTINGS | {"seed": seed} | ({} if epochs is None else {"epochs": epochs})
    with tempfile.TemporaryDirectory() as folder:
        scenes = Path(folder) / "scenes"
        write_scenes(scenes, SCENES, SIDE, seed)
        config = configure(settings=settings, task="segmentation")
        trained = train(scenes, config, out, progress=progress)
        if not isinstance(trained, TrainedSegmenter):
            raise TypeError("the scenes have masks")
        page = report_segmentation(trained, command)
        segmenter, masks = open_segmenter(out), out / MASKS
        masks.mkdir(exist_ok=True)
        examples = []
        for pair in trained.pairs.of("test")[:SHOWN]:
            name = Path(pair.photo).stem
            found = segment_file(segmenter, scenes / pair.photo, masks, name)
            examples.append(
                {"photo": pair.photo, "mask": str(found.mask), "coverage": found.coverage}
            )
    return trained, page, examples


def rows(examples: list[dict[str, Any]]) -> list[list[str]]:
    """For a table: scene, what covers it, mask."""
    return [
        [
            one["photo"],
            ", ".join(f"{name} {percent(share)}" for name, share in one["coverage"].items()),
            one["mask"],
        ]
        for one in examples
    ]
