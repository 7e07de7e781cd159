"""The report of a separation: `separation.json` is the truth, `report.html` the view of it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import matplotlib
from markupsafe import Markup
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from xception.errors import UserError
from xception.evaluation import charts, words
from xception.evaluation.report import ENVIRONMENT, Record


class Layer(Record):
    """A layer that was exchanged."""

    name: str
    order: Literal["depthwise_first", "pointwise_first"]
    ranks: int | tuple[int, ...]
    """Depthwise kernels of each channel: one number for all, or one for each."""
    mean_rank: float
    error: float
    """Of the kernel: relative, in the Frobenius norm."""
    output_error: float | None
    """Of its output on the photos it was fitted to, over the output's standard deviation: channels
    weighted by how much they matter to the answers, where that was measured."""
    output_bound: float
    """For any input: the norm of the output's change (the bias apart) by that of the input."""
    macs_before: int
    macs_after: int
    ms_before: float
    ms_after: float
    """Measured on one image, here."""

    @property
    def slower(self) -> bool:
        """Whether it takes longer than before, though it has fewer MACs."""
        return self.ms_after > self.ms_before


class Left(Record):
    """A convolution that was left as it is."""

    name: str
    reason: str
    macs: int


class Point(Record):
    """The network at another number of MACs; accuracies are on the validation photos."""

    fraction: float
    """Of the MACs that are kept."""
    macs: int
    data_free: float | None = None
    """The kernels approximated, without photos."""
    data_aware: float | None = None
    """Fitted to photos."""
    fine_tuned: float | None = None


class Figures(Record):
    """The whole network, before or after."""

    macs: int
    parameters: int
    ms: float
    """Measured on one image, here."""
    score: float


class Tuning(Record):
    """A fine-tuning after the surgery."""

    epochs: int
    score_before: float | None
    """On the validation photos, as everywhere here; None where there are none."""
    score_after: float | None
    kept: bool
    """Whether the weights after it were better, and are those of the file."""


class Separation(Record):
    """All that the report says."""

    title: str
    created_by: str
    created: str | None = None
    """When, in ISO 8601."""
    command: str
    model: str
    """The name of the architecture."""
    target: str
    """What was asked for, in words."""
    score: Literal["top1", "map"]
    """What accuracy means here: the share of right answers, or mean average precision."""
    split: str
    """The photos on which `before` and `after` were measured."""
    samples: int
    calibration: int
    """Photos that layers were fitted to; 0 where none were."""
    before: Figures
    after: Figures
    agreement: float
    """The share of photos that get the same answer as before."""
    layers: tuple[Layer, ...]
    left: tuple[Left, ...]
    curve: tuple[Point, ...] = ()
    tuning: Tuning | None = None
    remarks: tuple[str, ...] = ()
    """What the reader must know: what became slower, what could not be had."""
    environment: dict[str, str]


def write_separation(folder: Path, report: Separation) -> Path:
    """Write `separation.json` and `report.html` into a folder that exists; returns the page.

    Raises:
        UserError: the folder cannot be written to.
    """
    page = render(report)
    try:
        text = report.model_dump_json(indent=2)
        (folder / "separation.json").write_text(text + "\n", encoding="utf-8")
        (folder / "report.html").write_text(page, encoding="utf-8")
    except OSError as error:
        raise UserError(f"{folder}: the report cannot be written: {error.strerror}") from error
    return folder / "report.html"


def render(report: Separation) -> str:
    """The page: one file that needs nothing else."""
    drawn = {}
    if report.curve:
        # Markup: our own SVG, in which matplotlib has escaped every text.
        drawn["curve"] = Markup(charts.themed(curve(report.curve)))
    return ENVIRONMENT.get_template("separation.html").render(
        report=report, words=words, charts=drawn
    )


def curve(points: Sequence[Point]) -> str:
    """Accuracy against the share of MACs that is kept, one line for each way to fit."""
    ordered = sorted(points, key=lambda point: point.fraction)
    lines = {
        "kernels alone": ("muted", [(p.fraction, p.data_free) for p in ordered]),
        "fitted to photos": ("good", [(p.fraction, p.data_aware) for p in ordered]),
        "fine-tuned": ("bad", [(p.fraction, p.fine_tuned) for p in ordered]),
    }
    with matplotlib.rc_context(charts.STYLE):
        figure = Figure(figsize=(6.4, 3.4), layout="constrained")
        axes = figure.subplots()
        axes.set_title("Accuracy, by the MACs that are kept")
        for label, (role, found) in lines.items():
            known = [(x, y) for x, y in found if y is not None]
            if known:
                xs, ys = zip(*known, strict=True)
                axes.plot(xs, ys, color=charts.PALETTE[role], label=label, marker="o", markersize=4)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{100 * x:.3g}{words.THIN}%"))
        axes.yaxis.set_major_formatter(charts.PERCENT)
        axes.legend(loc="lower right")
        return charts.svg(figure, "Accuracy against multiply-accumulates")
