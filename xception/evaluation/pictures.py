"""The photos of a report: what the network was shown, and its surest mistakes explained."""

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from xception.data.folders import PhotoSet
from xception.data.images import decode
from xception.data.loader import Batch
from xception.data.preprocess import Preprocess
from xception.data.splits import Split
from xception.evaluation.evaluate import Outcomes
from xception.evaluation.explain import Classifier, grad_cam, overlay
from xception.evaluation.metrics import DECISION_THRESHOLD

SHOWN_SIDE = 240  # pixels; explained photos are shown sharper than a small network sees them
JPEG_QUALITY = 88


class Mistake(BaseModel):
    """A photo that the network got wrong."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str
    """Name of the photo within its set."""
    truth: tuple[str, ...]
    """Its true class; its true labels (any number) in a multi-label set."""
    predicted: str
    """What the network said instead; a label that the photo does not have."""
    probability: float
    """How sure it was of that, in [0, 1]."""
    truth_probability: float | None = None
    """What it gave to the true class; None in a multi-label set."""


@dataclass(frozen=True)
class Sample:
    """One input of the network."""

    image: bytes
    """JPEG."""
    label: str


@dataclass(frozen=True)
class Explained:
    """One mistake: what the network saw (JPEG), and where it looked for its answer (JPEG)."""

    photo: bytes
    overlay: bytes


@dataclass(frozen=True)
class Pictures:
    """The photos that go into the page of a report, and not into its JSON."""

    samples: tuple[Sample, ...] = ()
    mistakes: tuple[Explained, ...] = ()
    """In the order of `Report.mistakes`; both or none."""


def samples(batch: Batch, classes: Sequence[str], limit: int = 24) -> tuple[Sample, ...]:
    """The first inputs of a batch as the network sees them, augmented and all."""
    rows = zip(batch.pixels[:limit].numpy(), batch.targets[:limit], strict=True)
    return tuple(
        Sample(_jpeg(_image(pixels)), ", ".join(_labels(target, classes)))
        for pixels, target in rows
    )


def collect(
    model: Classifier,
    photos: PhotoSet,
    outcomes: Outcomes,
    preprocess: Preprocess,
    *,
    split: Split,
    device: torch.device | str,
    limit: int = 12,
) -> tuple[tuple[Mistake, ...], tuple[Explained, ...]]:
    """The surest mistakes among the outcomes of a split, with what the network saw in them.

    The maps explain the wrong answer; those of a network without feature maps stay empty. Photos
    are cut as the network sees them but shown at a readable size.

    Raises:
        ImageError: a photo can no longer be read.
    """
    chosen = surest_mistakes(outcomes, photos, split, limit)
    explained = []
    for mistake in chosen:
        data = photos.store.read(mistake.path)
        x = preprocess.tensor(data, mistake.path).to(device)
        said = torch.tensor([photos.classes.index(mistake.predicted)])
        (cam,) = grad_cam(model, x, said) if model.has_maps else torch.zeros_like(x[:, 0])
        sharp = preprocess.model_copy(update={"size": max(SHOWN_SIDE, preprocess.size)})
        shown = sharp.fit(decode(data, mistake.path, min_side=sharp.min_side))
        shown.thumbnail((SHOWN_SIDE, SHOWN_SIDE))
        if preprocess.channels == 1:
            shown = shown.convert("L")
        explained.append(Explained(_jpeg(shown), _jpeg(overlay(shown, cam))))
    return chosen, tuple(explained)


def surest_mistakes(
    outcomes: Outcomes, photos: PhotoSet, split: Split, limit: int = 12
) -> tuple[Mistake, ...]:
    """The photos whose wrong answer has the highest probability, surest first.

    With several labels per photo a wrong answer is a label given with at least 0.5 that the photo
    does not have; each photo counts once, with its surest.
    """
    members, classes = photos.of(split), photos.classes
    probabilities, rows = outcomes.probabilities, np.arange(len(outcomes.positions))
    single = outcomes.targets.ndim == 1
    if single:
        said = probabilities.argmax(axis=1)
        wrong = said != outcomes.targets
    else:
        not_true = np.where(outcomes.targets == 1, -1.0, probabilities)
        said = not_true.argmax(axis=1)
        wrong = not_true[rows, said] >= DECISION_THRESHOLD
    sureness = np.where(wrong, probabilities[rows, said], -1.0)
    surest = np.argsort(-sureness, kind="stable")[: min(limit, int(wrong.sum()))]
    return tuple(
        Mistake(
            path=(photo := members[outcomes.positions[row]]).name,
            truth=tuple(classes[label] for label in photo.labels),
            predicted=classes[said[row]],
            probability=float(probabilities[row, said[row]]),
            truth_probability=float(probabilities[row, outcomes.targets[row]]) if single else None,
        )
        for row in surest
    )


def _labels(target: Tensor, classes: Sequence[str]) -> list[str]:
    if target.ndim == 0:
        return [classes[int(target)]]
    return [name for name, given in zip(classes, target.tolist(), strict=True) if given]


def _image(pixels: np.ndarray) -> Image.Image:
    return Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)


def _jpeg(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=JPEG_QUALITY)
    return file.getvalue()
