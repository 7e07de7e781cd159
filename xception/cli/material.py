"""From a path of photos to what a network is calibrated with and measured by."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from PIL import Image

from xception.cli.evaluate import fit_classes
from xception.cli.evaluate_masks import usable_pairs
from xception.cli.look import Look, refuse_masks
from xception.cli.output import counted, say
from xception.data.folders import PhotoSet, open_photos
from xception.data.images import ImageError, decode
from xception.data.names import is_table
from xception.data.pairs import Layout, PairSet, open_pairs
from xception.data.scan import scan
from xception.deploy.compare import PHOTOS, find_photos
from xception.deploy.material import Material, pair_material, photo_material
from xception.errors import UserError
from xception.weights.card import Card

QUESTIONS = 24  # photos on which answers are compared, many times over


@dataclass(frozen=True)
class MaskOptions:
    """What a person says of photos with masks; see `open_pairs`."""

    layout: Layout | None = None
    classes: Path | None = None
    ignore: tuple[int, ...] = ()

    def given(self) -> dict[str, object]:
        """The options by their names on the command line."""
        return {"--layout": self.layout, "--classes": self.classes, "--ignore": self.ignore}


AS_FOUND = MaskOptions()


def open_material(
    data: Path,
    card: Card,
    *,
    calibration: int,
    held_out: int,
    quiet: bool,
    masks: MaskOptions = AS_FOUND,
) -> Material:
    """Photos with the classes of a model, or with masks for one that segments.

    Args:
        data: as for a training.
        card: of the model.
        calibration: photos to calibrate with, at most.
        held_out: photos to measure, at most.
        quiet: say nothing of photos that are skipped.
        masks: how to read them, as for the training.

    Raises:
        UserError: the photos are not such, or not enough, or they are to have masks for a model
            that classifies.
    """
    if card.task == "segmentation":
        return pair_material(
            _pairs(data, card, masks, quiet),
            card,
            calibration=calibration,
            questions=QUESTIONS // 3,
            held_out=held_out,
            say=lambda line: say(line, quiet=quiet),
        )
    refuse_masks(Look(), masks.given())
    photos = fit_classes(open_photos(data), card, data)
    return photo_material(
        readable(photos, quiet),
        card,
        calibration=calibration,
        questions=QUESTIONS,
        held_out=held_out,
    )


def photos_to_compare(data: Path | None) -> list[Image.Image]:
    """As `find_photos`, and those of a table too, which is a data set like a folder.

    Raises:
        UserError: there is none that can be read.
    """
    if data is None or not (data.is_file() and is_table(data.name)):
        return find_photos(data)
    photos = open_photos(data, for_training=False)

    def decoded() -> Iterator[Image.Image]:
        for photo in photos.photos[:: max(len(photos.photos) // PHOTOS, 1)]:
            try:
                yield decode(photos.read(photo), photo.name)
            except ImageError:  # whether there are photos enough is seen in the end
                continue

    found = list(islice(decoded(), PHOTOS))
    if not found:
        raise UserError(f"{data}: not one photo can be read")
    return found


def _pairs(data: Path, card: Card, masks: MaskOptions, quiet: bool) -> PairSet:
    """The pairs that can be used, with the classes of the model; of large photos the middle is."""
    opened = open_pairs(data, layout=masks.layout, classes=masks.classes, ignore=masks.ignore)
    for note in opened.notes:
        say(note, quiet=quiet)
    return usable_pairs(opened.like(card.classes), data, quiet)[0]


def readable(photos: PhotoSet, quiet: bool) -> PhotoSet:
    """The photos that can be read; the others are counted."""
    looks = scan(photos.store, [photo.name for photo in photos.photos])
    named = zip(photos.photos, looks, strict=True)
    skipped = [photo.name for photo, look in named if look.reason]
    if skipped:
        say(f"skipping {counted(len(skipped), 'unreadable photo')}", quiet=quiet)
    return photos.without(skipped)
