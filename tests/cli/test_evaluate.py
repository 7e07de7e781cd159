import json
import shutil
from pathlib import Path

import pytest
from PIL import Image


def test_json(xception, photos: Path, trained: Path):
    result = xception("evaluate", trained, photos, "--json", "--workers", "0")
    assert result.status == 0
    answer = json.loads(result.stdout)
    assert answer["samples"] == 12
    assert answer["split"] == "test"
    assert answer["skipped"] == {}
    assert {"top1", "top5", "confusion", "per_class", "ece", "top1_interval"} <= set(answer)
    # The same figures as training found, and as counting the predictions by hand.
    report = json.loads((trained / "report.json").read_text("utf-8"))
    assert answer["top1"] == report["metrics"]["top1"]
    assert answer["confusion"] == report["metrics"]["confusion"]
    predicted = json.loads(xception("predict", trained, photos / "test", "--json").stdout)
    right = [Path(one["path"]).parent.name == one["top"][0]["label"] for one in predicted]
    assert answer["top1"] == sum(right) / 12


def test_table_and_report(xception, photos: Path, trained: Path, tmp_path: Path):
    result = xception("evaluate", trained, photos, "--report", tmp_path / "r/s", "--workers", "0")
    assert result.status == 0
    lines = [line.split() for line in result.stdout.splitlines()]
    assert lines[0] == ["class", "precision", "recall", "f1", "photos"]
    assert [line[0] for line in lines[1:4]] == ["blue", "green", "red"]
    assert "on 12 test photos (95 % interval" in result.stdout
    assert result.stderr == f"report: {tmp_path / 'r/s/report.html'}\n"
    report = json.loads((tmp_path / "r/s/report.json").read_text("utf-8"))
    assert report["title"] == "colours 1 on bunte Bilder é"
    assert report["data"]["totals"] == {"test": 12}


def test_all_photos_and_other_splits(xception, photos: Path, trained: Path):
    def samples(split: str) -> int:
        result = xception("evaluate", trained, photos, "--split", split, "--json", "--workers", "0")
        return json.loads(result.stdout)["samples"]

    splits = ("all", "train", "validation", "val", "Valid", "validate")
    assert [samples(split) for split in splits] == [60, 36, 12, 12, 12, 12]


def test_all_photos_are_not_called_test_photos(
    xception, photos: Path, trained: Path, tmp_path: Path
):
    options = ("--split", "all", "--report", tmp_path / "r", "--workers", "0")
    assert xception("evaluate", trained, photos, *options).status == 0
    report = json.loads((tmp_path / "r/report.json").read_text("utf-8"))
    number = sum(path.is_file() for path in photos.rglob("*.png"))
    assert (report["split"], report["data"]["totals"]) == ("all", {"all": number})
    page = (tmp_path / "r/report.html").read_text("utf-8")
    assert "test photos" not in page
    assert f"{number} photos for measuring" in page


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--workers", "1000000", "not in the range"),
        ("--batch-size", "1" + "0" * 22, "not in the range"),
        ("--report", "", "the path is empty"),
        ("--report", "/proc/x", "error: /proc/x"),
        ("--report", "x" * 300, "file name too long"),
    ],
)
def test_wrong_values(xception, photos: Path, trained: Path, option: str, value: str, message: str):
    result = xception("evaluate", trained, photos, "--workers", "0", option, value)
    assert result.status == 2
    assert message in result.stderr
    assert result.stdout == ""


def test_classes_are_matched_by_name(xception, photos: Path, trained: Path, tmp_path: Path):
    """Another order of the classes on disk must not matter."""
    (tmp_path / "t.csv").write_text(
        "path,label,split\n"
        + "".join(
            f"{photos}/test/{name}/{i}.png,{name},{split}\n"
            for name in ("red", "blue", "green")
            for i, split in enumerate(["test", "test", "test", "train"])
        )
    )
    shutil.copytree(photos / "test", tmp_path / "in here")
    table = (tmp_path / "t.csv").read_text().replace(f"{photos}/test", "in here")
    (tmp_path / "t.csv").write_text(table)
    answer = json.loads(
        xception("evaluate", trained, tmp_path / "t.csv", "--json", "--workers", "0").stdout
    )
    assert list(answer["per_class"]) == ["blue", "green", "red"]
    assert answer["samples"] == 9


def test_classes_that_differ(xception, photos: Path, trained: Path, tmp_path: Path):
    shutil.copytree(photos, tmp_path / "p")
    for split in ("train", "validation", "test"):
        (tmp_path / "p" / split / "green").rename(tmp_path / "p" / split / "grun")
    result = xception("evaluate", trained, tmp_path / "p")
    assert result.status == 2
    assert result.stderr == (
        f"error: {tmp_path / 'p'}: 1 class that the model does not know (grun); "
        "it knows blue, green, red\n"
    )


def test_some_of_the_classes_are_enough(xception, photos: Path, trained: Path, tmp_path: Path):
    for colours in (("red", "blue"), ("red",)):
        folder = tmp_path / "-".join(colours)
        for name in colours:
            shutil.copytree(photos / "test" / name, folder / name)
        result = xception("evaluate", trained, folder, "--json", "--workers", "0")
        assert result.status == 0
        answer = json.loads(result.stdout)
        assert answer["samples"] == 4 * len(colours)
        assert list(answer["per_class"]) == ["blue", "green", "red"]
        assert answer["per_class"]["green"]["support"] == 0


