import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from xception.deploy import quantize_onnx
from xception.deploy.quantize import Layer
from xception.deploy.runtime import Predictor

pytest.importorskip("onnxruntime", reason="NOT TESTED: export: onnxruntime is not installed")
pytest.importorskip("onnx", reason="NOT TESTED: export: onnx is not installed")


def test_an_exported_file_is_taken_like_a_run(
    xception, photos: Path, trained: Path, tmp_path: Path
):
    out = tmp_path / "colours é.onnx"
    result = xception("export", trained, "--format", "onnx", "--to", out, "--json")
    assert result.status == 0, result.stderr
    answer = json.loads(result.stdout)
    assert (answer["path"], answer["format"], answer["precision"]) == (str(out), "onnx", "fp32")
    assert answer["bytes"] == out.stat().st_size
    assert answer["comparison"]["largest_difference"] <= 1e-4
    assert answer["comparison"]["photos"] == 16

    image = photos / "test/red/0.png"
    expected = Predictor(trained)(image).top(3)
    found = json.loads(xception("predict", out, image, "--json").stdout)[0]["top"]
    assert [one["label"] for one in found] == [label for label, _ in expected]
    assert [one["probability"] for one in found] == pytest.approx(
        [p for _, p in expected], abs=1e-5
    )

    a, b = (xception("evaluate", run, photos, "--json") for run in (trained, out))
    assert a.status == b.status == 0, b.stderr
    first, second = json.loads(a.stdout), json.loads(b.stdout)
    assert second["samples"] == first["samples"]
    assert second["top1"] == first["top1"]
    assert second["log_loss"] == pytest.approx(first["log_loss"], abs=1e-5)

    for arguments in (
        ("predict", out, image, "--explain", tmp_path / "where"),
        ("evaluate", out, photos, "--report", tmp_path / "report"),
    ):
        refused = xception(*arguments)
        assert refused.status == 2
        assert "exported network, which cannot show where it looked" in refused.stderr
    assert not (tmp_path / "where").exists()
    again = xception("export", out, "--format", "onnx")
    assert again.status == 2
    assert "is an exported file" in again.stderr


def test_for_people(xception, photos: Path, trained: Path, tmp_path: Path):
    out = tmp_path / "m.safetensors"
    data = ["--data", photos / "test"]
    result = xception("export", trained, "--format", "torch", "--to", out, *data)
    assert result.status == 0, result.stderr
    first, second, third = result.stdout.splitlines()
    assert first == "compared with the original on 12 photos (16x16)"
    assert second.startswith("probabilities differ by at most ")
    assert second.endswith("the likeliest class is the same for 100.0000% of the photos")
    assert third.startswith(f"{out}: ")
    assert Predictor(out).classes == ("blue", "green", "red")


@pytest.mark.slow
def test_eight_bits(
    xception, photos: Path, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    # Each layer is measured alone: of all layers, three and the rest are enough here.
    all_layers = quantize_onnx.layers_of

    def few(model: Any) -> tuple[Layer, ...]:
        layers = all_layers(model)
        rest = Layer("rest", "several", tuple(name for one in layers[3:] for name in one.nodes))
        return (*layers[:3], rest)

    monkeypatch.setattr(quantize_onnx, "layers_of", few)
    out = tmp_path / "m-int8.onnx"
    arguments = ["--format", "onnx", "--int8", "--data", photos, "--to", out]
    limits = ["--max-drop", "50", "--calibration", "6"]
    result = xception("export", trained, *arguments, *limits, "--json")
    assert result.status == 0, result.stderr
    answer = json.loads(result.stdout)
    assert answer["precision"] == "int8"
    told = answer["int8"]
    assert told["drop"] <= 0.5
    assert told["held_out_photos"] == 12
    assert told["calibration_photos"] == 6
    assert sum(layer["share"] for layer in told["layers"]) == pytest.approx(1)
    assert {layer["kind"] for layer in told["layers"]} == {"regular", "depthwise", "several"}
    assert Predictor(out).engine.precision == "int8"


def test_what_is_refused(xception, photos: Path, trained: Path, tmp_path: Path):
    taken = tmp_path / "taken.onnx"
    taken.touch()
    for arguments, message in [
        (("--format", "onnx", "--int8"), "--int8 needs --data"),
        (("--format", "onnx", "--to", tmp_path / "m.pt"), "ends in .onnx"),
        (("--format", "onnx", "--to", tmp_path / "no" / "m.onnx"), "does not exist"),
        (("--format", "onnx", "--to", taken), "--overwrite replaces it"),
        (("--format", "torch", "--to", trained / "model.safetensors"), "the model itself"),
        (("--format", "tflite"), "is not one of"),
        (("--format", "torch", "--int8", "--data", photos), "for ONNX and OpenVINO"),
        (("--format", "onnx", "--data", tmp_path / "none"), "does not exist"),
    ]:
        result = xception("export", trained, *arguments)
        assert result.status == 2, arguments
        assert message in result.stderr
        assert len(result.stderr.splitlines()) <= 2


def test_weights_of_others_are_not_replaced(xception, trained: Path, tmp_path: Path):
    """OpenVINO's second file has a name that nobody gave."""
    theirs = tmp_path / "m.bin"
    theirs.write_bytes(b"theirs")
    result = xception("export", trained, "--format", "openvino", "--to", tmp_path / "m.xml")
    assert result.status == 2
    assert f"{theirs}: it exists; --overwrite replaces it" in result.stderr
    assert theirs.read_bytes() == b"theirs"


@pytest.mark.parametrize(
    "option",
    [
        ["--seven-bit"],
        ["--max-drop", "1"],
        ["--calibration", "9"],
        ["--held-out", "9"],
        ["--layout", "voc"],
        ["--ignore", "3"],
    ],
)
def test_options_of_int8_alone(xception, photos: Path, trained: Path, tmp_path: Path, option):
    arguments = ("--format", "onnx", "--to", tmp_path / "m.onnx", "--data", photos)
    result = xception("export", trained, *arguments, *option)
    assert result.status == 2
    assert f"{option[0]}: a part of --int8" in result.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow  # processes that each import torch measure the memory
def test_bench(xception, photos: Path, trained: Path, tmp_path: Path):
    picture = tmp_path / "bench.png"
    arguments = ["--data", photos, "--seconds", "0.2", "--batch-size", "2", "--picture", picture]
    result = xception("bench", trained, *arguments, "--json", "--quiet")
    assert result.status == 0, result.stderr
    answer = json.loads(result.stdout)
    assert (answer["size"], answer["batch_size"], answer["metric"]) == (16, 2, "top1")
    names = [row["name"] for row in answer["forms"]]
    assert names[:3] == ["as trained", "torch, folded", "ONNX Runtime"]
    scores = {row["score"] for row in answer["forms"]}
    assert len(scores) == 1  # float is float
    for row in answer["forms"]:
        assert 0 < row["p50_ms"] <= row["p99_ms"]
    with Image.open(picture) as image:
        assert image.width > image.height
    refused = xception("bench", trained, "--int8")
    assert refused.status == 2
    assert "--int8 needs --data" in refused.stderr
