import json
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest
import torch
from networks import pictures
from small_networks import photo, saved, small

from xception.deploy.engines import (
    Engine,
    EngineModule,
    TorchEngine,
    engine_card,
    kind_of,
    load_network,
    open_engine,
)
from xception.deploy.export import write
from xception.deploy.runtime import Predictor
from xception.errors import UserError
from xception.models.network import Network

onnx = pytest.importorskip("onnx", reason="NOT TESTED: exported files, because onnx is missing")
pytest.importorskip("onnxruntime", reason="NOT TESTED: exported files: onnxruntime is missing")
pytest.importorskip("openvino", reason="NOT TESTED: exported files, because openvino is missing")

FILES = {"onnx": "m é.onnx", "openvino": "m é.xml", "torch": "m é folded.safetensors"}


@pytest.fixture(scope="module")
def network() -> Network:
    return small("xception")


@pytest.fixture(scope="module")
def files(network: Network, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same network in every format."""
    folder = tmp_path_factory.mktemp("formats")
    found = {"run": saved(folder / "model.safetensors", network)}
    for format, name in FILES.items():
        write(network, format, folder / name)  # pyright: ignore[reportArgumentType]
        found[format] = folder / name
    return found


KINDS = {"run": "torch", "torch": "torch", "onnx": "onnxruntime", "openvino": "openvino"}


@pytest.mark.parametrize("format", KINDS)
def test_every_format_gives_the_same_answers(format: str, files: dict[str, Path], network: Network):
    engine = open_engine(files[format])
    assert isinstance(engine, Engine)
    assert (engine.name, engine.precision) == (KINDS[format], "fp32")
    assert engine.card.classes == engine_card(files[format]).classes == network.card.classes
    assert engine.card.preprocess == network.card.preprocess
    assert engine.minimum_size == network.MINIMUM_SIZE
    torch.manual_seed(1)
    for number in (1, 3):
        x = torch.randn(number, 3, 64, 64).to(memory_format=torch.channels_last)
        with torch.no_grad():
            expected = network(x)
        torch.testing.assert_close(engine(x), expected, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(EngineModule(engine)(x), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("format", KINDS)
def test_a_predictor_of_every_format(format: str, files: dict[str, Path]):
    predictor, original = Predictor(files[format]), Predictor(files["run"].parent)
    picture = photo(3)
    np.testing.assert_allclose(
        predictor(picture).probabilities, original(picture).probabilities, atol=1e-5
    )
    if KINDS[format] == "torch":
        assert isinstance(predictor.model, Network)
    else:
        with pytest.raises(UserError, match="cannot show where it looked"):
            _ = predictor.model
        with pytest.raises(UserError, match="computed on the CPU"):
            open_engine(files[format], device="meta")


def test_the_bin_file_means_its_xml(files: dict[str, Path]):
    assert open_engine(files["openvino"].with_suffix(".bin")).name == "openvino"


def test_a_folded_file_is_no_model_to_train_but_one_to_ask(files: dict[str, Path]):
    names = load_network(files["torch"]).state_dict()
    assert not any("running_var" in name for name in names)


@pytest.mark.parametrize("format", ["onnx", "openvino"])
def test_segmentation(format: str, tmp_path: Path):
    network = small(
        "deeplab_v3plus",
        backbone="mobilenet_v1",
        backbone_options={"width": 0.1, "padding": "same"},
    )
    file = tmp_path / FILES[format]
    write(network, format, file)  # pyright: ignore[reportArgumentType]
    engine = open_engine(file)
    for shape in [(1, 3, 65, 98), (2, 3, 64, 65)]:
        torch.manual_seed(0)
        x = pictures(*shape)
        with torch.no_grad():  # the tolerance is explained in test_trace.py
            torch.testing.assert_close(engine(x), network(x), rtol=1e-3, atol=5e-3)
    with pytest.raises(UserError, match="segments images"):
        Predictor(file)


@pytest.mark.parametrize("format", ["onnx", "openvino"])
def test_several_threads_at_once(format: str, files: dict[str, Path], network: Network):
    engine = open_engine(files[format], threads=1)
    torch.manual_seed(2)
    images = torch.randn(8, 1, 3, 64, 64)
    with torch.no_grad():
        expected = torch.cat([network(x) for x in images])
    answers: dict[int, list[torch.Tensor]] = {}

    def ask(place: int) -> None:
        answers[place] = [engine(images[place]) for _ in range(5)]

    threads = [Thread(target=ask, args=(place,)) for place in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for place, found in answers.items():
        for answer in found:
            torch.testing.assert_close(answer[0], expected[place], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("format", ["onnx", "openvino"])
def test_images_that_do_not_fit(format: str, files: dict[str, Path]):
    engine = open_engine(files[format])
    with pytest.raises(UserError, match="too small for this network: 7x7 is the least"):
        engine(torch.zeros(1, 3, 6, 64))
    with pytest.raises(UserError, match=r"fails: .+") as caught:
        engine(torch.zeros(1, 3, 80, 80))
    assert len(str(caught.value).splitlines()) == 1


def changed(file: Path, out: Path, change: Any) -> Path:
    """A copy of an ONNX file after a change of its content."""
    model = onnx.load(file)
    change(model)
    out.write_bytes(model.SerializeToString())
    return out


def add_loop(model: Any) -> None:
    node = model.graph.node.add()
    node.op_type = "Loop"
    attribute = node.attribute.add()
    attribute.name, attribute.type = "body", onnx.AttributeProto.GRAPH
    attribute.g.name = "body"


def point_elsewhere(model: Any) -> None:
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "../../../../../etc/passwd"


def point_elsewhere_in_a_node(model: Any) -> None:
    node = model.graph.node.add()
    node.op_type = "Constant"
    attribute = node.attribute.add()
    attribute.name = "value"
    attribute.t.external_data.add().key = "location"


def foreign_operator(model: Any) -> None:
    model.graph.node[0].domain = "com.example"


def own_function(model: Any) -> None:
    model.functions.add().name = "f"


def no_card(model: Any) -> None:
    del model.metadata_props[:]


def card_twice(model: Any) -> None:
    model.metadata_props.add().CopyFrom(model.metadata_props[0])


def state(key: str, value: str) -> Any:
    def change(model: Any) -> None:
        for entry in model.metadata_props:
            if entry.key == key:
                entry.value = value

    return change


def fewer_classes(model: Any) -> None:
    (entry,) = (one for one in model.metadata_props if one.key == "xception.card")
    card = json.loads(entry.value)
    card["classes"] = card["classes"][:2]
    entry.value = json.dumps(card)


HOSTILE = [
    (add_loop, "loops or branches"),
    (point_elsewhere, "weights lie in another file"),
    (point_elsewhere_in_a_node, "weights lie in another file"),
    (foreign_operator, "operators of 'com.example'"),
    (own_function, "functions of its own"),
    (no_card, "no card of ours"),
    (card_twice, "stands there twice"),
    (state("xception.card", "{"), "card is not sound"),
    (state("xception.precision", "int4"), "precision"),
    (state("xception.minimum_size", "٣"), "smallest image"),
    (state("xception.minimum_size", "99999999999999999999"), "smallest image"),
    (fewer_classes, "2 classes, the network does not"),
    (lambda model: model.graph.ClearField("node"), "refuses it"),
    (lambda model: model.ClearField("graph"), "no graph"),
]


@pytest.mark.parametrize(("change", "message"), HOSTILE)
def test_hostile_onnx_files_are_one_line(
    change: Any, message: str, files: dict[str, Path], tmp_path: Path
):
    file = changed(files["onnx"], tmp_path / "x.onnx", change)
    with pytest.raises(UserError, match=message) as caught:
        open_engine(file)
    assert len(str(caught.value).splitlines()) == 1
    assert str(file) in str(caught.value)


def test_a_second_graph_is_refused(files: dict[str, Path], tmp_path: Path):
    data = files["onnx"].read_bytes()
    (tmp_path / "x.onnx").write_bytes(data + b"\x3a\x00")
    with pytest.raises(UserError, match="several graphs"):
        open_engine(tmp_path / "x.onnx")


def test_damaged_onnx_files_are_one_line(files: dict[str, Path], tmp_path: Path):
    data = files["onnx"].read_bytes()
    rng = np.random.default_rng(0)
    file = tmp_path / "x.onnx"
    cut = [data[:length] for length in (1, 2, 10, 100, len(data) // 2, len(data) - 1)]
    noise = []
    for _ in range(30):
        broken = bytearray(data)
        broken[int(rng.integers(0, 400))] = int(rng.integers(0, 256))
        noise.append(bytes(broken))
    complaints = []
    for content in [*cut, *noise, b"\x08" * 50, b"\x08\x08" + b"\xff" * 30]:
        file.write_bytes(content)
        complaints.append(complaint(file))
    said = [text for text in complaints if text]  # a changed letter of the card harms nobody
    assert len(said) >= len(cut) + 2
    assert all(len(text.splitlines()) == 1 for text in said)


def complaint(file: Path) -> str:
    try:
        open_engine(file)
    except UserError as error:
        return str(error)
    return ""


def test_hostile_openvino_files_are_one_line(files: dict[str, Path], tmp_path: Path):
    text = files["openvino"].read_text("utf-8")
    file = tmp_path / "x.xml"
    bomb = '<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b "c">]><net>&b;</net>'
    for content, message in [
        (bomb, "definitions of its own"),
        (text.replace("xception", "xcaption"), "no card of ours"),
        (text[: len(text) // 2], "cannot read it"),
        ("<net></net>", "cannot read it|no card"),
        ("<html>", "cannot read it"),
    ]:
        file.write_text(content, "utf-8")
        file.with_suffix(".bin").write_bytes(files["openvino"].with_suffix(".bin").read_bytes())
        with pytest.raises(UserError, match=message) as caught:
            open_engine(file)
        assert len(str(caught.value).splitlines()) == 1
    file.write_bytes(bomb.encode("utf-16-le"))
    with pytest.raises(UserError, match="not UTF-8"):
        open_engine(file)
    file.write_text(text, "utf-8")
    file.with_suffix(".bin").write_bytes(b"short")
    with pytest.raises(UserError, match="OpenVINO"):
        open_engine(file)
    file.with_suffix(".bin").unlink()
    with pytest.raises(UserError, match=r"x\.bin: No such file"):
        open_engine(file)


def test_what_is_no_model(tmp_path: Path):
    for content in (b"", b"x", b"GIF89a and so on", b"PK\x03\x04" + bytes(100), bytes(1000)):
        (tmp_path / "x").write_bytes(content)
        with pytest.raises(UserError) as caught:
            open_engine(tmp_path / "x")
        assert len(str(caught.value).splitlines()) == 1
    with pytest.raises(UserError, match="No such file"):
        kind_of(tmp_path / "no")


def test_an_engine_of_a_network_in_memory(network: Network):
    engine = TorchEngine(network)
    assert isinstance(engine, Engine)
    assert engine(torch.zeros(2, 3, 64, 64)).shape == (2, 3)
