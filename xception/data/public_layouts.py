"""The layouts of Pascal VOC and of Cityscapes."""

import posixpath
from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

from xception.data.known_sets import CITYSCAPES_IDS, CITYSCAPES_TRAIN_IDS, Known
from xception.data.names import is_photo, some
from xception.data.splits import SPLITS, Split, split_named
from xception.errors import UserError

#: The folders of masks below one with `JPEGImages`, the first that is there counts. The last is
#: labelme's.
VOC_MASKS = ("SegmentationClass", "SegmentationClassPNG")
_AUGMENTED = "SegmentationClassAug"
_LISTS = "ImageSets/Segmentation"


class PairRow(NamedTuple):
    """A photo, its mask, and the split that the layout gives them."""

    photo: str
    mask: str
    split: Split | None


#: A file without partner, and the split that the layout gives it.
Alone = tuple[str, Split | None]


class Rows(NamedTuple):
    """What a layout came to."""

    pairs: tuple[PairRow, ...]
    """Never empty."""
    unpaired: tuple[Alone, ...]
    """Photos without a mask and masks without a photo."""
    notes: tuple[str, ...]
    known: Known | None
    lists: tuple[str, ...] = ()
    """Files that were read to find the pairs."""


def find_voc(names: Sequence[str], read: Callable[[str], bytes]) -> Rows | None:
    """Pairs of `JPEGImages` and `SegmentationClass`, split by the lists of `ImageSets`.

    Where `trainaug.txt` and `SegmentationClassAug` are there, they are taken: the 10,582 training
    photos of DeepLab (Hariharan et al., ICCV 2011). Files that no list names are none of the set.

    Raises `UserError` for a list that is no text, lists that name no photo at all, a photo in two
    lists, several sets side by side.
    """
    folders = {posixpath.dirname(name) for name in names if is_photo(name)}
    tops = sorted(
        folder.removesuffix("JPEGImages")
        for folder in folders
        if posixpath.basename(folder) == "JPEGImages"
        and any(folder.removesuffix("JPEGImages") + masks in folders for masks in VOC_MASKS)
    )
    if not tops:
        return None
    if len(tops) > 1:
        raise UserError(f"several sets like Pascal VOC ({some(tops)}); name one of them")
    top = tops[0]
    lists = {
        _stem(name): name
        for name in names
        if posixpath.dirname(name) == f"{top}{_LISTS}" and name.endswith(".txt")
    }
    augmented = "trainaug" in lists and top + _AUGMENTED in folders
    photos = _inside(f"{top}JPEGImages", names)
    masks: dict[str, str] = {}
    for folder in reversed([_AUGMENTED, *VOC_MASKS] if augmented else VOC_MASKS):
        masks |= _inside(top + folder, names)  # the first folder that has one
    chosen = _chosen_lists(lists, augmented)
    splits = _voc_splits({lists[name]: split for name, split in chosen.items()}, read, photos)
    if not splits:
        splits = {stem: None for stem in (*photos, *masks)}
    pairs = tuple(
        PairRow(photos[stem], masks[stem], split)
        for stem, split in splits.items()
        if stem in photos and stem in masks
    )
    alone: tuple[Alone, ...] = tuple(
        (photos.get(stem) or masks.get(stem) or f"{top}JPEGImages/{stem}.jpg", split)
        for stem, split in splits.items()
        if stem not in photos or stem not in masks
    )
    notes = (f"splits by {', '.join(f'{name}.txt' for name in chosen)}",) if chosen else ()
    used = tuple(lists[name] for name in chosen)
    return Rows(pairs, alone, notes, None, used) if pairs else None


def _chosen_lists(lists: Collection[str], augmented: bool) -> dict[str, Split]:
    """Which lists say the splits, by their names."""
    chosen: dict[str, Split] = {}
    for name in lists:
        split = split_named(name)
        if split is not None and not (split == "train" and augmented):
            chosen[name] = split
    if augmented:
        chosen["trainaug"] = "train"
    if (
        "train" not in chosen.values()
        and "trainval" in lists
        and "validation" not in chosen.values()
    ):
        chosen["trainval"] = "train"
    return chosen


