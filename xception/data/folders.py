"""A folder, a table or a zip of photos -> the list of photos with their labels and splits.

Understood are

- a folder of class folders: `dress/1.jpg`, `hat/2.jpg`; folders within a class belong to it;
- the same below split folders: `train/dress/1.jpg`, `test/dress/2.jpg`;
- a table `path,label[,split]` (see `table.py`), named itself or standing at the top of a folder or
  zip: then the table decides, and the folders mean nothing;
- a zip of any of these; a single folder around everything is looked through.

Splits that are not given are made (see `splits.py`): all three if none is given, validation if only
training and test are. With training and validation but no test, the test split stays empty.
"""

import dataclasses
import difflib
import glob
import os
import posixpath
import unicodedata
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath

from xception.data.images import SUFFIXES, ImageError
from xception.data.layout import read_layout, top_folder
from xception.data.names import OVERLAY, is_photo, is_table, natural, some
from xception.data.splits import SPLITS, Split, split_all
from xception.data.store import FolderStore, Store, ZipStore
from xception.data.table import Row, looks_like_table, read_table
from xception.errors import UserError


@dataclasses.dataclass(frozen=True)
class Photo:
    """One photo of a set."""

    name: str
    """Within the store: a relative path with forward slashes."""
    labels: tuple[int, ...]
    """Positions in `PhotoSet.classes`, ascending; exactly one unless the set is multi-label."""
    split: Split


@dataclasses.dataclass(frozen=True)
class PhotoSet:
    """Photos with their labels and splits; their bytes are read when asked for."""

    store: Store
    classes: tuple[str, ...]
    """In natural order: class 2 before class 10. Those of all splits together."""
    photos: tuple[Photo, ...]
    multilabel: bool
    """Whether a photo may have more or fewer labels than one."""
    split_made: tuple[Split, ...]
    """The splits that we made, because the person gave none."""
    ignored: tuple[str, ...]
    """Files found that are no photos of the set: hidden, other kinds, outside every class."""

    def of(self, split: Split) -> tuple[Photo, ...]:
        """The photos of one split, in order."""
        return tuple(photo for photo in self.photos if photo.split == split)

    def without(self, names: Iterable[str]) -> "PhotoSet":
        """The set less some photos; the classes stay as they are."""
        gone = frozenset(names)
        kept = tuple(photo for photo in self.photos if photo.name not in gone)
        return dataclasses.replace(self, photos=kept)

    def read(self, photo: Photo) -> bytes:
        """The bytes of one photo. Raises `ImageError`."""
        return self.store.read(photo.name)


def open_photos(path: str | Path, *, for_training: bool = True) -> PhotoSet:
    """Find out what lies at `path`: a folder, a table (`.csv`) or a zip.

    Not `for_training`, one class is enough and there may be no training photos.

    Raises `UserError` that says what is missing, if nothing could be done with what is there.
    """
    path = Path(path)
    must_exist(path)
    if path.is_dir():
        return _open_store(FolderStore(path), for_training)
    if zipfile.is_zipfile(path):
        return _open_store(ZipStore(path), for_training)
    if is_table(path.name):
        return _from_table(FolderStore(path.parent), path.name, for_training)
    raise UserError(
        f"{path}: is neither a folder nor a zip nor a .csv; "
        "give a folder with one folder of photos for each class"
    )


def list_images(path: str | Path) -> list[Path]:
    """The image files meant by a path: a file itself, all below a folder, or a pattern with `*`.

    Folders are searched at every depth for the endings of `images.SUFFIXES`, hidden files and our
    own pictures of Grad-CAM left out. Raises `UserError` if there are none.
    """
    path = Path(path)
    if path.is_dir():
        names = (name for name in FolderStore(path).names() if _is_shot(name))
        found = [path / name for name in sorted(names, key=natural)]
    elif path.exists() or not glob.has_magic(str(path)):
        must_exist(path)
        return [path]
    else:
        matches = sorted(glob.glob(str(path), recursive=True), key=natural)
        found = [Path(match) for match in matches if Path(match).is_file()]
        found = [match for match in found if not match.name.endswith(OVERLAY)]
    if not found:
        raise UserError(f"{path}: no image files there; they end in {' '.join(SUFFIXES)}")
    return found


def _is_shot(name: str) -> bool:
    return is_photo(name) and not name.endswith(OVERLAY)


