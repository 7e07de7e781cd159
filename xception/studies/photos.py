"""What the cells of a study are trained on: photos as they are, fewer of them, or mosaics.

What is made is one zip within the study's folder, with its splits in a table, the same bytes
wherever it is made: every cell sees the same photos, and anyone can train on them by hand.
"""

import csv
import hashlib
import io
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
from PIL import Image

from xception.data.folders import Photo, PhotoSet, open_photos
from xception.data.images import decode
from xception.data.kind import task_of
from xception.data.splits import SPLITS, Split
from xception.errors import UserError
from xception.studies.study import Photos, Scale
from xception.weights.atomic import write_whole

# At most so many of each split at tiny scale; what four minutes of two cores can learn from.
TINY_PHOTOS: dict[Split, int] = {"train": 12_000, "validation": 2_500, "test": 10_000}
MOSAICS: dict[Split, int] = {"train": 10_000, "validation": 1_500, "test": 3_000}
MOSAIC_SIDE = 64  # pixels, of 2×2 photos
JPEG_QUALITY = 95

TABLE = "photos.csv"
ZIP = "photos.zip"
WEIGHTS = "class-weights.json"


class Ready(NamedTuple):
    """What the cells are trained on, and what each class weighs in MAP@k (None: all alike)."""

    photos: Path
    weights: Path | None


def prepare(source: Path, folder: Path, kind: Photos, scale: Scale) -> Ready:
    """What the cells of a study are trained on, made within its folder unless it is there.

    Args:
        source: the person's photos, as `open_photos` takes them.
        folder: of the study.
        kind: photos as they are, or mosaics.
        scale: "full" takes all photos, "tiny" some.

    Raises:
        UserError: the photos cannot be used for this, or the folder not written to.
    """
    if kind == "photos" and scale == "full":
        _open(source)
        return Ready(source, None)
    target, weights = folder / ZIP, folder / WEIGHTS
    if not target.exists():  # written last
        photos = _open(source)
        barred = [name for name in photos.classes if "|" in name]
        if barred:  # in the table of the zip it would be two labels
            raise UserError(f"{source}: the class {barred[0]!r} has a | in its name: rename it")
        if kind == "mosaics":
            shares = dict(zip(photos.classes, commonness(len(photos.classes)), strict=True))
            write_whole(weights, lambda file: file.write(json.dumps(shares, indent=2).encode()))
        rows = some(photos) if kind == "photos" else mosaics(photos)
        write_whole(target, lambda file: _write(file, rows))
    return Ready(target, weights if kind == "mosaics" else None)


def _open(source: Path) -> PhotoSet:
    """The photos, if a study can be made of them; UserError if not."""
    if task_of(source) != "classification":
        raise UserError(f"{source}: has masks beside its photos; the study wants classes of photos")
    photos = open_photos(source)
    if photos.multilabel:
        raise UserError(f"{source}: the study wants photos with one label each")
    return photos


class Row(NamedTuple):
    """One picture of the zip."""

    name: str
    labels: str
    split: str
    data: bytes


def some(photos: PhotoSet) -> Iterator[Row]:
    """At most `TINY_PHOTOS` of each split, chosen by their names' hashes: about evenly by class."""
    for split in SPLITS:
        ordered = sorted(photos.of(split), key=_hashed)[: TINY_PHOTOS[split]]
        for number, photo in enumerate(ordered):
            label = photos.classes[photo.labels[0]]
            ending = Path(photo.name).suffix
            yield Row(f"{split}/{number:05d}{ending}", label, split, photos.read(photo))


def mosaics(photos: PhotoSet) -> Iterator[Row]:
    """`MOSAICS` pictures of 2×2 photos of a split each, labelled with the classes of all four.

    Classes come as often as `commonness` says; a photo may stand in several mosaics.
    """
    shares = commonness(len(photos.classes))
    groups = {split: _by_class(photos, split) for split in MOSAICS}
    for split, count in MOSAICS.items():
        rng = np.random.default_rng([SPLITS.index(split), count])
        own = groups[split]
        for number in range(count):
            labels = rng.choice(len(own), size=4, p=shares)
            four = [own[label][rng.integers(len(own[label]))] for label in labels]
            names = "|".join(photos.classes[label] for label in sorted(set(labels.tolist())))
            # The bar behind a lone label says that there could be several.
            yield Row(f"{split}/{number:05d}.jpg", f"{names}|", split, _mosaic(photos, four))


def commonness(classes: int) -> list[float]:
    """The share of each class, by Zipf's law: the second comes half as often as the first."""
    shares = 1 / np.arange(1, classes + 1)
    return (shares / shares.sum()).tolist()


def _by_class(photos: PhotoSet, split: Split) -> list[list[Photo]]:
    groups: list[list[Photo]] = [[] for _ in photos.classes]
    for photo in sorted(photos.of(split), key=_hashed):
        groups[photo.labels[0]].append(photo)
    if not all(groups):
        raise UserError(f"mosaics need {split} photos of every class")
    return groups


def _hashed(photo: Photo) -> bytes:
    return hashlib.sha256(photo.name.encode()).digest()


def _mosaic(photos: PhotoSet, four: list[Photo]) -> bytes:
    side = MOSAIC_SIDE // 2
    canvas = Image.new("RGB", (MOSAIC_SIDE, MOSAIC_SIDE))
    for place, photo in enumerate(four):
        image = decode(photos.read(photo), photo.name, min_side=side)
        corner = (place % 2 * side, place // 2 * side)
        canvas.paste(image.resize((side, side), Image.Resampling.BILINEAR), corner)
    file = io.BytesIO()
    canvas.save(file, "JPEG", quality=JPEG_QUALITY)
    return file.getvalue()


def _write(file: IO[bytes], rows: Iterator[Row]) -> None:
    """The zip: pictures as they are, then the table; no times in it."""
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(("path", "label", "split"))
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for row in rows:
            archive.writestr(zipfile.ZipInfo(row.name), row.data)
            writer.writerow((row.name, row.labels, row.split))
        archive.writestr(zipfile.ZipInfo(TABLE), table.getvalue())
