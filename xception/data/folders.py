"""A folder, a table or a zip of photos -> the list of photos with their labels and splits.

Understood are

- a folder of class folders: `dress/1.jpg`, `hat/2.jpg` (folders within a class folder belong to it);
- the same below split folders: `train/dress/1.jpg`, `test/dress/2.jpg`;
- a table `path,label[,split]` (see `table.py`), named itself or standing at the top of a folder or
  zip: then the table decides, and the folders mean nothing;
- a zip of any of these; one folder around everything is looked through.

Splits that are not given are made (see `splits.py`): all three if none is given, validation if only
training and test are. With training and validation but no test, the test split stays empty.
"""

import dataclasses
import difflib
import glob
import re
import unicodedata
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath

from xception.data.images import SUFFIXES, ImageError
from xception.data.splits import SPLITS, Split, split_all, split_named
from xception.data.store import FolderStore, Store, ZipStore
from xception.data.table import Row, looks_like_table, read_table
from xception.errors import UserError

_SHOWN = 5


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
    """Whether some photo has more or fewer labels than one."""
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


def open_photos(path: str | Path) -> PhotoSet:
    """Find out what lies at `path`: a folder, a table (`.csv`) or a zip.

    Raises `UserError` that says what is missing, if nothing could be trained with what is there.
    """
    path = Path(path)
    _must_exist(path)
    if path.is_dir():
        return _open_store(FolderStore(path))
    if zipfile.is_zipfile(path):
        return _open_store(ZipStore(path))
    if path.suffix.lower() in (".csv", ".tsv"):
        return _from_table(FolderStore(path.parent), path.name, "")
    raise UserError(
        f"{path}: is neither a folder nor a .zip nor a .csv; "
        "give a folder with one folder of photos for each class"
    )


def list_images(path: str | Path) -> list[Path]:
    """The image files meant by a path: a file itself, all below a folder, or a pattern with `*`.

    Folders are searched at every depth for the endings of `images.SUFFIXES`, hidden files left out.
    Raises `UserError` if there are none.
    """
    path = Path(path)
    if path.is_dir():
        names = (name for name in FolderStore(path).names() if _is_photo(name))
        found = [path / name for name in sorted(names, key=natural)]
    elif path.exists() or not glob.has_magic(str(path)):
        _must_exist(path)
        return [path]
    else:
        files = (Path(name) for name in glob.glob(str(path), recursive=True))
        found = sorted((f for f in files if f.is_file()), key=lambda file: natural(str(file)))
    if not found:
        raise UserError(f"{path}: no image files there ({', '.join(SUFFIXES)})")
    return found


def natural(text: str) -> tuple[tuple[tuple[int, str], ...], str]:
    """A key that sorts numbers by value and ignores case: shot 2, Shot 10. Ties by plain order."""
    parts = re.split(r"([0-9]+)", text.casefold())
    return tuple((int(p), "") if p.isdecimal() else (-1, p) for p in parts if p), text


def _open_store(store: Store) -> PhotoSet:
    names, folders = store.names(), store.folders()
    top = _top_folder(names, folders)
    tables = [name for name in names if _is_table(name, top) and looks_like_table(store.read(name))]
    if len(tables) > 1:
        raise UserError(
            f"{store.path}: holds several tables ({_some(tables)}); give the one that you mean"
        )
    if tables:
        return _from_table(store, tables[0], top)
    return _from_folders(store, names, folders, top)


def _top_folder(names: Sequence[str], folders: Sequence[str]) -> str:
    """Go down while one folder stands around everything: "" or a prefix that ends in /."""
    top = ""
    while True:
        inside = [n[len(top) :] for n in names if n.startswith(top) and not _is_hidden(n)]
        if any("/" not in name and _is_photo(name) for name in inside):
            return top
        below = {f[len(top) :] for f in folders if f.startswith(top) and not _is_hidden(f)}
        first = {folder.split("/")[0] for folder in below}
        # A lone folder that holds no further folders, or is named as a split, is not a wrapping.
        if len(first) != 1 or first == below or split_named(*first) is not None:
            lone_table = len(first) == 1 and any(
                _is_table(name, f"{top}{min(first)}/") for name in names
            )
            if not lone_table:
                return top
        if any(_is_table(name, top) for name in names):
            return top
        top += f"{first.pop()}/"


def _from_folders(store: Store, names: Sequence[str], folders: Sequence[str], top: str) -> PhotoSet:
    photos = [n for n in names if n.startswith(top) and _is_photo(n) and "/" in n[len(top) :]]
    if not photos:
        raise UserError(_nothing_found(store, names, top))
    firsts = {name[len(top) :].split("/")[0] for name in photos}
    with_splits = all(split_named(first) for first in firsts) and any(
        split_named(first) == "train" for first in firsts
    )
    depth = 1 if with_splits else 0
    if not with_splits:
        _refuse_mixture(store, photos, firsts, top)
    found = [(name, name[len(top) :].split("/")) for name in photos]
    used = [(name, parts) for name, parts in found if len(parts) > depth + 1]
    if not used:
        raise UserError(
            f"{store.path}: photos stand directly in {found[0][1][0]}/; "
            f"put them into one folder for each class, as {found[0][1][0]}/dress/1.jpg"
        )
    rows = [
        Row(name, (parts[depth],), split_named(parts[0]) if with_splits else None)
        for name, parts in used
    ]
    empty = {
        parts[depth]
        for folder in folders
        if folder.startswith(top) and not _is_hidden(folder)
        for parts in [folder[len(top) :].split("/")]
        if len(parts) == depth + 1 and (not with_splits or split_named(parts[0]))
    }
    taken = {row.path for row in rows}
    return _photo_set(store, rows, tuple(n for n in names if n not in taken), empty)


