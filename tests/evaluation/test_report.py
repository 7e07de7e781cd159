import io
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from xception.data.audit import audit
from xception.data.folders import open_photos
from xception.errors import UserError
from xception.evaluation import charts
from xception.evaluation.metrics import classification, multilabel
from xception.evaluation.pictures import Explained, Mistake, Pictures, Sample
from xception.evaluation.report import Data, Epoch, Report, draw, render, write_report

HOSTILE = "<script>alert('x')</script>"
VOID = {"meta", "img", "br", "hr", "link", "input"}


class Page(HTMLParser):
    """What a browser would find: the elements, their attributes and the text; checks nesting."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] != ["style"]:
            self.text += data.replace("\u202f", " ")

    def tags(self) -> set[str]:
        return {tag for tag, _ in self.elements}


def jpeg() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 8), (200, 0, 0)).save(file, "JPEG")
    return file.getvalue()


def outcome(classes: tuple[str, ...], per_class: int = 5, seed: int = 0) -> dict:
    rng = np.random.default_rng(seed)
    targets = np.repeat(np.arange(len(classes)), per_class)
    logits = rng.normal(size=(len(targets), len(classes)))
    logits[np.arange(len(targets)), targets] += 0.5
    odds = np.exp(logits)
    return classification((odds / odds.sum(1, keepdims=True)).astype(np.float32), targets, classes)


def single(classes: tuple[str, ...] = ("hat", "shoe"), **fields) -> Report:
    """The least that a report of an evaluation holds, and `fields`."""
    least = {
        "title": "shirts",
        "created_by": "xception 0.1.0",
        "command": "xception evaluate runs/shirts photos",
        "task": "classification",
        "classes": classes,
        "split": "test",
        "metrics": outcome(classes),
        "model": "xception",
        "cost": {"parameters": 22855952, "macs": 8357403496},
    }
    return Report.model_validate(least | fields)


def several(**fields) -> Report:
    rng = np.random.default_rng(1)
    targets = (rng.random((40, 3)) < 0.4).astype(np.float32)
    targets[:, 2] = 0
    classes = ("sea", "sand", "snow")
    return single(
        classes,
        task="multilabel",
        metrics=multilabel(rng.random((40, 3)).astype(np.float32), targets, classes),
        **fields,
    )


@pytest.fixture
def words_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Charts take most of the time of a page, and `test_charts` is about them."""
    for chart in ("losses", "score", "learning_rate", "confusion", "reliability"):
        monkeypatch.setattr(charts, chart, lambda *_: "<svg></svg>")


def page_of(report: Report, pictures: Pictures | None = None) -> Page:
    return Page(render(report, pictures or Pictures(), draw(report)))


HISTORY = (
    Epoch(epoch=1, train_loss=2.5, lr=0.1, images_per_second=50, seconds=20, val_loss=2.2,
          val_top1=0.2),
    Epoch(epoch=2, train_loss=1.5, lr=0.01, images_per_second=60, seconds=15.5, val_loss=1.9,
          val_top1=0.4),
)  # fmt: skip


@pytest.mark.usefixtures("words_only")
def test_the_page_starts_with_the_answer():
    report = single()
    page = page_of(report)
    top = page.text[: page.text.index("What it gets wrong")]
    low, high = report.metrics["top1_interval"]
    assert f"{100 * report.metrics['top1']:.1f} % of 10 test photos recognised" in top
    assert f"between {100 * low:.1f} % and {100 * high:.1f} % (95 % interval)" in top
    assert "would be right in 50.0 %" in top
    assert "22.9 M" in top
    assert "8.36 G" in top


def test_one_file_that_needs_nothing_else(tmp_path):
    path = write_report(tmp_path, single(history=HISTORY), Pictures((Sample(jpeg(), "hat"),)))
    html = path.read_text()
    page = Page(html)
    assert page.tags().isdisjoint({"script", "link", "iframe", "object", "form"})
    for _, attributes in page.elements:
        for name, value in attributes.items():
            assert not name.startswith("on")
            if name in ("src", "href", "xlink:href"):
                assert str(value).startswith(("data:image/jpeg;base64,", "#"))
    assert "@import" not in html
    assert set(re.findall(r"url\((.)", html)) <= {"#"}
    policy = [a["content"] for t, a in page.elements if t == "meta" and "http-equiv" in a]
    assert policy == ["default-src 'none'; img-src data:; style-src 'unsafe-inline'"]


def test_json_is_the_truth_and_reads_back_the_same(tmp_path):
    report = single(history=HISTORY, mistakes=(Mistake(path="a", truth=("hat",), predicted="shoe",
                                                       probability=0.9),))  # fmt: skip
    write_report(tmp_path, report)
    text = (tmp_path / "report.json").read_text()
    assert Report.model_validate_json(text) == report
    assert json.loads(text)["metrics"] == report.metrics
    drawn = {path.stem for path in (tmp_path / "plots").iterdir()}
    assert drawn == {"loss", "score", "learning_rate", "confusion", "reliability"}


@pytest.mark.usefixtures("words_only")
def test_a_number_that_is_none_is_null_in_json(tmp_path):
    write_report(tmp_path, single(history=(HISTORY[0].model_copy(update={"lr": float("nan")}),)))
    assert json.loads((tmp_path / "report.json").read_text())["history"][0]["lr"] is None


@pytest.mark.usefixtures("words_only")
def test_an_evaluation_without_a_training_has_no_curves():
    page = page_of(single())
    assert "How it learned" not in page.text
    assert "What it was shown" not in page.text
    assert "xception evaluate runs/shirts photos" in page.text


