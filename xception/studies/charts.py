"""The charts of a study: what its arms come to, and how they learn, by steps and by time."""

import math
from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from xception.evaluation.charts import PALETTE, PERCENT, STYLE, svg
from xception.studies.results import ArmResult, Curve

CHART_INCHES = (4.6, 3.4)
# Told apart in colour, and in grey by their strokes.
COLOURS = ("good", "bad", "muted", "soft", "ink")
STROKES = ("-", "--", ":", "-.")


def learning(arms: Sequence[ArmResult], by: str) -> str:
    """Validation score of each arm by "steps" or by "seconds", as an SVG file.

    A line is the mean over the seeds, the band around it runs from the worst to the best.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=CHART_INCHES, layout="constrained")
        axes = figure.subplots()
        axes.set_title(f"Validation score by {by}")
        for number, arm in enumerate(arms):
            if not arm.curves:  # all of its cells diverged
                continue
            _band(axes, arm, by, number)
        axes.set_xlabel(by)
        axes.yaxis.set_major_formatter(PERCENT)
        axes.legend(loc="lower right", handlelength=2.2)
        return svg(figure, f"Validation score by {by}")


def scores(arms: Sequence[ArmResult], metric: str) -> str:
    """The mean score of each arm with its interval, one below the other, as an SVG file."""
    title = f"{metric[0].upper()}{metric[1:]} of each network"
    with matplotlib.rc_context(STYLE):
        height = 1.1 + 0.34 * len(arms)
        figure = Figure(figsize=(CHART_INCHES[0], height), layout="constrained")
        axes = figure.subplots()
        axes.set_title(title)
        for place, arm in enumerate(arms):
            if math.isfinite(arm.score.low):
                axes.plot(arm.score[1:], (place, place), color=PALETTE["soft"], linewidth=4)
            axes.plot(arm.score.value, place, "o", color=PALETTE["ink"])
        axes.set_yticks(range(len(arms)), [arm.name for arm in arms])
        axes.set_ylim(len(arms) - 0.5, -0.5)
        axes.xaxis.set_major_formatter(PERCENT)
        return svg(figure, title)


def _band(axes: Axes, arm: ArmResult, by: str, number: int) -> None:
    colour = PALETTE[COLOURS[number % len(COLOURS)]]
    stroke = STROKES[number // len(COLOURS) % len(STROKES)]
    across = np.mean([_across(curve, by) for curve in arm.curves], axis=0)
    scores = np.array([curve.scores for curve in arm.curves])
    axes.fill_between(across, scores.min(0), scores.max(0), color=colour, alpha=0.15, linewidth=0)
    axes.plot(across, scores.mean(0), stroke, color=colour, label=arm.name)


def _across(curve: Curve, by: str) -> list[float]:
    return [float(x) for x in (curve.steps if by == "steps" else curve.seconds)]
