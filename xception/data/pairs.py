"""A folder or a zip of photos and masks -> pairs with their splits, and what the masks mean.

Which layouts are understood says `pair_layout`; what names the classes says `legend`. What was
found and what was assumed stands in `PairSet.notes`, to be said aloud.

Splits that are not given are made as for classification (see `splits`): by the photo's bytes.
"""

import dataclasses
import functools
import posixpath
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from xception.data.class_file import CLASS_FILES, ClassSpec, named, read_classes
from xception.data.folders import check_encoding, complete_splits, must_exist
from xception.data.images import ImageError, read_file
from xception.data.legend import Legend, Sight, legend_found, legend_of, sight_of
from xception.data.masks import IGNORED, RGB, decode_mask
from xception.data.names import is_hidden, some
from xception.data.pair_layout import Found, Layout, find_pairs, unmatched
from xception.data.splits import Split
from xception.data.store import Store, store_at
from xception.data.table import Row
from xception.errors import UserError

__all__ = ["IGNORED", "Layout", "Pair", "PairSet", "open_pairs"]


@dataclasses.dataclass(frozen=True)
class Pair:
    """A photo and its mask: names within the store, relative paths with forward slashes."""

    photo: str
    mask: str
    split: Split


@dataclasses.dataclass(frozen=True)
class PairSet:
    """Photos with masks; their bytes are read when asked for. Can be pickled and forked."""

    store: Store
    layout: str
    """What was found, for people: "Pascal VOC", "train/images and train/masks", …"""
    legend: Legend
    """What the values or colours of the masks mean."""
    pairs: tuple[Pair, ...]
    split_made: tuple[Split, ...]
    """The splits that we made, because the person gave none."""
    unpaired: tuple[str, ...]
    """Photos without a mask and masks without a photo."""
    ignored: tuple[str, ...]
    """Other files that are none of the set."""
    notes: tuple[str, ...]
    """What was assumed, a sentence each: layout, where the names come from, what is ignored."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Their names; the position is the class number."""
        return self.legend.classes

    @property
    def colours(self) -> tuple[RGB, ...]:
        """One for each class, red, green, blue, 0 … 255."""
        return self.legend.colours

    def of(self, split: Split) -> tuple[Pair, ...]:
        """The pairs of one split, in order."""
        return tuple(pair for pair in self.pairs if pair.split == split)

    def without(self, photos: Iterable[str]) -> "PairSet":
        """The set less the pairs of some photos; the classes stay as they are."""
        gone = frozenset(photos)
        kept = tuple(pair for pair in self.pairs if pair.photo not in gone)
        return dataclasses.replace(self, pairs=kept)

    def photo(self, pair: Pair) -> bytes:
        """The bytes of the photo. Raises `ImageError`."""
        return self.store.read(pair.photo)

    def mask(self, pair: Pair) -> UInt8[np.ndarray, "h w"]:
        """The class number of each pixel, `IGNORED` where it does not count.

        Raises `ImageError` for a mask that cannot be read, `MaskError` for one that is no mask,
        `UnknownValues` (a `MaskError`) for values that mean nothing.
        """
        raw = decode_mask(self.store.read(pair.mask), pair.mask)
        return self.legend.read(raw, pair.mask)

    def like(self, classes: Sequence[str]) -> "PairSet":
        """The same masks numbered as `classes`, those of a model: matched by name.

        Raises `UserError` for a class that the model does not know.
        """
        return dataclasses.replace(self, legend=self.legend.like(classes))