def test_hostile_names_are_only_text(tmp_path):
    classes = (HOSTILE, "a\"b'c&amp;", "}} {{ 7*7 }}", "$x^{$", "日本")
    report = single(
        classes,
        title=HOSTILE,
        command=f"xception train '{HOSTILE}'",
        mistakes=(
            Mistake(path=f"{HOSTILE}.jpg", truth=(HOSTILE,), predicted="日本", probability=0.9),
        ),
        data=Data(
            counts={"test": dict.fromkeys(classes, 5)},
            totals={"test": 25},
            skipped={f"{HOSTILE}.png": f"is {HOSTILE}"},
        ),
        config={"name": HOSTILE},
        environment={"device": HOSTILE},
    )
    pictures = Pictures((Sample(jpeg(), HOSTILE),), (Explained(jpeg(), jpeg()),))
    page = Page(write_report(tmp_path, report, pictures).read_text())
    assert "script" not in page.tags()
    assert page.text.count(HOSTILE) >= 10
    assert "{{ 7*7 }}" in page.text


@pytest.mark.usefixtures("words_only")
def test_mistakes_with_and_without_their_pictures():
    mistakes = (
        Mistake(path="x/1.jpg", truth=("hat",), predicted="shoe", probability=0.93,
                truth_probability=0.04),
    )  # fmt: skip
    page = page_of(single(mistakes=mistakes), Pictures((), (Explained(jpeg(), jpeg()),)))
    assert [t for t, _ in page.elements].count("img") == 2
    text = " ".join(page.text.split())
    assert "said shoe 93 % is hat 4 % x/1.jpg" in text
    assert "img" not in page_of(single(mistakes=mistakes)).tags()
    with pytest.raises(ValueError, match="2 pictures of 1 mistakes"):
        page_of(single(mistakes=mistakes), Pictures((), (Explained(jpeg(), jpeg()),) * 2))


@pytest.mark.usefixtures("words_only")
def test_a_perfect_network_is_said_to_be_one():
    perfect = classification(np.eye(2, dtype=np.float32), np.arange(2), ("hat", "shoe"))
    text = page_of(single(metrics=perfect)).text
    assert "Nothing: all 2 test photos were recognised." in " ".join(text.split())
    assert "Most often mixed up" not in text


@pytest.mark.usefixtures("words_only")
def test_a_split_that_is_no_test_is_said_to_be_none():
    assert "expect a little less on new ones" in page_of(single(split="validation")).text
    assert "expect a little less on new ones" not in page_of(single()).text


@pytest.mark.usefixtures("words_only")
def test_a_class_without_photos_is_named_and_a_hundred_classes_fold():
    classes = ("hat", "shoe", "glove")
    logits = np.eye(3, dtype=np.float32)[[0, 1, 1, 2]]
    metrics = classification(logits, np.array([0, 1, 1, 0]), classes)
    text = " ".join(page_of(single(classes, metrics=metrics)).text.split())
    assert "Without a photo in this split, and so not measured: glove." in text
    many = page_of(single(tuple(f"kind {i:03}" for i in range(100))))
    assert "The other 75 classes" in many.text
    assert "Only 25 classes" in many.text
    assert all(f"kind {i:03}" in many.text for i in range(100))


@pytest.mark.usefixtures("words_only")
def test_several_labels():
    report = several(
        split="validation",
        history=(HISTORY[0].model_copy(update={"val_top1": None, "val_map": 0.5}),),
        mistakes=(Mistake(path="1.jpg", truth=(), predicted="sea", probability=0.8),),
    )
    assert set(draw(report)) == {"loss", "score", "learning_rate"}
    text = " ".join(page_of(report).text.split())
    assert f"{report.metrics['map']:.3f} mean average precision on 40 validation photos" in text
    assert "is without a label" in text
    assert "not measured: snow." in text
    assert "MAP@" not in text  # with all labels proposed and counted alike it is the mean above


@pytest.mark.usefixtures("words_only")
def test_photos_as_the_check_saw_them(tmp_path):
    for name, shade in (("hat", 50), ("shoe", 200)):
        for number in range(6):
            path = tmp_path / "photos" / name / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            noise = np.random.default_rng(shade + number).integers(0, 255, (40, 40, 3))
            Image.fromarray(noise.astype(np.uint8)).save(path)
    (tmp_path / "photos/hat/broken.png").write_bytes(b"\x89PNG\r\n\x1a\n nothing more")
    photos = open_photos(tmp_path / "photos")
    data = Data.of(photos, audit(photos, 64, workers=0))
    assert sum(data.totals.values()) == 12
    assert sum(sum(counts.values()) for counts in data.counts.values()) == 12
    assert list(data.skipped) == ["hat/broken.png"]
    assert set(data.split_made) == {"train", "validation", "test"}
    text = " ".join(page_of(single(data=data)).text.split())
    assert "1 photo could not be read and was skipped." in text
    assert "hat/broken.png" in text
    assert "will be enlarged" in text
    without = Data(counts={"train": {"hat": 2}, "test": {}}, totals={"train": 2})
    assert "2 photos for training. None had to be skipped." in " ".join(
        page_of(single(data=without)).text.split()
    )


@pytest.mark.usefixtures("words_only")
def test_the_training_in_words():
    text = " ".join(
        page_of(single(history=HISTORY, best_epoch=2, config={"epochs": 2})).text.split()
    )
    assert "2 epochs in 36 s; the weights of epoch 2 were kept." in text
    assert "epochs: 2" in text


def test_what_cannot_be_written_is_said(tmp_path):
    with pytest.raises(UserError, match=r"gone: the report cannot be written: No such file"):
        write_report(tmp_path / "gone", single())


def test_unknown_fields_are_refused():
    with pytest.raises(ValidationError, match="colour"):
        single(colour="red")