def _open_store(store: Store, for_training: bool) -> PhotoSet:
    names, folders = store.names(), store.folders()
    check_encoding(store, [*folders, *names])
    top = top_folder(names, folders)
    tables = [
        name
        for name in names
        if is_table(name)
        and posixpath.dirname(name) == top.rstrip("/")
        and looks_like_table(store.read(name))
    ]
    if len(tables) > 1:
        raise UserError(
            f"{store.path}: holds several tables ({some(tables)}); keep the one that you mean"
        )
    if tables:
        return _from_table(store, tables[0], for_training)
    rows, empty = read_layout(store, names, folders, top, for_training)
    return _photo_set(store, rows, names, empty, for_training)


def check_encoding(store: Store, names: Iterable[str]) -> None:
    """Names become classes and text of reports, which are UTF-8. Raises `UserError`."""
    for name in names:
        try:
            name.encode()
        except UnicodeEncodeError:
            raise UserError(
                f"{store.path}: the name {os.fsencode(name)!r} is not UTF-8; rename it"
            ) from None


def _from_table(store: Store, table: str, for_training: bool) -> PhotoSet:
    folder = None
    top = posixpath.dirname(table)
    if isinstance(store, FolderStore):
        folder = PurePosixPath(store.path.resolve().as_posix()) / top
    where = str(store.path / table)
    rows = [
        row._replace(path=posixpath.join(top, row.path))
        for row in read_table(store.read(table), where, folder)
    ]
    names = store.names()
    check_encoding(store, names)
    known = frozenset(names)
    missing = [row.path for row in rows if row.path not in known]
    if missing:
        close = difflib.get_close_matches(missing[0], names[:10_000], 1, 0.8)
        hint = f"; the first may mean {close[0]}" if close else ""
        raise UserError(
            f"{where}: {len(missing)} of {len(rows)} files are not there: {some(missing)}{hint}"
        )
    others = [name for name in names if name != table]
    return _photo_set(store, rows, others, set(), for_training)


def _photo_set(
    store: Store, rows: Sequence[Row], names: Sequence[str], empty: set[str], for_training: bool
) -> PhotoSet:
    """Number the classes and make the splits that are missing."""
    # é may be stored as one sign or as e with an accent; folders copied from a Mac have the latter.
    labels = [[unicodedata.normalize("NFC", label) for label in row.labels] for row in rows]
    named = {label for of_photo in labels for label in of_photo}
    named |= {unicodedata.normalize("NFC", label) for label in empty}
    classes = tuple(sorted(named, key=natural))
    if len(classes) < (2 if for_training else 1):
        found = f"only the class {classes[0]!r}" if classes else "no labels at all"
        raise UserError(f"{store.path}: has {found}; at least two classes are needed")
    number = {label: position for position, label in enumerate(classes)}
    splits, made = complete_splits(store, rows, for_training)
    photos = tuple(
        Photo(row.path, tuple(sorted(number[label] for label in of_photo)), split)
        for row, of_photo, split in zip(rows, labels, splits, strict=True)
    )
    multilabel = any(row.several for row in rows)
    used = frozenset(row.path for row in rows)
    ignored = tuple(name for name in names if name not in used)
    return PhotoSet(store, classes, photos, multilabel, made, ignored)


def complete_splits(
    store: Store, rows: Sequence[Row], for_training: bool
) -> tuple[list[Split], tuple[Split, ...]]:
    """The split of each row, and which splits we made. Raises `UserError`: none to train with."""
    given = {row.split for row in rows if row.split is not None}
    if for_training and given and "train" not in given:
        raise UserError(f"{store.path}: has {' and '.join(sorted(given))} photos but none to train")
    splits: list[Split] = [row.split or "train" for row in rows]
    if "validation" in given or (given and "train" not in given):
        return splits, ()
    cut_test = "test" not in given
    to_cut = [position for position, split in enumerate(splits) if split == "train"]

    def read(name: str) -> bytes | None:
        try:
            return store.read(name)
        except ImageError:  # `audit` will report it
            return None

    decided = split_all([rows[position].path for position in to_cut], read, test=cut_test)
    for position, split in zip(to_cut, decided, strict=True):
        splits[position] = split
    return splits, SPLITS if cut_test else ("train", "validation")


def must_exist(path: Path) -> None:
    """Raises `UserError`, with the closest name there is, if nothing is at `path`."""
    if path.exists():
        return
    above = next((parent for parent in path.parents if parent.is_dir()), None)
    if above is None:
        raise UserError(f"{path}: does not exist")
    wanted = path.relative_to(above).parts[0]
    close = difflib.get_close_matches(wanted, [entry.name for entry in above.iterdir()], 1)
    hint = f"; did you mean {above / close[0]}?" if close else ""
    raise UserError(f"{path}: does not exist{hint}")
