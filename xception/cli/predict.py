"""`xception predict`: photos to answers."""

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext, suppress
from functools import partial
from itertools import chain
from pathlib import Path

import click

from xception.cli import options
from xception.cli.answers import Outlets, open_outlets
from xception.cli.computing import device_for
from xception.cli.look import Look, look_options, refuse_classes, refuse_masks, segments
from xception.cli.output import counted, say
from xception.cli.photo_progress import followed
from xception.cli.picture_names import PictureNames
from xception.cli.predict_masks import not_written, predict_masks
from xception.data.images import ImageError
from xception.data.names import OVERLAY
from xception.deploy import on_ray
from xception.deploy.explain import explain
from xception.deploy.results import Answer
from xception.deploy.runtime import Prediction, Predictor
from xception.deploy.storage import is_url, photos_at_url, read_photo
from xception.deploy.walk import photos_at
from xception.errors import UserError

COUNTING_S = 2.0  # what it may cost to know how many photos there are


@click.command("predict")
@click.argument("run", type=options.FilePath())
@click.argument("images", metavar="IMAGE...", nargs=-1, required=True, type=options.PhotoPath())
@click.option(
    "--top",
    default=5,
    show_default=True,
    type=options.TOP,
    metavar="K",
    help="Classes per photo.",
)
@options.as_json
@click.option(
    "--csv",
    "csv_file",
    type=options.FilePath(dir_okay=False, allow_dash=True),
    metavar="FILE",
    help="Write a table; - is stdout.",
)
@click.option(
    "--jsonl",
    "lines_file",
    type=options.FilePath(dir_okay=False, allow_dash=True),
    metavar="FILE",
    help="Write one JSON object a line; - is stdout.",
)
@click.option(
    "--parquet",
    "parquet_folder",
    type=options.FilePath(file_okay=False),
    metavar="FOLDER",
    help="Write a table in Parquet, as a folder of parts.",
)
@click.option(
    "--resume",
    is_flag=True,
    help="Go on with the table that is there; photos that it has answers for are skipped.",
)
@click.option(
    "--explain",
    "explain_to",
    type=options.FilePath(file_okay=False),
    metavar="FOLDER",
    help="Write where the model looked (Grad-CAM).",
)
@click.option(
    "--out",
    type=options.FilePath(file_okay=False),
    metavar="FOLDER",
    help="Masks: where they go, and the photos with them laid over.",
)
@click.option("--probabilities", is_flag=True, help="Masks: write those too, as .npz.")
@click.option(
    "--engine",
    type=click.Choice(["local", "ray"]),
    default="local",
    show_default=True,
    help="Where workers compute: in this process, or by Ray on a cluster (RAY_ADDRESS) or here.",
)
@click.option(
    "--workers",
    type=click.IntRange(1, 100_000),
    metavar="N",
    help="Of Ray; by default one on each machine, or for each graphics card.",
)
@look_options
@options.batch_size
@options.device
@options.quiet
def command(
    run: Path,
    images: Sequence[Path | str],
    top: int,
    as_json: bool,
    csv_file: Path | None,
    lines_file: Path | None,
    parquet_folder: Path | None,
    resume: bool,
    explain_to: Path | None,
    out: Path | None,
    probabilities: bool,
    engine: str,
    workers: int | None,
    scales: Sequence[float],
    mirror: bool | None,
    output_stride: int | None,
    batch_size: int,
    device: str,
    quiet: bool,
) -> int:
    """Say what is in photos, or where: classes, or masks from a model that segments.

    RUN is the folder of a training, a model file, or a file that `xception export` wrote; IMAGE is
    a file, a folder or a pattern such as 'holiday/*.jpg', on disk or in object storage. Files that
    cannot be read are reported and do not stop the rest; the exit status is then 1. Answers are
    written as they come, so that a folder may hold millions of photos.

    \b
    Examples:
      xception predict runs/shirts-1 photo.jpg
      xception predict runs/shirts-1 holiday/ --csv answers.csv --explain where/
      xception predict shirts.onnx archive/ --jsonl answers.jsonl --resume
      xception predict shirts.onnx s3://archive/2024 --csv answers.csv --engine ray
      xception predict runs/streets-1 photos/ --out masks/
    """
    look = Look(scales, mirror, output_stride)
    if engine == "ray":
        if explain_to is not None:
            raise UserError("--explain computes here: leave out --engine ray")
        on_ray.load()
    elif workers is not None:
        raise UserError("--workers: those of --engine ray; without it this process computes")
    if segments(run):
        files = {"--csv": csv_file, "--jsonl": lines_file, "--parquet": parquet_folder}
        others = {"--resume": resume, "--explain": explain_to, "--engine ray": engine == "ray"}
        refuse_classes(run, files | others)
        urls = [image for image in images if is_url(image)]
        if urls:
            raise UserError(f"{urls[0]}: photos for masks are read from disk, not from URLs")
        found, missing = find_photos(images)
        return predict_masks(
            run,
            not_written(map(Path, found), images, out),
            missing,
            out=out,
            look=look,
            probabilities=probabilities,
            device=device_for(run, device),
            as_json=as_json,
            quiet=quiet,
        )
    refuse_masks(look, {"--out": out, "--probabilities": probabilities})
    open_all = open_outlets(csv_file, lines_file, parquet_folder, as_json=as_json, resume=resume)
    paths, missing = find_photos(images)
    predictor = Predictor(run, device="cpu" if engine == "ray" else device_for(run, device))
    if explain_to is not None:
        _ = predictor.model  # an exported network cannot explain itself
        explain_to.mkdir(parents=True, exist_ok=True)
    computing = nullcontext(predictor.stream)
    if engine == "ray":
        computing = on_ray.workers_on_ray(predictor, workers=workers, device=device)
    with computing as stream, open_all(run, min(top, len(predictor.classes))) as outlets:
        outcomes = followed(
            stream(outlets.not_done(paths), batch_size),
            lambda: outlets.tried + outlets.skipped,
            partial(count_photos, images, COUNTING_S),
            quiet=quiet,
        )
        answers = _answers(predictor, outcomes, top, explain_to, resume)
        _write(outlets, chain(missing, answers))
    if resume:
        say(f"{counted(outlets.skipped, 'photo')} skipped, done before", quiet=quiet)
    if outlets.unreadable:
        total = counted(outlets.tried, "file")
        say(f"{outlets.unreadable:,} of {total} could not be read", quiet=quiet)
    return 1 if outlets.unreadable else 0


