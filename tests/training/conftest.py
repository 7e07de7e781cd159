from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from xception.data.scenes import write_scenes
from xception.training.config import TrainConfig

COLOURS = {"blue": (40, 60, 200), "green": (50, 190, 60), "red": (200, 50, 40)}


def paint(path: Path, colour: tuple[int, int, int], seed: int, side: int = 20) -> None:
    """A noisy square of a colour: a network learns the three in a few steps."""
    rng = np.random.default_rng(seed)
    pixels = np.array(colour) + rng.normal(0, 40, (side, side, 3))
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path)


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes, 14 training, 5 validation and 4 test photos each."""
    root = tmp_path_factory.mktemp("photos of squares")
    seed = 0
    for split, count in {"train": 14, "validation": 5, "test": 4}.items():
        for name, colour in COLOURS.items():
            for number in range(count):
                seed += 1
                paint(root / split / name / f"{number}.png", colour, seed)
    return root


def tiny(**changes: Any) -> TrainConfig:
    """The smallest training: 8 channels everywhere, 16-pixel photos, 2 epochs of 5 steps."""
    values: dict[str, Any] = {
        "model_options": {"width": 0.01, "middle": 0, "stem_stride": 1},
        "preprocess": {"size": 16},
        "augment": {"crop_scale": (0.6, 1.0), "flip": True, "mixup": 0.2},
        "epochs": 2,
        "batch_size": 8,
        "average_decay": 0.9,
        "optimizer": {"learning_rate": 0.01},
        "workers": 0,
        "device": "cpu",
    }
    return TrainConfig.model_validate({**values, **changes})


@pytest.fixture(scope="session")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """14 training, 2 validation and 4 test scenes of 36x36 pixels."""
    root = tmp_path_factory.mktemp("scenes of shapes")
    write_scenes(root, 20, 36, 0)
    return root


def tiny_masks(**changes: Any) -> TrainConfig:
    """The smallest training on scenes: 8 channels, 33-pixel crops, 2 epochs of 3 steps."""
    values: dict[str, Any] = {
        "model": "deeplab_v3plus",
        "model_options": {
            "backbone": "xception",
            "backbone_options": {"width": 0.01, "middle": 0},
            "rates": [1],
            "encoder_channels": 8,
            "low_level_channels": 4,
            "decoder_channels": 8,
        },
        "preprocess": {"size": 33},
        "joint": {"crop": (33, 33), "scale": (0.8, 1.25), "flip": True, "contrast": 0.2},
        "dropout": 0.1,
        "epochs": 2,
        "batch_size": 4,
        "average_decay": 0.9,
        "optimizer": {"learning_rate": 0.01},
        "workers": 0,
        "device": "cpu",
    }
    return TrainConfig.model_validate({**values, **changes})
