"""What a separation is given: a trained network, its photos, a place for the result."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from torch import nn

from xception.cli.separating import Bench
from xception.cli.separation_target import Target
from xception.data.folders import PhotoSet
from xception.deploy.runtime import MODEL_FILE, find_model
from xception.errors import UserError
from xception.models.building import closest
from xception.models.classifier import Classifier, as_classifier
from xception.models.zoo import ZOO
from xception.weights.convert import load_any
from xception.weights.timm_files import read_timm

TIMM = "timm:"
WRITTEN = ("metrics.csv", "separation.json", "report.html", MODEL_FILE)


def check_out(out: Path, photos: Path) -> None:
    """Refuse a folder that holds something, or that lies among the photos."""
    if out.is_dir() and any(out.iterdir()):
        raise UserError(f"--out {out}: the folder is not empty; name a new one")
    if photos.is_dir() and out.resolve().is_relative_to(photos.resolve()):
        raise UserError(f"--out {out}: lies within the photos; name a folder elsewhere")


@contextmanager
def all_or_nothing(out: Path) -> Iterator[None]:
    """Make a folder, and take away what was written into it if the work does not end.

    So that the same command can be given again.
    """
    out.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except BaseException:
        for name in WRITTEN:
            (out / name).unlink(missing_ok=True)
        raise


def find_trained(name: str, weights: Path | None, size: int | None, photos: PhotoSet) -> Classifier:
    """The trained classifier that MODEL means.

    Raises:
        UserError: there is none, it has no weights, or it segments images.
    """
    path = Path(name)
    if name.startswith(TIMM):
        if weights is None:
            raise UserError(f"{name} has no weights of its own: name their file with --weights")
        return read_timm(name, weights, likely=photos.classes, size=size)
    if weights is not None or size is not None:
        raise UserError("--weights and --size are for timm:NAME; a model file has its own")
    if name in ZOO:
        raise UserError(f"{name} is a network without weights: give a run or a model file of one")
    if not path.exists():
        raise UserError(f"{name}: there is no such run or model file")
    return as_classifier(load_any(find_model(path)), name)


def check_splits(bench: Bench, target: Target, fractions: Sequence[float], path: Path) -> None:
    """Refuse what the photos cannot serve before hours are spent."""
    if not bench.photos.of("train"):
        raise UserError(f"{path}: there are no training photos to fit layers to")
    if not bench.photos.of(bench.held_out):
        raise UserError(f"{path}: there are neither validation nor test photos to measure on")
    if (target.max_drop is not None or fractions) and not bench.photos.of("validation"):
        option = "--max-drop" if target.max_drop is not None else "--curve"
        hint = "" if target.max_drop is not None else "; --curve none does without"
        raise UserError(f"{path}: {option} wants validation photos, and there are none{hint}")


def check_layers(model: Classifier, names: Sequence[str]) -> None:
    """Refuse names of convolutions that the network does not have."""
    every = model.named_modules(remove_duplicate=False)
    known = {name: m for name, m in every if isinstance(m, nn.Conv2d)}
    for name in names:
        if name not in known:
            raise UserError(
                f"--keep {name}: no convolution of the network is called {name!r:.80}"
                f"{closest(name, known)}"
            )