def _from_table(store: Store, table: str, top: str) -> PhotoSet:
    folder = None
    if isinstance(store, FolderStore):
        folder = PurePosixPath(store.path.resolve().as_posix()) / top
    rows = [
        row._replace(path=top + row.path)
        for row in read_table(store.read(table), f"{store.path / table}", folder)
    ]
    names = store.names()
    known = set(names)
    missing = [row.path for row in rows if row.path not in known]
    if missing:
        close = difflib.get_close_matches(missing[0], names, 1, 0.8) if len(names) < 10_000 else []
        hint = f"; did you mean {close[0]} by the first?" if close else ""
        raise UserError(
            f"{store.path / table}: {len(missing)} of {len(rows)} files are not there: "
            f"{_some(missing)}{hint}"
        )
    taken = {row.path for row in rows} | {table}
    return _photo_set(store, rows, tuple(n for n in names if n not in taken), set())


def _photo_set(
    store: Store, rows: Sequence[Row], ignored: tuple[str, ...], empty: set[str]
) -> PhotoSet:
    """Number the classes, make the splits that are missing."""
    # One letter may be stored in two ways (é, or e with an accent): folders from a Mac use the other.
    labels = [[unicodedata.normalize("NFC", label) for label in row.labels] for row in rows]
    named = {label for of_photo in labels for label in of_photo}
    named |= {unicodedata.normalize("NFC", label) for label in empty}
    classes = tuple(sorted(named, key=natural))
    if len(classes) < 2:
        raise UserError(
            f"{store.path}: has only the class {classes[0]!r}; two are needed to tell apart"
            if classes
            else f"{store.path}: no photo has a label"
        )
    number = {label: position for position, label in enumerate(classes)}
    splits, made = _complete(store, rows)
    photos = tuple(
        Photo(row.path, tuple(sorted(number[label] for label in of_photo)), split)
        for row, of_photo, split in zip(rows, labels, splits, strict=True)
    )
    multilabel = any(len(photo.labels) != 1 for photo in photos)
    return PhotoSet(store, classes, photos, multilabel, made, ignored)


def _complete(store: Store, rows: Sequence[Row]) -> tuple[list[Split], tuple[Split, ...]]:
    """The split of each row, and which splits we made."""
    given = {row.split for row in rows} - {None}
    if given and "train" not in given:
        raise UserError(f"{store.path}: has {' and '.join(sorted(given))} but no train")
    splits = [row.split or "train" for row in rows]
    if "validation" in given:
        return splits, ()
    test = "test" not in given
    to_split = [position for position, split in enumerate(splits) if split == "train"]

    def read(name: str) -> bytes | None:
        try:
            return store.read(name)
        except ImageError:
            return None

    decided = split_all([rows[position].path for position in to_split], read, test=test)
    for position, split in zip(to_split, decided, strict=True):
        splits[position] = split
    return splits, SPLITS if test else ("train", "validation")


def _refuse_mixture(store: Store, photos: Sequence[str], firsts: set[str], top: str) -> None:
    """`train/dress/1.jpg` beside `hat/2.jpg` is neither layout; a class named "train" is fine."""
    for first in sorted(firsts):
        inside = f"{top}{first}/"
        if split_named(first) and any(
            name.startswith(inside) and "/" in name[len(inside) :] for name in photos
        ):
            others = sorted(f for f in firsts if not split_named(f))
            wrong = (
                f"has no train/ beside {first}/"
                if not others
                else (f"has {first}/ with class folders in it, and beside it {_some(others)}")
            )
            raise UserError(
                f"{store.path}: {wrong}; "
                "want either class folders only, or train/, validation/ and test/ only"
            )


def _nothing_found(store: Store, names: Sequence[str], top: str) -> str:
    if any(_is_photo(name) for name in names):
        return (
            f"{store.path}: photos stand directly in {top or 'it'}; "
            "put them into one folder for each class, or add a table path,label"
        )
    endings = sorted({PurePosixPath(name).suffix for name in names if not _is_hidden(name)} - {""})
    held = f"only {_some(endings)} files" if endings else "nothing"
    return f"{store.path}: no photos there but {held}; known endings are {', '.join(SUFFIXES)}"


def _must_exist(path: Path) -> None:
    if path.exists():
        return
    above = next((parent for parent in path.parents if parent.is_dir()), Path("/"))
    wanted = path.relative_to(above).parts[0]
    siblings = [entry.name for entry in above.iterdir()]
    close = difflib.get_close_matches(wanted, siblings, 1)
    hint = f"; did you mean {above / close[0]}?" if close else ""
    raise UserError(f"{path}: does not exist{hint}")


def _is_hidden(name: str) -> bool:
    parts = name.split("/")
    return "__MACOSX" in parts or any(part.startswith(".") for part in parts)


def _is_photo(name: str) -> bool:
    return PurePosixPath(name).suffix.lower() in SUFFIXES and not _is_hidden(name)


def _is_table(name: str, top: str) -> bool:
    inside = name.startswith(top) and "/" not in name[len(top) :]
    return inside and name.lower().endswith((".csv", ".tsv")) and not _is_hidden(name)


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
