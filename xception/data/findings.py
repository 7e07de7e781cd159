"""The single things that an audit may find; each function looks for one sort of trouble."""

import posixpath
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict

from xception.data.duplicates import exact_groups, near_groups
from xception.data.folders import Photo, PhotoSet
from xception.data.images import SUFFIXES
from xception.data.names import some
from xception.data.scan import Look, fingerprints, thumbnails
from xception.data.splits import Split

#: Training refuses if more than this share of the photos cannot be read.
MAX_UNREADABLE = 0.05
#: A class with fewer training photos is hardly learnt.
FEW_PHOTOS = 10
#: A class with so many times fewer training photos than the largest is easily overlooked.
OUTNUMBERED = 10

Kind = Literal[
    "unreadable",
    "empty_class",
    "one_class",
    "no_validation",
    "no_test",
    "leak",
    "near_leak",
    "label_conflict",
    "near_label_conflict",
    "duplicates",
    "near_duplicates",
    "near_duplicates_unfinished",
    "tiny_class",
    "outnumbered_class",
    "missing_from_split",
    "small_images",
    "unlabelled",
    "wrong_ending",
    "split_made",
    "ignored",
    "unpaired",
    "size_differs",
    "unknown_values",
    "mixed_masks",
    "absent_class",
    "rare_class",
    "ignored_pixels",
]
_Kinds = tuple[Kind, Kind, Kind]


