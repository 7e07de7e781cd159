"""A study on paper: `report.html`, one file that needs nothing else, and `report.md`."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import ChoiceLoader, FileSystemLoader
from markupsafe import Markup

from xception.evaluation import charts as drawing
from xception.evaluation.report import ENVIRONMENT
from xception.studies import charts
from xception.studies.cells import Cell
from xception.studies.results import Findings
from xception.studies.statistics import CONFIDENCE, Mean
from xception.studies.study import Scale, Study
from xception.weights.atomic import write_whole

PAGE, DOCUMENT = "report.html", "report.md"
PAPERS = ("optimizer", "schedule", "average_decay")  # of the way of training
_TEMPLATES = Path(__file__).parent / "templates"
_OTHERS = ENVIRONMENT.loader
_PAGES = ENVIRONMENT.overlay(
    loader=ChoiceLoader([FileSystemLoader(_TEMPLATES), *([_OTHERS] if _OTHERS else [])])
)
_WORDS = {
    "supported": "Supported",
    "not supported": "Not supported",
    "undecided": "Undecided at this size",
}


def write_pages(
    folder: Path, study: Study, scale: Scale, cells: Sequence[Cell], found: Findings, command: str
) -> Path:
    """Writes both pages and the charts; returns the HTML one. Raises `UserError` as any writing."""
    metric = "accuracy" if study.metric == "top1" else "MAP@100"
    drawn = {by: charts.learning(found.arms, by) for by in ("steps", "seconds")}
    drawn["scores"] = charts.scores(found.arms, metric)
    rows = [row for cell in cells if (row := cell.row()) is not None]
    facts = {
        "study": study,
        "scale": scale,
        "found": found,
        "verdict": _WORDS[found.verdict],
        "meaning": meaning(study, found),
        "metric": metric,
        "rows": rows,
        "best": max(found.arms, key=lambda arm: arm.score.value),
        "split": rows[0]["split"],
        "samples": rows[0]["samples"],
        "taken_over": sum(row["trained_in"] != f"{row['study']}/{row['arm']}" for row in rows),
        "dates": between(row.get("date") for row in rows),
        "machine": machine(rows[0]),
        "config": cells[0].config,
        "settings": {key: json.dumps(value) for key, value in cells[0].settings.items()},
        "papers_way": not any(key.split(".")[0] in PAPERS for key in cells[0].settings),
        "command": command,
        "confidence": round(100 * CONFIDENCE),
        "interval": interval,
        "points": points,
    }
    shown = {by: Markup(drawing.themed(chart)) for by, chart in drawn.items()}
    files = {
        PAGE: _PAGES.get_template("study.html").render({**facts, "charts": shown}),
        DOCUMENT: _PAGES.overlay(autoescape=False).get_template("study.md").render(facts),
        **{f"{by}.svg": chart for by, chart in drawn.items()},
    }
    for name, text in files.items():
        content = text.encode()
        write_whole(folder / name, lambda file, content=content: file.write(content))
    return folder / PAGE


def meaning(study: Study, found: Findings) -> str:
    """The verdict in a sentence that says what can be concluded, and what cannot."""
    repeats = f"{found.seeds} repeats of each network"
    if found.verdict == "supported":
        return f"In {repeats} the claim holds beyond chance, at this size and for these photos."
    if found.verdict == "not supported":
        return f"In {repeats} {study.claim.against}, at this size and for these photos."
    return (
        f"In {repeats} {study.claim.doubt}. That says nothing for the claim and nothing against "
        "it; more repeats, or larger networks and more photos, could decide."
    )


def interval(value: Mean | Any, times: float = 1.0, digits: int = 3) -> str:
    """`0.812 (0.805 to 0.819)`; without the interval where one repeat gives none."""
    middle = f"{times * value.value:.{digits}f}"
    if math.isinf(value.low):
        return middle
    return f"{middle} ({times * value.low:.{digits}f} to {times * value.high:.{digits}f})"


def points(value: Any) -> str:
    """A difference of shares in points: `+1.2 (0.3 to 2.1)`."""
    text = interval(value, 100, 1)
    return text if value.value < 0 else f"+{text}"


def between(values: Iterable[str | None]) -> str:
    """`2026-11-29`, or `2026-11-28 to 2026-11-29`: the first and the last of some dates."""
    known = sorted(value for value in values if value)
    return " to ".join(dict.fromkeys((known[0], known[-1]))) if known else ""


def machine(row: Mapping[str, Any]) -> str:
    """What a cell was trained with: `xception 1.0, torch 2.13, cpu, Intel Xeon, 1 thread`."""
    parts = [f"xception {row['xception']}", f"torch {row['torch']}", row["device"]]
    if row["device"] == "cpu" and "processor" in row:  # which the first versions did not write down
        threads = row["threads"]
        parts += [row["processor"], f"{threads} thread{'' if threads == '1' else 's'} a training"]
    return ", ".join(parts)
