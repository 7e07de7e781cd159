"""The way from a photo to an answer: one `Predictor` for a trained model, whatever runs it."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor, nn

from xception.data.images import ImageError, decode, read_file, to_rgb, upright
from xception.deploy.engines import MODEL_FILE as MODEL_FILE
from xception.deploy.engines import Engine, EngineModule, TorchEngine, open_engine
from xception.deploy.engines import find_model as find_model
from xception.deploy.storage import read_photo
from xception.errors import UserError
from xception.evaluation.evaluate import probabilities
from xception.models.classifier import Classifier, as_classifier
from xception.weights.card import Card

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

    The preprocessing is the one in the model's card, the same that training and evaluation used,
    and the answers are the same whatever computes them: torch, ONNX Runtime or OpenVINO, as the
    file wants it. It may be used from several threads at once.

    Args:
        path: a run folder, a model file (`.safetensors`), or one that `xception export` wrote
            (`.onnx`, or OpenVINO's `.xml`).
        device: where torch computes; exported files are computed on the CPU.
        threads: for exported files, how many compute; None for all cores.

    Raises:
        UserError: there is no model at `path`, its file is not sound, it segments images, or a
            library that computes it is not installed.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        device: torch.device | str = "cpu",
        threads: int | None = None,
    ):
        self.device = torch.device(device)
        self.engine: Engine = open_engine(path, device=self.device, threads=threads)
        self.card: Card = self.engine.card
        self.classes = self.card.classes
        self.path = Path(path)
        if self.card.task == "segmentation":
            raise UserError(f"{path} segments images, for `MaskPredictor`; a classifier is needed")
        if isinstance(self.engine, TorchEngine):
            as_classifier(self.engine.network, str(find_model(self.path)))

    @property
    def model(self) -> Classifier:
        """The network of torch.

        Raises:
            UserError: the file is an exported one, which only answers.
        """
        if not isinstance(self.engine, TorchEngine):
            raise UserError(
                f"{self.path} is an exported network, which cannot show where it looked: "
                "give the run or its .safetensors file for that"
            )
        return as_classifier(self.engine.network, str(self.path))

    @property
    def module(self) -> nn.Module:
        """What gives logits for images, whatever computes them."""
        engine = self.engine
        return engine.network if isinstance(engine, TorchEngine) else EngineModule(engine)

    def __call__(self, image: Source) -> Prediction:
        """The model's answer for one photo. Raises `ImageError` if it cannot be read."""
        (prediction,) = self.predict(self.tensor(image))
        return prediction

    def stream(
        self,
        paths: Iterable[str | Path],
        batch_size: int = 32,
        *,
        read: Callable[[str | Path], bytes] = read_photo,
    ) -> Iterator[tuple[str | Path, Prediction | ImageError]]:
        """Each path with its answer, or with what is wrong with the file, in order.

        The photos of a batch are read while the one before it is computed.

        Args:
            paths: image files; taken as they are needed, one batch ahead.
            batch_size: photos computed at once; no more than twice as many are held in memory.
            read: gives the bytes of a path, or raises `ImageError`; by default from disk or, where
                a path is a URL such as s3://bucket/photo.jpg, from there.
        """
        remaining = iter(paths)
        with ThreadPoolExecutor() as pool:

            def begin() -> tuple[list[str | Path], list[Future[np.ndarray | ImageError]]]:
                chunk = list(islice(remaining, batch_size))
                return chunk, [pool.submit(self._pixels_or_error, path, read) for path in chunk]

            chunk, reading = begin()
            while chunk:
                inputs = [one.result() for one in reading]
                following = begin()
                yield from zip(chunk, self._answers(inputs), strict=True)
                chunk, reading = following

    def pixels(self, image: Source) -> UInt8[np.ndarray, "h w c"]:
        """A photo as the network sees it, but not yet normalised. Raises `ImageError`."""
        if isinstance(image, Image.Image):
            return self.card.preprocess.pixels(to_rgb(upright(image)))
        if isinstance(image, bytes):
            return self._decoded(image, "the image")
        return self._decoded(read_file(Path(image), str(image)), str(image))

    def tensor(self, image: Source) -> Float[Tensor, "1 c h w"]:
        """What the network sees of a photo. Raises `ImageError`."""
        return self.card.preprocess.normalize(torch.from_numpy(self.pixels(image))[None])

    def predict(self, x: Float[Tensor, "b c h w"]) -> list[Prediction]:
        """The answers for a batch of what `tensor` gives.

        Raises `UserError` if the network answers with NaN or infinity.
        """
        with torch.inference_mode():
            logits = self.card.preprocess.answers(self.engine, x)
        names = [f"photo {number} of the batch" for number in range(1, len(x) + 1)]
        answers = probabilities(logits, self.card.image_task, names)
        return [Prediction(self.classes, row) for row in answers]

    def _decoded(self, data: bytes, name: str) -> np.ndarray:
        preprocess = self.card.preprocess
        return preprocess.pixels(decode(data, name, min_side=preprocess.min_side))

    def _pixels_or_error(
        self, path: str | Path, read: Callable[[str | Path], bytes]
    ) -> np.ndarray | ImageError:
        try:
            return self._decoded(read(path), str(path))
        except ImageError as error:
            return error

    def _answers(
        self, inputs: Sequence[np.ndarray | ImageError]
    ) -> Iterator[Prediction | ImageError]:
        """The predictions in their places among the errors."""
        readable = [pixels for pixels in inputs if isinstance(pixels, np.ndarray)]
        predictions: Iterator[Prediction] = iter(())
        if readable:
            # All at once and in this thread: of the threads that read, each would have torch start
            # as many more as there are cores.
            batch = torch.from_numpy(np.stack(readable))
            predictions = iter(self.predict(self.card.preprocess.normalize(batch)))
        for pixels in inputs:
            yield next(predictions) if isinstance(pixels, np.ndarray) else pixels
