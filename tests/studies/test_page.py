import json
from pathlib import Path
from typing import Any

import pytest

from xception.studies.catalogue import STUDIES
from xception.studies.cells import cells
from xception.studies.page import write_pages
from xception.studies.results import findings

PAPERS = (
    "the optimiser, the learning rate and its decay, and the averaging of weights are the paper's"
)
HISTORY = "epoch,step,seconds,images_per_second,val_top1\n1,10,1.5,320,0.3\n2,20,3.0,160,0.4\n"


def pages(folder: Path, settings: dict[str, Any], name: str = "order") -> list[str]:
    """Both pages of a study whose cells came to something."""
    study = STUDIES[name]
    grid = cells(study, "tiny", 2, folder, settings)
    for number, cell in enumerate(grid):
        cell.run.mkdir(parents=True)
        (cell.run / "metrics.csv").write_text(HISTORY)
        row = {
            "study": cell.study, "arm": cell.arm, "seed": cell.seed, "parameters": 10, "macs": 20,
            "steps": 20, "split": "test", "samples": 100, "top1": 0.5 + 0.01 * number,
            "steps_per_second": 5.0, "seconds": 3.0, "date": "2026-11-29",
            "trained_in": f"{cell.study}/{cell.arm}", "xception": "1", "torch": "2", "python": "3",
            "device": "cpu", "processor": "one", "threads": "1", "system": "Linux",
        }  # fmt: skip
        cell.result.write_text(json.dumps(row))
    page = write_pages(folder, study, "tiny", grid, findings(study, grid), "xception study")
    return [page.read_text("utf-8"), page.with_name("report.md").read_text("utf-8")]


def test_what_was_set_stands_on_the_pages(tmp_path: Path):
    html, markdown = pages(tmp_path, {"epochs": 30, "augment.flip": False})
    assert "<code>epochs</code> = 30, <code>augment.flip</code> = false." in html
    assert "`epochs` = 30, `augment.flip` = false." in markdown
    assert all(PAPERS in text for text in (html, markdown))  # none of which was set


@pytest.mark.parametrize(
    "settings", [{"optimizer.momentum": 0.8}, {"schedule.rate": 0.5}, {"average_decay": 0.9}]
)
def test_another_way_of_training_is_not_called_the_papers(settings: dict[str, Any], tmp_path: Path):
    for text in pages(tmp_path, settings):
        assert PAPERS not in text
        assert "Small networks, small pictures" in text


def test_without_settings_none_are_named(tmp_path: Path):
    for text in pages(tmp_path, {}):
        assert "Set for all networks" not in text
        assert PAPERS in text
