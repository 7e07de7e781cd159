"""What is wrong with photos and masks, before a night is spent on training with them."""

import hashlib
from collections import Counter
from collections.abc import Callable

from pydantic import BaseModel, ConfigDict

from xception.data import findings, pair_findings
from xception.data.audit import GRAVEST_FIRST
from xception.data.findings import Finding
from xception.data.folders import Photo
from xception.data.masks import IGNORED
from xception.data.pair_findings import Unknown
from xception.data.pair_scan import scan_pairs
from xception.data.pairs import PairSet
from xception.data.splits import SPLITS, Split


class PairAudit(BaseModel):
    """What was found. Pairs that cannot be used are in `unreadable` only, in no other count."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    photos: int
    """All pairs of the set, those that cannot be used too."""
    layout: str
    classes: tuple[str, ...]
    notes: tuple[str, ...]
    """What was assumed, a sentence each."""
    counts: dict[Split, int]
    """Usable pairs for each split."""
    pixels: dict[Split, dict[str, int]]
    """Pixels for each split and class: what class weights are made of."""
    ignored_pixels: dict[Split, int]
    unknown: dict[str, Unknown]
    """Mask value or colour (#rrggbb) that means nothing: how often, and where."""
    unreadable: dict[str, str]
    """Name of the photo whose pair cannot be used: reason. Training leaves these out
    (`PairSet.without`)."""
    findings: tuple[Finding, ...]
    """The gravest first."""
    digest: str = ""
    """SHA-256 of the SHA-256 of photos and masks in their order: other contents, another digest."""
    refusal: str | None
    """Why training refuses the set, in a sentence or two, or None if it does not."""


def audit_pairs(
    pairs: PairSet,
    *,
    workers: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> PairAudit:
    """Look at every photo and mask and list what is wrong. `workers`, `progress`: see `spread`.

    A mask that holds unknown values is no reason to skip it: training refuses the whole set.
    """
    looks = scan_pairs(pairs, workers=workers, progress=progress)
    seen = list(zip(pairs.pairs, looks, strict=True))
    unreadable = {
        pair.photo: look.photo.reason or f"its mask {pair.mask}: {look.mask_reason}"
        for pair, look in seen
        if look.photo.reason or look.mask_reason
    }
    usable = [(pair, look) for pair, look in seen if pair.photo not in unreadable]
    pixels: dict[Split, dict[str, int]] = {
        split: dict.fromkeys(pairs.classes, 0) for split in SPLITS
    }
    ignored: dict[Split, int] = dict.fromkeys(SPLITS, 0)
    for pair, look in usable:
        for number, amount in look.pixels.items():
            if number == IGNORED:
                ignored[pair.split] += amount
            else:
                pixels[pair.split][pairs.classes[number]] += amount
    sizes: Counter[Split] = Counter(pair.split for pair, _ in usable)
    unknown = pair_findings.unknown_values(seen)
    photos = [(Photo(pair.photo, (), pair.split), look.photo) for pair, look in usable]
    found = [
        *pair_findings.of_unknown(unknown, pairs.classes),
        *pair_findings.of_unusable(seen),
        *pair_findings.of_pixels(pairs.classes, pixels, unknown),
        *pair_findings.of_kinds(pairs, usable),
        *findings.of_splits(pairs.split_made, sizes),
        *findings.of_duplicates(photos),
        *pair_findings.of_unpaired(pairs),
        *pair_findings.of_ignored(usable),
    ]
    found.sort(key=lambda finding: GRAVEST_FIRST.index(finding.severity))
    digests = b"".join(look.photo.digest + look.mask_digest for look in looks)
    return PairAudit(
        photos=len(pairs.pairs),
        layout=pairs.layout,
        classes=pairs.classes,
        notes=pairs.notes,
        counts={split: sizes[split] for split in SPLITS},
        pixels=pixels,
        ignored_pixels=ignored,
        unknown=unknown,
        unreadable=unreadable,
        findings=tuple(found),
        digest=hashlib.sha256(digests).hexdigest(),
        refusal=" ".join(f.message for f in found if f.severity == "error") or None,
    )