def _write(outlets: Outlets, answers: Iterable[Answer]) -> None:
    for answer in answers:
        outlets.write(answer)


def _answers(
    predictor: Predictor,
    outcomes: Iterable[tuple[str | Path, Prediction | ImageError]],
    top: int,
    explain_to: Path | None,
    resume: bool,
) -> Iterator[Answer]:
    """What JSON has for each photo; the pictures of `--explain` are written on the way."""
    folder = explain_to if resume else None  # whose pictures belong to rows that stay
    names = PictureNames(lambda name: folder is not None and (folder / f"{name}{OVERLAY}").exists())
    for path, outcome in outcomes:
        answer: Answer = {"path": str(path)}
        if isinstance(outcome, ImageError):
            say(f"unreadable: {outcome}")
            yield answer | {"top": [], "error": outcome.reason}
            continue
        best = outcome.top(top)
        answer["top"] = [{"label": label, "probability": share} for label, share in best]
        if explain_to is not None:
            try:  # it was read before, but storage may fail the second time
                shown = explain(predictor, read_photo(path), str(path), best[0][0])
            except ImageError as error:
                say(f"unreadable: {error}")
                yield answer | {"top": [], "error": error.reason}
                continue
            picture = explain_to / f"{names.of(Path(path))}{OVERLAY}"
            shown.save(picture, quality=92)
            answer["explanation"] = str(picture)
        yield answer


def find_photos(
    images: Sequence[Path | str],
) -> tuple[Iterator[Path | str], list[Answer]]:
    """The photos that are meant, found as they are needed, and an answer for each argument without.

    Raises:
        UserError: there is no photo at all.
    """
    walks: list[Iterator[Path | str]] = []
    missing: list[Answer] = []
    for image in images:
        try:
            walks.append(photos_at_url(str(image)) if is_url(image) else photos_at(Path(image)))
        except UserError as error:
            reason = str(error).removeprefix(f"{image}: ")
            missing.append({"path": str(image), "top": [], "error": reason})
    messages = [f"{answer['path']}: {answer['error']}" for answer in missing]
    if not walks:
        raise UserError("\n".join(messages))
    for message in messages:
        say(f"unreadable: {message}")
    return chain.from_iterable(walks), missing


def count_photos(images: Sequence[Path | str], seconds: float) -> int | None:
    """How many photos are meant, and arguments without any; None if that takes longer to find out.

    Those in object storage are not counted: each folder of them may cost money.
    """
    end = time.monotonic() + seconds
    total = 0
    for image in images:
        if is_url(image):
            return None
        found: Iterator[Path] = iter(())
        with suppress(UserError):  # one answer, that there is nothing
            found = photos_at(Path(image))
        before = total
        for _ in found:
            total += 1
            if time.monotonic() > end:
                return None
        total = max(total, before + 1)
    return total