class Finding(BaseModel):
    """One thing that was found."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Kind
    severity: Literal["error", "warning", "note"]
    message: str
    """For people, in one or two sentences."""
    files: tuple[str, ...] = ()
    """All the files that it is about."""
    groups: tuple[tuple[str, ...], ...] = ()
    """The same files in groups, where files belong together (duplicates)."""


def of_unreadable(unreadable: dict[str, str], photos: int) -> Iterator[Finding]:
    """Files that cannot be shown."""
    if not unreadable:
        return
    names = tuple(unreadable)
    message = f"{len(names)} of {photos} photos cannot be read, first {names[0]}: "
    message += f"{unreadable[names[0]]}."
    if len(names) > MAX_UNREADABLE * photos:
        more = f" More than {MAX_UNREADABLE:.0%} is too many to skip; mend or remove them."
        yield Finding(kind="unreadable", severity="error", message=message + more, files=names)
    else:
        message += " They will be skipped."
        yield Finding(kind="unreadable", severity="warning", message=message, files=names)


def of_classes(photos: PhotoSet, counts: dict[Split, dict[str, int]]) -> Iterator[Finding]:
    """Classes without, with few, or with comparatively few training photos."""
    train = counts["train"]
    learnt = [name for name in photos.classes if train[name]]
    if len(learnt) < 2:
        yield Finding(
            kind="one_class",
            severity="error",
            message=f"Only {len(learnt)} of the classes {some(photos.classes)} has training "
            "photos; at least two are needed.",
        )
    elif len(learnt) < len(photos.classes):
        empty = [name for name in photos.classes if not train[name]]
        yield Finding(
            kind="empty_class",
            severity="error",
            message=f"No readable training photo of {some(empty)}. Add some, or remove the class.",
        )
    tiny = [name for name in learnt if train[name] < FEW_PHOTOS]
    if tiny:
        shown = some([f"{name} ({train[name]})" for name in tiny])
        yield Finding(
            kind="tiny_class",
            severity="warning",
            message=f"Fewer than {FEW_PHOTOS} training photos of {shown}: hardly enough to learn.",
        )
    largest = max(photos.classes, key=lambda name: train[name])
    few = [name for name in learnt if train[name] * OUTNUMBERED <= train[largest]]
    if few:
        shown = some([f"{name} ({train[name]})" for name in few])
        yield Finding(
            kind="outnumbered_class",
            severity="warning",
            message=f"{largest} has {train[largest]} training photos, {OUTNUMBERED} times as many "
            f"as {shown} or more. Consider --class-weights balanced or --sampler balanced.",
        )
    missing = {
        split: [name for name in learnt if not counts[split][name]]
        for split in ("validation", "test")
        if any(counts[split].values())
    }
    if any(missing.values()):
        parts = [f"no {split} photos of {some(names)}" for split, names in missing.items() if names]
        yield Finding(
            kind="missing_from_split",
            severity="warning",
            message=f"There are {' and '.join(parts)}: there, nothing will be known about them.",
        )


def of_splits(made: Sequence[Split], sizes: Counter[Split]) -> Iterator[Finding]:
    """Splits that are empty, and those that we `made`. `sizes`: readable photos of each."""
    if not sizes["validation"]:
        yield Finding(
            kind="no_validation",
            severity="error",
            message="There are no validation photos to choose the best model by. "
            "Add photos, or a validation split of your own.",
        )
    if not sizes["test"]:
        yield Finding(
            kind="no_test",
            severity="note",
            message="There are no test photos: the figures of validation, by which the model is "
            "chosen, will look a little better than they are.",
        )
    if made:
        sized = ", ".join(f"{split} {sizes[split]}" for split in made)
        yield Finding(
            kind="split_made",
            severity="note",
            message=f"Split by the content of each photo, the same on every machine: {sized}.",
        )


def of_duplicates(seen: Sequence[tuple[Photo, Look]]) -> Iterator[Finding]:
    """Photos that occur again, and the trouble that this makes."""
    exact = exact_groups([look.digest for _, look in seen])
    kinds: _Kinds = ("leak", "label_conflict", "duplicates")
    yield from _trouble(exact, seen, "exact copies of each other", kinds)
    copies = {position for group in exact for position in group[1:]}
    distinct = [position for position in range(len(seen)) if position not in copies]
    looks = [seen[position][1] for position in distinct]
    near = near_groups(fingerprints(looks), thumbnails(looks))
    groups = [[distinct[i] for i in group] for group in near.groups]
    kinds = ("near_leak", "near_label_conflict", "near_duplicates")
    yield from _trouble(groups, seen, "nearly the same picture", kinds)
    if not near.complete:
        yield Finding(
            kind="near_duplicates_unfinished",
            severity="note",
            message="The search for near duplicates was given up: too many photos look alike.",
        )


def _trouble(
    groups: Sequence[Sequence[int]],
    seen: Sequence[tuple[Photo, Look]],
    what: str,
    kinds: _Kinds,
) -> Iterator[Finding]:
    """Sort groups of equal photos by what is bad about them; one may be bad in two ways."""
    photos = [[seen[position][0] for position in group] for group in groups]
    leaks = [group for group in photos if len({photo.split for photo in group}) > 1]
    conflicts = [group for group in photos if len({photo.labels for photo in group}) > 1]
    plain = [group for group in photos if group not in leaks and group not in conflicts]
    consequences = (" and stand in different splits: measures deceive", " but differ in label", "")
    for found, kind, consequence in zip(
        (leaks, conflicts, plain), kinds, consequences, strict=True
    ):
        if found:
            named = tuple(tuple(photo.name for photo in group) for group in found)
            files = tuple(name for group in named for name in group)
            yield Finding(
                kind=kind,
                severity="warning" if consequence else "note",
                message=f"{len(files)} photos (in {count(found, 'group')}) are {what}"
                f"{consequence}; first {some(named[0])}.",
                files=files,
                groups=named,
            )


def of_files(photos: PhotoSet, seen: Sequence[tuple[Photo, Look]], size: int) -> Iterator[Finding]:
    """Small photos, photos without a label, endings that lie, files that are none of the set."""
    small = tuple(photo.name for photo, look in seen if look.shorter_side < size)
    if small:
        least = min(look.shorter_side for _, look in seen)
        yield Finding(
            kind="small_images",
            severity="warning",
            message=f"{count(small, 'photo')} with a shorter side under the {size} pixels of the "
            f"network's input (the smallest {least}) will be enlarged.",
            files=small,
        )
    unlabelled = tuple(photo.name for photo, _ in seen if not photo.labels)
    if unlabelled:
        yield Finding(
            kind="unlabelled",
            severity="note",
            message=f"{count(unlabelled, 'photo')} without a label, taken to show no class.",
            files=unlabelled,
        )
    lying = tuple(photo.name for photo, look in seen if _lies(photo.name, look.format))
    if lying:
        truth = next(look.format for photo, look in seen if photo.name == lying[0])
        yield Finding(
            kind="wrong_ending",
            severity="note",
            message=f"{count(lying, 'file')} with the ending of another format, first {lying[0]}, "
            f"in truth {truth}. The content counts.",
            files=lying,
        )
    if photos.ignored:
        yield Finding(
            kind="ignored",
            severity="note",
            message=f"{count(photos.ignored, 'file')} not used, being no photos of the set: "
            f"{some(photos.ignored)}.",
            files=photos.ignored,
        )


def _lies(name: str, format: str) -> bool:
    return SUFFIXES.get(posixpath.splitext(name)[1].lower(), format) != format


def count(things: Sequence[object], what: str) -> str:
    """One of them -> "1 photo", two -> "2 photos"."""
    return f"{len(things)} {what}" + ("" if len(things) == 1 else "s")