def _voc_splits(
    lists: dict[str, Split], read: Callable[[str], bytes], photos: dict[str, str]
) -> dict[str, Split | None]:
    """Stem of the photo: split, of all photos that lists name; nothing where there are no lists."""
    splits: dict[str, Split | None] = {}
    first = None
    for name, split in sorted(lists.items(), key=lambda item: SPLITS.index(item[1])):
        try:
            lines = read(name).decode("utf-8-sig").splitlines()
        except UnicodeDecodeError as error:
            raise UserError(f"{name}: is not UTF-8") from error
        for line in filter(None, map(str.strip, lines)):
            first = first or f"{name}: {line[:80]}"
            stem = _listed(line, photos)
            if splits.setdefault(stem, split) != split:
                raise UserError(
                    f"{name}: {stem} stands in the {splits[stem]} list too; "
                    "a photo belongs to one split"
                )
    if first is not None and photos and splits.keys().isdisjoint(photos):
        raise UserError(
            f"{first} is no photo in JPEGImages, nor is anything else that the lists name; "
            f"right would be {min(photos)}"
        )
    return splits


def _listed(line: str, photos: Collection[str]) -> str:
    """The stem of the photo that a line means: 2007_000032, or `/JPEGImages/2007_000032.jpg …`."""
    word = line.split()[0]
    for stem in (line, _stem(line), word, _stem(word)):
        if stem in photos:
            return stem
    return _stem(word) if is_photo(word) else line


def find_cityscapes(photos: Sequence[str]) -> Rows | None:
    """Pairs of `leftImg8bit` and `gtFine`; train ids where every photo has them, else label ids.

    The masks of the test photos are blank in what is published, so those are left out.
    """
    shots: dict[tuple[str, ...], str] = {}
    ids: dict[tuple[str, ...], str] = {}
    train_ids: dict[tuple[str, ...], str] = {}
    for name in photos:
        for root, ending, into in (
            ("leftImg8bit", "_leftImg8bit", shots),
            ("gtFine", "_gtFine_labelIds", ids),
            ("gtFine", "_gtFine_labelTrainIds", train_ids),
        ):
            if root not in name:
                continue
            parts = name.split("/")[:-1]
            if root in parts and _stem(name).endswith(ending):
                place = parts.index(root)
                into[*parts[:place], *parts[place + 1 :], _stem(name).removesuffix(ending)] = name
    split_at: dict[tuple[str, ...], Split | None] = {
        key: _cityscapes_split(key) for key in (*shots, *ids, *train_ids)
    }
    wanted = [key for key in shots if split_at[key] in ("train", "validation")]
    paired = [key for key in wanted if key in ids or key in train_ids]
    if not paired:
        return None
    trained = all(key in train_ids for key in paired)
    masks, known = (train_ids, CITYSCAPES_TRAIN_IDS) if trained else (ids, CITYSCAPES_IDS)
    pairs = tuple(PairRow(shots[k], masks[k], split_at[k]) for k in wanted if k in masks)
    lonely = {key: shots[key] for key in wanted if key not in masks}
    lonely |= {
        key: name
        for key, name in masks.items()
        if key not in shots and split_at[key] in ("train", "validation")
    }
    alone: tuple[Alone, ...] = tuple((name, split_at[key]) for key, name in lonely.items())
    tests = sum(split_at[key] == "test" for key in shots)
    notes = (f"{tests} test photos are left out: their published masks are blank",) if tests else ()
    return Rows(pairs, alone, notes, known) if pairs else None


def _cityscapes_split(key: tuple[str, ...]) -> Split | None:
    return split_named(key[-3]) if len(key) >= 3 else None  # …, train, aachen, aachen_000000_000019


def _inside(folder: str, names: Sequence[str]) -> dict[str, str]:
    """Stem: name, of the pictures that stand directly in a folder."""
    return {_stem(n): n for n in names if posixpath.dirname(n) == folder and is_photo(n)}


def _stem(name: str) -> str:
    return posixpath.splitext(posixpath.basename(name))[0]
