import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from xception.cli.assignments import parse_assignment
from xception.cli.main import run
from xception.cli.train import choose_folder
from xception.errors import UserError
from xception.weights.card import read_card

TINY = ["--set", "model_options={width: 0.01, middle: 0, stem_stride: 1}", "--size", "16"]
TINY += ["--batch-size", "8", "--workers", "0", "--device", "cpu"]


def settings(folder: Path) -> dict:
    return yaml.safe_load((folder / "config.yaml").read_text("utf-8"))


def test_a_run_folder_is_complete(trained: Path):
    names = {path.name for path in trained.iterdir()}
    assert names >= {
        "model.safetensors", "last.ckpt", "config.yaml", "metrics.csv", "report.html",
        "report.json", "plots",
    }  # fmt: skip
    assert len((trained / "metrics.csv").read_text("utf-8").splitlines()) == 1 + 6
    assert read_card(trained / "model.safetensors").classes == ("blue", "green", "red")


def test_the_report_says_what_was_done(trained: Path):
    report = json.loads((trained / "report.json").read_text("utf-8"))
    assert report["split"] == "test"
    assert report["metrics"]["samples"] == 12
    assert report["title"] == "colours 1"
    assert report["data"]["totals"] == {"train": 36, "validation": 12, "test": 12}
    assert len(report["history"]) == 6
    assert 1 <= report["best_epoch"] <= 6
    assert report["cost"]["parameters"] > 1000
    assert report["environment"]["device"] == "cpu"
    page = (trained / "report.html").read_text("utf-8")
    assert "data:image/jpeg;base64," in page


def test_options_become_settings(xception, photos: Path, tmp_path: Path):
    out = tmp_path / "run"
    result = xception(
        "train", photos, "--out", out, *TINY, "--epochs", "1", "--lr", "0.005", "--seed", "7",
        "--class-weights", "balanced", "--sampler", "balanced",
        "--set", "augment.mixup=0.2", "--set", "schedule.warmup_epochs=1", "--json",
    )  # fmt: skip
    assert result.status == 0
    config = settings(out)
    assert config["preprocess"]["size"] == 16
    assert config["optimizer"]["learning_rate"] == 0.005
    assert (config["epochs"], config["batch_size"], config["seed"]) == (1, 8, 7)
    assert config["class_weights"] == config["sampler"] == "balanced"
    assert config["augment"]["mixup"] == 0.2
    assert config["schedule"]["warmup_epochs"] == 1
    assert config["model_options"] == {"width": 0.01, "middle": 0, "stem_stride": 1}

    answer = json.loads(result.stdout)  # one document; the progress is on stderr
    assert answer["run"] == str(out)
    assert Path(answer["model"]).exists()
    assert Path(answer["report"]).exists()
    assert answer["split"] == "test"
    assert answer["metrics"]["samples"] == 12
    assert "epoch 1/1" in result.stderr


def test_a_finished_run_starts_another(xception, photos: Path, trained: Path, tmp_path: Path):
    result = xception(
        "train", photos, "--out", tmp_path / "run", "--weights", trained / "model.safetensors",
        "--freeze", "backbone", "--epochs", "1", "--batch-size", "8", "--device", "cpu", "--quiet",
    )  # fmt: skip
    assert (result.status, result.stderr) == (0, "")
    assert re.match(r"accuracy \d+\.\d % on 12 test photos \(95 % interval ", result.stdout)
    assert settings(tmp_path / "run")["freeze"] == "backbone"


def test_a_config_is_taken_back(xception, photos: Path, trained: Path, tmp_path: Path):
    result = xception(
        "train", photos, "--config", trained / "config.yaml", "--epochs", "1", "--quiet",
        "--out", tmp_path / "run",
    )  # fmt: skip
    assert result.status == 0
    assert settings(tmp_path / "run") == {**settings(trained), "epochs": 1}