def test_without_a_split_of_their_own_all_photos_are_measured(
    xception, photos: Path, trained: Path
):
    result = xception("evaluate", trained, photos / "train", "--workers", "0")
    assert result.status == 0
    assert "no test split given: all 36 photos are measured; --split test" in result.stderr
    assert "on 36 photos" in result.stdout
    chosen = xception(
        "evaluate", trained, photos / "train", "--split", "test", "--json", "--workers", "0"
    )
    assert chosen.stderr == ""
    assert 0 < json.loads(chosen.stdout)["samples"] < 36


def test_the_report_of_a_run_is_kept(xception, photos: Path, trained: Path):
    before = (trained / "report.json").read_bytes()
    result = xception("evaluate", trained, photos, "--report", trained, "--workers", "0")
    assert result.status == 2
    assert "it is a run with a report of its own" in result.stderr
    assert (trained / "report.json").read_bytes() == before


def test_unreadable_photos_are_skipped_and_counted(
    xception, photos: Path, trained: Path, tmp_path: Path
):
    shutil.copytree(photos, tmp_path / "p")
    (tmp_path / "p/test/red/0.png").write_bytes(b"GIF89a")
    result = xception("evaluate", trained, tmp_path / "p", "--json", "--workers", "0")
    assert result.status == 0
    assert result.stderr == "skipping 1 unreadable photo\n"
    answer = json.loads(result.stdout)
    assert answer["samples"] == 11
    assert list(answer["skipped"]) == ["test/red/0.png"]
    for path in (tmp_path / "p/test").rglob("*.png"):
        path.write_bytes(b"")
    result = xception("evaluate", trained, tmp_path / "p")
    assert result.status == 2
    assert "not one photo can be read" in result.stderr


def test_a_split_that_is_not_there(xception, photos: Path, trained: Path, tmp_path: Path):
    for split in ("train", "validation"):
        shutil.copytree(photos / split, tmp_path / "p" / split)
    result = xception("evaluate", trained, tmp_path / "p")
    assert result.status == 2
    assert "no test photos there; --split train or validation or all" in result.stderr


def test_several_labels_need_a_model_for_them(
    xception, trained: Path, photos: Path, tmp_path: Path
):
    rows = ["path,label,split"]
    for i, labels in enumerate(["red|blue", "blue", "green", "red"]):
        Image.open(photos / f"test/red/{i}.png").save(tmp_path / f"{i}.png")
        rows.append(f"{i}.png,{labels},{'train' if i > 1 else 'test'}")
    (tmp_path / "t.csv").write_text("\n".join(rows) + "\n")
    result = xception("evaluate", trained, tmp_path / "t.csv")
    assert result.status == 2
    assert "several labels" in result.stderr


def test_weights_of_classes_are_for_several_labels(xception, trained: Path, photos: Path):
    result = xception("evaluate", trained, photos, "--class-weights", "w.yaml")
    assert result.status == 2
    assert "several labels" in result.stderr


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory, photos: Path) -> Path:
    """Photos of two colours side by side have two labels."""
    folder = tmp_path_factory.mktemp("labels")
    rows = ["path,label,split"]
    for split, number in (("train", 12), ("validation", 4), ("test", 4)):
        for i in range(number):
            red, blue = (Image.open(photos / split / name / f"{i}.png") for name in ("red", "blue"))
            both = red.copy()
            both.paste(blue, (10, 0))
            for name, image in (("red", red), ("blue", blue), ("red|blue", both)):
                file = f"{split}-{i}-{name.replace('|', '-')}.png"
                image.save(folder / file)
                rows.append(f"{file},{name},{split}")
    (folder / "table.csv").write_text("\n".join(rows) + "\n")
    return folder / "table.csv"


def test_several_labels(xception, table: Path, tmp_path: Path):
    result = xception(
        "train", table, "--out", tmp_path / "run", "--epochs", "1", "--size", "16", "--quiet",
        "--set", "model_options={width: 0.01, middle: 0, stem_stride: 1}", "--batch-size", "8",
        "--workers", "0", "--device", "cpu", "--set", "label_smoothing=0",
    )  # fmt: skip
    assert result.status == 0
    assert result.stdout.startswith("mean average precision ")
    (tmp_path / "w.yaml").write_text("red: 1\nblue: 0\n")
    judged = xception(
        "evaluate", tmp_path / "run", table, "--json", "--workers", "0",
        "--class-weights", tmp_path / "w.yaml",
    )  # fmt: skip
    answer = json.loads(judged.stdout)
    assert answer["weighted"] is True
    assert answer["samples"] == 12
    shown = xception("evaluate", tmp_path / "run", table, "--workers", "0").stdout
    assert shown.split()[:3] == ["class", "ap", "precision"]
    (tmp_path / "w.yaml").write_text("rad: 1\nblue: 0\n")
    wrong = xception(
        "evaluate", tmp_path / "run", table, "--workers", "0",
        "--class-weights", tmp_path / "w.yaml",
    )  # fmt: skip
    assert wrong.status == 2
    assert "rad" in wrong.stderr
    for weights, said in [
        ("red: x\nblue: 0\n", "weight of red must be a number of zero or more, not 'x'"),
        ("red: [1]\nblue: 0\n", "not [1]"),
        ("red: -1\nblue: .nan\n", "not -1"),
        ("'1':\n", "weight of 1 must be"),
        ("red: true\nblue: 1" + "0" * 400 + "\n", "weight of red"),
    ]:
        (tmp_path / "w.yaml").write_text(weights)
        refused = xception(
            "evaluate", tmp_path / "run", table, "--class-weights", tmp_path / "w.yaml"
        )
        assert refused.status == 2
        assert said in refused.stderr