def open_pairs(
    path: str | Path,
    *,
    layout: Layout | None = None,
    classes: Path | Sequence[str] | None = None,
    ignore: Sequence[int] = (),
    for_training: bool = True,
) -> PairSet:
    """Find out what lies at `path`, a folder or a zip; nothing need be said.

    `layout`: insist on one instead of looking which it is. `classes`: a file as `class_file`
    describes it, or names for the values 0, 1, 2, …; instead of what would be found. `ignore`:
    more mask values that do not count. Not `for_training`, there may be no training pairs.

    Raises `UserError` that says what is missing, if nothing could be done with what is there.
    """
    path = Path(path)
    must_exist(path)
    store = store_at(path)
    if store is None:
        raise UserError(f"{path}: is neither a folder nor a zip; give one with images/ and masks/")
    names = store.names()
    check_encoding(store, names)
    try:
        found = find_pairs(names, store.read, layout)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    if found is None:
        raise UserError(f"{path}: {_why_none(names, layout)}")
    file = _class_file(names, found) if classes is None else None
    legend, origin = _legend(store, found, file, classes)
    legend = legend.ignoring(ignore)
    if len(legend.classes) < (2 if for_training else 1):
        had = f"only {legend.classes[0]!r}" if legend.classes else "nothing that counts"
        raise UserError(f"{path}: the masks show {had}; at least two classes are needed")
    rows = [Row(row.photo, (), row.split) for row in found.rows]
    splits, made = complete_splits(store, rows, for_training)
    pairs = tuple(
        Pair(row.photo, row.mask, split) for row, split in zip(found.rows, splits, strict=True)
    )
    used = {*(row.photo for row in found.rows), *(row.mask for row in found.rows)}
    used |= {*found.unpaired, *found.lists, file}
    return PairSet(
        store=store,
        layout=found.said,
        legend=legend,
        pairs=pairs,
        split_made=made,
        unpaired=found.unpaired,
        ignored=tuple(name for name in names if name not in used),
        notes=(*found.notes, origin),
    )


def _why_none(names: Sequence[str], layout: Layout | None) -> str:
    why = unmatched(names)
    if why is not None and layout in (None, "folders", "camvid"):
        return why
    return (
        f"no photo with a mask there{'' if layout is None else f' ({layout})'}; "
        "put photos into images/ and masks of the same names into masks/"
    )


def _legend(
    store: Store, found: Found, file: str | None, classes: Path | Sequence[str] | None
) -> tuple[Legend, str]:
    """What the masks mean, and where that comes from: what the person says, a file, the masks."""
    if isinstance(classes, str):
        raise TypeError("classes is a Path or a sequence of names")
    if isinstance(classes, Path):
        specs = read_classes(read_file(classes, str(classes)), str(classes))
        return legend_of(specs), _said(specs, str(classes))
    if classes is not None:
        specs = named(classes)
        return legend_of(specs), _said(specs, "what was asked for")
    if file is not None:
        specs = read_classes(store.read(file), str(store.path / file))
        return legend_of(specs), _said(specs, file)
    if found.known is not None:
        legend = legend_of(found.known.specs, by_palette=False)
        said = f"{len(legend.classes)} classes of {found.known.name}; {found.known.said}"
        return legend, said
    return _found_legend(store, found)


def _class_file(names: Sequence[str], found: Found) -> str | None:
    """The file that names the classes: beside or above the first pair, the uppermost."""
    above = set()
    for folder in (posixpath.dirname(name) for name in found.rows[0][:2]):
        while folder not in above:
            above.add(folder)
            folder = posixpath.dirname(folder)
    there = [
        name
        for name in names
        if posixpath.basename(name).lower() in CLASS_FILES
        and posixpath.dirname(name) in above
        and not is_hidden(name)
    ]
    place = [(n.count("/"), CLASS_FILES.index(posixpath.basename(n).lower()), n) for n in there]
    return min(place)[2] if place else None


def _said(specs: Sequence[ClassSpec], origin: str) -> str:
    count = sum(not spec.ignored for spec in specs)
    ignored = [
        f"{spec.name} ({spec.value})" if spec.value is not None else spec.name
        for spec in specs
        if spec.ignored
    ]
    return f"{count} classes from {origin}" + (
        f"; {some(ignored)} does not count" if ignored else ""
    )


def _found_legend(store: Store, found: Found) -> tuple[Legend, str]:
    masks = [row.mask for row in found.rows]
    with ThreadPoolExecutor() as pool:
        looks = list(pool.map(functools.partial(_sight, store), masks))
    sights = [look for look in looks if isinstance(look, Sight)]
    if not sights:
        raise UserError(f"{store.path}: none of the {len(masks)} masks can be read; {looks[0]}")
    try:
        legend = legend_found(sights)
    except UserError as error:
        raise UserError(f"{store.path}: {error}") from error
    said = f"{len(legend.classes)} classes called after what is in the masks"
    said += f": {some(legend.classes)}; a classes.txt would name them"
    if legend.by_value.get(IGNORED) == IGNORED:
        said += ". 255 does not count"
    return legend, said


def _sight(store: Store, name: str) -> Sight | str:
    """What stands in a mask, or why it cannot be read: `audit_pairs` will report it."""
    try:
        return sight_of(decode_mask(store.read(name), name))
    except ImageError as error:
        return str(error)
