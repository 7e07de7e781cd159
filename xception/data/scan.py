"""One look at every photo: can it be read, how large is it, and what does it look like in small.

Each photo is decoded once, JPEGs at reduced scale, in several processes where it pays.
"""

import functools
import hashlib
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8, UInt64
from PIL import Image

from xception.data.images import ImageError, inspect
from xception.data.spread import spread
from xception.data.store import Store

THUMBNAIL = 16  # pixels a side
_DECODED_SIDE = 4 * THUMBNAIL  # what a JPEG may be reduced to, so that its thumbnail is still exact


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
    size: tuple[int, int]
    """Width and height in pixels, at full scale, upright."""


def scan(
    store: Store,
    names: Sequence[str],
    *,
    workers: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> list[Look]:
    """Look at photos, in order. `workers`, `progress`, and what is raised: see `spread`."""
    return spread(functools.partial(look_at, store), names, workers=workers, progress=progress)


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


def look_at(store: Store, name: str) -> Look:
    """One look at one photo; what is wrong with it stands in the look."""
    digest = b""
    try:
        data = store.read(name)
        digest = hashlib.sha256(data).digest()
        decoded = inspect(data, name, min_side=_DECODED_SIDE)
    except ImageError as error:
        return Look(digest, error.reason, "", 0, 0, b"", (0, 0))
    small = decoded.image.resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX)
    return Look(
        digest=digest,
        reason="",
        format=decoded.format,
        shorter_side=decoded.shorter_side,
        fingerprint=difference_hash(decoded.image),
        thumbnail=small.tobytes(),
        size=decoded.size,
    )
