"""One look at every photo with its mask: can both be read, do they fit, and what is in the mask."""

import functools
import hashlib
from collections.abc import Callable, Mapping
from typing import NamedTuple

from xception.data.images import ImageError
from xception.data.masks import Kind, MaskError, UnknownValues, check_sizes, decode_mask, tally
from xception.data.pairs import Pair, PairSet
from xception.data.scan import Look, look_at
from xception.data.spread import spread

_WORTH_A_PROCESS = 150  # pairs; starting a process takes as long as looking at this many


class PairLook(NamedTuple):
    """What was seen of one photo and its mask."""

    photo: Look
    mask_digest: bytes
    """SHA-256 of the mask's file; empty if it could not even be read."""
    mask_reason: str
    """Why the mask cannot be used; empty if it can, or if it only holds unknown values."""
    fits: bool
    """Whether both have one size, as far as both can be read."""
    kind: Kind | None
    unknown: Mapping[str, int]
    """Value or colour that means nothing: pixels."""
    pixels: Mapping[int, int]
    """Class number: pixels, `masks.IGNORED` too; empty if the mask cannot be used."""


def scan_pairs(
    pairs: PairSet,
    *,
    workers: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> list[PairLook]:
    """Look at all pairs, in order. `workers`, `progress` and what is raised: see `spread`."""
    # Without its pairs, which come along one by one.
    look = functools.partial(look_at_pair, pairs.without(pair.photo for pair in pairs.pairs))
    return spread(
        look, pairs.pairs, workers=workers, progress=progress, worth_a_process=_WORTH_A_PROCESS
    )


def look_at_pair(pairs: PairSet, pair: Pair) -> PairLook:
    """One look at one pair; what is wrong with it stands in the look."""
    photo = look_at(pairs.store, pair.photo)
    seen = PairLook(photo, b"", "", True, None, {}, {})
    try:
        data = pairs.store.read(pair.mask)
        seen = seen._replace(mask_digest=hashlib.sha256(data).digest())
        raw = decode_mask(data, pair.mask)
    except ImageError as error:
        return seen._replace(mask_reason=error.reason)
    seen = seen._replace(kind=raw.kind)
    if not photo.reason:
        try:
            check_sizes(pair.mask, raw.size, photo.size)
        except MaskError as error:
            seen = seen._replace(mask_reason=error.reason, fits=False)
    try:
        pixels = tally(pairs.legend.read(raw, pair.mask))
    except UnknownValues as error:
        return seen._replace(unknown=error.counts)
    return seen if seen.mask_reason else seen._replace(pixels=pixels)
