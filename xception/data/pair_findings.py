"""The single things that an audit of masks may find; each function looks for one sort of them."""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence

from pydantic import BaseModel, ConfigDict

from xception.data.findings import MAX_UNREADABLE, Finding, Kind, count
from xception.data.masks import IGNORED
from xception.data.names import some
from xception.data.pair_scan import PairLook
from xception.data.pairs import Pair, PairSet
from xception.data.splits import Split

#: A class with a smaller share of the training pixels is easily overlooked.
RARE = 0.001
#: A larger share of ignored pixels is worth a warning.
MUCH_IGNORED = 0.5
#: Different unknown values that are remembered; smoothed masks of colours have millions.
MAX_UNKNOWN = 1000
#: What troubles a training only, and not whoever measures on some of the photos.
OF_TRAINING: frozenset[Kind] = frozenset(
    {
        *("one_class", "absent_class", "rare_class", "missing_from_split"),
        *("no_validation", "no_test", "split_made"),
    }
)
_FILES_SHOWN = 3

Seen = Sequence[tuple[Pair, PairLook]]


class Unknown(BaseModel):
    """A mask value or colour that means nothing."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    pixels: int
    files: tuple[str, ...]
    """The masks that hold it."""


def unknown_values(seen: Seen) -> dict[str, Unknown]:
    """Every value that means nothing, the most frequent first."""
    pixels: Counter[str] = Counter()
    files: dict[str, list[str]] = {}
    for pair, look in seen:
        pixels.update(look.unknown)
        for value in look.unknown:
            files.setdefault(value, []).append(pair.mask)
    return {
        value: Unknown(pixels=number, files=tuple(files[value]))
        for value, number in pixels.most_common(MAX_UNKNOWN)
    }


def of_unknown(unknown: Mapping[str, Unknown], classes: Sequence[str]) -> Iterator[Finding]:
    """Values that mean nothing: never a silent class."""
    if not unknown:
        return
    said = [
        f"{value} ({found.pixels:,} pixels in {count(found.files, 'mask')}: "
        f"{some(found.files, _FILES_SHOWN)})"
        for value, found in unknown.items()
    ]
    yield Finding(
        kind="unknown_values",
        severity="error",
        message=f"The masks hold values that are none of the {len(classes)} classes "
        f"{some(classes)}: {some(said)}. Mend the masks, or name the values in classes.txt, as "
        "ignored if they do not count.",
        files=tuple(dict.fromkeys(name for found in unknown.values() for name in found.files)),
        groups=tuple(found.files for found in unknown.values()),
    )


def of_unusable(seen: Seen) -> Iterator[Finding]:
    """Photos and masks that cannot be read, and masks of another size than their photo."""
    torn = [(p.photo, look.photo.reason) for p, look in seen if look.photo.reason]
    torn += [(p.mask, look.mask_reason) for p, look in seen if look.mask_reason and look.fits]
    differing = [(p.mask, look.mask_reason) for p, look in seen if not look.fits]
    unusable = sum(bool(look.photo.reason or look.mask_reason) for _, look in seen)
    too_many = unusable > MAX_UNREADABLE * len(seen)
    consequence = (
        f" More than {MAX_UNREADABLE:.0%} of the pairs is too many to skip; mend or remove them."
        if too_many
        else " They will be skipped."
    )
    sorts: tuple[tuple[Kind, list[tuple[str, str]], str], ...] = (
        ("unreadable", torn, "cannot be read"),
        ("size_differs", differing, "of another size than the photo"),
    )
    for kind, found, what in sorts:
        if found:
            yield Finding(
                kind=kind,
                severity="error" if too_many else "warning",
                message=f"{count(found, 'file')} {what}, first {found[0][0]}: {found[0][1]}."
                + consequence,
                files=tuple(name for name, _ in found),
            )


def of_unpaired(pairs: PairSet) -> Iterator[Finding]:
    """Photos without a mask and masks without a photo; files that are none of the set."""
    if pairs.unpaired:
        yield Finding(
            kind="unpaired",
            severity="warning",
            message=f"{count(pairs.unpaired, 'file')} without partner, left out: "
            f"{some(pairs.unpaired)}. A mask must be called as its photo.",
            files=pairs.unpaired,
        )
    if pairs.ignored:
        yield Finding(
            kind="ignored",
            severity="note",
            message=f"{count(pairs.ignored, 'file')} not used, being no photos or masks of the "
            f"set: {some(pairs.ignored)}.",
            files=pairs.ignored,
        )


def of_kinds(pairs: PairSet, seen: Seen) -> Iterator[Finding]:
    """Masks of numbers beside masks of colours: one of them may be meant otherwise."""
    coloured = pairs.legend.coloured
    if not coloured or not pairs.legend.by_value:
        return
    by_colour = [pair.mask for pair, look in seen if look.kind in coloured]
    by_value = [pair.mask for pair, look in seen if look.kind and look.kind not in coloured]
    if by_colour and by_value:
        fewer = min(by_colour, by_value, key=len)
        yield Finding(
            kind="mixed_masks",
            severity="warning",
            message=f"{count(by_value, 'mask')} are read by number, {len(by_colour)} by colour; "
            f"the fewer are {some(fewer)}. Make them of one kind if that is not meant.",
            files=tuple(fewer),
        )


def of_pixels(
    classes: Sequence[str], pixels: Mapping[Split, Mapping[str, int]], unknown: Collection[str]
) -> Iterator[Finding]:
    """Classes without, or with comparatively few, training pixels; or with none to measure by.

    Nothing of that is known where masks hold `unknown` values: of these no pixel was counted.
    """
    if unknown:
        return
    train = pixels["train"]
    learnt = [name for name in classes if train[name]]
    absent = [name for name in classes if not train[name]]
    if len(learnt) < 2:
        yield Finding(
            kind="one_class",
            severity="error",
            message=f"Only {len(learnt)} of the classes {some(classes)} occurs in training masks; "
            "at least two are needed.",
        )
    elif absent:
        yield Finding(
            kind="absent_class",
            severity="warning",
            message=f"No training mask shows {some(absent)}: the network cannot learn that.",
        )
    total = sum(train.values())
    rare = [f"{name} ({train[name] / total:.2%})" for name in learnt if train[name] < RARE * total]
    if rare:
        yield Finding(
            kind="rare_class",
            severity="note",
            message=f"Less than {RARE:.1%} of the training pixels show {some(rare)}. Consider "
            "--class-weights balanced.",
        )
    parts = [
        f"no {split} mask shows {some(missing)}"
        for split in ("validation", "test")
        if any(pixels[split].values())
        and (missing := [name for name in learnt if not pixels[split][name]])
    ]
    if parts:
        said = " and ".join(parts)
        yield Finding(
            kind="missing_from_split",
            severity="warning",
            message=f"{said[0].upper()}{said[1:]}: there, nothing will be known about that.",
        )


def of_ignored(seen: Seen) -> Iterator[Finding]:
    """The share of pixels that do not count, and masks of nothing else."""
    total = sum(sum(look.pixels.values()) for _, look in seen)
    ignored = sum(look.pixels.get(IGNORED, 0) for _, look in seen)
    if not ignored:
        return
    blank = tuple(pair.mask for pair, look in seen if set(look.pixels) == {IGNORED})
    message = f"{ignored / total:.1%} of all pixels do not count."
    if blank:
        message += f" In {count(blank, 'mask')} none does: {some(blank)}."
    yield Finding(
        kind="ignored_pixels",
        severity="warning" if blank or ignored > MUCH_IGNORED * total else "note",
        message=message,
        files=blank,
    )
