"""What lies at a path: photos of classes, or photos with masks."""

import posixpath
from pathlib import Path
from typing import Literal

from xception.data.folders import must_exist
from xception.data.layout import top_folder
from xception.data.names import is_table
from xception.data.pair_layout import find_pairs, unmatched
from xception.data.store import Store, store_at
from xception.data.table import looks_like_table
from xception.errors import UserError

Task = Literal["classification", "segmentation"]


def task_of(path: str | Path) -> Task:
    """What `path` is for: "segmentation" where photos have masks beside them (see `pair_layout`).

    So it is where photos and masks lie beside each other but are not called alike: "images" and
    "masks" are no classes, and `open_pairs` will say how masks must be called. Decided by the names
    of the files alone; no picture is opened. A table at the top means classification, whatever else
    is there.

    Raises `UserError` if there is nothing at `path` or it cannot be looked into.
    """
    path = Path(path)
    must_exist(path)
    store = store_at(path)
    if store is None:  # a table, or what `open_photos` will refuse
        return "classification"
    names = store.names()
    if _has_table(store, names):
        return "classification"
    try:
        found = find_pairs(names, store.read)
    except UserError:  # pairs, but something is wrong with them: `open_pairs` will say what
        return "segmentation"
    if found is None and unmatched(names) is None:
        return "classification"
    return "segmentation"


def _has_table(store: Store, names: tuple[str, ...]) -> bool:
    top = top_folder(names, store.folders()).rstrip("/")
    tables = [name for name in names if is_table(name) and posixpath.dirname(name) == top]
    return any(looks_like_table(store.read(name)) for name in tables)
