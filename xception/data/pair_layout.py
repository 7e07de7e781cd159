"""Which photo belongs to which mask, by the names of the files alone.

Understood are

- folders: `images/` beside `masks/`, `labels/` or `annotations/` (or other usual names), with
  splits above them (`train/images`), below them (`images/train`), within their names (`trainannot`
  beside `train`), or none; a mask is called as its photo, perhaps with `_mask`, `_L` or the like at
  the end, in upper or lower case;
- Pascal VOC: `JPEGImages`, `SegmentationClass`, `ImageSets/Segmentation/train.txt` and `val.txt`;
- Cityscapes: `leftImg8bit` and `gtFine`;
- CamVid: folders with the names of its films.

A split of which no photo has a mask is left out: test masks are often kept back.
"""

import posixpath
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Literal, NamedTuple

from xception.data.images import SUFFIXES
from xception.data.known_sets import CAMVID_11, VOC, Known, is_camvid, is_voc
from xception.data.names import is_photo, some
from xception.data.public_layouts import Alone, PairRow, Rows, find_cityscapes, find_voc
from xception.data.splits import SPLITS, Split, split_named
from xception.errors import UserError

Layout = Literal["folders", "voc", "cityscapes", "camvid"]

IMAGE_FOLDERS = frozenset({"images", "image", "imgs", "img", "photos", "photo"})
MASK_FOLDERS = frozenset(
    {
        *("masks", "mask", "labels", "label", "annotations", "annotation", "annots", "annot"),
        *("segmentations", "segmentation", "groundtruth", "ground_truth", "gt"),
    }
)

_ROLES = r"(annots?|annotations?|labels?|masks?|gt|images?|imgs?)"
_SPLIT_AND_ROLE = re.compile(rf"(?P<split>[a-z]+?)[ _-]?(?P<role>{_ROLES})")
_ROLE_AND_SPLIT = re.compile(rf"(?P<role>{_ROLES})[ _-](?P<split>[a-z]+)")
#: Folders of Pascal VOC and Cityscapes, as far as they tell that there should be masks.
_PUBLIC_FOLDERS = re.compile(
    r"(?P<image>jpegimages|leftimg8bit)|(?P<mask>segmentationclass.*|gtfine)"
)
_MASK_ENDING = re.compile(
    r"[ _.-](masks?|labels?|gt|seg|segmentation|annotation|annot|l)\Z", re.IGNORECASE
)


class Found(NamedTuple):
    """Photos with their masks, and how they were found."""

    layout: Layout
    said: str
    """The layout, for people."""
    rows: tuple[PairRow, ...]
    unpaired: tuple[str, ...]
    """Photos without a mask and masks without a photo, in splits that have both."""
    notes: tuple[str, ...]
    known: Known | None
    """The public set that it is."""
    lists: tuple[str, ...]
    """Files that were read to find the pairs."""


_Key = tuple[str, ...]
_Role = Literal["image", "mask"]


class _Place(NamedTuple):
    """Where a file stands: what is the same for a photo and its mask."""

    key: _Key  # the folders but that of the role
    split: Split | None


def find_pairs(
    names: Sequence[str], read: Callable[[str], bytes], layout: Layout | None = None
) -> Found | None:
    """The pairs among the files of a store, or None where there are none.

    `read` gives the bytes of a list of names. `layout`: look for this one only. Raises `UserError`
    for lists that cannot be read, photos of one name, some pairs in splits and some in none.
    """
    photos = [name for name in names if is_photo(name)]
    if layout in (None, "cityscapes") and (rows := find_cityscapes(photos)):
        return _found("cityscapes", "Cityscapes", rows, rows.known)
    if layout in (None, "voc") and (rows := find_voc(names, read)):
        known = VOC if layout == "voc" or is_voc(_stems(rows)) else None
        return _found("voc", "Pascal VOC", rows, known)
    if layout in ("voc", "cityscapes") or not (rows := _find_folders(photos)):
        return None
    if layout == "camvid" or (layout is None and is_camvid(_stems(rows))):
        return _found("camvid", "CamVid", rows, CAMVID_11)
    first = next((row for row in rows.pairs if row.split == "train"), rows.pairs[0])
    said = f"photos in {_folder(first.photo)}, masks in {_folder(first.mask)}"
    several = len({_folder(row.photo) for row in rows.pairs}) > 1
    return _found("folders", said + (" and so on" if several else ""), rows, None)


