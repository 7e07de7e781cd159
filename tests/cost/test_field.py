"""The receptive field is held against gradients: which pixels a value really depends on."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from xception.cost.count import count
from xception.cost.rows import Layer
from xception.layers.conv import Conv2d, MaxPool2d

SIZE = 64


def last(model: nn.Module) -> Layer:
    """The layer that gives the answer: the network itself, where it computes beside its modules."""
    layers = count(model, SIZE, 2).layers
    return next((layer for layer in layers if layer["name"] == ""), layers[-1])


def seen(model: nn.Module, place: int, images: int) -> tuple[int, int]:
    """First and last row of pixels that move the value of the output in this row and column."""
    torch.manual_seed(0)
    model = model.double().eval()
    for parameter in model.parameters():
        nn.init.uniform_(parameter, 0.5, 1.5)
    rows: set[int] = set()
    for _ in range(images):
        x = torch.rand(1, 2, SIZE, SIZE, dtype=torch.float64, requires_grad=True)
        y = model(x)
        y[0, 0, place, place].backward()
        assert x.grad is not None
        rows |= set(x.grad[0, 0].nonzero()[:, 0].tolist())
    return min(rows), max(rows)


class Branches(nn.Module):
    """A wide and a narrow branch, summed; a third is joined along the channels."""

    def __init__(self):
        super().__init__()
        self.wide = nn.Conv2d(2, 2, 5, padding=4, dilation=2)
        self.narrow = nn.Conv2d(2, 2, 1)
        self.third = nn.Conv2d(2, 2, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.wide(x)) + self.narrow(x) * 2
        y = torch.cat([y, self.third(x)], 1)[:, :3]
        return F.avg_pool2d(F.pad(y, (1, 0, 1, 0)), 2, 2)


class Linears(nn.Module):
    """Channels last: a linear layer is a 1x1 convolution there."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3, stride=2, padding=1)
        self.norm = nn.LayerNorm(4)
        self.linear = nn.Linear(4, 6)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x).permute(0, 2, 3, 1)
        y = F.gelu(self.linear(self.norm(y)))
        return F.conv2d(y.permute(0, 3, 1, 2), torch.ones(1, 6, 3, 3, dtype=y.dtype), padding=1)


class Resized(nn.Module):
    def __init__(self, mode: str, align_corners: bool | None, size: int):
        super().__init__()
        self.conv = nn.Conv2d(2, 2, 3, stride=4, padding=1)
        self.how = {"mode": mode, "align_corners": align_corners, "size": (size, size)}

    def forward(self, x: Tensor) -> Tensor:
        return F.interpolate(self.conv(x), **self.how)


MODELS = {
    "convolutions": nn.Sequential(nn.Conv2d(2, 2, 3), nn.Conv2d(2, 2, 5, stride=2, padding=2)),
    "dilated": nn.Sequential(nn.Conv2d(2, 2, 3, stride=2), nn.Conv2d(2, 2, 3, dilation=3)),
    "tensorflow's padding": nn.Sequential(
        Conv2d(2, 2, 3, stride=2), nn.BatchNorm2d(2), Conv2d(2, 2, 3, stride=2), nn.ReLU()
    ),
    "maximum": nn.Sequential(MaxPool2d(3, 2), MaxPool2d(2, 2)),
    "strided 1x1": nn.Sequential(Conv2d(2, 2, 3), Conv2d(2, 2, 1, stride=2), Conv2d(2, 2, 3)),
    "average": nn.Sequential(nn.AvgPool2d(3, 2, 1), nn.AdaptiveAvgPool2d(8)),
    "transposed": nn.Sequential(
        nn.Conv2d(2, 2, 3, stride=4, padding=1),
        nn.ConvTranspose2d(2, 2, 4, stride=2, padding=1),
        nn.Conv2d(2, 2, 3, padding=1),
    ),
    "branches": Branches(),
    "linear layers": Linears(),
}


