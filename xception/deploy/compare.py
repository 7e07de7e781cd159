"""An exported network against the one it comes from, on photos: an export that differs is refused.

Two ways to compute the same sums differ in the last digits of float32, and no further. Masks may
differ where two classes are all but equally likely. Logits are compared too: probabilities next to
0 and 1, and those of many classes of a network that is sure of none, hide what is wrong.
"""

import zipfile
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from xception.data.demo import DEMO_PHOTOS
from xception.data.folders import list_images
from xception.data.images import ImageError, decode, read_image
from xception.data.names import is_photo
from xception.data.preprocess import to_array
from xception.data.store import ZipStore
from xception.errors import UserError
from xception.weights.card import Card

PROBABILITY = 1e-4  # how much a probability may differ
# How much a logit may, as a share of the largest one: deep networks with random weights, which
# amplify roundings most, differ by 1e-4. Another class is then the likeliest one only where two are
# closer than twice that.
LOGIT = 1e-3
TINY = 1e-12  # logits below are taken for none
SAME_PIXELS = 0.9999  # of a mask that must be of the same class
PHOTOS = 16
# Heights and widths of the images for a network that takes any: odd and even, wide and high, the
# smallest and the largest that this is promised for.
SIZES = ((65, 98), (130, 129), (257, 224), (512, 385), (513, 513))

Answer = Callable[[Tensor], Tensor]


class Comparison(NamedTuple):
    """How far two networks are apart."""

    photos: int
    sizes: tuple[tuple[int, int], ...]
    """Heights and widths, in pixels, at which they were compared."""
    largest: float
    """The largest difference between two probabilities."""
    same: float
    """The share of photos, or of pixels, with the same likeliest class."""
    least_same: float
    """That share in the worst photo: 0 or 1 where a photo has one class."""
    masks: bool
    """Whether each pixel has a class."""
    logits: float = 0.0
    """The largest difference between two logits, as a share of the original's largest logit."""

    @property
    def refusal(self) -> str | None:
        """Why the two are not the same network; None if they are."""
        if self.largest > PROBABILITY:
            return f"probabilities differ by up to {self.largest:.1e}; {PROBABILITY:.0e} is allowed"
        if self.logits > LOGIT:
            return (
                f"logits differ by up to {self.logits:.1e} of the largest; {LOGIT:.0e} is allowed"
            )
        if self.masks and self.least_same < SAME_PIXELS:
            return (
                f"only {self.least_same:.4%} of the pixels of a photo are of the same class; "
                f"{SAME_PIXELS:.2%} must be"
            )
        return None

    def told(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "photos": self.photos,
            "sizes": [list(size) for size in self.sizes],
            "largest_difference": self.largest,
            "largest_logit_difference": self.logits,
            "same_answer": self.same,
            "worst_photo": self.least_same,
        }


def compare(one: Answer, other: Answer, card: Card, photos: Sequence[Image.Image]) -> Comparison:
    """Ask both networks for the same photos: each alone, and several at once.

    Args:
        one: the original, from normalised images to logits.
        other: the exported one.
        card: of both; says how photos become images, and what the logits are.
        photos: in mode RGB, of any size; at least one.

    Raises:
        UserError: one of them answers with NaN or infinity.
    """
    sizes = sizes_of(card)
    largest, apart, size, shares = 0.0, 0.0, 0.0, []
    for batch in _batches(card, photos, sizes):
        a, b = (_sound(answer(batch)) for answer in (one, other))
        if a.shape != b.shape:
            shapes = f"{tuple(a.shape)} and {tuple(b.shape)}"
            raise UserError(f"the exported network answers in another shape: {shapes}")
        apart, size = max(apart, float((a - b).abs().max())), max(size, float(a.abs().max()))
        a, b = (_probabilities(logits, card) for logits in (a, b))
        largest = max(largest, float((a - b).abs().max()))
        equal = (a.argmax(1) == b.argmax(1)).double()
        shares += equal.reshape(len(equal), -1).mean(1).tolist()
    same = sum(shares) / len(shares)
    masks = card.task == "segmentation"
    share = apart / max(size, TINY)
    return Comparison(len(photos), sizes, largest, same, min(shares), masks, share)


def sizes_of(card: Card) -> tuple[tuple[int, int], ...]:
    """Heights and widths at which networks of this card are compared."""
    if card.task != "segmentation":
        return ((card.preprocess.size, card.preprocess.size),)
    return SIZES


def find_photos(path: Path | None) -> list[Image.Image]:
    """Some photos to compare on: of a folder, a file or a data set, or else the embedded ones.

    Raises:
        UserError: there is none that can be read.
    """
    if path is None:
        readable = _of_zip(DEMO_PHOTOS)
    elif zipfile.is_zipfile(path):
        readable = _of_zip(path)
    else:
        readable = _of_files(path)
    found = list(islice(readable, PHOTOS))
    if not found:
        raise UserError(f"{path}: not one photo can be read")
    return found


def _of_zip(path: Path) -> Iterator[Image.Image]:
    store = ZipStore(path)
    names = [name for name in store.names() if is_photo(name)]
    for name in names[:: max(len(names) // PHOTOS, 1)]:
        try:
            yield decode(store.read(name), name)
        except ImageError:  # whether there are photos enough is seen in the end
            continue


def _of_files(path: Path) -> Iterator[Image.Image]:
    files = list_images(path)
    for file in files[:: max(len(files) // PHOTOS, 1)]:
        try:
            yield read_image(file)
        except ImageError:  # as above
            continue


def _batches(
    card: Card, photos: Sequence[Image.Image], sizes: Sequence[tuple[int, int]]
) -> Iterator[Float[Tensor, "b c h w"]]:
    """Every photo once alone, at one of the sizes after the other, and then some together."""
    for i, photo in enumerate(photos):
        yield _image(card, photo, sizes[i % len(sizes)])
    yield torch.cat([_image(card, photo, sizes[0]) for photo in photos[:3]])
    for size in sizes[len(photos) :]:  # fewer photos than sizes
        yield _image(card, photos[0], size)


def _image(card: Card, photo: Image.Image, size: tuple[int, int]) -> Float[Tensor, "1 c h w"]:
    preprocess = card.preprocess
    if card.task != "segmentation":
        pixels: UInt8[Tensor, "h w c"] = torch.from_numpy(preprocess.pixels(photo))
    else:
        height, width = size
        resized = photo.resize((width, height), Image.Resampling.BICUBIC)
        pixels = torch.from_numpy(to_array(resized, preprocess.channels))
    return preprocess.normalize(pixels[None])


def _sound(logits: Tensor) -> Tensor:
    logits = logits.float().cpu()
    if not bool(logits.isfinite().all()):
        raise UserError("the network answers with NaN or infinity: its weights are damaged")
    return logits


def _probabilities(logits: Tensor, card: Card) -> Tensor:
    return logits.sigmoid() if card.task == "multilabel" else logits.softmax(1)
