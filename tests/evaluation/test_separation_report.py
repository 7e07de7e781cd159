import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from xception.errors import UserError
from xception.evaluation.separation_report import (
    Figures,
    Layer,
    Left,
    Point,
    Separation,
    Tuning,
    curve,
    render,
    write_separation,
)


def layer(name: str = "block1.conv", **changes: Any) -> Layer:
    given: dict[str, Any] = {
        "name": name, "order": "depthwise_first", "ranks": (1, 2, 0), "mean_rank": 1.0,
        "error": 0.25, "output_error": 0.125, "output_bound": 3.21, "macs_before": 2_000_000,
        "macs_after": 500_000, "ms_before": 2.0, "ms_after": 1.0,
    }  # fmt: skip
    return Layer(**{**given, **changes})


def report(**changes: Any) -> Separation:
    given: dict[str, Any] = {
        "title": "half", "created_by": "xception 1", "command": "xception separate …",
        "model": "vgg", "target": "50 % of the MACs", "score": "top1", "split": "test",
        "samples": 214, "calibration": 256,
        "before": Figures(macs=10_000_000, parameters=123_456, ms=8.0, score=0.905),
        "after": Figures(macs=5_000_000, parameters=65_432, ms=5.0, score=0.89),
        "agreement": 0.97, "layers": (layer(),),
        "left": (Left(name="stem", reason="it sees the image itself", macs=100),),
        "environment": {"torch": "2"},
    }  # fmt: skip
    return Separation(**{**given, **changes})


POINTS = (
    Point(fraction=0.5, macs=5, data_free=0.7, data_aware=0.9, fine_tuned=0.91),
    Point(fraction=0.25, macs=2, data_free=0.3, data_aware=0.8),
)


def text_of(page: str) -> str:
    body = re.sub(r"<style.*?</style>|<svg.*?</svg>", " ", page, flags=re.DOTALL)
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", body))


def test_the_page_says_what_was_found():
    text = text_of(render(report(curve=POINTS)))
    for said in ("50 %", "89.0 %", "90.5 %", "214 test photos", "97.0 %",
                 "256 photos", "1.60 × as fast", "block1.conv", "depthwise first", "12.5 %", "3.21",
                 "it sees the image itself", "xception separate …", "80.0 %"):  # fmt: skip
        assert said in text, said


def test_the_page_needs_nothing_else():
    page = render(report(curve=POINTS))
    assert "default-src 'none'" in page
    assert "<script" not in page
    assert not re.search(r"(src|href)=\"(?!data:|#)", page)
    parser = HTMLParser()
    parser.feed(page)
    assert page.count("<svg") == 1


def test_names_are_text_and_no_code():
    page = render(report(title="<b>x</b>", layers=(layer("<script>alert(1)</script>"),)))
    assert "<script>" not in page
    assert "&lt;script&gt;" in page


def test_without_a_curve_and_with_a_fine_tuning_in_vain():
    tuning = Tuning(epochs=1, score_before=0.9, score_after=0.8, kept=False)
    page = render(report(tuning=tuning, layers=(layer(ms_after=3.0),), remarks=("it is slower",)))
    assert "<svg" not in page
    text = text_of(page)
    assert "1 epoch of fine-tuning tried, and not kept" in text
    assert "it is slower" in text
    assert 'class="number bad">3.00' in page


def test_the_json_is_all_of_it(tmp_path: Path):
    written = report(curve=POINTS)
    assert write_separation(tmp_path, written) == tmp_path / "report.html"
    text = (tmp_path / "separation.json").read_text("utf-8")
    assert Separation.model_validate_json(text) == written
    assert json.loads(text)["layers"][0]["ranks"] == [1, 2, 0]
    with pytest.raises(UserError, match="the report cannot be written"):
        write_separation(tmp_path / "missing", written)


def test_the_curve_has_a_line_for_each_way():
    chart = curve(POINTS)
    for label in ("kernels alone", "fitted to photos", "fine-tuned"):
        assert label in chart
    assert "fine-tuned" not in curve(POINTS[1:])
