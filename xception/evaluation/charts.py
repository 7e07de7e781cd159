"""The charts of the report as SVG: drawn once in the colours of a light page.

`svg` gives a file that stands on its own (the run's `plots/`); `themed` the same chart with its
colours as CSS variables, so that it follows the page into the dark. Text stays text: the browser
sets it in the page's font, in any script.
"""

import io
import re
import warnings
from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from jaxtyping import Int
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.text import Text
from matplotlib.ticker import FuncFormatter, MaxNLocator

from xception.evaluation.words import THIN, percent

# Role in the page's style sheet -> its light value. No two are alike: `themed` replaces by value.
PALETTE = {
    "paper": "#fbfaf7",
    "ink": "#24211d",
    "muted": "#6b665f",
    "line": "#dcd7cf",
    "good": "#1f7a68",
    "bad": "#c2532d",
    "soft": "#9dc4ba",
}
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # text as text
    "svg.hashsalt": "xception",  # the same chart, the same bytes
    "font.family": "sans-serif",
    "font.size": 10,
    "text.color": PALETTE["ink"],
    "text.parse_math": False,  # a class may be called $x$
    "axes.edgecolor": PALETTE["line"],
    "axes.labelcolor": PALETTE["muted"],
    "axes.titlecolor": PALETTE["ink"],
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "axes.titlepad": 12,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": PALETTE["line"],
    "grid.linewidth": 0.8,
    "xtick.color": PALETTE["line"],
    "ytick.color": PALETTE["line"],
    "xtick.labelcolor": PALETTE["muted"],
    "ytick.labelcolor": PALETTE["muted"],
    "ytick.major.size": 0,
    "lines.linewidth": 2,
    "lines.solid_capstyle": "round",
    "legend.frameon": False,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
}
MATRIX_STYLE: dict[Any, Any] = STYLE | {"axes.grid": False, "axes.spines.bottom": False}
CHART_INCHES = (3.7, 2.7)
MOST_CELLS = 25  # classes per side of a confusion matrix that can still be read
STRONG = 0.7  # a cell of this share is so strong that its number is written in paper colour
LONGEST_LABEL = 18  # letters
PERCENT = FuncFormatter(lambda share, _: f"{100 * share:.3g}{THIN}%")
# What a chart needs as a file but not within a page: global styles, names of groups, metadata.
ONLY_IN_FILES = re.compile(
    r"<metadata>.*?</metadata>\s*|<style .*?</style>\s*| id=\"[\w.]+_\d+\"", re.DOTALL
)


def themed(chart: str) -> str:
    """The chart's `<svg>` element for the inside of a page, its colours left to the style sheet."""
    chart = ONLY_IN_FILES.sub("", chart[chart.index("<svg") :])
    for role, colour in PALETTE.items():
        chart = chart.replace(f": {colour}", f": var(--{role})")  # in styles, not in names
    return chart


def losses(epochs: Sequence[int], train: Sequence[float], val: Sequence[float | None]) -> str:
    """Training and validation loss by epoch."""
    with matplotlib.rc_context(STYLE):
        figure, axes = _figure("Loss")
        _line(axes, epochs, train, "soft", "training")
        if any(value is not None for value in val):
            _line(axes, epochs, val, "good", "validation")
        _by_epoch(axes, epochs)
        axes.legend(
            loc="upper right", bbox_to_anchor=(1, 1.14), ncols=2, borderaxespad=0, handlelength=1.2
        )
        return svg(figure, "Loss by epoch")


def score(epochs: Sequence[int], values: Sequence[float | None], title: str) -> str:
    """A validation score in [0, 1] by epoch, its best one marked."""
    with matplotlib.rc_context(STYLE):
        figure, axes = _figure(title)
        _line(axes, epochs, values, "good", None)
        best = max(
            (value, -epoch)
            for epoch, value in zip(epochs, values, strict=True)
            if value is not None
        )
        axes.plot([-best[1]], [best[0]], "o", color=PALETTE["good"], markersize=7)
        axes.annotate(
            percent(best[0]), (-best[1], best[0]), xytext=(0, 8), textcoords="offset points",
            ha="center", weight="bold",
        )  # fmt: skip
        axes.margins(y=0.16)
        axes.yaxis.set_major_formatter(PERCENT)
        _by_epoch(axes, epochs)
        return svg(figure, f"{title} by epoch")


def learning_rate(epochs: Sequence[int], rates: Sequence[float]) -> str:
    """The learning rate by epoch."""
    with matplotlib.rc_context(STYLE):
        figure, axes = _figure("Learning rate")
        _line(axes, epochs, rates, "muted", None)
        axes.set_ylim(bottom=0)
        axes.yaxis.set_major_formatter(FuncFormatter(lambda rate, _: f"{rate:.3g}"))
        _by_epoch(axes, epochs)
        return svg(figure, "Learning rate by epoch")


def reliability(bins: Sequence[dict[str, Any]]) -> str:
    """How often the network is right (bars) when it is so sure (across), and how often it is."""
    filled = [row for row in bins if row["samples"]]
    middle = [(row["low"] + row["high"]) / 2 for row in filled]
    width = 0.88 * (bins[0]["high"] - bins[0]["low"])
    total = sum(row["samples"] for row in filled)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(4.1, 4.1), layout="constrained")
        upper, lower = figure.subplots(2, sharex=True, height_ratios=(4, 1))
        upper.set_title("Right, by how sure it was")
        upper.bar(middle, [row["accuracy"] for row in filled], width, color=PALETTE["soft"])
        upper.plot([0, 1], [0, 1], color=PALETTE["muted"], linewidth=1, linestyle=(0, (4, 3)))
        upper.plot(
            [row["confidence"] for row in filled], [row["accuracy"] for row in filled], "o",
            color=PALETTE["good"], markersize=5, clip_on=False,
        )  # fmt: skip
        upper.set(xlim=(0, 1), ylim=(0, 1), ylabel="share that is right")
        lower.bar(middle, [row["samples"] / total for row in filled], width, color=PALETTE["muted"])
        lower.set(xlabel="confidence of the network", ylabel="photos")
        lower.yaxis.set_major_locator(MaxNLocator(2))
        for axis in (upper.xaxis, upper.yaxis, lower.yaxis):
            axis.set_major_formatter(PERCENT)
        return svg(figure, "Accuracy against confidence")


