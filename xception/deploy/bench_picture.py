"""The picture of `xception bench`: every form of a network beside the others."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from xception.deploy.bench import Row

COLOURS = {"torch": "#d1603d", "onnxruntime": "#3d6fb6", "openvino": "#4c9a6a"}
LIGHTER = 0.55  # opacity of eight bits


def draw(rows: Sequence[Row], out: Path, *, title: str, metric: str | None) -> None:
    """Write a picture; the ending of `out` says of what kind (.png, .svg, .pdf).

    Args:
        rows: what was measured.
        out: the file.
        title: above it.
        metric: what the scores are; None where there are none.
    """
    panels = 3 + (metric is not None)
    figure = Figure(figsize=(3.2 * panels, 1.4 + 0.42 * len(rows)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, panels, sharey=True, squeeze=False)[0]
    latency, rate, memory, *rest = axes
    _bars(latency, rows, [row.p50_ms for row in rows], "one image, ms (line: 99 %)", "{:.1f}")
    latency.hlines(
        range(len(rows)),
        [row.p50_ms for row in rows],
        [row.p99_ms for row in rows],
        color="#333333",
        linewidth=1.2,
    )
    _bars(rate, rows, [row.images_per_second for row in rows], "images per second", "{:.1f}")
    _bars(memory, rows, [row.memory_bytes / 2**20 for row in rows], "memory, MiB", "{:.0f}")
    if metric is not None:
        (score,) = rest
        values = [100 * (row.score or 0.0) for row in rows]
        _bars(score, rows, values, f"{metric}, %", "{:.1f}")
        low = min(values)
        score.set_xlim(max(low - 5, 0), min(max(values) + 3, 103))
    latency.set_yticks(range(len(rows)), [row.name for row in rows])
    latency.invert_yaxis()
    figure.suptitle(title)
    figure.savefig(out)


def _bars(axes: Axes, rows: Sequence[Row], values: list[float], title: str, form: str) -> None:
    drawn = axes.barh(range(len(rows)), values, height=0.62)
    for bar, row in zip(drawn, rows, strict=True):
        bar.set_color(COLOURS[row.engine])
        bar.set_alpha(LIGHTER if row.precision == "int8" else 1.0)
    axes.bar_label(drawn, [form.format(value) for value in values], padding=3, fontsize=8)
    axes.margins(x=0.25)
    axes.set_title(title, fontsize=9)
    axes.spines[["top", "right"]].set_visible(False)
