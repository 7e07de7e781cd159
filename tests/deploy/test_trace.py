"""Exported graphs against the networks that they come from, at sizes that make padding differ."""

import copy
from typing import Any

import numpy as np
import pytest
import torch
from networks import pictures
from small_networks import small
from torch import nn

from xception.deploy.export import graph
from xception.deploy.trace import TracedConv, TracedMaxPool, operators, traceable
from xception.layers import Conv2d, MaxPool2d
from xception.layers.regular import replace
from xception.models.network import Network
from xception.separation import separate

pytest.importorskip("onnx", reason="NOT TESTED: exported graphs, because onnx is not installed")
runtime = pytest.importorskip(
    "onnxruntime", reason="NOT TESTED: exported graphs, because onnxruntime is not installed"
)

SIZES = [(65, 64), (64, 81), (98, 71)]
# Of logits of a few units: small networks on made-up pictures pass their rounding on enlarged. A
# window that stands one pixel off changes them by tenths.
RELATIVE, ABSOLUTE = 1e-3, 2e-3


def run(model: Any, x: torch.Tensor) -> np.ndarray:
    session = runtime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    (answer,) = session.run(None, {"image": x.numpy()})
    return answer


def agree(model: Any, network: nn.Module, x: torch.Tensor) -> None:
    with torch.no_grad():
        expected = network(x).numpy()
    answer = run(model, x)
    assert answer.shape == expected.shape
    np.testing.assert_allclose(answer, expected, rtol=RELATIVE, atol=ABSOLUTE)


BACKBONES: list[tuple[str, dict[str, Any], int]] = [
    ("mobilenet_v1", {"width": 0.1, "padding": "same"}, 8),
    ("xception", {"width": 0.05, "middle": 0}, 8),  # TensorFlow's pooling, dense from a size on
    ("xception41", {"width": 0.05, "middle": 0}, 16),
]


@pytest.mark.parametrize(("backbone", "options", "stride"), BACKBONES)
def test_segmentation_at_any_size(backbone: str, options: dict[str, Any], stride: int):
    network = small(
        "deeplab_v3plus", backbone=backbone, backbone_options=options, output_stride=stride
    )
    model = graph(network)
    kinds = operators(model)
    dense = backbone == "xception"  # with dilation: the only windows that no operator can pad
    assert dense or "Pad" not in kinds
    assert not {"BatchNormalization", "Identity", "Constant"} & kinds.keys()
    for i, (height, width) in enumerate(SIZES):
        torch.manual_seed(i)
        x = pictures(1 + i % 3, 3, height, width)
        agree(model, network, x)


@pytest.mark.parametrize(
    ("name", "size", "options"),
    [
        ("xception", 64, {}),
        ("xception", 75, {"activation": "elu", "segments": 3}),
        ("mobilenet_v1", 96, {}),
        ("mobilenet_v1", 75, {"padding": "same"}),
        ("xception41", 64, {"padding": "same"}),
        ("xception", 96, {"output_stride": 16}),  # one window a pixel at the end
        ("xception", 64, {"fully_connected": [5], "dropout": 0.5, "in_channels": 1}),
    ],
)
def test_classifiers_of_any_number_of_images(name: str, size: int, options: dict[str, Any]):
    network = small(name, size=size, **options)
    model = graph(network)
    assert "Pad" not in operators(model)
    for number in (1, 3):
        torch.manual_seed(number)
        agree(model, network, pictures(number, network.options["in_channels"], size, size))


def test_the_network_itself_stays_as_it_was():
    network = small("xception")
    before = copy.deepcopy(network.state_dict())
    graph(network)
    assert network.state_dict().keys() == before.keys()
    assert all(torch.equal(network.state_dict()[name], before[name]) for name in before)
    assert not any(isinstance(module, TracedConv) for module in network.modules())


def test_every_input_has_a_name_and_every_axis_a_meaning():
    model = graph(small("xception"))
    (image,), (logits,) = model.graph.input, model.graph.output
    shapes = [
        [dim.dim_param or dim.dim_value for dim in end.type.tensor_type.shape.dim]
        for end in (image, logits)
    ]
    assert (image.name, logits.name) == ("image", "logits")
    assert shapes == [["batch", 3, 64, 64], ["batch", 3]]
    names = [one.name for one in model.graph.initializer]
    assert len(set(names)) == len(names)
    assert len({node.name for node in model.graph.node}) == len(model.graph.node)


def test_what_depends_on_an_unknown_size_is_refused():
    with pytest.raises(ValueError, match="depends on the size"):
        TracedConv(Conv2d(3, 3, 3, stride=2, dilation=2), any_size=True)
    with pytest.raises(ValueError, match="depends on the size"):
        TracedMaxPool(MaxPool2d(3, 2, dilation=2), any_size=True)
    dense = nn.Sequential(MaxPool2d(2, 3, dense=True))
    with pytest.raises(ValueError, match="windows of 3 at stride 2"):
        traceable(dense, any_size=True)


def test_small_images_are_left_to_the_engine():
    network = small("xception")
    traceable(network, any_size=False)
    assert isinstance(network, Network)
    network.check_size(torch.zeros(1, 3, 1, 1))


def test_the_order_of_memory_leaves_no_mark():
    network = small("xception")
    conv = network.get_submodule("stem.3")
    assert isinstance(conv, nn.Conv2d)
    ranks = [1 + i % 3 for i in range(conv.in_channels)]
    replace(network, conv, separate(conv, rank=ranks).module)
    kinds = operators(graph(network))
    network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    model = graph(network)
    assert operators(model) == kinds
    agree(model, network, pictures(2, 3, 64, 64))
