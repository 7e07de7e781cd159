"""`xception convert`: weights of other libraries to model files and back, and where two part."""

from pathlib import Path
from typing import Any, Literal

import click

from xception.cli import options
from xception.cli.output import counted, print_json, print_table, say, show
from xception.errors import UserError
from xception.models.network import Network
from xception.weights.compare import TOLERANCE, Comparison, compare
from xception.weights.convert import (
    NO_CLASSIFIER,
    Converted,
    Wishes,
    convert_file,
    is_ours,
    load_any,
    read_foreign,
)
from xception.weights.foreign_files import OURS, choose_source, is_ours_to_be, write_foreign
from xception.weights.hub import IMAGENET, fetch
from xception.weights.model_file import MODEL_FILE, load_model, save_model
from xception.weights.names.sources import SOURCES

LAYOUTS = [OURS, *dict.fromkeys(source.layout for source in SOURCES)]


@click.command("convert")
@click.argument("file", type=options.FilePath())
@click.option(
    "--to",
    "out",
    type=options.FilePath(),
    metavar="OUT",
    help="The file to write; its ending says what: .safetensors, .weights.h5, .pth.",
)
@click.option(
    "--layout",
    type=click.Choice(LAYOUTS),
    help="Whose names OUT has, where the ending leaves a choice.",
)
@click.option(
    "--classes",
    type=options.FilePath(),
    metavar="FILE",
    help="A text file, one class a line, or imagenet; without it classes are numbers.",
)
@click.option(
    "--drop-background",
    is_flag=True,
    help="Drop the first logit, which is no class in 1001-class networks of TensorFlow.",
)
@click.option("--license", metavar="SPDX", help="The weights' licence, for the card.")
@click.option(
    "--compare",
    "other",
    type=options.FilePath(),
    metavar="OTHER",
    help="Name the first layer where FILE and this file part.",
)
@click.option("--size", type=options.SIDE, metavar="PIXELS", help="Of the image to compare on.")
@click.option("--overwrite", is_flag=True, help="Replace OUT if it exists.")
@options.as_json
@options.quiet
def command(
    file: Path,
    out: Path | None,
    layout: str | None,
    classes: Path | None,
    drop_background: bool,
    license: str | None,
    other: Path | None,
    size: int | None,
    overwrite: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Weights of Keras, TensorFlow and PyTorch to model files and back, number for number.

    FILE is a .h5, .weights.h5 or .keras of Keras, a TensorFlow checkpoint (a folder, a prefix or a
    .tar.gz), a .pth or .safetensors of timm, torchvision or Cadene, a model file or run of ours, or
    imagenet:MODEL for published weights. Without --to and --compare it only says what FILE is.

    \b
    Examples:
      xception convert xception_weights.h5 --to model.safetensors
      xception convert imagenet:xception65 --to model.safetensors
      xception convert runs/shirts-1 --to shirts.weights.h5
      xception convert model.safetensors --to port.pth --layout timm
      xception convert model.safetensors --compare xception_weights.h5
    """
    if out is not None and out.exists() and not overwrite:
        raise UserError(f"--to {out}: it exists; --overwrite replaces it")
    names = None if classes is None else read_classes(classes)
    wishes = Wishes(names, not drop_background, license)
    answer, model = convert(file, out, layout, wishes, keep=other is not None)
    comparison = None
    if other is not None:
        found = load_any(located(other))
        comparison = compare(model, found, size=size or model.card.preprocess.size)
        answer["comparison"] = tell(comparison)
    if as_json:
        print_json(answer)
        return
    remark(answer, quiet)
    if comparison is not None:
        print_comparison(comparison, file, other)


def convert(
    file: Path, out: Path | None, layout: str | None, wishes: Wishes, *, keep: bool
) -> tuple[dict[str, Any], Network]:
    """Write `out`, and say what `file` is; the network has weights if they are to be kept."""
    published = str(file).removeprefix(f"{IMAGENET}:")
    if published != str(file) and not file.exists():
        fetched = fetch(published)
        origin = {"repo": fetched.published.repo, "revision": fetched.published.revision}
        wishes = wishes._replace(
            classes=wishes.classes or IMAGENET,
            license=wishes.license or fetched.published.license,
            origin=origin,
        )
        path = fetched.path
    else:
        path = located(file)
    if is_ours(path):
        if wishes != Wishes():
            raise UserError(
                f"{file} is a model file of ours, whose card says its classes and licence: "
                "--classes, --drop-background and --license are for other libraries' files"
            )
        model, converted = load_model(path), None
    elif out is None or keep or not is_ours_to_be(out, layout):
        converted = read_foreign(path, wishes)
        model = converted.model
    else:  # one tensor after the other, in little memory
        converted = convert_file(path, out, wishes)
        answer = describe(file, converted.model, converted)
        return answer | {"out": str(out), "layout": OURS}, converted.model
    answer = describe(file, model, converted)
    if out is not None:
        source = choose_source(out, model.card.architecture.name, layout)
        if source is None:
            save_model(out, model, model.card)
        else:
            write_foreign(out, model, source)
        answer |= {"out": str(out), "layout": OURS if source is None else source.layout}
    return answer, model


def located(file: Path) -> Path:
    """The model file of a run folder; any other path as it is."""
    return file / MODEL_FILE if (file / MODEL_FILE).is_file() else file


def read_classes(file: Path) -> list[str] | Literal["imagenet"]:
    """The lines of a text file, or the word that stands for ImageNet's classes."""
    if str(file) == IMAGENET and not file.exists():
        return IMAGENET
    try:
        lines = file.read_text("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--classes {file}: {getattr(error, 'strerror', None) or error}") from error
    names = [line.strip() for line in lines if line.strip()]
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise UserError(f"--classes {file}: {twice!r:.60} stands there twice")
    return names


def describe(file: Path, model: Network, converted: Converted | None) -> dict[str, Any]:
    """What a program may want to know of the file."""
    return {
        "file": str(file),
        "source": OURS if converted is None else converted.source.title,
        "model": model.card.architecture.name,
        "options": model.options,
        "classifier": model.card.classes != NO_CLASSIFIER,
        "tensors": len(model.state_dict()),
        "note": "" if converted is None else converted.source.note,
        "left_out": [] if converted is None else list(converted.left_out),
    }


def tell(comparison: Comparison) -> dict[str, Any]:
    """The same of a comparison."""
    first = comparison.first
    return {
        "equal": first is None,
        "first": None if first is None else first.name,
        "same_weights": None if first is None else first.same_weights,
        "other_weights": comparison.other_weights,
        "tolerance": TOLERANCE,
        "options": {key: list(pair) for key, pair in comparison.options.items()},
        "stages": {name: finite(value) for name, value in comparison.stages().items()},
    }


def finite(value: float) -> float | None:
    """JSON has no infinity."""
    return None if value == float("inf") else value


def remark(answer: dict[str, Any], quiet: bool) -> None:
    """What a person wants to know of the file."""
    chosen = ", ".join(f"{key} {value}" for key, value in answer["options"].items())
    show(f"{answer['file']}: {answer['source']}, here {answer['model']} ({chosen})")
    if answer["left_out"]:
        left = answer["left_out"]
        some = ", ".join(left[:3]) + (", …" if len(left) > 3 else "")
        say(
            f"left out, as the network needs none: {counted(len(left), 'tensor')} ({some})",
            quiet=quiet,
        )
    if answer["note"]:
        say(answer["note"], quiet=quiet)
    if not answer["classifier"]:
        say("it has no classifier: the last layer gives zeros until it is trained", quiet=quiet)
    if "out" in answer:
        show(f"written: {answer['out']}")


def print_comparison(comparison: Comparison, file: Path, other: Path | None) -> None:
    """Stages, and the first layer that differs."""
    print_table(
        ["part", "largest difference"],
        [[name, f"{value:.2e}"] for name, value in comparison.stages().items()],
        right=["largest difference"],
    )
    for option, (here, there) in comparison.options.items():
        show(f"{option}: {here} in {file}, {there} in {other}")
    first = comparison.first
    if first is None:
        show(f"they agree within {TOLERANCE:g} of the largest value of each layer")
        if comparison.other_weights:
            some = ", ".join(comparison.other_weights[:3])
            show(f"other weights, which made no difference on this image: {some}")
        return
    why = "with the same weights" if first.same_weights else "whose weights differ"
    show(f"they part at {first.name}, {why}: {first.largest:.3g} of {first.scale:.3g}")
