"""`xception export`: a trained model as a file for other runtimes, in float or in eight bits."""

from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from xception.cli import check_masks, options
from xception.cli.material import MaskOptions, open_material, photos_to_compare
from xception.cli.output import counted, percent, print_json, print_table, say, show
from xception.data.pairs import Layout
from xception.deploy.bench import file_bytes
from xception.deploy.compare import PROBABILITY, Comparison
from xception.deploy.engines import find_model, kind_of, load_network
from xception.deploy.export import SUFFIXES, Format, export
from xception.deploy.int8 import export_int8
from xception.deploy.quantize import Outcome
from xception.errors import UserError

OF_INT8 = {  # options that mean nothing without it
    "max_drop": "--max-drop",
    "calibration": "--calibration",
    "held_out": "--held-out",
    "seven_bit": "--seven-bit",
    "layout": "--layout",
    "classes": "--classes",
    "ignore": "--ignore",
}
SHOWN_LAYERS = 12  # of the most harmful ones; --json has all
POINT = 0.01  # of accuracy or mIoU


@click.command("export")
@click.argument("run", type=options.FilePath())
@click.option(
    "--format",
    "kind",
    required=True,
    type=click.Choice(list(SUFFIXES)),
    help="onnx; openvino; or torch, a model file with folded normalisations.",
)
@click.option(
    "--to",
    "out",
    type=options.FilePath(dir_okay=False),
    metavar="OUT",
    help="The file to write; by default beside the model.",
)
@click.option("--int8", is_flag=True, help="In eight bits; needs --data.")
@click.option(
    "--data",
    type=options.FilePath(),
    metavar="PHOTOS",
    help="Photos to compare on; for --int8 with classes or masks, as for a training.",
)
@click.option(
    "--max-drop",
    default=1.0,
    show_default=True,
    type=click.FloatRange(0, 100),
    metavar="POINTS",
    help="What eight bits may cost, in points of accuracy or mIoU.",
)
@click.option(
    "--calibration",
    default=64,
    show_default=True,
    type=click.IntRange(1, 100_000),
    metavar="N",
    help="Photos to choose the ranges of eight bits with, at most.",
)
@click.option(
    "--held-out",
    default=1000,
    show_default=True,
    type=click.IntRange(1, 10_000_000),
    metavar="N",
    help="Photos to measure the loss on, at most; others than these.",
)
@click.option(
    "--seven-bit",
    is_flag=True,
    help="Weights of seven bits, for processors without VNNI (before about 2019).",
)
@check_masks.mask_options
@click.option("--overwrite", is_flag=True, help="Replace OUT if it exists.")
@options.as_json
@options.quiet
def command(
    run: Path,
    kind: Format,
    out: Path | None,
    int8: bool,
    data: Path | None,
    max_drop: float,
    calibration: int,
    held_out: int,
    seven_bit: bool,
    layout: Layout | None,
    classes: Path | None,
    ignore: tuple[int, ...],
    overwrite: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Write a trained model for other runtimes, and compare it with the original.

    RUN is the folder of a training or a model file. The exported file holds the model's card, and
    `predict`, `evaluate` and `serve` take it like a run. A file that answers otherwise than the
    model is refused; one of eight bits, if it is more than --max-drop worse on photos held out.

    \b
    Examples:
      xception export runs/shirts-1 --format onnx
      xception export runs/shirts-1 --format openvino --to shirts.xml --data photos/
      xception export runs/shirts-1 --format onnx --int8 --data photos/
    """
    path = find_model(run)
    if kind_of(path) != "torch":
        raise UserError(f"{path} is an exported file; export the run that it comes from")
    if int8 and data is None:
        raise UserError("--int8 needs --data PHOTOS: ranges and loss are measured on photos")
    if not int8:
        refuse_int8_options()
    out = out or default_out(path, kind, int8=int8)
    check_out(out, kind, path, overwrite=overwrite)
    network = load_network(path)
    answer: dict[str, Any] = {"path": str(out), "format": kind}
    if int8:
        assert data is not None
        material = open_material(
            data,
            network.card,
            calibration=calibration,
            held_out=held_out,
            quiet=quiet,
            masks=MaskOptions(layout, classes, ignore),
        )
        outcome = export_int8(
            network,
            kind,
            out,
            material,
            max_drop=max_drop * POINT,
            seven_bits=seven_bit,
            say=lambda line: say(line, quiet=quiet),
        )
        answer |= {"precision": "int8", "bytes": file_bytes(out), "int8": outcome.told()}
        lines = tell_int8(outcome)
    else:
        comparison = export(network, kind, out, photos_to_compare(data))
        answer |= {
            "precision": "fp32",
            "bytes": file_bytes(out),
            "comparison": comparison.told(),
        }
        lines, outcome = tell(comparison), None
    if as_json:
        print_json(answer)
        return
    if outcome is not None:
        print_shares(outcome)
    for line in lines:
        show(line)
    show(f"{out}: {file_bytes(out) / 1e6:,.1f} MB")


def refuse_int8_options() -> None:
    """Refuse options of `--int8` that were given without it.

    Raises:
        UserError: there is one.
    """
    source = click.get_current_context().get_parameter_source
    for name, option in OF_INT8.items():
        if source(name) is not ParameterSource.DEFAULT:
            raise UserError(f"{option}: a part of --int8; give that too, or leave this out")


def default_out(model: Path, kind: Format, *, int8: bool) -> Path:
    """A name beside the model."""
    suffix = "-int8" if int8 else "-folded" if kind == "torch" else ""
    return model.with_name(f"{model.stem}{suffix}{SUFFIXES[kind]}")


def check_out(out: Path, kind: Format, model: Path, *, overwrite: bool) -> None:
    """Refuse a name that does not fit, or whose file must not be lost.

    Raises:
        UserError: as said.
    """
    if out.suffix != SUFFIXES[kind]:
        raise UserError(f"--to {out}: a file of {kind} ends in {SUFFIXES[kind]}")
    if not out.parent.is_dir():
        raise UserError(f"--to {out}: the folder {out.parent} does not exist")
    if out.exists() and out.samefile(model):
        raise UserError(f"--to {out}: that is the model itself")
    weights = [out.with_suffix(".bin")] if kind == "openvino" else []
    for file in (out, *weights):
        if file.exists() and not overwrite:
            raise UserError(f"{file}: it exists; --overwrite replaces it")


def tell(found: Comparison) -> list[str]:
    """The comparison in two lines."""
    sizes = ", ".join(f"{height}x{width}" for height, width in found.sizes)
    what = "pixels" if found.masks else "photos"
    return [
        f"compared with the original on {counted(found.photos, 'photo')} ({sizes})",
        f"probabilities differ by at most {found.largest:.1e} ({PROBABILITY:.0e} is allowed), "
        f"the likeliest class is the same for {found.same:.4%} of the {what}",
    ]


def tell_int8(outcome: Outcome) -> list[str]:
    """What eight bits cost, in two lines."""
    drop = outcome.before - outcome.after
    layers = len(outcome.shares)
    return [
        f"{outcome.metric}: {percent(outcome.before)} in float, {percent(outcome.after)} in eight "
        f"bits, {drop / POINT:+.2f} points lost on {counted(outcome.held_out, 'photo')} held out",
        f"{len(outcome.in_float)} of {layers} layers stay in float; ranges by "
        f"{outcome.calibration}, from {counted(outcome.calibrated_with, 'photo')}",
    ]


def print_shares(outcome: Outcome) -> None:
    """The layers that do the most harm."""
    floating = {layer.name for layer in outcome.in_float}
    rows = [
        [
            one.layer.name,
            one.layer.kind,
            "float" if one.layer.name in floating else "int8",
            percent(one.share),
        ]
        for one in outcome.shares[:SHOWN_LAYERS]
    ]
    print_table(["layer", "kind", "in", "share of the loss"], rows, right=["share of the loss"])