def unmatched(names: Iterable[str]) -> str | None:
    """Why photos and masks that lie beside each other are no pairs, or None where none lie so.

    For names among which `find_pairs` found nothing: class folders are not called images and masks.
    """
    first: dict[tuple[str, ...], str] = {}  # photo or mask of a folder
    for name in names:
        if is_photo(name):
            first.setdefault(tuple(name.split("/")[:-1]), name)
    masked_splits = _masked_splits(first)
    sides: dict[tuple[str, ...], dict[_Role, tuple[str, int]]] = {}
    for folders, name in first.items():
        at = _role_at(folders, masked_splits) or _public_role_at(folders)
        if at is not None:
            depth, role, _ = at
            sides.setdefault(folders[:depth], {}).setdefault(role, (name, depth))
    for side in sides.values():
        if len(side) == 2:
            return _why_unmatched(*side["image"], side["mask"][0])
    return None


def _why_unmatched(photo: str, depth: int, mask: str) -> str:
    """`depth` is that of the two folders that say what is in them."""
    parts, folder = photo.split("/"), mask.split("/")[depth]
    pair = f"{parts[depth]} {folder}".casefold()
    if pair == "leftimg8bit gtfine":
        shot = "train/aachen/aachen_000000_000019"
        return (
            f"{photo} and {mask} are no pair of Cityscapes: those are called "
            f"leftImg8bit/{shot}_leftImg8bit.png and gtFine/{shot}_gtFine_labelIds.png"
        )
    endings = ""
    if pair.startswith("jpegimages segmentationclass"):
        folder = "SegmentationClass"
    elif any(_PUBLIC_FOLDERS.fullmatch(one) for one in pair.split()):
        return (
            f"{photo} and {mask} lie in folders of different layouts: "
            "put photos into images/ and masks of the same names into masks/"
        )
    else:
        endings = ", perhaps with _mask, _label, _gt, _seg or _L at the end of the name"
    right = "/".join((*parts[:depth], folder, *parts[depth + 1 : -1], _stem(photo)))
    return (
        f"no photo has a mask where it must be: {photo} wants {right}.png{endings}; there is {mask}"
    )


def _found(layout: Layout, said: str, rows: Rows, known: Known | None) -> Found:
    """Without the splits that have no mask; what is left must have splits throughout or nowhere."""
    given = {row.split for row in rows.pairs}
    if None in given and len(given) > 1:
        without = next(row.photo for row in rows.pairs if row.split is None)
        raise UserError(
            f"{without} is in no split, though other photos are: "
            "have train/, validation/ and test/ for all pairs or for none"
        )
    unpaired, notes = [], list(rows.notes)
    kept_back: dict[Split, int] = {}
    for name, split in rows.unpaired:
        if split is None or split in given:
            unpaired.append(name)
        else:
            kept_back[split] = kept_back.get(split, 0) + 1
    notes += [
        f"{kept_back[split]} {split} photos are left out: none of them has a mask"
        for split in SPLITS
        if split in kept_back
    ]
    return Found(layout, said, rows.pairs, tuple(unpaired), tuple(notes), known, rows.lists)


def _stems(rows: Rows) -> Iterator[str]:
    return (_stem(row.photo) for row in rows.pairs)


def _stem(name: str) -> str:
    return posixpath.splitext(posixpath.basename(name))[0]


def _folder(name: str) -> str:
    return posixpath.dirname(name) or "."


