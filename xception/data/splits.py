"""Which photo is for training, which for validation, which for the test.

Where the person made no split, we make one from nothing but the bytes of each photo: the first 64
bits of their SHA-256, read as a number u in [0, 1). So the split is the same on every machine,
adding or removing photos moves none of the others, and identical photos always stand on one side.

Each class is split in the same expected shares, because u does not depend on the class; that is as
much stratification as a rule can give that looks at one photo at a time. A class of n photos gets
0.15·n ± 0.36·√n of them for validation, so a class of ten may by chance get none: `audit` says so.
"""

import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Literal

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")

#: u below the first number: validation; below the second: test; the rest: train.
VALIDATION_BELOW = 0.15
TEST_BELOW = 0.30

_CHUNK = 100  # photos that one thread takes at a time

_NAMES: dict[str, Split] = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "validate": "validation",
    "valid": "validation",
    "val": "validation",
    "test": "test",
    "testing": "test",
}


def split_named(name: str) -> Split | None:
    """The split that a folder or a table's cell means, upper or lower case, or None."""
    return _NAMES.get(name.strip().lower())


def split_of(data: bytes, *, test: bool) -> Split:
    """The split of one photo, decided by its bytes alone.

    Without `test` only validation is cut off: what would be test remains training, so that a test
    split of the person's own changes nothing about which photos validate.
    """
    u = int.from_bytes(hashlib.sha256(data).digest()[:8], "big") / 2**64
    if u < VALIDATION_BELOW:
        return "validation"
    return "test" if test and u < TEST_BELOW else "train"


def split_all(
    names: Sequence[str], read: Callable[[str], bytes | None], *, test: bool
) -> list[Split]:
    """`split_of` for many photos. Those that cannot be read (None) go to train."""

    def some(chunk: Sequence[str]) -> list[Split]:
        contents = (read(name) for name in chunk)
        return ["train" if c is None else split_of(c, test=test) for c in contents]

    chunks = [names[start : start + _CHUNK] for start in range(0, len(names), _CHUNK)]
    with ThreadPoolExecutor() as pool:  # reading and hashing let go of the interpreter's lock
        return [split for splits in pool.map(some, chunks) for split in splits]
