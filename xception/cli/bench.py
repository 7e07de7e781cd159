"""`xception bench`: how quick, large and right a model is in every form that it has here."""

import glob
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import click
import torch

from xception.cli import check_masks, options
from xception.cli.export import POINT
from xception.cli.material import MaskOptions, open_material
from xception.cli.output import percent, print_json, print_table, say
from xception.data.pairs import Layout
from xception.deploy.bench import Row, Subject, check_same, measure, told
from xception.deploy.bench_picture import draw
from xception.deploy.compare import find_photos
from xception.deploy.engines import engine_card, find_model, kind_of, load_network, open_engine
from xception.deploy.export import SUFFIXES, Format, export, formats
from xception.deploy.int8 import export_int8
from xception.deploy.material import Material
from xception.errors import UserError
from xception.models.network import Network
from xception.weights.card import Card

PICTURES = (".png", ".svg", ".pdf")
SEGMENTED_SIDE = 513  # pixels of the image for a network that takes any


@click.command("bench")
@click.argument("run", type=options.FilePath())
@click.argument("files", metavar="[FILE...]", nargs=-1, type=options.FilePath(dir_okay=False))
@click.option(
    "--data",
    type=options.FilePath(),
    metavar="PHOTOS",
    help="Photos with classes or masks, to measure accuracy on.",
)
@click.option("--int8", is_flag=True, help="Make files of eight bits too; minutes. Needs --data.")
@click.option(
    "--batch-size",
    default=8,
    show_default=True,
    type=options.BATCH,
    metavar="N",
    help="Images at once where images per second are measured.",
)
@click.option(
    "--seconds",
    default=30.0,
    show_default=True,
    type=click.FloatRange(0.1, 86_400),
    help="For the times, all forms together.",
)
@click.option(
    "--threads", type=click.IntRange(1, 1024), metavar="N", help="By default all cores compute."
)
@click.option(
    "--held-out",
    default=1000,
    show_default=True,
    type=click.IntRange(1, 10_000_000),
    metavar="N",
    help="Photos of PHOTOS to measure accuracy on, at most.",
)
@click.option(
    "--picture",
    type=options.FilePath(dir_okay=False),
    metavar="FILE",
    help="Draw it: .png, .svg or .pdf.",
)
@check_masks.mask_options
@options.as_json
@options.quiet
def command(
    run: Path,
    files: Sequence[Path],
    data: Path | None,
    int8: bool,
    batch_size: int,
    seconds: float,
    threads: int | None,
    held_out: int,
    picture: Path | None,
    layout: Layout | None,
    classes: Path | None,
    ignore: tuple[int, ...],
    as_json: bool,
    quiet: bool,
) -> None:
    """Measure a trained model in every format and precision, all in one run and in turns.

    RUN is the folder of a training or a model file. It is measured as it is, and as files of every
    format whose library is installed, made for this; and so are the FILEs, and those that
    `xception export` has left in the folder. A form that cannot be had, such as one of eight bits
    that costs too much, is left out and named.

    \b
    Examples:
      xception bench runs/shirts-1
      xception bench runs/shirts-1 --data photos/ --int8 --picture bench.png
    """
    if int8 and data is None:
        raise UserError("--int8 needs --data PHOTOS: ranges and loss are measured on photos")
    masks = MaskOptions(layout, classes, ignore)
    given = [name for name, value in masks.given().items() if value]
    if given and data is None:
        raise UserError(f"{', '.join(given)}: of photos with masks; --data PHOTOS names them")
    if picture is not None:
        check_picture(picture)
    path = find_model(run)
    if kind_of(path) != "torch":
        raise UserError(f"{path} is an exported file; give the run, and this one as FILE")
    if threads is not None:
        torch.set_num_threads(threads)
    network = load_network(path)
    left_out: dict[str, str] = {}
    others = _others(path, network.card, files, threads, left_out)
    material = None
    if data is not None:
        material = open_material(
            data, network.card, calibration=64, held_out=held_out, quiet=quiet, masks=masks
        )
    with tempfile.TemporaryDirectory(prefix="xception-bench-") as folder:
        made = _made(network, Path(folder), material if int8 else None, left_out, quiet)
        named = {path: "as trained"} | dict(made)
        subjects = [
            Subject(name, file, open_engine(file, threads=threads)) for file, name in named.items()
        ]
        subjects += others
        side = network.card.preprocess.size
        if network.card.task == "segmentation":
            side = SEGMENTED_SIDE
        image = torch.zeros(1, network.card.preprocess.channels, side, side)
        say(f"{len(subjects)} forms, {seconds:g} s", quiet=quiet)
        rows = measure(subjects, image, batch_size=batch_size, seconds=seconds, material=material)
    metric = None if material is None else material.metric
    if as_json:
        print_json(
            {
                "size": side,
                "batch_size": batch_size,
                "metric": metric,
                "forms": [told(row) for row in rows],
                "left_out": [{"name": name, "reason": why} for name, why in left_out.items()],
            }
        )
    else:
        _print(rows, batch_size, metric)
    if picture is not None:
        title = f"{network.card.architecture.name}, {side}x{side} pixels"
        draw(rows, picture, title=title, metric=metric)
        say(f"picture: {picture}", quiet=quiet)


