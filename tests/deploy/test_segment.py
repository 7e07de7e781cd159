from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from segmenters import CLASSES, small_segmenter, smooth
from torch import nn

from xception.data.images import ImageError
from xception.deploy.engines import Engine, TorchEngine
from xception.deploy.fold import fold
from xception.deploy.metadata import Precision
from xception.deploy.segment import PhotoSegmenter, at_output_stride, open_segmenter
from xception.errors import UserError
from xception.evaluation import any_size
from xception.evaluation.inference import WholePhoto
from xception.models.deeplab_v3plus import DeepLabV3Plus
from xception.models.network import Network
from xception.weights.model_file import save_model


def in_bands(engine: Engine, **options: Any) -> PhotoSegmenter:
    """Everything in bands, as narrow as they get."""
    return PhotoSegmenter(engine, whole_pixels=1, band_bytes=20_000, **options)


def answer(segment: PhotoSegmenter, pixels: torch.Tensor) -> torch.Tensor:
    """All probabilities of a photo, put together from its pieces."""
    height, width, _ = pixels.shape
    total = torch.full((len(CLASSES), height, width), torch.nan)
    for top, left, found in segment(pixels):
        rows, columns = slice(top, top + found.shape[1]), slice(left, left + found.shape[2])
        assert total[:, rows, columns].isnan().all()  # each pixel once
        total[:, rows, columns] = found
    return total


KINDS: dict[str, dict[str, Any]] = {
    "xception41": {},
    "at output stride 8": {"output_stride": 8},
    "TensorFlow's padding": {"backbone_options": {"padding": "same"}},
    "without a decoder": {"decoder": False},
    "without the mean": {"image_pooling": False},
    "without rates": {"rates": ()},
    "mobilenet": {"backbone": "mobilenet_v1"},
    "xception": {"backbone": "xception"},
    "xception, at 8": {"backbone": "xception", "output_stride": 8},
}


@pytest.mark.parametrize("kind", KINDS)
def test_bands_give_the_answer_of_the_whole(kind: str):
    network = small_segmenter(**KINDS[kind]).double()  # some processors round float32 by 2e-4 here
    first = next(module for module in network.modules() if isinstance(module, nn.Conv2d))
    first.register_forward_pre_hook(lambda module, args: args[0].double())
    pixels = smooth(170, 100)
    engine = TorchEngine(network)
    whole = answer(PhotoSegmenter(engine), pixels)
    assert whole.std(dim=(1, 2)).max() > 0.05  # there is something to be wrong about
    banded = in_bands(engine)
    assert banded.in_bands(170, 100)
    found = answer(banded, pixels)
    assert (found - whole).abs().max() < 1e-4


def test_the_whole_is_what_the_network_itself_says():
    network, pixels = small_segmenter(), smooth(97, 113)  # multiples of 16, and one
    x = network.card.preprocess.normalize(pixels[None])
    with torch.inference_mode():
        expected = network(x)[0].softmax(0)
    found = answer(PhotoSegmenter(TorchEngine(network)), pixels)
    torch.testing.assert_close(found, expected)


def test_the_mean_of_the_whole_photo_reaches_every_band():
    """Changing the lowest rows changes the highest ones, which no convolution brings there."""
    network = small_segmenter(rates=(), backbone_options={"middle": 0})
    segment = in_bands(TorchEngine(network))
    pixels = smooth(301, 40)
    other = pixels.clone()
    other[-60:] = 255 - other[-60:]
    before, after = answer(segment, pixels)[:, :30], answer(segment, other)[:, :30]
    assert (before - after).abs().max() > 1e-3
    alone = small_segmenter(rates=(), image_pooling=False, backbone_options={"middle": 0})
    segment = in_bands(TorchEngine(alone))
    assert torch.equal(answer(segment, pixels)[:, :30], answer(segment, other)[:, :30])


@pytest.mark.parametrize("size", [(1, 1), (16, 300), (300, 16), (17, 33), (64, 64)])
def test_awkward_sizes(size: tuple[int, int]):
    engine, pixels = TorchEngine(small_segmenter()), smooth(*size)
    whole = answer(PhotoSegmenter(engine), pixels)
    found = answer(in_bands(engine), pixels)
    assert (found - whole).abs().max() < 1e-4


def test_several_scales_mirrored_in_bands():
    engine, pixels = TorchEngine(small_segmenter()), smooth(110, 70)
    scales = (0.5, 1.0, 1.25)
    whole = answer(PhotoSegmenter(engine, scales=scales, mirror=True), pixels)
    found = answer(in_bands(engine, scales=scales, mirror=True), pixels)
    assert (found - whole).abs().max() < 2e-4
    torch.testing.assert_close(found.sum(0), torch.ones(110, 70), rtol=0, atol=1e-4)


def test_folded_normalisations_in_bands():
    network, pixels = small_segmenter(), smooth(110, 70)
    whole = answer(PhotoSegmenter(TorchEngine(network)), pixels)
    fold(network)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in network.modules())
    found = answer(in_bands(TorchEngine(network)), pixels)
    assert (found - whole).abs().max() < 1e-3