@pytest.mark.parametrize("name", MODELS)
def test_against_gradients(name: str):
    model = MODELS[name]
    layer = last(model)
    assert layer["receptive_field"]
    assert layer["stride"]
    assert layer["offset"]
    height, step, first = layer["receptive_field"][0], layer["stride"][0], layer["offset"][0]
    places = layer["output"][-1]
    # In the middle of the map, two neighbours where a transposed one gives each its own view.
    images = 40 if name == "maximum" else 1  # until every pixel of a window was the largest once
    bounds = [seen(model, place, images) for place in (places // 2, places // 2 + 1)]
    widths = {end - begin + 1 for begin, end in bounds}
    assert max(widths) == height
    for place, (begin, end) in zip((places // 2, places // 2 + 1), bounds, strict=True):
        middle = first + place * step
        if end - begin + 1 == height and name != "transposed":
            assert (begin + end) / 2 == middle
        assert abs((begin + end) / 2 - middle) <= step


def test_xception_by_hand():
    """A k x k window over steps of s pixels widens the field by (k - 1) s."""
    net = nn.Sequential(*(nn.Conv2d(2, 2, 3, stride=s) for s in (2, 1, 2)))
    assert last(net)["receptive_field"] == [1 + 2 * 1 + 2 * 2 + 2 * 2] * 2
    assert last(net)["stride"] == [4, 4]


@pytest.mark.parametrize(
    ("mode", "align_corners", "size", "wider", "stride"),
    [
        ("nearest", None, 32, 0, 2.0),
        ("bilinear", False, 32, 4, 2.0),
        ("bilinear", True, 31, 4, 2.0),
        ("bilinear", False, 16, 0, 4.0),  # nothing is resized
        ("bicubic", False, 32, 12, 2.0),
    ],
)
def test_resizing(mode: str, align_corners: bool | None, size: int, wider: int, stride: float):
    layer = last(Resized(mode, align_corners, size))
    assert layer["receptive_field"] == [3 + wider] * 2
    assert layer["stride"] == [stride] * 2


def test_mixing_all_places_sees_the_whole_map():
    model = nn.Sequential(nn.Conv2d(2, 4, 3, stride=2), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    model.append(nn.Linear(4, 3))
    layer = last(model)
    assert layer["receptive_field"] == [3 + 2 * 30] * 2  # 31 places, 2 pixels apart
    assert layer["stride"] is None
    model = nn.Sequential(nn.Conv2d(2, 4, 3, stride=2), nn.Flatten(), nn.Linear(4 * 31 * 31, 3))
    assert last(model)["receptive_field"] == [63, 63]


class Gate(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(2, 2, 3, stride=2, padding=1)
        self.squeeze = nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        return y * self.squeeze(y.mean((2, 3)))[:, :, None, None].sigmoid()


def test_a_gate_sees_the_whole_map_and_leaves_its_places():
    layer = last(Gate())
    assert layer["receptive_field"] == [3 + 2 * 31] * 2
    assert layer["stride"] == [2, 2]


class Unknown(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.roll(3, 2) + x


def test_what_is_not_known_is_not_guessed():
    layer = last(Unknown())
    assert layer["receptive_field"] is None
    assert layer["stride"] is None
    unfolded = nn.Sequential(nn.Conv2d(2, 2, 3), nn.Unfold(3), nn.ReLU())
    assert last(unfolded)["receptive_field"] is None


def test_a_window_of_several_sizes_is_not_known():
    assert last(nn.Sequential(nn.AdaptiveAvgPool2d(5)))["receptive_field"] is None


class Response(nn.Module):
    """The norm of each channel over all places (ConvNeXt V2), and of each place."""

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.linalg.vector_norm(x, dim=(2, 3), keepdim=True) + x.norm(p=2, dim=1).mean()


def test_norms():
    layer = last(nn.Sequential(nn.Conv2d(2, 2, 3), Response()))
    assert layer["receptive_field"] == [3 + 61] * 2
    assert layer["stride"] == [1, 1]
