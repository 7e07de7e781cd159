import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from xception.data.preprocess import Preprocess
from xception.errors import UserError
from xception.evaluation.inference import View, WholePhoto, between, index_map
from xception.evaluation.segmentation import Piece

PREPROCESS = Preprocess(size=16)


class Pixels(nn.Module):
    """Logits are the channels of the image times 10; remembers the images."""

    def __init__(self) -> None:
        super().__init__()
        self.dropout = nn.Dropout(0.9)
        self.seen: list[torch.Tensor] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen.append(x)
        return self.dropout(x) * 10


class Columns(nn.Module):
    """Two classes, the second the likelier the further to the right: not the same mirrored."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        ramp = torch.linspace(-3, 3, x.shape[3]).expand(1, 1, *x.shape[2:])
        return torch.cat([-ramp, ramp], dim=1)


def photo(height: int, width: int, seed: int = 0) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.integers(0, 256, (height, width, 3)).astype(np.uint8))


def whole(network: nn.Module, **options) -> WholePhoto:
    known = {"device": "cpu", "output_stride": 16}
    return WholePhoto(network, PREPROCESS, **{**known, **options})


@pytest.mark.parametrize(
    ("size", "stride", "least", "outer"),
    [
        ((480, 360), 16, 1, (481, 369)),
        ((513, 513), 16, 1, (513, 513)),
        ((1, 2), 16, 1, (1, 17)),
        ((1, 2), 16, 7, (17, 17)),
        ((100, 18), 8, 1, (105, 25)),
    ],
)
def test_the_border(size, stride, least, outer):
    view = View(*size, output_stride=stride, minimum=least)
    assert (view.inner, view.outer) == (size, outer)


def test_a_photo_at_its_own_size_with_a_border_of_the_mean_colour():
    pixels, network = photo(20, 30), Pixels()
    (piece,) = whole(network)(pixels)
    (x,) = network.seen
    assert x.shape == (1, 3, 33, 33)
    expected = pixels.permute(2, 0, 1) / 127.5 - 1
    torch.testing.assert_close(x[0, :, :20, :30], expected)
    assert (x[0, :, 20:] == 0).all()
    assert (x[0, :, :, 30:] == 0).all()
    assert (piece.top, piece.left) == (0, 0)
    torch.testing.assert_close(piece.probabilities, (expected * 10).softmax(0))
    assert network.training
    assert network.dropout.training  # and yet nothing was dropped


def test_the_mirrored_photo_is_turned_back():
    pixels = photo(17, 40)
    ramp = torch.linspace(-3, 3, 49)
    alone = (2 * ramp).sigmoid()[:40]
    turned = (2 * ramp.flip(0)).sigmoid()[:40]
    (piece,) = whole(Columns(), mirror=True)(pixels)
    expected = ((alone + turned) / 2).expand(17, 40)
    torch.testing.assert_close(piece.probabilities[1], expected)
    network = Pixels()
    whole(network, mirror=True)(pixels)
    torch.testing.assert_close(network.seen[1], network.seen[0].flip(3))
    mirrored = PREPROCESS.model_copy(update={"mirror": True})
    (same,) = WholePhoto(Columns(), mirrored, device="cpu", output_stride=16)(pixels)
    torch.testing.assert_close(same.probabilities, piece.probabilities)


def test_answers_at_another_scale_come_back_to_the_photos_pixels():
    """The logits are stretched as torch stretches images whose pixels are areas."""
    pixels, network = photo(20, 30), Pixels()
    (piece,) = whole(network, scales=(0.5,))(pixels)
    (x,) = network.seen
    assert x.shape == (1, 3, 17, 17)
    logits = F.interpolate(x[:, :, :10, :15] * 10, (20, 30), mode="bilinear", align_corners=False)
    torch.testing.assert_close(piece.probabilities, logits[0].softmax(0), rtol=1e-4, atol=1e-5)


def test_probabilities_of_scales_are_averaged_and_not_logits():
    pixels = photo(33, 33)
    parts = [whole(Pixels(), scales=(scale,))(pixels)[0].probabilities for scale in (0.5, 1, 1.5)]
    (piece,) = whole(Pixels(), scales=(0.5, 1, 1.5))(pixels)
    torch.testing.assert_close(piece.probabilities, sum(parts) / 3)


def test_the_shorter_side_that_the_training_had():
    network = Pixels()
    (piece,) = whole(network, shorter_side=32)(photo(64, 128))
    assert network.seen[0].shape == (1, 3, 33, 65)
    assert piece.probabilities.shape == (3, 64, 128)


def test_grey_photos():
    grey = Preprocess(size=16, channels=1)
    network = Pixels()
    segment = WholePhoto(network, grey, device="cpu", output_stride=16, scales=(1, 2))
    (piece,) = segment(photo(10, 12)[:, :, :1])
    assert [x.shape for x in network.seen] == [(1, 1, 17, 17), (1, 1, 33, 33)]
    assert piece.probabilities.shape == (1, 10, 12)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_answers_that_are_no_numbers_are_refused(value: float):
    class Broken(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.full_like(x, value)

    with pytest.raises(UserError, match="NaN or infinity"):
        whole(Broken())(photo(4, 4))


def test_rows_of_a_view_are_those_of_the_whole():
    view = View(40, 50, 1.3, True, 16)
    logits = torch.randn(2, *view.outer, generator=torch.Generator().manual_seed(0))

    def rows(first: int, last: int) -> torch.Tensor:
        assert 0 <= first < last <= view.outer[0]
        return logits[:, first:last]

    everything = view.logits(rows, 0, 40)
    parts = [view.logits(rows, top, min(top + 7, 40)) for top in range(0, 40, 7)]
    torch.testing.assert_close(torch.cat(parts, dim=1), everything)


def test_rows_of_the_image_are_those_of_the_whole():
    view, pixels = View(40, 50), photo(40, 50)
    image = view.image(pixels, PREPROCESS, torch.device("cpu"))
    parts = [
        view.image(pixels, PREPROCESS, torch.device("cpu"), slice(top, min(top + 9, 49)))
        for top in range(0, 49, 9)
    ]
    assert torch.equal(torch.cat(parts, dim=2), image)


def test_between():
    x = torch.tensor([[0.0, 10.0, 40.0]])
    places = torch.tensor([0.0, 0.5, 1.9, 2.0], dtype=torch.float64)
    torch.testing.assert_close(between(x, places, 1), torch.tensor([[0.0, 5.0, 37.0, 40.0]]))


def test_pieces_to_a_map():
    left, right = torch.tensor([[[0.9]], [[0.1]]]), torch.tensor([[[0.2]], [[0.8]]])
    assert index_map([Piece(0, 1, right), Piece(0, 0, left)], (1, 2)).tolist() == [[0, 1]]
