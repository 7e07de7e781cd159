"""The search for layers that bear eight bits, on a network whose harm is known by construction."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from small_networks import photo, small

from xception.data.folders import open_photos
from xception.deploy import quantize as module
from xception.deploy import quantize_onnx
from xception.deploy.engines import Engine, open_engine
from xception.deploy.export import graph
from xception.deploy.int8 import export_int8
from xception.deploy.material import Material, parts, photo_material, spaced
from xception.deploy.metadata import Stated
from xception.deploy.onnx_files import read_onnx
from xception.deploy.quantize import Layer, divergence, probabilities, quantize
from xception.deploy.quantize_onnx import OnnxQuantizer, kind_of, layers_of
from xception.errors import UserError
from xception.models.network import Network

LAYERS = tuple(Layer(name, "regular", (name,)) for name in "abcdefgh")
HARM = {"a": 0.0, "b": 0.004, "c": 0.1, "d": 0.0, "e": 0.02, "f": 0.0, "g": 0.0, "h": 0.001}


class Lossy:
    """Answers with probabilities that are off by what its layers do."""

    name, precision, minimum_size = "torch", "fp32", 1

    def __init__(self, card: Any, layers: Sequence[str], extra: float):
        self.card, self.loss = card, sum(HARM[layer] for layer in layers) + extra

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        share = torch.tensor([0.5 + self.loss, 0.25 - self.loss / 2, 0.25 - self.loss / 2])
        return share.log().expand(len(x), 3)


class Pretended:
    """Writes which layers are in eight bits."""

    layers: Sequence[Layer] = LAYERS
    calibrations: Sequence[str] = ("rough", "fine")

    def __init__(self) -> None:
        self.written: list[tuple[str, ...]] = []

    def write(self, file: Path, calibration: str, layers: Sequence[Layer], note: str) -> None:
        names = [layer.name for layer in layers]
        self.written.append(tuple(names))
        file.write_text(json.dumps({"calibration": calibration, "layers": names, "note": note}))


@pytest.fixture
def pretended(monkeypatch: pytest.MonkeyPatch):
    card = small("mobilenet_v1").card

    def opened(path: Path) -> Lossy:
        said = json.loads(Path(path).read_text())
        return Lossy(card, said["layers"], 0.01 if said["calibration"] == "rough" else 0.0)

    monkeypatch.setattr(module, "open_engine", opened)

    def score(engine: Engine) -> float:
        assert isinstance(engine, Lossy)
        return 0.9 - engine.loss

    images = [torch.zeros(1, 3, 4, 4)]
    material = Material(card, 1, lambda: iter(images), lambda: iter(images), score, 100)
    return Lossy(card, "", 0.0), material


@pytest.mark.parametrize(
    ("max_drop", "in_float"), [(0.2, ""), (0.03, "c"), (0.01, "ce"), (0.002, "ceb"), (0.0, "cebh")]
)
def test_the_worst_layers_stay_in_float(
    pretended: tuple[Any, Material], tmp_path: Path, max_drop: float, in_float: str
):
    original, material = pretended
    quantizer = Pretended()
    lines: list[str] = []
    found = quantize(
        original, quantizer, quantizer, material, tmp_path / "m.onnx",
        max_drop=max_drop + 1e-9, say=lines.append,
    )  # fmt: skip
    assert found.calibration == "fine"
    assert found.tried["rough"] > found.tried["fine"]
    assert "".join(layer.name for layer in found.in_float) == in_float
    assert found.before - found.after <= max_drop + 1e-8
    assert [one.layer.name for one in found.shares[:4]] == list("cebh")
    assert sum(one.share for one in found.shares) == pytest.approx(1)
    # KL((.5, .25, .25) || (.5 + l, .25 - l/2, .25 - l/2)) for the worst of them, by hand.
    worst = 0.5 * np.log(0.5 / 0.6) + 0.5 * np.log(0.25 / 0.2)
    assert found.shares[0].harm == pytest.approx(worst, rel=1e-5)
    said = json.loads((tmp_path / "m.onnx").read_text())
    assert sorted(said["layers"]) == sorted(set("abcdefgh") - set(in_float))
    note = json.loads(said["note"])
    assert note["drop"] == pytest.approx(found.before - found.after)
    precision = {one["name"]: one["precision"] for one in note["layers"]}
    assert [name for name in "abcdefgh" if precision[name] == "fp32"] == sorted(in_float)
    assert lines[0].startswith("top1 in float: 0.9000 on 100 photos")


def test_what_costs_too_much_is_refused(pretended: tuple[Any, Material], tmp_path: Path):
    original, material = pretended
    quantizer = Pretended()
    hopeless = replace(material, score=lambda engine: 0.9 if engine is original else 0.5)
    with pytest.raises(UserError, match="eight bits cost more than is allowed"):
        quantize(
            original, quantizer, quantizer, hopeless, tmp_path / "m.onnx",
            max_drop=0.01, say=lambda line: None,
        )  # fmt: skip
    assert list(tmp_path.iterdir()) == []


def test_a_loss_of_just_what_is_allowed_is_allowed(pretended: tuple[Any, Material], tmp_path: Path):
    """One photo in a hundred, where 0.07 - 0.01 is a little more than 0.06."""
    original, material = pretended
    one_less = replace(material, score=lambda engine: 0.07 if engine is original else 0.06)
    quantizer = Pretended()
    found = quantize(
        original, quantizer, quantizer, one_less, tmp_path / "m.onnx",
        max_drop=0.01, say=lambda line: None,
    )  # fmt: skip
    assert found.in_float == ()


def test_divergence_by_hand():
    p, q = torch.tensor([[0.5, 0.5], [1.0, 0.0]]), torch.tensor([[0.25, 0.75], [0.5, 0.5]])
    first = 0.5 * np.log(2) + 0.5 * np.log(2 / 3)
    assert divergence([(p, q)]) == pytest.approx((first + np.log(2)) / 2)
    assert divergence([(p, p)]) == 0
    places = torch.tensor([[[0.5, 1.0], [0.5, 0.0]]]), torch.tensor([[[0.25, 0.5], [0.75, 0.5]]])
    assert divergence([places]) == pytest.approx((first + np.log(2)) / 2)


def test_several_labels_are_several_choices():
    card = small("mobilenet_v1").card.model_copy(update={"task": "multilabel"})
    found = probabilities(torch.zeros(2, 3), card)
    assert found.shape == (2, 2, 3)
    assert (found == 0.5).all()


def test_kinds():
    assert kind_of((8, 1, 3, 3), 8) == "depthwise"
    assert kind_of((8, 2, 3, 3), 4) == "grouped"
    assert kind_of((8, 4, 1, 1), 1) == "pointwise"
    assert kind_of((8, 4, 3, 3), 1) == "regular"
    assert kind_of((8, 4), 1) == "linear"


def test_parts_and_places():
    there = {"train": [1], "validation": [], "test": [2]}
    assert parts(lambda split: there[split]) == ("train", "test")
    with pytest.raises(UserError, match="only test photos"):
        parts(lambda split: there[split] if split == "test" else [])
    with pytest.raises(UserError, match="no photos"):
        parts(lambda split: [])
    assert spaced("abcdef", 3) == ("a", "c", "e")
    assert spaced("ab", 3) == ("a", "b")


@pytest.fixture(scope="module")
def network() -> Network:
    return small("mobilenet_v1", size=32)


@pytest.fixture(scope="module")
def material(network: Network, tmp_path_factory: pytest.TempPathFactory) -> Material:
    """Photos that are what the network says that they are, so that its accuracy is 1."""
    folder = tmp_path_factory.mktemp("photos")
    preprocess = network.card.preprocess
    for i in range(60):
        picture: Image.Image = photo(i, 40, 40)
        x = preprocess.normalize(torch.from_numpy(preprocess.pixels(picture))[None])
        with torch.no_grad():
            label = network.card.classes[int(network(x).argmax())]
        file = folder / ("train" if i % 3 else "validation") / label / f"{i}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        picture.save(file)
    photos = open_photos(folder, for_training=False)
    known = sorted(network.card.classes)
    assert set(photos.classes) <= set(known)
    number = [network.card.classes.index(name) for name in photos.classes]
    photos = replace(
        photos,
        classes=network.card.classes,
        photos=tuple(
            replace(one, labels=tuple(number[label] for label in one.labels))
            for one in photos.photos
        ),
    )
    return photo_material(photos, network.card, calibration=6, questions=3, held_out=20)


def test_material(network: Network, material: Material):
    assert (material.calibration, material.held_out, material.metric) == (6, 20, "top1")
    images = list(material.inputs())
    assert [tuple(x.shape) for x in images] == [(1, 3, 32, 32)] * 6
    assert len(list(material.questions())) == 3


def test_onnx_in_eight_bits(
    network: Network, material: Material, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    onnx = pytest.importorskip("onnx", reason="NOT TESTED: int8, because onnx is missing")
    pytest.importorskip("onnxruntime", reason="NOT TESTED: int8, because onnxruntime is missing")
    layers: list[Layer] = []

    def few(model: Any) -> tuple[Layer, ...]:  # of 28 layers, three and the rest: quicker
        layers.extend(layers_of(model))
        rest = Layer("rest", "several", tuple(name for one in layers[3:] for name in one.nodes))
        return (*layers[:3], rest)

    monkeypatch.setattr(quantize_onnx, "layers_of", few)
    lines: list[str] = []
    found = export_int8(
        network, "onnx", tmp_path / "m.onnx", material, max_drop=0.8, say=lines.append
    )
    assert found.before == 1  # by construction
    assert found.after >= 0.2
    assert set(found.tried) == {"minmax", "percentile 99.99", "percentile 99.999", "entropy"}
    kinds = [one.kind for one in layers]
    assert kinds == ["regular", *["depthwise", "pointwise"] * 13, "linear"]  # Table 1
    assert len(found.shares) == 4
    in_float = {name for layer in found.in_float for name in layer.nodes}
    engine = open_engine(tmp_path / "m.onnx")
    assert (engine.name, engine.precision) == ("onnxruntime", "int8")
    _, stated = read_onnx(tmp_path / "m.onnx")
    assert json.loads(stated.quantization)["metric"] == "top1"
    model = onnx.load(tmp_path / "m.onnx")
    types = {one.name: one.data_type for one in model.graph.initializer}
    dims = {one.name: tuple(one.dims) for one in model.graph.initializer}
    scaled = [node for node in model.graph.node if node.op_type == "DequantizeLinear"]
    weights = [node for node in scaled if types.get(node.input[0]) == onnx.TensorProto.INT8]
    assert len(weights) == 28 - len(in_float)
    # A scale per output channel.
    assert all(dims[node.input[1]] in ((dims[node.input[0]][0],), (3,)) for node in weights)
    rounded = [node for node in model.graph.node if node.op_type == "QuantizeLinear"]
    assert {types[node.input[2]] for node in rounded} == {onnx.TensorProto.UINT8}
    assert [path.name for path in tmp_path.iterdir()] == ["m.onnx"]


@pytest.mark.parametrize(("stride", "size", "pads"), [(16, 72, False), (8, 64, True)])
def test_pooling_at_every_pixel_has_a_range(stride: int, size: int, pads: bool, tmp_path: Path):
    """What lies beyond an image never wins a pooling, and is no activation either."""
    pytest.importorskip("onnxruntime", reason="NOT TESTED: int8, because onnxruntime is missing")
    network = small("xception", size=size, middle=0, output_stride=stride)
    model = graph(network)
    assert any(node.op_type == "Pad" for node in model.graph.node) == pads
    pictures = [torch.randn(1, 3, size, size) for _ in range(2)]
    material = Material(network.card, 2, lambda: iter(pictures), lambda: iter(()), lambda _: 1, 0)
    stated = Stated(network.card, "fp32", network.MINIMUM_SIZE)
    quantizer = OnnxQuantizer(model, stated, material)
    quantizer.write(tmp_path / "m.onnx", "entropy", quantizer.layers, "")
    answer = open_engine(tmp_path / "m.onnx")(pictures[0])
    plain = probabilities(network(pictures[0]).detach(), network.card)
    torch.testing.assert_close(probabilities(answer, network.card), plain, atol=0.05, rtol=0)


def test_what_has_no_eight_bits(network: Network, material: Material, tmp_path: Path):
    with pytest.raises(UserError, match="for ONNX and OpenVINO"):
        export_int8(network, "torch", tmp_path / "m", material, max_drop=1, say=lambda line: None)
    with pytest.raises(UserError, match="seven bits are for ONNX"):
        export_int8(
            network, "openvino", tmp_path / "m", material,
            max_drop=1, seven_bits=True, say=lambda line: None,
        )  # fmt: skip


@pytest.mark.slow
def test_openvino_in_eight_bits(network: Network, material: Material, tmp_path: Path):
    pytest.importorskip("nncf", reason="NOT TESTED: OpenVINO's int8, because nncf is missing")
    found = export_int8(
        network, "openvino", tmp_path / "m.xml", material, max_drop=0.3, say=lambda line: None
    )
    engine = open_engine(tmp_path / "m.xml")
    assert (engine.name, engine.precision) == ("openvino", "int8")
    assert found.after >= 0.7
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.bin", "m.xml"]
