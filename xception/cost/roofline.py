"""The roofline: every layer's speed over its arithmetic intensity, below both of the ceilings.

A layer left of the corner waits for memory, one right of it for arithmetic. How far below the line
a point lies is what its layer wastes; how large it is, what share of the time it takes.
"""

import io
from collections.abc import Mapping
from typing import Any

import matplotlib
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from xception.cost.measure import Measured
from xception.cost.operators import Kind

FORMATS = ("svg", "png")
# Told apart by shape too; in the order in which they are drawn.
LOOKS: Mapping[Kind, tuple[str, str]] = {
    "regular": ("#24211d", "s"),
    "grouped": ("#8a5fa8", "P"),
    "pointwise": ("#1f7a68", "o"),
    "depthwise": ("#c2532d", "^"),
    "linear": ("#3b6ea5", "D"),
    "matmul": ("#b58a1b", "X"),
}
PLAQUE = {"facecolor": "white", "alpha": 0.8, "edgecolor": "none", "pad": 1}
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "xception",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
}


def draw(measured: Measured, title: str, kind: str = "svg") -> bytes:
    """The picture as a file of one of FORMATS."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(8, 5.2), layout="constrained")
        _axes(figure, measured, title)
        file = io.BytesIO()
        figure.savefig(file, format=kind, dpi=150, metadata={"Date": None} if kind == "svg" else {})
    return file.getvalue()


def _axes(figure: Figure, measured: Measured, title: str) -> None:
    axes = figure.subplots()
    machine = measured.machine
    points = points_by_kind(measured)
    reached = [(x, y) for group in points.values() for x, y, _ in group]
    corner = machine.macs_per_second / machine.bytes_per_second
    left = min([x for x, _ in reached] + [corner]) / 2
    right = max([x for x, _ in reached] + [corner]) * 3
    bottom = min([y for _, y in reached] + [left * machine.bytes_per_second]) / 2
    line = {"color": "#6b665f", "linewidth": 1.4, "zorder": 1}
    peak = machine.macs_per_second
    axes.plot([left, corner], [left * machine.bytes_per_second, peak], **line)
    axes.plot([corner, right], [peak, peak], **line)
    top = max([y for _, y in reached] + [peak])
    axes.set(xscale="log", yscale="log", xlim=(left, right), ylim=(bottom, top * 2.5))
    # Hardly anything is faster than the ceilings, so the words above them stand alone; where a
    # busy machine had lower ceilings than it has later, no point may hide them.
    words: dict[str, Any] = {"color": "#6b665f", "textcoords": "offset points", "zorder": 3}
    words |= {"ha": "right", "va": "bottom", "bbox": PLAQUE}
    arithmetic = f"arithmetic: {peak / 1e9:.3g} GMAC/s"
    axes.annotate(arithmetic, (right, peak), xytext=(-4, 3), **words)
    middle = (left * corner) ** 0.5
    bandwidth = f"bandwidth: {machine.bytes_per_second / 1e9:.3g} GB/s"
    on_line = (middle, middle * machine.bytes_per_second)
    axes.annotate(bandwidth, on_line, xytext=(-6, 2), **words)
    whole = sum(measured.layers_ms)
    for kind, group in points.items():
        colour, marker = LOOKS[kind]
        share = sum(ms for _, _, ms in group) / whole
        axes.scatter(
            [x for x, _, _ in group],
            [y for _, y, _ in group],
            s=[20 + 1500 * ms / whole for _, _, ms in group],
            c=colour, marker=marker, alpha=0.65, linewidths=0, zorder=2,
            label=f"{kind}, {100 * share:.0f} % of the time",
        )  # fmt: skip
    rest = 1 - sum(ms for group in points.values() for _, _, ms in group) / whole
    axes.set_title(
        f"{title}\n{100 * rest:.0f} % of the time goes to what multiplies nothing: "
        "normalisation, activations, sums, pooling",
        loc="left",
        fontsize=10,
    )
    axes.set_xlabel("arithmetic intensity, MAC per byte (1 MAC = 2 FLOP)")
    axes.set_ylabel("speed, GMAC per second")
    plain = FuncFormatter(lambda value, _: f"{value:g}")
    axes.xaxis.set_major_formatter(plain)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value / 1e9:g}"))
    axes.grid(which="major", color="#dcd7cf", linewidth=0.6, zorder=0)
    if points:
        legend = axes.legend(loc="lower right", frameon=True, framealpha=0.9, edgecolor="#dcd7cf")
        for handle in legend.legend_handles:
            handle.set_sizes([50])  # pyright: ignore[reportOptionalMemberAccess, reportAttributeAccessIssue]


def points_by_kind(measured: Measured) -> dict[Kind, list[tuple[float, float, float]]]:
    """(MAC per byte, MAC per second, milliseconds) of every layer that multiplies, by kind."""
    found: dict[Kind, list[tuple[float, float, float]]] = {}
    layers = list(zip(measured.cost.layers, measured.layers_ms, strict=True))
    for kind in LOOKS:
        group = [
            (layer["macs_per_byte"], 1e3 * layer["macs"] / ms, ms)
            for layer, ms in layers
            if layer["kind"] == kind and ms > 0
        ]
        if group:
            found[kind] = group
    return found
