"""`xception separate`: regular convolutions of a trained model exchanged for separable ones."""

import shlex
import sys
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import click

from xception._version import __version__
from xception.cli import options
from xception.cli.evaluate import fit_classes
from xception.cli.material import readable
from xception.cli.output import counted, percent, print_json, print_table, say, show
from xception.cli.separating import Bench, Ways
from xception.cli.separation_inputs import (
    all_or_nothing,
    check_layers,
    check_out,
    check_splits,
    find_trained,
)
from xception.cli.separation_reporting import report_separation
from xception.cli.separation_target import Target
from xception.data.folders import open_photos
from xception.deploy.runtime import MODEL_FILE
from xception.errors import UserError
from xception.evaluation.separation_report import Separation
from xception.models.classifier import Classifier
from xception.separation.sites import ORDERS
from xception.training.distributed import pick_device
from xception.training.progress import Lines, Silent
from xception.weights.card import Card
from xception.weights.model_file import save_model

CURVE = "0.75,0.5,0.35,0.25"
FRACTION = click.FloatRange(0, 1, min_open=True, max_open=True)


@click.command("separate")
@click.argument("model")
@click.option(
    "--data", "photos", required=True, type=options.FilePath(), metavar="PHOTOS",
    help="Photos with their classes, as for a training.",
)  # fmt: skip
@click.option(
    "--out", required=True, type=options.FilePath(file_okay=False), metavar="NEW",
    help="A new folder: model.safetensors, separation.json, report.html.",
)  # fmt: skip
@click.option(
    "--speedup", type=click.FloatRange(1, 100, min_open=True), metavar="X",
    help="MACs divided by so much; 2 if no target is given.",
)  # fmt: skip
@click.option("--macs", type=FRACTION, metavar="SHARE", help="The share of the MACs to keep.")
@click.option(
    "--max-drop", type=click.FloatRange(0, 1), metavar="SHARE",
    help="As few MACs as lose at most this accuracy on validation photos (0.01: one point).",
)  # fmt: skip
@click.option(
    "--energy", type=FRACTION, metavar="SHARE", help="Keep this share of each kernel's squares."
)
@click.option(
    "--rank", type=click.IntRange(1, 64), metavar="R", help="The same rank everywhere it pays."
)
@click.option(
    "--finetune", default=0, type=click.IntRange(0, 1000), metavar="N",
    help="Epochs of learning from the original afterwards.",
)  # fmt: skip
@click.option(
    "--calibrate", default=256, show_default=True, type=click.IntRange(0, 1_000_000), metavar="N",
    help="Training photos that layers are fitted to; 0: the kernels alone.",
)  # fmt: skip
@click.option(
    "--order", type=click.Choice(["auto", *ORDERS]), default="auto", show_default=True,
    help="Which convolution comes first; auto chooses layer by layer.",
)  # fmt: skip
@click.option("--equal", is_flag=True, help="One rank for all channels of a layer.")
@click.option("--keep", multiple=True, metavar="LAYER", help="Leave a layer; may be repeated.")
@click.option(
    "--curve", default=CURVE, show_default=True, metavar="SHARES",
    help="Other shares of the MACs to try for the report; none: no others.",
)  # fmt: skip
@click.option("--finetune-curve", is_flag=True, help="Fine-tune each point of the curve too.")
@click.option(
    "--weights", type=options.FilePath(), metavar="FILE", help="Of timm:NAME, as timm saves them."
)
@click.option("--size", type=options.SIDE, metavar="PIXELS", help="Of the images of timm:NAME.")
@click.option(
    "--workers", default=1, show_default=True, type=options.WORKERS, metavar="N",
    help="Processes that read photos.",
)  # fmt: skip
@click.option("--seed", default=0, show_default=True, type=options.SEED, help="Of all chance.")
@options.batch_size
@options.device
@options.as_json
@options.quiet
def command(
    model: str,
    photos: Path,
    out: Path,
    speedup: float | None,
    macs: float | None,
    max_drop: float | None,
    energy: float | None,
    rank: int | None,
    finetune: int,
    calibrate: int,
    order: str,
    equal: bool,
    keep: Sequence[str],
    curve: str,
    finetune_curve: bool,
    weights: Path | None,
    size: int | None,
    workers: int,
    seed: int,
    batch_size: int,
    device: str,
    as_json: bool,
    quiet: bool,
) -> None:
    """Exchange a trained network's regular convolutions for separable ones.

    MODEL is the folder of a run, a model file, or timm:NAME with --weights. Which layers are
    exchanged, and how, is chosen for the whole network at once by what each exchange does to its
    answers on training photos; then each layer is fitted to what it did before. No layer is
    exchanged that would not become cheaper.

    \b
    Examples:
      xception separate runs/shirts-1 --data photos/ --out runs/shirts-half --speedup 2
      xception separate runs/shirts-1 --data photos/ --out runs/small --max-drop 0.01
      xception separate timm:resnet50 --weights resnet50.safetensors --data imagenet/ \\
        --out runs/resnet --macs 0.4 --finetune 1
    """
    told = partial(say, quiet=quiet)
    target = read_target(speedup, macs, max_drop, energy, rank)
    fractions = read_curve(curve)
    check_out(out, photos)
    opened = open_photos(photos)
    original = find_trained(model, weights, size, opened)
    members = readable(fit_classes(opened, original.card, photos), quiet)
    bench = Bench(
        model=original,
        card=original.card,
        photos=members,
        device=pick_device(device),
        batch_size=batch_size,
        workers=workers,
        seed=seed,
        ways=Ways(ORDERS if order == "auto" else [order], equal, keep),
    )
    check_layers(original, keep)
    check_splits(bench, target, fractions, photos)
    menu = target.needs_menu or bool(fractions)
    prepared, images = bench.prepare(calibrate, with_menu=menu, say=told)
    result, points = bench.reach(prepared, target, told)
    progress = Silent() if quiet else Lines()
    tune = partial(bench.fine_tune, epochs=finetune, folder=out, progress=progress)
    each = tune if finetune and finetune_curve else None
    with all_or_nothing(out):
        points += bench.curve(prepared, fractions, each, told)
        final, tuning = tune(result.model) if finetune else (result.model, None)
        points = bench.with_chosen(points, prepared, result, tuning)
        report = report_separation(
            out,
            bench,
            prepared,
            result,
            final,
            tuning,
            points,
            images=images,
            target=target,
            command=shlex.join(["xception", *sys.argv[1:]]),
        )
        save_model(out / MODEL_FILE, final, new_card(bench, final, report))
    if as_json:
        print_json(report.model_dump(mode="json"))
    else:
        print_separation(report, out)


