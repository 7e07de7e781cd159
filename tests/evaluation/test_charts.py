import re
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest

from xception.evaluation import charts

HOSTILE = ("<script>alert(1)</script>", "$x^{$", "a--b-->", "日本語", "&amp;", "\"quoted\" & 'so'")


def bins() -> list[dict]:
    rows = [
        {"low": i / 15, "high": (i + 1) / 15, "samples": i, "confidence": None, "accuracy": None}
        for i in range(15)
    ]
    for i, row in enumerate(rows[1:], start=1):
        row |= {"confidence": (i + 0.5) / 15, "accuracy": i / 15}
    return rows


def texts(svg: str) -> list[str]:
    root = ET.fromstring(svg)
    return ["".join(node.itertext()) for node in root.iter("{http://www.w3.org/2000/svg}text")]


def every_chart() -> dict[str, str]:
    return {
        "loss": charts.losses([1, 2, 3], [3.0, 2.0, 1.5], [2.5, None, 1.9]),
        "loss without validation": charts.losses([1, 2], [3.0, 2.0], [None, None]),
        "one epoch": charts.score([1], [0.4], "Validation accuracy"),
        "score": charts.score([1, 2, 3], [0.25, 0.75, 0.75], "Validation accuracy"),
        "learning rate": charts.learning_rate([1, 2, 3], [0.1, 0.05, 0.0]),
        "reliability": charts.reliability(bins()),
        "confusion": charts.confusion(np.arange(36).reshape(6, 6), HOSTILE),
        "empty confusion": charts.confusion(np.zeros((2, 2), int), ("a", "b")),
    }


def test_every_chart_is_whole_svg_in_the_palette_only_and_themes_completely():
    drawn = every_chart()
    assert every_chart() == drawn  # the same chart is the same file
    for name, svg in drawn.items():
        ET.fromstring(svg)
        assert set(re.findall(r"#[0-9a-f]{6}\b", svg)) <= set(charts.PALETTE.values()), name
        page = charts.themed(svg)
        assert page.startswith("<svg"), name
        assert not re.search(r"#[0-9a-f]{6}\b", page), name
        assert "var(--" in page
        assert "<style" not in page
        assert not re.search(r'id="[\w.]+_\d+"', page)
        for used in re.findall(r'(?:href="#|url\(#)([^")]+)', page):
            assert f'id="{used}"' in page, (name, used)


def test_the_best_epoch_is_marked_and_the_first_of_equals():
    svg = charts.score([1, 2, 3], [0.25, 0.75, 0.75], "Validation accuracy")
    assert [t for t in texts(svg) if t.startswith("75.0")] == ["75.0\u202f%"]


def test_names_stay_text_whatever_they_are():
    found = texts(charts.confusion(np.ones((6, 6), int), HOSTILE))
    for name in HOSTILE[1:]:
        assert name in found
    assert "<script>alert(1)<…" in found


def test_counts_of_a_confusion_matrix_are_written_where_there_are_any():
    found = texts(charts.confusion(np.array([[41, 0], [7, 0]]), ("one", "two")))
    assert sorted(found) == sorted(["one", "one", "two", "two", "41", "7", "predicted", "truth"])


@pytest.mark.parametrize("k", [26, 300])
def test_of_many_classes_the_most_mixed_up_are_drawn(k):
    matrix = np.eye(k, dtype=int) * 50
    matrix[20, 4], matrix[k - 1, 7] = 9, 8
    chosen = charts.confused_classes(matrix)
    assert len(chosen) == 25
    assert chosen == sorted(chosen)
    assert {20, 4, k - 1, 7} <= set(chosen)
    assert charts.confused_classes(matrix[:25, :25]) == list(range(25))


def test_the_palette_is_the_light_one_of_the_page():
    css = (Path(charts.__file__).parent / "templates" / "report.css").read_text()
    light = dict(re.findall(r"--(\w+): (#[0-9a-f]{6});", css[: css.index("@media")]))
    assert {role: light[role] for role in charts.PALETTE} == charts.PALETTE
    dark = css[css.index("@media") : css.index("* {")]
    assert set(re.findall(r"--(\w+):", dark)) == set(light)