def _find_folders(names: Iterable[str]) -> Rows | None:
    """Pairs of `images/` and `masks/` by whatever usual name."""
    places = {name: tuple(name.split("/")[:-1]) for name in names}
    seen = set(places.values())
    masked_splits = _masked_splits(seen)
    place_of = {folders: _place(folders, masked_splits) for folders in seen}
    photos: dict[_Key, list[str]] = {}
    masks: dict[_Key, list[str]] = {}
    split_of: dict[str, Split | None] = {}
    for name, folders in places.items():
        found = place_of[folders]
        if found is None:
            continue
        role, place = found
        split_of[name] = place.split
        stem = _stem(name)
        if role == "mask" and posixpath.splitext(stem)[1].lower() in SUFFIXES:
            stem = _stem(stem)  # photo.jpg.png
        key = (*place.key, _alike(stem).casefold())
        (photos if role == "image" else masks).setdefault(key, []).append(name)
    partners = _partners(photos, masks)
    if not partners:
        return None
    used = {*partners, *partners.values()}
    pairs = tuple(PairRow(photo, mask, split_of[photo]) for photo, mask in partners.items())
    alone: tuple[Alone, ...] = tuple(
        (name, split_of[name]) for name in split_of if name not in used
    )
    return Rows(pairs, alone, (), None)


def _alike(name: str) -> str:
    """é may be stored as one sign or as e with an accent, as on a Mac."""
    return unicodedata.normalize("NFC", name)


def _masked_splits(seen: Iterable[tuple[str, ...]]) -> set[tuple[str, ...]]:
    """Where a split is part of the name of a folder of masks: trainannot, as folders and split."""
    return {
        (*folders[:i], split)
        for folders in seen
        for i, folder in enumerate(folders)
        for role, split in [_role(folder)]
        if role == "mask" and split is not None
    }


def _place(
    folders: tuple[str, ...], masked_splits: set[tuple[str, ...]]
) -> tuple[_Role, _Place] | None:
    """The role that the folders give a file, and its place."""
    at = _role_at(folders, masked_splits)
    if at is None:
        return None
    i, role, split = at
    before, after = [*map(_alike, folders[:i])], [*map(_alike, folders[i + 1 :])]
    if split is None and before and (split := split_named(before[-1])):
        before.pop()
    if split is None and after and (split := split_named(after[0])):
        del after[0]
    return role, _Place((*before, f"/{split}", *after), split)  # no folder is called /train


def _role_at(
    folders: tuple[str, ...], masked_splits: set[tuple[str, ...]]
) -> tuple[int, _Role, Split | None] | None:
    """The innermost folder that says a role: its depth, the role, the split within its name."""
    for i in reversed(range(len(folders))):
        role, split = _role(folders[i])
        bare = split_named(folders[i])
        if role is None and bare is not None and (*folders[:i], bare) in masked_splits:
            role, split = "image", bare  # train beside trainannot
        if role is not None:
            return i, role, split
    return None


def _public_role_at(folders: tuple[str, ...]) -> tuple[int, _Role, None] | None:
    for i, folder in enumerate(folders):
        if found := _PUBLIC_FOLDERS.fullmatch(folder.casefold()):
            return i, "image" if found["image"] else "mask", None
    return None


def _role(folder: str) -> tuple[_Role | None, Split | None]:
    """What a folder of this name holds, and the split that is part of the name."""
    folder = folder.casefold()
    if folder in IMAGE_FOLDERS:
        return "image", None
    if folder in MASK_FOLDERS:
        return "mask", None
    both = _SPLIT_AND_ROLE.fullmatch(folder) or _ROLE_AND_SPLIT.fullmatch(folder)
    split = split_named(both["split"]) if both else None
    if both is None or split is None:
        return None, None
    return ("image" if both["role"].startswith("im") else "mask"), split


def _partners(photos: dict[_Key, list[str]], masks: dict[_Key, list[str]]) -> dict[str, str]:
    """Photo: mask. The mask of the same name, or the only one of that name with an ending.

    A mask that is called as a photo is that photo's and no other's. Raises `UserError` where there
    are two of either.
    """
    shortened: dict[_Key, list[str]] = {}
    for key, same in masks.items():
        ending = _MASK_ENDING.search(key[-1])
        if ending and key not in photos:
            shortened.setdefault((*key[:-1], key[-1][: ending.start()]), []).extend(same)
    partners = {}
    for key, same in photos.items():
        close = masks.get(key) or shortened.get(key)
        if not close:
            continue
        if len(same) > 1 or len(close) > 1:
            raise UserError(
                f"which mask belongs to which photo? {some(same)} and {some(close)}: "
                "keep one photo and one mask of a name"
            )
        partners[same[0]] = close[0]
    return partners