def read_target(
    speedup: float | None,
    macs: float | None,
    max_drop: float | None,
    energy: float | None,
    rank: int | None,
) -> Target:
    """The one target that was given; half of the MACs if there is none."""
    given = {
        "--speedup": speedup,
        "--macs": macs,
        "--max-drop": max_drop,
        "--energy": energy,
        "--rank": rank,
    }
    named = [name for name, value in given.items() if value is not None]
    if len(named) > 1:
        raise UserError(f"one target, please, and not {' and '.join(named)}")
    if max_drop is not None or energy is not None or rank is not None:
        return Target(max_drop=max_drop, energy=energy, rank=rank)
    return Target(macs=macs if macs is not None else 1 / (speedup or 2))


def read_curve(text: str) -> list[float]:
    """The shares of --curve, the largest first."""
    if text == "none":
        return []
    try:
        fractions = [float(part) for part in text.split(",")]
    except ValueError:
        raise UserError(f"--curve {text!r:.60} must be shares such as 0.75,0.5 or none") from None
    if not all(0 < fraction < 1 for fraction in fractions):
        raise UserError(f"--curve {text!r:.60}: each share must lie between 0 and 1")
    return sorted(set(fractions), reverse=True)


def new_card(bench: Bench, final: Classifier, report: Separation) -> Card:
    """The card of the new model file: that of the original, with what was done to it."""
    figures = {
        "split": report.split,
        "samples": report.samples,
        report.score: report.after.score,
        f"{report.score}_before": report.before.score,
        "agreement": report.agreement,
        "macs": report.after.macs,
        "macs_before": report.before.macs,
    }
    return bench.card.model_copy(
        update={
            "surgery": final.surgery,
            "metrics": {"separation": figures},
            "package_version": __version__,
        }
    )


def left_as_they_are(report: Separation) -> str:
    """How many convolutions were not exchanged, by the reason, the most frequent first."""
    reasons = Counter(one.reason for one in report.left).most_common()
    said = "; ".join(f"{number} ({reason})" for reason, number in reasons)
    return f"left as they are: {said or 'none'}\n"


def print_separation(report: Separation, out: Path) -> None:
    """What a person wants to know of it, on stdout."""
    columns = ["layer", "order", "rank", "MACs", "error", "ms before", "after"]
    rows = [
        [
            layer.name,
            layer.order.replace("_", " "),
            f"{layer.mean_rank:.3g}",
            percent(layer.macs_after / layer.macs_before),
            percent(layer.error if layer.output_error is None else layer.output_error),
            f"{layer.ms_before:.2f}",
            f"{layer.ms_after:.2f}",
        ]
        for layer in report.layers
    ]
    print_table(columns, rows, right=columns[2:])
    show(left_as_they_are(report))
    before, after = report.before, report.after
    show(
        f"MACs {before.macs:,} -> {after.macs:,} ({percent(after.macs / before.macs)}), "
        f"{before.ms:.1f} -> {after.ms:.1f} ms for one photo\n"
        f"{'accuracy' if report.score == 'top1' else 'mean average precision'} "
        f"{percent(before.score)} -> {percent(after.score)} on "
        f"{counted(report.samples, f'{report.split} photo')}, "
        f"{percent(report.agreement)} of the answers as before"
    )
    for remark in report.remarks:
        show(f"note: {remark}")
    show(f"report: {out / 'report.html'}")
    show(f"now: {shlex.join(['xception', 'evaluate', str(out)])} PHOTOS")