def test_at_another_output_stride():
    network = small_segmenter()
    finer = at_output_stride(network, 8)
    assert finer.options == {**network.options, "output_stride": 8}
    assert finer.card == network.card
    weights = network.state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in finer.state_dict().items())
    x = torch.zeros(1, 3, 65, 65)
    assert isinstance(finer, DeepLabV3Plus)
    assert finer.forward_features(x)["exit"].shape[2] == 9
    assert at_output_stride(network, 16) is network
    with pytest.raises(UserError, match="output_stride"):
        at_output_stride(network, 4)


def saved(path: Path, network: Network) -> Path:
    save_model(path, network, network.card)
    return path


def test_a_model_file_at_another_output_stride(tmp_path: Path):
    network = small_segmenter()
    path = saved(tmp_path / "m.safetensors", network)
    pixels = smooth(60, 80)
    expected = WholePhoto(
        at_output_stride(network, 8), network.card.preprocess, device="cpu", output_stride=8
    )
    segment = open_segmenter(path, output_stride=8)
    (piece,) = expected(pixels)
    assert (answer(segment, pixels) - piece.probabilities).abs().max() < 1e-3
    assert segment.classes == CLASSES
    assert segment.whole.output_stride == 8
    assert not any(isinstance(module, nn.BatchNorm2d) for module in segment.network.modules())


def test_the_cards_shorter_side_counts():
    network = small_segmenter(training={"joint": {"shorter_side": 65}})
    segment = PhotoSegmenter(TorchEngine(network))
    pixels = smooth(130, 195)
    expected = WholePhoto(
        network, network.card.preprocess, device="cpu", output_stride=16, scales=(0.5,)
    )
    (piece,) = expected(pixels)
    torch.testing.assert_close(answer(segment, pixels), piece.probabilities)
    wrong = small_segmenter(training={"joint": {"shorter_side": "65"}})
    with pytest.raises(UserError, match="shorter_side"):
        PhotoSegmenter(TorchEngine(wrong))


@pytest.mark.parametrize("look", [{}, {"scales": (0.5, 1.0), "mirror": True}])
def test_the_probabilities_of_a_large_photo_are_not_there_at_once(
    look: dict[str, Any], monkeypatch: pytest.MonkeyPatch
):
    """Also where the network sees it small: 130 x 195 pixels, and an image of 65 x 97."""
    monkeypatch.setattr(any_size, "PIECE_BYTES", 10 * 195 * len(CLASSES) * 4)  # ten rows
    network = small_segmenter(training={"joint": {"shorter_side": 65}})
    pixels = smooth(130, 195)
    expected = answer(PhotoSegmenter(TorchEngine(network), **look), pixels)
    segment = PhotoSegmenter(TorchEngine(network), whole_pixels=10_000, **look)
    assert not segment.in_bands(130, 195)
    assert {piece.probabilities.shape[1] for piece in segment(pixels)} == {10}
    torch.testing.assert_close(answer(segment, pixels), expected, atol=1e-4, rtol=0)


def test_what_segments_nothing_is_refused(tmp_path: Path):
    network = small_segmenter()
    network.card = network.card.model_copy(update={"task": "classification"})
    with pytest.raises(UserError, match="one that segments"):
        PhotoSegmenter(TorchEngine(network))


class Exported:
    """An engine that is not torch's."""

    name = "exported"
    precision: Precision = "fp32"
    minimum_size = 1

    def __init__(self, network: Network):
        self.network_inside, self.card = network, network.card

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return self.network_inside(x)


def test_an_exported_network_sees_photos_whole_or_not_at_all():
    network, pixels = small_segmenter(), smooth(70, 50)
    expected = answer(PhotoSegmenter(TorchEngine(network)), pixels)
    torch.testing.assert_close(answer(PhotoSegmenter(Exported(network)), pixels), expected)
    segment = PhotoSegmenter(Exported(network), whole_pixels=1000)
    with pytest.raises(ImageError, match=r"81x65 pixels is too large .* \(.safetensors\)"):
        answer(segment, pixels)


def test_a_small_photo_may_make_too_large_an_image():
    network = small_segmenter(training={"joint": {"shorter_side": 384}})
    segment = PhotoSegmenter(TorchEngine(network))
    # 384 / 1 times 20000 on the long side; the border makes both multiples of 16 plus 1.
    assert segment.image_size(1, 20_000) == (385, 7_680_001)
    with pytest.raises(ImageError, match="the photo: an image of 385x7680001 pixels is too large"):
        next(iter(segment(smooth(1, 20_000))))
    segment.check(8192, 8192)  # the largest photo that is decoded
    grown = PhotoSegmenter(TorchEngine(small_segmenter()), scales=(1.75,))
    grown.check(8192, 8192)
    with pytest.raises(ImageError, match=r"a\.png: "):
        PhotoSegmenter(TorchEngine(network), most_pixels=385**2).check(100, 140, "a.png")


def test_rounding_of_large_photos_costs_little():
    rng = np.random.default_rng(0)
    unit = 65535 // 12
    exact = rng.random(1000).astype(np.float32)
    assert np.abs((exact * unit).round() / unit - exact).max() < 1e-4


def test_pieces_are_lazy():
    """A large photo's second piece is not computed before the first one is taken."""
    pieces = in_bands(TorchEngine(small_segmenter()))(smooth(100, 60))
    assert next(pieces).top == 0
