"""The way from a photo to an answer: one `Predictor` for a trained model, whatever runs it."""

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from xception.data.images import ImageError, read_file, to_rgb, upright
from xception.errors import UserError
from xception.evaluation.evaluate import probabilities
from xception.weights.card import Card
from xception.weights.model_file import load_classifier

MODEL_FILE = "model.safetensors"

Source = str | Path | bytes | Image.Image
"""A photo: its path, the bytes of its file, or an image of Pillow's."""


@dataclass(frozen=True)
class Prediction:
    """What a model says about one photo."""

    classes: tuple[str, ...]
    probabilities: Float[np.ndarray, " k"]
    """Per class, float32. They add up to 1, unless a photo may have several labels."""

    def top(self, k: int = 5) -> list[tuple[str, float]]:
        """The `k` likeliest classes with their probabilities, likeliest first."""
        order = np.argsort(-self.probabilities, kind="stable")[:k]
        return [(self.classes[i], float(self.probabilities[i])) for i in order]


class Predictor:
    """A trained model that takes photos as they are.

    The preprocessing is the one in the model's card, the same that training and evaluation used.

    Args:
        path: a run folder, or a model file (`.safetensors`).
        device: where to compute.

    Raises:
        UserError: there is no model at `path`, its file is not sound, or it segments images.
    """

    def __init__(self, path: str | Path, *, device: torch.device | str = "cpu"):
        self.device = torch.device(device)
        model = load_classifier(find_model(Path(path)))
        self.model = model.to(self.device)
        self.model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        self.card: Card = model.card
        self.classes = self.card.classes

    def __call__(self, image: Source) -> Prediction:
        """The model's answer for one photo. Raises `ImageError` if it cannot be read."""
        (prediction,) = self.predict(self.tensor(image))
        return prediction

    def stream(
        self, paths: Iterable[str | Path], batch_size: int = 32
    ) -> Iterator[tuple[str | Path, Prediction | ImageError]]:
        """Each path with its answer, or with what is wrong with the file, in order.

        Args:
            paths: image files.
            batch_size: photos computed at once; no more are ever held in memory.
        """
        remaining = iter(paths)
        with ThreadPoolExecutor() as pool:
            while chunk := list(islice(remaining, batch_size)):
                inputs = list(pool.map(self._tensor_or_error, chunk))
                yield from zip(chunk, self._answers(inputs), strict=True)

    def tensor(self, image: Source) -> Float[Tensor, "1 c h w"]:
        """What the network sees of a photo. Raises `ImageError`."""
        preprocess = self.card.preprocess
        if isinstance(image, Image.Image):
            pixels = preprocess.pixels(to_rgb(upright(image)))
            return preprocess.normalize(torch.from_numpy(pixels)[None])
        if isinstance(image, bytes):
            return preprocess.tensor(image, "the image")
        return preprocess.tensor(read_file(Path(image), str(image)), str(image))

    def predict(self, x: Float[Tensor, "b c h w"]) -> list[Prediction]:
        """The answers for a batch of what `tensor` gives.

        Raises `UserError` if the network answers with NaN or infinity.
        """
        with torch.inference_mode():
            logits = self.card.preprocess.answers(self.model, x.to(self.device))
        names = [f"photo {number} of the batch" for number in range(1, len(x) + 1)]
        answers = probabilities(logits, self.card.image_task, names)
        return [Prediction(self.classes, row) for row in answers]

    def _tensor_or_error(self, path: str | Path) -> Tensor | ImageError:
        try:
            return self.tensor(path)
        except ImageError as error:
            return error

    def _answers(self, inputs: Sequence[Tensor | ImageError]) -> Iterator[Prediction | ImageError]:
        """The predictions in their places among the errors."""
        readable = [x for x in inputs if isinstance(x, Tensor)]
        predictions = iter(self.predict(torch.cat(readable)) if readable else [])
        for x in inputs:
            yield next(predictions) if isinstance(x, Tensor) else x


def find_model(path: Path) -> Path:
    """The model file that a path means: itself, or the one in a run folder.

    Raises:
        UserError: a folder without one.
    """
    if not path.is_dir():
        return path
    if (path / MODEL_FILE).exists():
        return path / MODEL_FILE
    runs = sorted(file.parent for file in path.glob(f"*/{MODEL_FILE}"))
    if runs:
        hint = f"there is one in {runs[-1]}"
    elif (path / "config.yaml").exists():
        hint = "a run has one after its first epoch"
    else:
        hint = "give a run folder or a .safetensors file"
    raise UserError(f"{path}: no {MODEL_FILE} there; {hint}")