def test_a_finished_run_resumes_to_the_same(xception, photos: Path, trained: Path):
    before = (trained / "model.safetensors").read_bytes()
    result = xception("train", photos, "--out", trained, "--resume", "--quiet")
    assert result.status == 0
    assert (trained / "model.safetensors").read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set", "epocs=3"], "did you mean 'epochs'?"),
        (["--set", "augment.flipp=true"], "did you mean 'flip'?"),
        (["--set", "epochs"], "--set wants KEY=VALUE, e.g. --set clip_norm=1, not 'epochs'"),
        (["--set", "epochs=[1"], "'[1' is no value"),
        (["--epochs", "0"], "epochs"),
        (["--workers", "1000000"], "not in the range"),
        (["--size", "100000000000000000000"], "not in the range"),
        (["--out", ""], "the path is empty"),
        (["--weights", ""], "the path is empty"),
        (["--recipe", "scrach"], "did you mean 'scratch'?"),
        (["--model", "xceptoin"], "did you mean 'xception'?"),
        (["--weights", "nowhere.safetensors"], "nowhere.safetensors"),
        (["--config", "nowhere.yaml"], "nowhere.yaml"),
        (["--resume"], "nothing to resume"),
        (["--device", "abacus"], "'abacus'"),
    ],
)
def test_wrong_wishes(
    xception, photos: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
    arguments: list[str], message: str,
):  # fmt: skip
    monkeypatch.chdir(tmp_path)
    result = xception("train", photos, *arguments)
    assert result.status == 2
    assert message in result.stderr
    assert result.stderr.startswith("error: ")
    assert len(result.stderr.splitlines()) <= 2


def test_a_run_is_not_overwritten(xception, photos: Path, trained: Path):
    result = xception("train", photos, "--out", trained)
    assert result.status == 2
    assert "already holds a run" in result.stderr


def test_resume_keeps_the_recipe(xception, photos: Path, trained: Path):
    result = xception("train", photos, "--out", trained, "--resume", "--recipe", "scratch")
    assert result.status == 2
    assert "leave out --recipe and --config" in result.stderr


def test_values_are_those_of_yaml():
    assert parse_assignment("a.b=0.5") == ("a.b", 0.5)
    assert parse_assignment("a=null") == ("a", None)
    assert parse_assignment("a=[1, 2]") == ("a", [1, 2])
    assert parse_assignment("a = x=y") == ("a", "x=y")


def test_run_folders_are_numbered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    photos = Path("my shirts.zip")
    assert choose_folder(photos, None, False) == Path("runs/my shirts-1")
    with pytest.raises(UserError, match="nothing to resume"):
        choose_folder(photos, None, True)
    for name in ("my shirts-2", "my shirts-10", "my shirts-x", "others-30"):
        (tmp_path / "runs" / name).mkdir(parents=True)
    assert choose_folder(photos, None, False) == Path("runs/my shirts-11")
    assert choose_folder(photos, None, True) == Path("runs/my shirts-10")
    assert choose_folder(photos, Path("here"), True) == Path("here")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="--out"):
        choose_folder(photos, None, False)


@pytest.mark.usefixtures("unmeasured_children")
def test_a_stopped_training_says_how_to_continue(photos: Path, tmp_path: Path):
    out = tmp_path / "a run"
    command = [sys.executable, "-m", "xception", "train", str(photos), "--out", str(out), *TINY]
    with subprocess.Popen(
        [*command, "--epochs", "500"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        while "epoch 2/500" not in process.stderr.readline():
            assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        _, rest = process.communicate(timeout=60)
        assert process.returncode == 143
    *_, hint, last = rest.splitlines()
    assert hint == f"to continue: xception train '{photos}' --resume --out '{out}'"
    assert last == "stopped by SIGTERM"
    assert (out / "last.ckpt").exists()


@pytest.mark.parametrize("signal_of", [KeyboardInterrupt(), SystemExit(143)])
def test_a_report_that_was_stopped_can_be_written_by_resuming(
    xception, photos: Path, trained: Path, monkeypatch: pytest.MonkeyPatch, signal_of: BaseException
):
    def stopped(*_: object) -> None:
        raise signal_of

    monkeypatch.setattr("xception.cli.train.report_training", stopped)
    arguments = ["train", photos, "--out", trained, "--resume", "--quiet"]
    if isinstance(signal_of, SystemExit):
        with pytest.raises(SystemExit):
            run([str(argument) for argument in arguments])
        return
    result = xception(*arguments)
    assert result.status == 130
    assert result.stderr.startswith("to continue: xception train ")


def test_a_training_that_was_stopped_before_its_first_step_says_how_to_continue(
    xception, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr("xception.training.assembly.Assembly.trainer", stopped)
        result = xception("train", photos, "--out", out, *TINY, "--epochs", "1", "--quiet")
    assert result.status == 130
    assert result.stderr.startswith("to continue: xception train ")
    assert xception("train", photos, "--out", out, "--resume", "--quiet").status == 0
