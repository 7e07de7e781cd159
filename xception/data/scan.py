"""One look at every photo: can it be read, how large is it, and what does it look like in small.

Each photo is decoded once, JPEGs at reduced scale, in several processes where it pays.
"""

import hashlib
import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8, UInt64
from PIL import Image

from xception.data.images import ImageError, inspect
from xception.data.store import Store
from xception.errors import UserError

THUMBNAIL = 16  # pixels a side
_DECODED_SIDE = 4 * THUMBNAIL  # what a JPEG may be reduced to, so that its thumbnail is still exact
_CHUNK = 100  # photos that one process takes at a time
_WORTH_A_PROCESS = 1000  # photos; starting one takes as long as looking at this many

_store: Store | None = None  # of a worker process


class Look(NamedTuple):
    """What was seen of one photo."""

    digest: bytes
    """SHA-256 of the file; empty if it could not even be read."""
    reason: str
    """Why it cannot be shown; empty if it can. Then the rest means something."""
    format: str
    shorter_side: int
    """Pixels, at full scale."""
    fingerprint: int
    """64 bits, of which few change when a photo is recompressed or scaled: `difference_hash`."""
    thumbnail: bytes
    """`THUMBNAIL`² RGB pixels."""


def scan(
    store: Store,
    names: Sequence[str],
    *,
    workers: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> list[Look]:
    """Look at photos, in order. `progress` is told from time to time how many are done.

    `workers` is the number of processes; 1 means none but this one, None as many as pay: one for
    each core and each thousand photos.

    Raises `UserError` if a worker process dies.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    workers = workers or max(1, min(cores or 1, len(names) // _WORTH_A_PROCESS))
    looks: list[Look] = []
    for chunk in _chunks(store, names, workers):
        looks.extend(chunk)
        if progress is not None:
            progress(len(looks))
    return looks


def difference_hash(image: Image.Image) -> int:
    """The difference hash (dHash): whether each cell is brighter than its left neighbour.

    Of 8 rows of 9 grey cells, so 64 bits, the top left one the highest.
    """
    cells = np.asarray(image.convert("L").resize((9, 8), Image.Resampling.BOX))
    return int.from_bytes(np.packbits(cells[:, 1:] > cells[:, :-1]).tobytes(), "big")


def fingerprints(looks: Sequence[Look]) -> UInt64[np.ndarray, " n"]:
    """The fingerprints of photos as one array."""
    return np.array([look.fingerprint for look in looks], np.uint64)


def thumbnails(looks: Sequence[Look]) -> UInt8[np.ndarray, "n d"]:
    """The thumbnails of photos as one array, a flat row each."""
    flat = np.frombuffer(b"".join(look.thumbnail for look in looks), np.uint8)
    return flat.reshape(len(looks), 3 * THUMBNAIL**2)


def _chunks(store: Store, names: Sequence[str], workers: int) -> Iterator[list[Look]]:
    chunks = [names[start : start + _CHUNK] for start in range(0, len(names), _CHUNK)]
    if workers == 1:
        yield from ([_look(store, name) for name in chunk] for chunk in chunks)
        return
    # Spawned, not forked: this process may have threads, which a fork would leave hanging.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, _start_worker, (store,)) as pool:
        try:
            yield from pool.map(_look_at, chunks)
        except BrokenProcessPool as error:
            raise UserError(
                "a process died while looking at the photos, perhaps for lack of memory; "
                "try again with one worker"
            ) from error


def _start_worker(store: Store) -> None:
    global _store
    _store = store


def _look_at(names: Sequence[str]) -> list[Look]:
    assert _store is not None
    return [_look(_store, name) for name in names]


def _look(store: Store, name: str) -> Look:
    digest = b""
    try:
        data = store.read(name)
        digest = hashlib.sha256(data).digest()
        decoded = inspect(data, name, min_side=_DECODED_SIDE)
    except ImageError as error:
        return Look(digest, error.reason, "", 0, 0, b"")
    small = decoded.image.resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX)
    return Look(
        digest=digest,
        reason="",
        format=decoded.format,
        shorter_side=decoded.shorter_side,
        fingerprint=difference_hash(decoded.image),
        thumbnail=small.tobytes(),
    )
