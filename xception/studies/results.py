"""From finished cells to a table, and from the table to what a study found."""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from xception.errors import UserError
from xception.studies.cells import Cell
from xception.studies.claims import compare, rule
from xception.studies.statistics import Difference, Mean, Verdict, mean
from xception.studies.study import Study
from xception.weights.atomic import write_whole

TABLE = "results.csv"


class Curve(NamedTuple):
    """How one cell learned: a point an epoch that was validated."""

    steps: list[int]
    seconds: list[float]
    scores: list[float]  # on the validation photos


class ArmResult(NamedTuple):
    """What the cells of an arm came to."""

    name: str
    parameters: int
    macs: int
    score: Mean
    steps_per_second: Mean
    curves: list[Curve]  # one a seed, but of those that diverged


class Comparison(NamedTuple):
    """Two arms that the claim speaks of."""

    first: str
    second: str
    difference: Difference


class Findings(NamedTuple):
    """What a study found."""

    arms: list[ArmResult]
    comparisons: list[Comparison]
    verdict: Verdict
    seeds: int
    rule: str = ""  # by which intervals the verdict was found, where there are several differences


def write_table(folder: Path, cells: Sequence[Cell]) -> Path:
    """`results.csv`: one row for each cell that is done, in the order of the cells."""
    rows = [row for cell in cells if (row := cell.row()) is not None]
    text = io.StringIO()
    if rows:
        columns = dict.fromkeys(name for row in rows for name in row)  # of all versions
        writer = csv.DictWriter(text, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    write_whole(folder / TABLE, lambda file: file.write(text.getvalue().encode()))
    return folder / TABLE


def findings(study: Study, cells: Sequence[Cell]) -> Findings:
    """What the cells, all of them done, say about the study's claim.

    Raises:
        ValueError: a cell is not done.
        UserError: a cell was not measured by what the study judges by.
    """
    by_arm: dict[str, list[tuple[Cell, dict[str, Any]]]] = {arm.name: [] for arm in study.arms}
    for cell in cells:
        row = cell.row()
        if row is None:
            raise ValueError(f"{cell.folder} is not done")
        if row.get(study.metric) is None:
            raise UserError(
                f"{cell.result} has no {study.metric}, by which the study judges: are these the "
                "photos that it wants?"
            )
        by_arm[cell.arm].append((cell, row))
    scores: Mapping[str, list[float]] = {
        arm: [row[study.metric] for _, row in found] for arm, found in by_arm.items()
    }
    verdict = study.claim.verdict(scores)
    judged = rule(study.claim, verdict)
    gaps = compare(study.claim, scores, shared=judged.shared)
    return Findings(
        arms=[_arm(study, name, found) for name, found in by_arm.items()],
        comparisons=[
            Comparison(a, b, gap) for (a, b), gap in zip(study.claim.pairs(), gaps, strict=True)
        ],
        verdict=verdict,
        seeds=len(next(iter(scores.values()))),
        rule=judged.words,
    )


def _arm(study: Study, name: str, found: Sequence[tuple[Cell, dict[str, Any]]]) -> ArmResult:
    rows = [row for _, row in found]
    column = "val_top1" if study.metric == "top1" else "val_map"
    curves = []
    for cell, row in found:
        if row.get("diverged"):
            continue
        # Not every epoch need be validated.
        history = [line for line in cell.history() if line.get(column)]
        curves.append(
            Curve(
                [int(row["step"]) for row in history],
                [float(row["seconds"]) for row in history],
                [float(row[column]) for row in history],
            )
        )
    paces = [pace for row in rows if (pace := row["steps_per_second"]) is not None]
    return ArmResult(
        name=name,
        parameters=rows[0]["parameters"],
        macs=rows[0]["macs"],
        score=mean([row[study.metric] for row in rows]),
        steps_per_second=mean(paces) if paces else Mean(math.nan, -math.inf, math.inf),
        curves=curves,
    )
