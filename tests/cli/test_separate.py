import json
import signal
from pathlib import Path

import pytest
import torch

from xception.models.surgery import Exchange
from xception.training.interrupts import Interrupted
from xception.weights.card import read_card
from xception.weights.model_file import load_classifier

QUICK = ["--workers", "0", "--device", "cpu", "--calibrate", "24", "--batch-size", "8"]


@pytest.fixture(scope="module")
def separated(photos: Path, trained: Path, tmp_path_factory: pytest.TempPathFactory):
    """One separation with everything in it, for several tests."""
    from xception.cli.main import run

    out = tmp_path_factory.mktemp("separated") / "neu é"
    arguments = ["separate", trained, "--data", photos, "--out", out, "--rank", "2", *QUICK]
    arguments += ["--curve", "0.95", "--finetune", "1", "--quiet"]
    assert run([str(argument) for argument in arguments]) == 0
    return out


def test_it_leaves_a_model_that_loads_like_any_other(xception, separated: Path, photos: Path):
    card = read_card(separated / "model.safetensors")
    (one,) = card.surgery
    assert isinstance(one, Exchange)
    assert one.layer == "stem.3"
    model = load_classifier(separated / "model.safetensors")
    assert model.get_submodule("stem.3.pointwise") is not None
    assert model(torch.zeros(1, 3, 16, 16)).shape == (1, 3)
    report = json.loads((separated / "separation.json").read_text("utf-8"))
    found = xception("evaluate", separated, photos, "--json", "--workers", "0")
    assert found.status == 0
    assert json.loads(found.stdout)["top1"] == report["after"]["score"]
    measured = card.metrics["separation"]
    assert isinstance(measured, dict)
    assert measured["top1"] == report["after"]["score"]
    assert card.training["model"] == "xception"  # how the original was trained


def test_what_the_report_says(separated: Path, trained: Path):
    report = json.loads((separated / "separation.json").read_text("utf-8"))
    (layer,) = report["layers"]
    assert layer["name"] == "stem.3"
    assert layer["ranks"] == 2
    places = 12 * 12  # of an image of 16 pixels behind two windows of 3
    assert layer["macs_before"] == places * 9 * 8 * 8
    by_order = {
        "depthwise_first": places * 16 * (9 + 8),
        "pointwise_first": 14 * 14 * 16 * 8 + places * 16 * 9,
    }
    assert layer["macs_after"] == by_order[layer["order"]]
    saved = layer["macs_before"] - layer["macs_after"]
    assert report["before"]["macs"] - report["after"]["macs"] == saved
    before = json.loads((trained / "report.json").read_text("utf-8"))
    assert report["before"]["score"] == before["metrics"]["top1"]
    assert report["split"] == "test"
    assert report["samples"] == 12
    assert report["calibration"] == 24
    assert 0 <= report["agreement"] <= 1
    assert {"stem.0"} <= {one["name"] for one in report["left"]}
    assert report["tuning"]["epochs"] == 1
    assert {key for point in report["curve"] for key, v in point.items() if v is not None} >= {
        "data_free", "data_aware", "fine_tuned",
    }  # fmt: skip
    page = (separated / "report.html").read_text("utf-8")
    assert "stem.3" in page
    assert sorted(path.name for path in separated.iterdir()) == [
        "metrics.csv", "model.safetensors", "report.html", "separation.json",
    ]  # fmt: skip


def test_json_and_a_table(xception, photos: Path, trained: Path, tmp_path: Path):
    target = ["--macs", "0.93", "--curve", "none", *QUICK]
    given = ["separate", trained, "--data", photos, "--out"]
    result = xception(*given, tmp_path / "a", *target, "--json")
    assert result.status == 0
    answer = json.loads(result.stdout)
    assert answer == json.loads((tmp_path / "a/separation.json").read_text("utf-8"))
    assert answer["after"]["macs"] <= 0.93 * answer["before"]["macs"]
    assert answer["curve"][0]["data_aware"] is not None
    assert "stem.3: " in result.stderr
    table = xception(*given, tmp_path / "b", *target, "--quiet")
    assert table.status == 0
    assert table.stderr == ""
    assert table.stdout.splitlines()[0].split()[:3] == ["layer", "order", "rank"]
    assert "of the answers as before" in table.stdout
    assert "left as they are: " in table.stdout
    assert "1×1: it is pointwise already" in table.stdout


def test_as_few_macs_as_the_accuracy_allows(xception, photos, trained, tmp_path: Path):
    given = ["separate", trained, "--data", photos, "--out", tmp_path / "a", "--max-drop", "0.5"]
    result = xception(*given, "--curve", "none", *QUICK, "--json")
    assert result.status == 0
    answer = json.loads(result.stdout)
    assert 1 <= len(answer["curve"]) <= 6  # that were tried on the way
    kept = answer["after"]["macs"] / answer["before"]["macs"]
    assert kept == min(point["fraction"] for point in answer["curve"])
    assert answer["target"] == "at most 50 points of accuracy lost"


