"""A segmented photo as files: the mask, the photo under its colours, the probabilities."""

import zipfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.lib import format as npy
from PIL import Image

from xception.data.images import decode, read_file
from xception.data.preprocess import to_array
from xception.deploy.segment import PhotoSegmenter
from xception.evaluation.inference import index_map
from xception.evaluation.mask_pictures import overlay, paletted, shares, with_legend
from xception.evaluation.segmentation import Piece

MASK, OVERLAY, PROBABILITIES = ".mask.png", ".overlay.jpg", ".npz"
LONG_OVERLAY = ".overlay.png"  # where a side is longer than a JPEG's may be
WRITTEN = (MASK, OVERLAY, LONG_OVERLAY)
QUALITY = 92  # of the overlay, a JPEG
JPEG_SIDE = 65_500  # pixels; libjpeg's JPEG_MAX_DIMENSION


@dataclass(frozen=True)
class Segmented:
    """What was written of a photo."""

    mask: Path
    """A palette PNG: each pixel the number of its class."""
    overlay: Path
    """The photo under the colours of its classes, with a legend; a PNG where a JPEG cannot be so
    long."""
    probabilities: Path | None
    """`probabilities` (height x width x classes, float16) and `classes`, their names."""
    coverage: dict[str, float]
    """The share of the photo's pixels that each class has."""
    in_bands: bool
    """Whether it was too large for the network to see it at once."""
    size: tuple[int, int]
    """Its height and width."""


def segment_file(
    segmenter: PhotoSegmenter, path: Path, folder: Path, name: str, *, probabilities: bool = False
) -> Segmented:
    """Segment a photo, and write what was found into a folder that exists.

    Args:
        segmenter: the model.
        path: the photo.
        folder: where the files go.
        name: of the files, without their endings.
        probabilities: whether to write them, too.

    Raises:
        ImageError: the photo cannot be read, or is too large for the model.
        UserError: the network answers with NaN or infinity.
        OSError: a file cannot be written.
    """
    classes, colours = segmenter.classes, segmenter.colours
    image = decode(read_file(path, str(path)), str(path))
    segmenter.check(image.height, image.width, str(path))
    pixels = to_array(image, segmenter.card.preprocess.channels)
    photo = pixels if pixels.shape[2] == 3 else np.asarray(image)
    del image  # a large photo is not to be there twice
    size = pixels.shape[0], pixels.shape[1]
    stored = folder / f"{name}{PROBABILITIES}" if probabilities else None
    pieces: Iterable[Piece] = segmenter(torch.from_numpy(pixels))
    if stored is None:
        found = index_map(pieces, size)
    else:
        with _stored(stored, (*size, len(classes)), classes) as write:
            found = index_map(_written(pieces, write), size)
    mask = folder / f"{name}{MASK}"
    paletted(found, colours).save(mask, optimize=True)
    coverage = shares(found, len(classes))
    mixed = Image.fromarray(overlay(photo, found, colours, classes))
    entries = list(zip(classes, colours, coverage, strict=True))
    picture = with_legend(mixed, entries)
    shown = folder / f"{name}{OVERLAY if max(picture.size) <= JPEG_SIDE else LONG_OVERLAY}"
    picture.save(shown, quality=QUALITY)
    return Segmented(
        mask=mask,
        overlay=shown,
        probabilities=stored,
        coverage=dict(zip(classes, coverage, strict=True)),
        in_bands=segmenter.in_bands(*size),
        size=size,
    )


def is_written(path: Path, folder: Path) -> bool:
    """Whether a file is a picture that `segment_file` wrote into a folder, by its place and name.

    They may lie below the photos, which are gone through again.
    """
    return path.name.endswith(WRITTEN) and path.parent.resolve() == folder.resolve()


@contextmanager
def _stored(
    path: Path, shape: tuple[int, int, int], classes: tuple[str, ...]
) -> Iterator[Callable[[bytes], object]]:
    """A file such as `np.savez_compressed` writes, whose large part may come bit by bit."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        with archive.open("classes.npy", "w") as file:
            npy.write_array(file, np.array(classes), allow_pickle=False)
        with archive.open("probabilities.npy", "w", force_zip64=True) as file:
            head = {"descr": "<f2", "fortran_order": False, "shape": shape}
            npy.write_array_header_1_0(file, head)
            yield file.write


def _written(pieces: Iterable[Piece], write: Callable[[bytes], object]) -> Iterator[Piece]:
    """The pieces, each the whole width of the photo, written on their way."""
    for piece in pieces:
        rows = piece.probabilities.permute(1, 2, 0).to(torch.float16)
        write(rows.contiguous().cpu().numpy().tobytes())
        yield piece
