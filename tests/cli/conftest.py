"""A small set of photos, and one training on it through the command, for all tests of the room."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from xception.cli.main import run

COLOURS = {"blue": (40, 60, 200), "green": (50, 190, 60), "red": (200, 50, 40)}
TINY = ["--set", "model_options={width: 0.01, middle: 0, stem_stride: 1}", "--size", "16"]
TINY += ["--batch-size", "8", "--workers", "0", "--device", "cpu", "--quiet"]


@dataclass(frozen=True)
class Result:
    """What a command line came to."""

    status: int
    stdout: str
    stderr: str


@pytest.fixture
def xception(capfd: pytest.CaptureFixture[str]):
    """Runs a command line in this process."""

    def invoke(*arguments: str | Path) -> Result:
        capfd.readouterr()
        status = run([str(argument) for argument in arguments])
        captured = capfd.readouterr()
        return Result(status, captured.out, captured.err)

    return invoke


def paint(path: Path, colour: tuple[int, int, int], seed: int) -> Path:
    noise = np.random.default_rng(seed).normal(0, 30, (20, 20, 3))
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray((np.array(colour) + noise).clip(0, 255).astype(np.uint8)).save(path)
    return path


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three colours; 12 photos of each to train on, 4 to validate, 4 to test."""
    root = tmp_path_factory.mktemp("cli") / "bunte Bilder é"
    seed = 0
    for split, number in {"train": 12, "validation": 4, "test": 4}.items():
        for name, colour in COLOURS.items():
            for i in range(number):
                seed += 1
                paint(root / split / name / f"{i}.png", colour, seed)
    return root


@pytest.fixture(scope="session")
def trained(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder."""
    folder = tmp_path_factory.mktemp("runs") / "colours 1"
    lr = ["--lr", "0.02", "--epochs", "6"]
    assert run(["train", str(photos), "--out", str(folder), *TINY, *lr]) == 0
    return folder
