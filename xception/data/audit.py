"""What is wrong with a set of photos, before a night is spent on training with it.

`audit` looks at every photo once and lists what it found. A finding is an *error* if training
refuses the set because of it, a *warning* if the result would suffer or its measure deceive, and a
*note* otherwise.
"""

import hashlib
from collections import Counter
from collections.abc import Callable

from pydantic import BaseModel, ConfigDict

from xception.data import findings
from xception.data.findings import Finding
from xception.data.folders import PhotoSet
from xception.data.scan import scan
from xception.data.splits import SPLITS, Split

GRAVEST_FIRST = ("error", "warning", "note")


class Audit(BaseModel):
    """What was found. Photos that cannot be read are in `unreadable` only, in no other count."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    photos: int
    """All photos of the set, the unreadable ones too."""
    size: int
    """Pixels a side of the network's input, which small photos were compared with."""
    counts: dict[Split, dict[str, int]]
    """Readable photos for each split and class; one with several labels counts for each."""
    unreadable: dict[str, str]
    """Name of the file: reason."""
    findings: tuple[Finding, ...]
    """The gravest first."""

    digest: str = ""
    """SHA-256 of the photos' own SHA-256 in their order: other contents, another digest."""
    refusal: str | None
    """Why training refuses the set, in a sentence or two, or None if it does not."""


def audit(
    photos: PhotoSet,
    size: int,
    *,
    workers: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> Audit:
    """Look at every photo and list what is wrong.

    `size`: pixels a side of the network's input. `workers`, `progress`: see `scan`.
    """
    looks = scan(
        photos.store, [photo.name for photo in photos.photos], workers=workers, progress=progress
    )
    seen = [(p, look) for p, look in zip(photos.photos, looks, strict=True) if not look.reason]
    unreadable = {
        p.name: look.reason for p, look in zip(photos.photos, looks, strict=True) if look.reason
    }
    counts: dict[Split, dict[str, int]] = {s: dict.fromkeys(photos.classes, 0) for s in SPLITS}
    for photo, _ in seen:
        for label in photo.labels:
            counts[photo.split][photos.classes[label]] += 1
    found = [
        *findings.of_unreadable(unreadable, len(photos.photos)),
        *findings.of_classes(photos, counts),
        *findings.of_splits(photos.split_made, Counter(photo.split for photo, _ in seen)),
        *findings.of_duplicates(seen),
        *findings.of_files(photos, seen, size),
    ]
    found.sort(key=lambda finding: GRAVEST_FIRST.index(finding.severity))
    return Audit(
        photos=len(photos.photos),
        size=size,
        counts=counts,
        unreadable=unreadable,
        findings=tuple(found),
        digest=hashlib.sha256(b"".join(look.digest for look in looks)).hexdigest(),
        refusal=" ".join(f.message for f in found if f.severity == "error") or None,
    )
