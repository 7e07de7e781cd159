"""`xception predict` with a model that segments: photos to masks.

`cli.predict` calls `predict_masks` where the model's card says segmentation: with the photos that
it found, and with its options `--out`, `--probabilities` and those of `look.look_options`.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import track

from xception.cli.look import Look
from xception.cli.output import counted, percent, print_json, print_table, say
from xception.cli.picture_names import PictureNames
from xception.data.images import ImageError
from xception.deploy.mask_files import Segmented, is_written, segment_file
from xception.errors import UserError

LISTED = 4  # classes of a photo in the table


def predict_masks(
    run: Path,
    photos: Iterable[Path],
    missing: Sequence[dict[str, Any]],
    *,
    out: Path | None,
    look: Look,
    probabilities: bool,
    device: torch.device,
    as_json: bool,
    quiet: bool,
) -> int:
    """Write the mask of each photo, and say how much of it each class covers.

    Args:
        run: of the model.
        photos: files, found as they are needed.
        missing: for each argument that is no photo, its `path` and an `error`.
        out: the folder for the masks; made if it is not there.
        look: scales, mirror images, output stride.
        probabilities: whether to write those too.
        device: where to compute.
        as_json: one JSON document in the place of a table.
        quiet: no progress and no remarks.

    Returns:
        The exit status: 1 if a file could not be read.

    Raises:
        UserError: no folder was named, a photo lies in it, or the model cannot be used.
    """
    if out is None:
        raise UserError(f"{run} segments photos: --out FOLDER says where the masks go")
    segmenter = look.open(run, device)
    out.mkdir(parents=True, exist_ok=True)
    answers: list[dict[str, Any]] = [
        {"path": one["path"], "mask": None, "coverage": {}, "error": one["error"]}
        for one in missing
    ]
    names = PictureNames()
    for path in _with_progress(photos, quiet):
        if path.parent.resolve() == out.resolve():
            raise UserError(f"--out {out}: the photo {path} lies there; name another folder")
        try:
            found = segment_file(segmenter, path, out, names.of(path), probabilities=probabilities)
        except ImageError as error:
            say(f"unreadable: {error}")
            answers.append({"path": str(path), "mask": None, "coverage": {}, "error": error.reason})
            continue
        if found.in_bands:
            height, width = found.size
            say(
                f"{path}: {height}x{width} pixels, computed in overlapping bands of rows; the "
                "answer is that of the whole photo",
                quiet=quiet,
            )
        answers.append(_answer(path, found))
    if not answers:
        raise UserError(f"--out {out}: only what an earlier run wrote there was found; name photos")
    if as_json:
        print_json(answers)
    else:
        _print(answers)
    unreadable = sum("error" in answer for answer in answers)
    if unreadable:
        total = counted(len(answers), "file")
        say(f"{unreadable:,} of {total} could not be read", quiet=quiet)
    return 1 if unreadable else 0


def not_written(
    photos: Iterable[Path], arguments: Sequence[Path | str], out: Path | None
) -> Iterator[Path]:
    """The photos without the pictures of an earlier run, whose folder `out` may lie below theirs.

    One that is an argument itself stays: that is asked for wrongly, and is to be said.
    """
    named = frozenset(map(Path, arguments))
    return (path for path in photos if path in named or out is None or not is_written(path, out))


def _answer(path: Path, found: Segmented) -> dict[str, Any]:
    answer: dict[str, Any] = {
        "path": str(path),
        "mask": str(found.mask),
        "overlay": str(found.overlay),
        "coverage": found.coverage,
    }
    if found.probabilities is not None:
        answer["probabilities"] = str(found.probabilities)
    return answer


def _print(answers: Sequence[dict[str, Any]]) -> None:
    rows = []
    for answer in answers:
        ordered = sorted(answer["coverage"].items(), key=lambda item: -item[1])
        shown = [f"{name} {percent(share)}" for name, share in ordered[:LISTED] if share > 0]
        rows.append([answer["path"], ", ".join(shown) or "unreadable", answer["mask"] or "–"])
    print_table(["photo", "covered by", "mask"], rows)


def _with_progress(photos: Iterable[Path], quiet: bool) -> Iterator[Path]:
    console = Console(stderr=True)
    hidden = quiet or not console.is_terminal
    yield from track(photos, "segmenting", console=console, transient=True, disable=hidden)
