"""What `xception bench` measures, and what it leaves out; nothing is timed here."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from xception.cli import bench as module
from xception.deploy.bench import Row, Subject
from xception.deploy.export import write
from xception.errors import UserError
from xception.models.network import Network
from xception.weights.model_file import load_model, save_model

pytest.importorskip("onnxruntime", reason="NOT TESTED: bench: onnxruntime is not installed")
pytest.importorskip("onnx", reason="NOT TESTED: bench: onnx is not installed")


@pytest.fixture(autouse=True)
def untimed(monkeypatch: pytest.MonkeyPatch):
    def measure(subjects: Sequence[Subject], *_: object, **options: object) -> list[Row]:
        return [
            Row(one.name, one.engine.name, one.engine.precision, 1, 1, 1.0, 1.0, 1.0, 1, None)
            for one in subjects
        ]

    monkeypatch.setattr(module, "measure", measure)
    monkeypatch.setattr(module, "formats", lambda: ["onnx"])


def changed(run: Path, **fields: Any) -> Network:
    """The network of a run with another card."""
    network = load_model(run / "model.safetensors")
    network.card = network.card.model_copy(update=fields)
    return network


def test_a_form_that_cannot_be_had_is_left_out_and_named(
    xception, photos: Path, trained: Path, monkeypatch: pytest.MonkeyPatch
):
    def refuse(*_: object, **options: object):
        raise UserError("eight bits cost more than is allowed")

    monkeypatch.setattr(module, "export_int8", refuse)
    result = xception("bench", trained, "--data", photos, "--int8", "--json", "--quiet")
    assert result.status == 0, result.stderr
    answer = json.loads(result.stdout)
    assert [form["name"] for form in answer["forms"]] == ["as trained", "ONNX Runtime"]
    reason = "eight bits cost more than is allowed"
    assert answer["left_out"] == [{"name": "ONNX Runtime int8", "reason": reason}]
    assert f"left out: ONNX Runtime int8: {reason}" in result.stderr


@pytest.mark.parametrize("part", ["classes", "preprocess", "architecture"])
def test_another_network_is_refused(xception, trained: Path, tmp_path: Path, part: str):
    card = load_model(trained / "model.safetensors").card
    options = card.architecture.options | {"dropout": 0.25}
    fields = {
        "classes": card.classes[::-1],
        "preprocess": card.preprocess.model_copy(update={"mean": (0.1, 0.2, 0.3)}),
        "architecture": card.architecture.model_copy(update={"options": options}),
    }
    network = changed(trained, **{part: fields[part]})
    other = tmp_path / "other.onnx"
    write(network, "onnx", other)
    result = xception("bench", trained, other)
    assert result.status == 2
    assert f"{other}: its " in result.stderr
    assert "bench` compares forms of one network" in result.stderr
    assert {"classes": "list of classes", "preprocess": "preprocessing"}.get(
        part, part
    ) in result.stderr


def test_what_lies_beside_the_model_is_measured_if_it_is_the_same(
    xception, trained: Path, tmp_path: Path
):
    run = tmp_path / "run"
    run.mkdir()
    shutil.copy(trained / "model.safetensors", run)
    write(changed(run), "onnx", run / "model-mine.onnx")
    classes = ("cat", "dog", "bird")
    write(changed(run, classes=classes), "onnx", run / "model-old.onnx")
    (run / "model-torn.onnx").write_bytes(b"\x08\x08torn")
    network = changed(run)
    save_model(tmp_path / "named.safetensors", network, network.card)
    result = xception("bench", run, tmp_path / "named.safetensors", "--json")
    assert result.status == 0, result.stderr
    answer = json.loads(result.stdout)
    assert [form["name"] for form in answer["forms"]] == [
        "as trained", "ONNX Runtime", "named.safetensors", "model-mine.onnx",
    ]  # fmt: skip
    assert [one["name"] for one in answer["left_out"]] == ["model-old.onnx", "model-torn.onnx"]
    assert "list of classes" in answer["left_out"][0]["reason"]


def test_a_picture_that_cannot_be_written_is_refused_first(
    xception, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(module, "measure", None)  # what calls it fails otherwise
    picture = tmp_path / "no" / "bench.png"
    result = xception("bench", trained, "--picture", picture)
    assert (result.status, result.stdout) == (2, "")
    assert f"--picture {picture}: the folder {picture.parent} does not exist" in result.stderr


@pytest.mark.parametrize("as_json", [[], ["--json"]])
def test_what_was_measured_is_there_before_it_is_drawn(
    xception, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, as_json: list[str]
):
    def fail(*_: object, **options: object):
        raise UserError("no space left")

    monkeypatch.setattr(module, "formats", list)
    monkeypatch.setattr(module, "draw", fail)
    result = xception("bench", trained, "--picture", tmp_path / "bench.png", *as_json)
    assert result.status == 2
    assert "as trained" in result.stdout


def test_what_cannot_be_opened_is_left_out_or_refused_before_the_long_work(
    xception, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Its card is sound and that of the run; the runtime refuses the graph."""
    onnx = pytest.importorskip("onnx")
    run = tmp_path / "run"
    run.mkdir()
    shutil.copy(trained / "model.safetensors", run)
    write(changed(run), "onnx", run / "model.onnx")
    graph = onnx.load(run / "model.onnx")
    graph.graph.node[0].op_type = "Nonsense"
    onnx.save(graph, run / "model.onnx")
    result = xception("bench", run, "--json")
    assert result.status == 0, result.stderr
    answer = json.loads(result.stdout)
    assert [form["name"] for form in answer["forms"]] == ["as trained", "ONNX Runtime"]
    assert [one["name"] for one in answer["left_out"]] == ["model.onnx"]
    monkeypatch.setattr(module, "export", None)
    result = xception("bench", run, run / "model.onnx")
    assert result.status == 2
    assert "exporting" not in result.stderr


def test_a_name_with_brackets_is_no_pattern(
    xception, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(module, "formats", list)
    model = tmp_path / "net[1].safetensors"
    shutil.copy(trained / "model.safetensors", model)
    write(load_model(model), "onnx", tmp_path / "net[1].onnx")
    write(load_model(model), "onnx", tmp_path / "net1.onnx")  # which the pattern would mean
    answer = json.loads(xception("bench", model, "--json").stdout)
    assert [form["name"] for form in answer["forms"]] == ["as trained", "net[1].onnx"]


def test_options_of_masks_want_photos(xception, trained: Path):
    result = xception("bench", trained, "--ignore", "3")
    assert (result.status, result.stdout) == (2, "")
    assert "--ignore: of photos with masks; --data PHOTOS names them" in result.stderr
