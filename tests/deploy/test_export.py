from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from small_networks import photo, small

from xception.deploy import compare, export
from xception.deploy.compare import Comparison, find_photos
from xception.deploy.engines import open_engine
from xception.errors import UserError

onnx = pytest.importorskip("onnx", reason="NOT TESTED: export, because onnx is not installed")
pytest.importorskip("onnxruntime", reason="NOT TESTED: export: onnxruntime is not installed")

PHOTOS = [photo(i) for i in range(3)]


def test_what_is_written_is_whole_and_compared(tmp_path: Path):
    network = small("mobilenet_v1")
    found = export.export(network, "onnx", tmp_path / "m.onnx", PHOTOS)
    assert found.photos == 3
    assert found.largest <= 1e-5
    assert found.same == found.least_same == 1
    assert [path.name for path in tmp_path.iterdir()] == ["m.onnx"]
    model = onnx.load(tmp_path / "m.onnx")
    onnx.checker.check_model(model, full_check=True)
    assert model.producer_name == "xception"
    assert not any(one.external_data for one in model.graph.initializer)


@pytest.mark.parametrize("spoiled", ["first", "middle", "last"])
def test_what_differs_is_refused_and_leaves_nothing(
    spoiled: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    network = small("mobilenet_v1")
    (tmp_path / "m.onnx").write_bytes(b"what stood there")
    graph = export.graph

    def wrong(network: Any) -> Any:
        model = graph(network)
        weights = [one for one in model.graph.initializer if len(one.dims) == 4]
        chosen = weights[{"first": 0, "middle": len(weights) // 2, "last": -1}[spoiled]]
        values = onnx.numpy_helper.to_array(chosen) * 1.01
        chosen.CopyFrom(onnx.numpy_helper.from_array(values, chosen.name))
        return model

    monkeypatch.setattr(export, "graph", wrong)
    with pytest.raises(UserError, match="another one: probabilities differ by up to"):
        export.export(network, "onnx", tmp_path / "m.onnx", PHOTOS)
    assert [path.name for path in tmp_path.iterdir()] == ["m.onnx"]
    assert (tmp_path / "m.onnx").read_bytes() == b"what stood there"


def test_a_comparison_by_hand():
    card = small("mobilenet_v1").card
    even, odd = torch.tensor([[0.0, 0.0, 0.0]]), torch.tensor([[0.0, 0.0, 0.3]])
    found = compare.compare(
        lambda x: even.expand(len(x), 3), lambda x: odd.expand(len(x), 3), card, PHOTOS
    )
    # Softmax of (0, 0, ln a): 1/3 each, against a/(2 + a) for the last.
    a = 2.718281828459045**0.3
    assert found.largest == pytest.approx(a / (2 + a) - 1 / 3, abs=1e-6)
    assert found.same == 0
    assert found.sizes == ((64, 64),)
    assert "probabilities differ by up to" in str(found.refusal)


@pytest.mark.parametrize(
    ("logits", "factor", "share"),
    [
        ((40.0, 0.0, -40.0), 1.3, 0.3),  # saturated: the first class has 1 - 4e-18
        ((1e-5, 0.0, -1e-5), -1.0, 2.0),  # flat: probabilities differ by 7e-6
        ((40.0, 0.0, -40.0), 1.0001, 1e-4),
        ((1e-5, 0.0, -1e-5), 1.0001, 1e-4),
        ((0.0, 0.0, 0.0), 1.0, 0.0),
    ],
)
def test_probabilities_that_hide_a_difference(
    logits: tuple[float, ...], factor: float, share: float
):
    answer = torch.tensor([logits])
    found = compare.compare(
        lambda x: answer.expand(len(x), 3),
        lambda x: factor * answer.expand(len(x), 3),
        small("mobilenet_v1").card,
        PHOTOS,
    )
    assert found.largest < 1e-4
    assert found.logits == pytest.approx(share, rel=1e-2)
    if share > 1e-3:
        assert "logits differ by up to" in str(found.refusal)
    else:
        assert found.refusal is None


@pytest.mark.parametrize(("gap", "allowed"), [(3e-5, True), (3e-3, False)])
def test_another_class_only_where_two_are_all_but_equal(gap: float, allowed: bool):
    first = 1e-3 * torch.tensor([[1.0, 1 - gap, 0.0]])
    second = first[:, [1, 0, 2]]
    card = small("mobilenet_v1").card
    found = compare.compare(
        lambda x: first.expand(len(x), 3), lambda x: second.expand(len(x), 3), card, PHOTOS
    )
    assert found.same == 0
    assert found.largest < 1e-4
    assert (found.refusal is None) == allowed


def test_a_saturated_network_is_exported(tmp_path: Path):
    network = small("mobilenet_v1")
    *_, weight = (value for name, value in network.named_parameters() if name.endswith("weight"))
    weight.data *= 1e4
    found = export.export(network, "torch", tmp_path / "m.safetensors", PHOTOS)
    assert found.logits <= 1e-4


def test_masks_must_agree_nearly_everywhere():
    sizes = ((65, 98), (64, 64))
    assert Comparison(1, sizes, 9e-5, 1.0, 0.99995, True).refusal is None
    assert "99.9800%" in str(Comparison(1, sizes, 9e-5, 1.0, 0.9998, True).refusal)
    assert Comparison(1, sizes, 2e-4, 1.0, 1.0, True).refusal is not None
    # One photo may be on the border between two classes.
    assert Comparison(1, sizes[:1], 9e-5, 0.9, 0.0, False).refusal is None


def test_masks_are_compared_at_several_sizes(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(compare, "SIZES", ((65, 98), (64, 65)))
    network = small("deeplab_v3plus", backbone="mobilenet_v1", backbone_options={"width": 0.1})
    seen = []

    def record(x: torch.Tensor) -> torch.Tensor:
        seen.append(tuple(x.shape))
        with torch.no_grad():
            return network(x)

    found = compare.compare(record, record, network.card, PHOTOS[:1])
    assert set(seen) == {(1, 3, 65, 98), (1, 3, 64, 65)}
    assert found.largest == 0
    found = compare.compare(record, record, network.card, PHOTOS)
    assert (3, 3, 65, 98) in seen
    assert found.same == 1


def test_nan_is_no_agreement():
    card = small("mobilenet_v1").card
    with pytest.raises(UserError, match="NaN or infinity"):
        compare.compare(
            lambda x: x.new_full((len(x), 3), float("nan")),
            lambda x: x.new_zeros(len(x), 3),
            card,
            PHOTOS,
        )


def test_photos_to_compare_on(tmp_path: Path):
    embedded = find_photos(None)
    assert len(embedded) == 16
    assert all(one.mode == "RGB" for one in embedded)
    for i in range(20):
        photo(i).save(tmp_path / f"{i}.png")
    (tmp_path / "0.png").write_bytes(b"damaged")
    assert len(find_photos(tmp_path)) == 16
    assert [one.size for one in find_photos(tmp_path / "1.png")] == [(90, 70)]
    with pytest.raises(UserError, match="not one photo can be read"):
        find_photos(tmp_path / "0.png")


def test_a_folder_that_cannot_be_written_to(tmp_path: Path):
    with pytest.raises(UserError, match="cannot write"):
        export.export(small("mobilenet_v1"), "onnx", tmp_path / "no" / "m.onnx", PHOTOS)


def test_openvino_is_two_files_in_float(tmp_path: Path):
    pytest.importorskip("openvino", reason="NOT TESTED: OpenVINO, which is not installed")
    network = small("mobilenet_v1")
    found = export.export(network, "openvino", tmp_path / "m.xml", PHOTOS)
    assert found.largest <= 1e-5
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.bin", "m.xml"]
    weights = sum(v.numel() for k, v in network.state_dict().items() if k.endswith("weight"))
    assert (tmp_path / "m.bin").stat().st_size > 3.5 * weights  # no half floats
    picture: Image.Image = PHOTOS[0]
    assert open_engine(tmp_path / "m.xml")(
        network.card.preprocess.normalize(
            torch.from_numpy(network.card.preprocess.pixels(picture))[None]
        )
    ).shape == (1, 3)
