"""Photos with known answers, for what is measured when a network is made smaller or compared."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import TypeVar

from jaxtyping import Float
from torch import Tensor

from xception.data.folders import PhotoSet
from xception.data.loader import evaluation_batches
from xception.data.pair_loader import PairBatch, evaluation_pairs
from xception.data.pairs import PairSet
from xception.data.splits import Split
from xception.deploy.engines import Engine, EngineModule
from xception.deploy.metadata import Precision
from xception.deploy.segment import PhotoSegmenter
from xception.errors import UserError
from xception.evaluation.evaluate import outcomes
from xception.evaluation.segmentation import evaluate_pairs
from xception.weights.card import Card

METRICS = {"classification": "top1", "multilabel": "map", "segmentation": "miou"}
WORST_CASE = 64  # photos of a batch while photos are measured

Member = TypeVar("Member")


@dataclass(frozen=True)
class Material:
    """What a network is calibrated with, and what it is measured by: different photos."""

    card: Card
    calibration: int
    """How many photos `inputs` has."""
    inputs: Callable[[], Iterator[Float[Tensor, "1 c h w"]]]
    """Images as the network is fed them, of photos that the score does not see."""
    questions: Callable[[], Iterator[Float[Tensor, "1 c h w"]]]
    """Images of some photos that it does see."""
    score: Callable[[Engine], float]
    """The measure below, between 0 and 1, on the photos held out."""
    held_out: int
    """How many these are."""

    @property
    def metric(self) -> str:
        """What the score is: the share of right answers, mean average precision, or mIoU."""
        return METRICS[self.card.task]


def photo_material(
    photos: PhotoSet, card: Card, *, calibration: int, questions: int, held_out: int
) -> Material:
    """Of photos of classes, in the order of the card's.

    Args:
        photos: with the classes of the card.
        card: of the network.
        calibration: photos to calibrate with, at most.
        questions: photos to compare answers on, at most.
        held_out: photos to measure, at most.

    Raises:
        UserError: there are not photos enough for two parts, or nothing can be measured on those
            held out.
    """
    shown, judged = parts(photos.of)
    seen = replace(photos, photos=spaced(photos.of(shown), calibration))
    measured = replace(photos, photos=spaced(photos.of(judged), held_out))
    if not any(photo.labels for photo in measured.photos):  # then no class has a precision
        raise UserError(
            f"nothing to measure: the {judged} photos, which are held out, show none of the "
            "model's classes; give some that do"
        )
    asked = replace(photos, photos=spaced(measured.photos, questions))

    def images(chosen: PhotoSet, split: Split) -> Iterator[Float[Tensor, "1 c h w"]]:
        preprocess = card.preprocess
        for batch in evaluation_batches(
            chosen, split, preprocess=preprocess, batch_size=1, workers=0
        ):
            yield preprocess.normalize(batch.pixels)

    def score(engine: Engine) -> float:
        found = outcomes(
            EngineModule(engine),
            evaluation_batches(
                measured, judged, preprocess=card.preprocess, batch_size=WORST_CASE, workers=0
            ),
            card.preprocess,
            device="cpu",
            task=card.image_task,
        )
        return float(found.measure(card.classes, card.image_task)[METRICS[card.task]])

    return Material(
        card,
        len(seen.photos),
        lambda: images(seen, shown),
        lambda: images(asked, judged),
        score,
        len(measured.photos),
    )


def pair_material(
    pairs: PairSet,
    card: Card,
    *,
    calibration: int,
    questions: int,
    held_out: int,
    say: Callable[[str], None],
) -> Material:
    """Of photos with masks, numbered as the classes of the card; see `photo_material`.

    Exported networks see a photo at once: of one that is too large for that its middle is shown,
    to the original as well; `say` is told of the first.

    Raises:
        UserError: there are not photos enough for two parts.
    """
    shown, judged = parts(pairs.of)
    seen = replace(pairs, pairs=spaced(pairs.of(shown), calibration))
    measured = replace(pairs, pairs=spaced(pairs.of(judged), held_out))
    asked = replace(pairs, pairs=spaced(measured.pairs, questions))
    told = False

    def batches(segment: PhotoSegmenter, chosen: PairSet, split: Split) -> Iterator[PairBatch]:
        nonlocal told
        for batch in evaluation_pairs(chosen, split, preprocess=card.preprocess, workers=0):
            middle = middle_of(batch, segment)
            if not told and middle is not batch:
                told = True
                say("some photos are too large for an exported model to see: their middle counts")
            yield middle

    def images(chosen: PairSet, split: Split) -> Iterator[Float[Tensor, "1 c h w"]]:
        recorder = Recorder(card)
        segment = PhotoSegmenter(recorder, mirror=False)
        for batch in batches(segment, chosen, split):
            for _ in segment(batch.pixels[0]):
                yield recorder.seen.pop()

    def score(engine: Engine) -> float:
        segment = PhotoSegmenter(engine)
        shown = batches(segment, measured, judged)
        counts = evaluate_pairs(segment, shown, num_classes=len(card.classes))
        return float(counts.figures(card.classes)["miou"] or 0.0)

    return Material(
        card,
        len(seen.pairs),
        lambda: images(seen, shown),
        lambda: images(asked, judged),
        score,
        len(measured.pairs),
    )


def middle_of(batch: PairBatch, segment: PhotoSegmenter) -> PairBatch:
    """The photo and its mask, cut at the longer sides until an exported network can see it."""
    _, height, width = batch.targets.shape
    rows, columns = height, width
    while segment.in_bands(rows, columns) and max(rows, columns) > 1:
        if rows > columns:
            rows = rows * 9 // 10
        else:
            columns = columns * 9 // 10
    if (rows, columns) == (height, width):
        return batch
    top, left = (height - rows) // 2, (width - columns) // 2
    part = slice(None), slice(top, top + rows), slice(left, left + columns)
    return batch._replace(pixels=batch.pixels[part], targets=batch.targets[part])


class Recorder:
    """Stands in the place of an engine to learn what it is fed."""

    name, minimum_size = "nothing", 1
    precision: Precision = "fp32"

    def __init__(self, card: Card):
        self.card = card
        self.seen: list[Tensor] = []

    def __call__(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k h w"]:
        """No answer."""
        self.seen.append(x.clone())
        return x.new_zeros(len(x), len(self.card.classes), *x.shape[2:])


def parts(members: Callable[[Split], Sequence[object]]) -> tuple[Split, Split]:
    """The split to calibrate with, and the one to measure.

    Raises:
        UserError: there are no two.
    """
    there: list[Split] = [split for split in ("train", "validation", "test") if members(split)]
    if len(there) < 2:
        raise UserError(
            "photos to calibrate with and other ones to measure are needed; "
            f"there are only {there[0]} photos"
            if there
            else "there are no photos"
        )
    return there[0], there[1]


def spaced(members: Sequence[Member], most: int) -> tuple[Member, ...]:
    """At most so many of them, evenly spaced."""
    if len(members) <= most:
        return tuple(members)
    return tuple(islice((members[i * len(members) // most] for i in range(most)), most))
