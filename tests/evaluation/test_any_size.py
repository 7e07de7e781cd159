import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from segmenters import CLASSES, small_segmenter, smooth
from torch.optim.swa_utils import AveragedModel

from xception.data.store import FolderStore
from xception.evaluation import any_size
from xception.evaluation.any_size import AnyPhoto, too_large
from xception.evaluation.inference import WholePhoto
from xception.models.network import Network


def any_photo(network: Network, **options: Any) -> AnyPhoto:
    return AnyPhoto(
        network,
        network.card.preprocess,
        num_classes=len(CLASSES),
        device="cpu",
        output_stride=16,
        **options,
    )


def answer(segment: AnyPhoto | WholePhoto, pixels: torch.Tensor) -> torch.Tensor:
    """All probabilities of a photo; its pieces are whole rows."""
    return torch.cat([piece.probabilities for piece in segment(pixels)], dim=1)


def in_training(network: Network) -> Network:
    """As it stands between two epochs: every module in its mode, but for frozen statistics."""
    network.train()
    network.get_submodule("backbone.middle").eval()
    return network


@pytest.mark.parametrize("averaged", [False, True])
def test_a_network_in_training_answers_in_bands_and_goes_on_as_it_was(averaged: bool):
    """Its dropout and the statistics of its batches count neither in bands nor afterwards."""
    trained = small_segmenter(dropout=0.5)
    pixels = smooth(170, 100)
    expected = answer(
        WholePhoto(trained, trained.card.preprocess, device="cpu", output_stride=16), pixels
    )
    if averaged:
        module = AveragedModel(trained, use_buffers=True).module
        assert isinstance(module, Network)
        trained = module
    network = in_training(trained)
    modes = [module.training for module in network.modules()]
    before = copy.deepcopy(network.state_dict())
    whole_images: list[torch.Size] = []
    network.register_forward_hook(lambda module, args, logits: whole_images.append(logits.shape))
    found = answer(any_photo(network, whole_pixels=1, band_bytes=20_000), pixels)
    assert not whole_images  # it came in bands
    assert expected.std(dim=(1, 2)).max() > 0.05
    assert (found - expected).abs().max() < 1e-3
    assert [module.training for module in network.modules()] == modes
    assert set(modes) == {True, False}
    after = network.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())


def test_modes_come_back_where_the_pieces_are_not_all_taken():
    network = in_training(small_segmenter())
    modes = [module.training for module in network.modules()]
    pieces = any_photo(network, whole_pixels=1, band_bytes=20_000)(smooth(100, 60))
    next(iter(pieces))
    assert [module.training for module in network.modules()] == modes


def test_the_heads_of_files_say_which_photos_are_too_large(tmp_path: Path):
    """70 x 90 is an image of 81 x 97; a sliver of 2 x 400 at a shorter side of 64 is 65 x 12801."""
    for name, size in {"a.png": (90, 70), "sliver.png": (2, 400), "wide.png": (400, 2)}.items():
        Image.new("RGB", size).save(tmp_path / name)
    torn = (tmp_path / "a.png").read_bytes()[:40]  # the head alone says the size
    (tmp_path / "a.png").write_bytes(torn)
    (tmp_path / "no photo.png").write_bytes(b"nothing")
    names = ["a.png", "sliver.png", "wide.png", "no photo.png", "missing.png"]
    segment = any_photo(small_segmenter(), shorter_side=64, most_pixels=65 * 12800)
    refused = too_large(segment, FolderStore(tmp_path), names)
    assert list(refused) == ["sliver.png", "wide.png"]
    assert refused["sliver.png"].startswith("an image of 12801x65 pixels is too large")
    assert refused["wide.png"].startswith("an image of 65x12801 pixels is too large")
    larger = any_photo(small_segmenter(), shorter_side=64, most_pixels=65 * 12801)
    assert too_large(larger, FolderStore(tmp_path), names) == {}


@pytest.mark.parametrize("size", [(40, 2), (2, 40)])
def test_a_photo_that_is_shown_enlarged_is_decoded_piece_by_piece(
    size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
):
    """40 x 2 pixels are an image of 673 x 33: each row of the photo has 17 rows of it behind."""
    network, pixels = small_segmenter(), smooth(*size)
    expected = answer(any_photo(network, shorter_side=33), pixels)
    pixels_of_a_row = 673 * 33 // size[0] + 1
    monkeypatch.setattr(any_size, "PIECE_BYTES", 2 * pixels_of_a_row * len(CLASSES) * 4)
    seen: list[int] = []
    head = network.get_submodule("head")
    head.register_forward_pre_hook(lambda module, args: seen.append(args[0].shape[2]))
    found = answer(any_photo(network, shorter_side=33, whole_pixels=1, band_bytes=20_000), pixels)
    assert (found - expected).abs().max() < 1e-3
    assert len(seen) == size[0] // 2
    if size[0] > size[1]:  # at a fourth of the image's resolution there are 169 rows
        assert max(seen) <= 2 * 17 // 4 + 2