def check_picture(picture: Path) -> None:
    """Refuse a picture that could not be written, before anything is measured.

    Raises:
        UserError: its ending is none of ours, or its folder is not there.
    """
    if picture.suffix.lower() not in PICTURES:
        raise UserError(f"--picture {picture}: name one that ends in {', '.join(PICTURES)}")
    if not picture.parent.is_dir():
        raise UserError(f"--picture {picture}: the folder {picture.parent} does not exist")


def _made(
    network: Network,
    folder: Path,
    material: Material | None,
    left_out: dict[str, str],
    quiet: bool,
) -> Iterator[tuple[Path, str]]:
    """A file of each format that can be had here, and what to call it."""
    for name, file, make in _plan(network, folder, material, quiet):
        say(f"exporting: {name}", quiet=quiet)
        try:
            make()
        except UserError as error:
            _leave_out(left_out, name, error)
        else:
            yield file, name


def _plan(
    network: Network, folder: Path, material: Material | None, quiet: bool
) -> Iterator[tuple[str, Path, Callable[[], object]]]:
    """What to make: its name, its file, and what makes it."""
    names: dict[Format, str] = {
        "torch": "torch, folded",
        "onnx": "ONNX Runtime",
        "openvino": "OpenVINO",
    }
    photos = find_photos(None)
    for format in formats():
        file = folder / f"float{SUFFIXES[format]}"
        yield names[format], file, partial(export, network, format, file, photos)
        if material is None or format == "torch":
            continue
        file = folder / f"int8{SUFFIXES[format]}"
        make = partial(
            export_int8,
            network,
            format,
            file,
            material,
            max_drop=POINT,
            say=lambda line: say(line, quiet=quiet),
        )
        yield f"{names[format]} int8", file, make


def _others(
    model: Path,
    card: Card,
    files: Sequence[Path],
    threads: int | None,
    left_out: dict[str, str],
) -> list[Subject]:
    """The files that were named, and those that lie beside the model: opened, before the long work.

    Raises:
        UserError: a file that was named is no form of this network, or cannot be opened.
    """

    def opened(file: Path) -> Subject:
        check_same(card, engine_card(file), file)
        return Subject(file.name, file, open_engine(file, threads=threads))

    found = {file: opened(file) for file in dict.fromkeys(files) if file != model}
    for suffix in (".onnx", ".xml"):
        for file in sorted(model.parent.glob(f"{glob.escape(model.stem)}*{suffix}")):
            if file in found:
                continue
            try:
                found[file] = opened(file)
            except UserError as error:  # whoever put it there may not have meant it
                _leave_out(left_out, file.name, error)
    return list(found.values())


def _leave_out(left_out: dict[str, str], name: str, error: UserError) -> None:
    left_out[name] = str(error)
    say(f"left out: {name}: {error}")


def _print(rows: Sequence[Row], batch_size: int, metric: str | None) -> None:
    numbers = ["file MB", "p50 ms", "p99 ms", f"images/s ({batch_size})", "memory MiB"]
    numbers += [metric] if metric is not None else []
    cells = [
        [
            row.name,
            row.precision,
            f"{row.file_bytes / 1e6:.1f}",
            f"{row.p50_ms:.2f}",
            f"{row.p99_ms:.2f}",
            f"{row.images_per_second:.1f}",
            f"{row.memory_bytes / 2**20:.0f}",
            *([percent(row.score)] if metric is not None else []),
        ]
        for row in rows
    ]
    print_table(["form", "precision", *numbers], cells, right=numbers)
