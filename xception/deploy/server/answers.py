"""What stands between a file that was sent and the answer in JSON, for each kind of model."""

import base64
import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image

from xception.data.images import ImageError, decode, opened
from xception.data.preprocess import to_array
from xception.deploy.engines import Engine, TorchEngine, engine_card, open_engine
from xception.deploy.fold import fold
from xception.deploy.runtime import Prediction, Predictor
from xception.deploy.segment import PhotoSegmenter
from xception.evaluation.inference import index_map
from xception.weights.card import Card

NAME = "the image"  # callers' names of files stay out of all we do


@runtime_checkable
class Answerer(Protocol):
    """A model as the server uses it; each step runs in another thread."""

    card: Card

    def prepare(self, data: bytes, size: tuple[int, int]) -> Any:
        """From a file's bytes, and width and height as its header has them, to what is computed.

        Raises `ImageError`.
        """
        ...

    def compute(self, prepared: Sequence[Any]) -> Sequence[Any]:
        """One outcome for each photo."""
        ...

    def present(self, outcome: Any, top: int) -> dict[str, Any]:
        """The outcome as JSON, with the `top` likeliest classes if it is about a whole photo."""
        ...

    def about(self) -> dict[str, Any]:
        """What all answers have in common."""
        ...

    def example(self) -> Any:
        """Something prepared, to measure with."""
        ...


class Classifier:
    """Answers with the likeliest classes."""

    def __init__(self, predictor: Predictor):
        self._predictor = predictor
        self.card = predictor.card

    def prepare(self, data: bytes, size: tuple[int, int]) -> Float[torch.Tensor, "1 c h w"]:
        """The network's input."""
        return self._predictor.tensor(data)

    def compute(self, prepared: Sequence[Any]) -> list[Prediction]:
        """All photos in one batch."""
        return self._predictor.predict(torch.cat(list(prepared)))

    def present(self, outcome: Prediction, top: int) -> dict[str, Any]:
        """`{"top": [{"label", "probability"}, …]}`."""
        best = outcome.top(top)
        return {"top": [{"label": label, "probability": share} for label, share in best]}

    def about(self) -> dict[str, Any]:
        """The task."""
        return {"task": self.card.task}

    def example(self) -> Float[torch.Tensor, "1 c h w"]:
        """A black photo."""
        preprocess = self.card.preprocess
        side = preprocess.size
        black = torch.zeros(1, side, side, preprocess.channels, dtype=torch.uint8)
        return preprocess.normalize(black)


class Segmenter:
    """Answers with a mask: a PNG whose pixels are class numbers, painted by its palette.

    Args:
        segmenter: the model.
        most_pixels: of a mask. A larger photo is scaled down to that before the model sees it, for
            the time and memory that a photo of a telephone would take; its mask has that size.
    """

    def __init__(self, segmenter: PhotoSegmenter, most_pixels: int):
        self._segmenter = segmenter
        self._most_pixels = most_pixels
        self.card = segmenter.card
        self._colours = segmenter.colours

    def prepare(self, data: bytes, size: tuple[int, int]) -> UInt8[torch.Tensor, "h w c"]:
        """The pixels, at the size that the mask will have."""
        width, height = _within(*size, self._most_pixels)
        self._segmenter.check(height, width, NAME)  # before anything is decoded
        scale = min(1.0, math.sqrt(self._most_pixels / (size[0] * size[1])))
        image = decode(data, NAME, min_side=max(1, math.ceil(scale * min(size))))
        preprocess = self.card.preprocess
        if scale < 1:
            width, height = image.size  # upright, and perhaps already reduced by the decoder
            smaller = _within(width, height, self._most_pixels)
            image = preprocess.resample(image, smaller, (0, 0, width, height))
        return torch.from_numpy(to_array(image, preprocess.channels))

    def compute(self, prepared: Sequence[Any]) -> list[UInt8[np.ndarray, "h w"]]:
        """Photo by photo: they differ in size."""
        return [index_map(self._segmenter(one), (one.shape[0], one.shape[1])) for one in prepared]

    def present(self, outcome: UInt8[np.ndarray, "h w"], top: int) -> dict[str, Any]:
        """`{"size": [width, height], "mask": PNG in base64, "coverage": {class: share}}`."""
        image = Image.fromarray(outcome)
        image.putpalette([value for colour in self._colours for value in colour])
        file = io.BytesIO()
        image.save(file, "PNG")
        counts = np.bincount(outcome.ravel(), minlength=len(self.card.classes))
        return {
            "size": [image.width, image.height],
            "mask": base64.b64encode(file.getvalue()).decode(),
            "coverage": {
                name: int(count) / outcome.size
                for name, count in zip(self.card.classes, counts, strict=True)
                if count
            },
        }

    def about(self) -> dict[str, Any]:
        """The task, and what the numbers of a mask mean."""
        return {
            "task": self.card.task,
            "classes": [*self.card.classes],
            "colours": [f"#{red:02x}{green:02x}{blue:02x}" for red, green, blue in self._colours],
        }

    def example(self) -> UInt8[torch.Tensor, "h w c"]:
        """A black photo of usual size."""
        side = self.card.preprocess.size
        return torch.zeros(side, side, self.card.preprocess.channels, dtype=torch.uint8)


def open_answerer(
    path: str | Path,
    *,
    device: torch.device | str,
    threads: int | None,
    mask_pixels: int,
    image_pixels: int,
) -> Answerer:
    """The model at a path, ready to answer; on a CPU with its normalisations folded.

    Args:
        path: a run folder, a model file, or an exported one.
        device: where torch computes.
        threads: for exported files, how many compute one batch.
        mask_pixels: see `Segmenter`.
        image_pixels: of what the network is shown of a photo, at most; for a model that segments.

    Raises:
        UserError: there is no sound model at `path`, or a library that computes it is missing.
    """
    if engine_card(path).task == "segmentation":
        engine = open_engine(path, device=device, threads=threads)
        _fold(engine)
        return Segmenter(PhotoSegmenter(engine, most_pixels=image_pixels), mask_pixels)
    predictor = Predictor(path, device=device, threads=threads)
    _fold(predictor.engine)
    return Classifier(predictor)


def _within(width: int, height: int, most: int) -> tuple[int, int]:
    """Sides of the same shape with no more pixels; a sliver keeps a pixel of width."""
    scale = min(1.0, math.sqrt(most / (width * height)))
    lower = max(1, int(height * scale))
    narrower = max(1, min(int(width * scale), most // lower))
    return narrower, min(lower, most // narrower)


def _fold(engine: Engine) -> None:
    if isinstance(engine, TorchEngine) and engine.device.type == "cpu":
        fold(engine.network)


def header_size(data: bytes, most_pixels: int) -> tuple[int, int]:
    """Width and height that the header of a file promises; nothing is decoded.

    Raises `ImageError` if it is no sound file, or promises more pixels than allowed.
    """
    with opened(data, NAME) as image:
        width, height = image.size
        if width * height > most_pixels:
            size = f"{width} × {height} pixels"
            raise ImageError(NAME, f"{size}, more than the {most_pixels:,} allowed: scale it down")
        return width, height
