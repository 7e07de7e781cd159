"""From a path of photos to what a network is calibrated with and measured by."""

from pathlib import Path

from xception.cli.evaluate import fit_classes
from xception.cli.output import counted, say
from xception.data.folders import open_photos
from xception.data.pairs import open_pairs
from xception.data.scan import scan
from xception.deploy.material import Material, pair_material, photo_material
from xception.weights.card import Card

QUESTIONS = 24  # photos on which answers are compared, many times over


def open_material(
    data: Path, card: Card, *, calibration: int, held_out: int, quiet: bool
) -> Material:
    """Photos with the classes of a model, or with masks for one that segments.

    Args:
        data: as for a training.
        card: of the model.
        calibration: photos to calibrate with, at most.
        held_out: photos to measure, at most.
        quiet: say nothing of photos that are skipped.

    Raises:
        UserError: the photos are not such, or not enough.
    """
    if card.task == "segmentation":
        pairs = open_pairs(data).like(card.classes)
        return pair_material(
            pairs,
            card,
            calibration=calibration,
            questions=QUESTIONS // 3,
            held_out=held_out,
            say=lambda line: say(line, quiet=quiet),
        )
    photos = fit_classes(open_photos(data), card, data)
    looks = scan(photos.store, [photo.name for photo in photos.photos])
    named = zip(photos.photos, looks, strict=True)
    unreadable = [photo.name for photo, look in named if look.reason]
    if unreadable:
        say(f"skipping {counted(len(unreadable), 'unreadable photo')}", quiet=quiet)
    return photo_material(
        photos.without(unreadable),
        card,
        calibration=calibration,
        questions=QUESTIONS,
        held_out=held_out,
    )