def confusion(
    matrix: Int[np.ndarray, "k k"], classes: Sequence[str], *, as_shares: bool = False
) -> str:
    """The confusion matrix: each row a true class, shaded by the share of its photos.

    Of more than 25 classes only those of the most frequent mix-ups are drawn. The cells hold
    numbers, or in the place of large ones their shares of the row, in percent.
    """
    chosen = confused_classes(matrix)
    counts = matrix[np.ix_(chosen, chosen)]
    shares = counts / np.maximum(matrix.sum(axis=1), 1)[chosen, None]
    names = [_short(classes[c]) for c in chosen]
    size = len(chosen)
    with matplotlib.rc_context(MATRIX_STYLE):
        side = max(1.8, 0.5 * size) if size <= 12 else 0.3 * size
        figure = Figure(figsize=(side + 1.6, side + 1.3), layout="constrained")
        axes = figure.subplots()
        for row, column in np.ndindex(size, size):
            share = float(shares[row, column])
            shown = round(100 * share) if as_shares else int(counts[row, column])
            _cell(axes, row, column, shown, share, size)
        axes.set(xlim=(0, size), ylim=(size, 0), xlabel="predicted", ylabel="truth")
        axes.set_aspect("equal")
        places = np.arange(size) + 0.5
        axes.set_xticks(places, names, rotation=45, ha="right", rotation_mode="anchor")
        axes.set_yticks(places, names)
        axes.tick_params(length=0)
        return svg(figure, "Confusion matrix")


def by_width(widths: Sequence[int], values: Sequence[float | None]) -> str:
    """A score within bands of several widths along boundaries."""
    with matplotlib.rc_context(STYLE):
        figure, axes = _figure("Mean IoU near boundaries")
        _line(axes, widths, values, "good", None)
        known = [(width, v) for width, v in zip(widths, values, strict=True) if v is not None]
        axes.plot(*zip(*known, strict=True), "o", color=PALETTE["good"], markersize=5)
        axes.set_xscale("log", base=2)
        axes.set_xticks(widths, [str(width) for width in widths])
        axes.minorticks_off()
        axes.set_xlabel("pixels on either side")
        axes.set_ylim(bottom=0)
        axes.yaxis.set_major_formatter(PERCENT)
        return svg(figure, "Mean IoU by width of the band along boundaries")


def confused_classes(matrix: Int[np.ndarray, "k k"]) -> list[int]:
    """The classes to draw, in their order: all, or the first 25 of the most frequent mix-ups."""
    if len(matrix) <= MOST_CELLS:
        return list(range(len(matrix)))
    wrong = matrix - np.diag(np.diagonal(matrix))
    chosen: dict[int, None] = {}  # a set that keeps its order
    for pair in np.argsort(-wrong, axis=None, kind="stable"):
        chosen |= dict.fromkeys(divmod(int(pair), len(matrix)))
        if len(chosen) >= MOST_CELLS:
            break
    return sorted(list(chosen)[:MOST_CELLS])


def _cell(axes: Axes, row: int, column: int, count: int, share: float, size: int) -> None:
    right = row == column
    colour = PALETTE["good" if right else "bad"] if count else PALETTE["line"]
    opacity = 0.12 + 0.88 * share if count else 0.3
    corner = (column + 0.03, row + 0.03)
    axes.add_patch(Rectangle(corner, 0.94, 0.94, facecolor=colour, alpha=opacity, linewidth=0))
    if count:
        axes.text(
            column + 0.5, row + 0.52, str(count), ha="center", va="center",
            color=PALETTE["paper" if share >= STRONG else "ink"],
            fontsize=10 if size <= 12 else 7, weight="bold" if right else "normal",
        )  # fmt: skip


def _figure(title: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=CHART_INCHES, layout="constrained")
    axes = figure.subplots()
    axes.set_title(title)
    return figure, axes


def _line(
    axes: Axes,
    epochs: Sequence[int],
    values: Sequence[float | None],
    role: str,
    label: str | None,
) -> None:
    points = [(e, v) for e, v in zip(epochs, values, strict=True) if v is not None]
    marker = "o" if len(points) == 1 else None
    axes.plot(*zip(*points, strict=True), color=PALETTE[role], label=label, marker=marker)


def _by_epoch(axes: Axes, epochs: Sequence[int]) -> None:
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    if len(epochs) == 1:
        axes.set_xlim(epochs[0] - 1, epochs[0] + 1)


def _short(name: str) -> str:
    return name if len(name) <= LONGEST_LABEL else name[: LONGEST_LABEL - 1] + "…"


def svg(figure: Figure, title: str) -> str:
    """The figure as a file of its own."""
    for text in figure.findobj(Text):
        text.set_parse_math(False)  # tick labels do not follow the rcParam
    file = io.StringIO()
    with warnings.catch_warnings():
        # The text is only measured with matplotlib's font; the browser has the other scripts.
        warnings.filterwarnings("ignore", message="Glyph .* missing from", category=UserWarning)
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None, "Title": title})
    return file.getvalue()