@pytest.mark.parametrize("order", ["depthwise_first", "pointwise_first"])
def test_energy_in_one_order_with_one_rank(xception, photos, trained, tmp_path: Path, order: str):
    given = ["separate", trained, "--data", photos, "--out", tmp_path / "a", "--energy", "0.5"]
    result = xception(*given, "--order", order, "--equal", "--curve", "none", *QUICK, "--json")
    assert result.status == 0, result.stderr
    answer = json.loads(result.stdout)
    (layer,) = answer["layers"]
    assert layer["order"] == order
    assert answer["target"] == "50 % of the energy of every kernel"
    kernel = load_classifier(trained / "model.safetensors").state_dict()["stem.3.weight"]
    slices = kernel.double().flatten(2)
    if order == "depthwise_first":
        slices = slices.transpose(0, 1)
    squares = torch.linalg.svdvals(slices).square().sum(0)
    kept = squares.cumsum(0) / squares.sum()
    assert layer["ranks"] == 1 + int((kept < 0.5).sum())  # one number, the smallest that will do


def test_a_speedup_and_a_curve_that_is_fine_tuned(xception, photos, trained, tmp_path: Path):
    given = ["separate", trained, "--data", photos, "--out", tmp_path / "a", "--speedup", "1.04"]
    options = ["--curve", "0.98,0.01", "--finetune", "1", "--finetune-curve"]
    result = xception(*given, *options, *QUICK, "--json")
    assert result.status == 0, result.stderr
    answer = json.loads(result.stdout)
    assert answer["after"]["macs"] <= answer["before"]["macs"] / 1.04
    assert "1 % of the MACs cannot be had" in result.stderr
    assert len(answer["curve"]) == 2
    assert answer["curve"][0]["fraction"] <= 0.98
    for one in answer["curve"]:  # also of the network that was made
        assert all(0 <= one[way] <= 1 for way in ("data_free", "data_aware", "fine_tuned"))


def test_what_was_interrupted_can_be_asked_for_again(
    xception, photos, trained, tmp_path: Path, monkeypatch
):
    def interrupted(student, teacher, photos, config, folder, *rest):
        (folder / "metrics.csv").write_text("epoch\n1\n")  # that of the first epoch
        raise Interrupted(signal.SIGINT)

    monkeypatch.setattr("xception.cli.separating.distill", interrupted)
    out = tmp_path / "a"
    given = ["separate", trained, "--data", photos, "--out", out, "--rank", "2", *QUICK]
    for _ in range(2):
        result = xception(*given, "--curve", "none", "--finetune", "2")
        assert result.status == 130, result.stderr
        assert not list(out.iterdir())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--macs", "0.5", "--rank", "2"], "one target, please, and not --macs and --rank"),
        (["--macs", "0.01"], "% is the least, a speedup of"),
        (["--macs", "1.5"], "is not in the range"),
        (["--speedup", "1"], "is not in the range"),
        (["--rank", "8"], "rank 8 everywhere: no layer becomes cheaper"),
        (["--rank", "2", "--keep", "stem.2"], "no convolution of the network is called 'stem.2'"),
        (["--rank", "2", "--keep", "stem.3"], "nothing can be exchanged in this network"),
        (["--curve", "0.5,x"], "must be shares such as 0.75,0.5 or none"),
        (["--curve", "2"], "each share must lie between 0 and 1"),
        (["--weights", "w.pth"], "are for timm:NAME"),
    ],
)
def test_what_was_asked_for_wrongly(xception, photos, trained, tmp_path, arguments, message):
    curve = [] if "--curve" in arguments else ["--curve", "none"]
    given = ["separate", trained, "--data", photos, "--out", tmp_path / "new"]
    result = xception(*given, *curve, *QUICK, *arguments, "--quiet")
    assert result.status == 2
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert result.stdout == ""
    assert not (tmp_path / "new").exists()


def test_models_that_are_none(xception, photos: Path, trained: Path, tmp_path: Path):
    def asked(model: str | Path, out: Path = tmp_path / "new") -> str:
        result = xception("separate", model, "--data", photos, "--out", out, *QUICK)
        assert result.status == 2
        return result.stderr

    assert "is a network without weights" in asked("xception")
    assert "no such run or model file" in asked(tmp_path / "nowhere")
    assert "name their file with --weights" in asked("timm:resnet18")
    assert "the folder is not empty" in asked(trained, trained)
    assert "lies within the photos" in asked(trained, photos / "new")
