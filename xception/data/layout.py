"""Class folders, with or without split folders above them -> rows, as a table would have them."""

import posixpath
from collections.abc import Sequence

from xception.data.images import SUFFIXES
from xception.data.names import is_hidden, is_photo, is_table, some
from xception.data.splits import split_named
from xception.data.store import Store
from xception.data.table import Row
from xception.errors import UserError


def top_folder(names: Sequence[str], folders: Sequence[str]) -> str:
    """Go down while a single folder stands around everything: "" or a prefix that ends in /."""
    visible = [folder for folder in folders if not is_hidden(folder)]
    seen = [name for name in names if is_photo(name) or is_table(name)]
    top = ""
    while True:
        inside = [name for name in seen if name.startswith(top)]
        first = {f[len(top) :].split("/")[0] for f in visible if f.startswith(top)}
        if len(first) != 1 or any("/" not in name[len(top) :] for name in inside):
            return top
        lone = first.pop()
        within = f"{top}{lone}/"
        holds_folders = any(folder.startswith(within) for folder in visible)
        holds_table = any(is_table(n) and posixpath.dirname(n) + "/" == within for n in inside)
        if split_named(lone) or not (holds_folders or holds_table):
            return top
        top = within


def read_layout(
    store: Store, names: Sequence[str], folders: Sequence[str], top: str, for_training: bool
) -> tuple[list[Row], set[str]]:
    """The photos below `top`, and the classes whose folder (in some split) holds none.

    Files that are not in a class folder are left out. Not `for_training`, a lone `test/` with class
    folders is a split too.

    Raises `UserError` if there are no photos, none in a class folder, or class folders both with
    and without a split above them.
    """
    paths = {n: n[len(top) :].split("/") for n in names if n.startswith(top) and is_photo(n)}
    firsts = {parts[0] for parts in paths.values() if len(parts) > 1}
    if not firsts:
        raise UserError(_nothing_found(store, names, top))
    splits = {split_named(first) for first in firsts}
    deep = all(len(parts) > 2 for parts in paths.values())
    with_splits = None not in splits and ("train" in splits or (deep and not for_training))
    depth = 1 if with_splits else 0
    if not with_splits:
        _refuse_mixture(store, firsts, {parts[0] for parts in paths.values() if len(parts) > 2})
    rows = [
        Row(name, (parts[depth],), split_named(parts[0]) if with_splits else None)
        for name, parts in paths.items()
        if len(parts) > depth + 1
    ]
    if not rows:
        first = min(firsts)
        raise UserError(
            f"{store.path}: photos stand directly in {first}/; "
            f"put them into one folder for each class, as {first}/dress/1.jpg"
        )
    holding = {posixpath.join(*parts[: depth + 1]) for parts in paths.values()}
    empty = set()
    for folder in folders:
        inside = folder[len(top) :]
        parts = inside.split("/")
        if folder.startswith(top) and len(parts) == depth + 1 and inside not in holding:
            known = not with_splits or split_named(parts[0])
            if known and not is_hidden(folder):
                empty.add(parts[depth])
    return rows, empty


def _refuse_mixture(store: Store, firsts: set[str], holding_folders: set[str]) -> None:
    """`train/dress/1.jpg` beside `hat/2.jpg` is neither layout; a class named "train" is fine."""
    for first in sorted(holding_folders):
        if split_named(first) is None:
            continue
        others = sorted(other for other in firsts if split_named(other) is None)
        wrong = f"beside {first}/ stands {some(others)}" if others else "there is no train/"
        raise UserError(
            f"{store.path}: {first}/ holds class folders, but {wrong}; "
            "have either class folders only, or only train/, validation/ and test/"
        )


def _nothing_found(store: Store, names: Sequence[str], top: str) -> str:
    if any(is_photo(name) for name in names):
        return (
            f"{store.path}: the photos stand in no folder; "
            "put them into one folder for each class, or add a table path,label"
        )
    visible = [name for name in names if not is_hidden(name)]
    endings = sorted({posixpath.splitext(name)[1].lower() for name in visible} - {""})
    held = f"only files that end in {some(endings)}" if endings else "nothing"
    return f"{store.path}: no photos there, {held}; photos end in {' '.join(SUFFIXES)}"
