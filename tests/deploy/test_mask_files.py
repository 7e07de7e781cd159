from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from segmenters import CLASSES, small_segmenter, smooth

from xception.data.images import ImageError
from xception.deploy.engines import TorchEngine
from xception.deploy.mask_files import segment_file
from xception.deploy.metadata import Precision
from xception.deploy.segment import PhotoSegmenter


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "ein Foto é.png"
    Image.fromarray(smooth(70, 90).numpy()).save(path)
    return path


def whole(photo: Path, segmenter: PhotoSegmenter) -> torch.Tensor:
    with Image.open(photo) as image:
        (piece,) = segmenter(torch.from_numpy(np.array(image)))
    return piece.probabilities


def test_mask_overlay_and_coverage(photo: Path, tmp_path: Path):
    segmenter = PhotoSegmenter(TorchEngine(small_segmenter()))
    found = segment_file(segmenter, photo, tmp_path, "a")
    assert (found.mask, found.overlay) == (tmp_path / "a.mask.png", tmp_path / "a.overlay.jpg")
    assert found.probabilities is None
    assert (found.size, found.in_bands) == ((70, 90), False)
    expected = whole(photo, segmenter).argmax(0).numpy()
    with Image.open(found.mask) as mask:
        assert mask.mode == "P"
        assert (np.asarray(mask) == expected).all()
    assert list(found.coverage) == list(CLASSES)
    for number, share in enumerate(found.coverage.values()):
        assert share == (expected == number).mean()
    with Image.open(found.overlay) as picture:
        assert picture.width >= 90  # the legend is wider
        assert picture.height > 70
    assert {path.name for path in tmp_path.iterdir()} == {photo.name, "a.mask.png", "a.overlay.jpg"}


@pytest.mark.parametrize("bands", [False, True])
def test_probabilities_without_pickle(photo: Path, tmp_path: Path, bands: bool):
    engine = TorchEngine(small_segmenter())
    segmenter = PhotoSegmenter(engine, whole_pixels=1 if bands else 10**6, band_bytes=5000)
    found = segment_file(segmenter, photo, tmp_path, "a", probabilities=True)
    assert found.in_bands == bands
    assert found.probabilities == tmp_path / "a.npz"
    with np.load(tmp_path / "a.npz", allow_pickle=False) as stored:
        assert tuple(stored["classes"]) == CLASSES
        values = stored["probabilities"]
    assert (values.dtype, values.shape) == (np.float16, (70, 90, 4))
    expected = whole(photo, PhotoSegmenter(engine)).permute(1, 2, 0).numpy()
    assert np.abs(values.astype(np.float32) - expected).max() < 2e-3


def test_grey_networks_show_the_photo_in_its_colours(photo: Path, tmp_path: Path):
    segmenter = PhotoSegmenter(TorchEngine(small_segmenter(in_channels=1)))
    found = segment_file(segmenter, photo, tmp_path, "a")
    with Image.open(found.overlay) as picture:
        pixels = np.asarray(picture)[:70].astype(int)
    assert np.ptp(pixels, axis=2).max() > 20


class Disc:
    """An engine that sees a disc everywhere."""

    name = "disc"
    precision: Precision = "fp32"
    minimum_size = 1

    def __init__(self) -> None:
        self.card = small_segmenter().card

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        answer = torch.zeros(1, len(CLASSES), *x.shape[2:])
        answer[:, CLASSES.index("disc")] = 9
        return answer


@pytest.mark.parametrize(
    ("size", "ending"),
    [((2, 65_450), "jpg"), ((2, 65_490), "png"), ((65_500, 2), "jpg"), ((65_501, 2), "png")],
)
def test_an_overlay_too_long_for_a_jpeg_is_a_png(
    tmp_path: Path, size: tuple[int, int], ending: str
):
    """Of 65,490 rows it is, too: the legend adds 24 and more."""
    Image.new("RGB", size, (100, 100, 100)).save(tmp_path / "long.png")
    found = segment_file(PhotoSegmenter(Disc()), tmp_path / "long.png", tmp_path, "a")
    assert found.overlay == tmp_path / f"a.overlay.{ending}"
    assert {path.name for path in tmp_path.iterdir()} == {
        "long.png",
        "a.mask.png",
        f"a.overlay.{ending}",
    }
    with Image.open(found.overlay) as picture:
        assert picture.format == {"jpg": "JPEG", "png": "PNG"}[ending]
        assert picture.width >= size[0]
        assert picture.height > size[1]
    with Image.open(found.mask) as mask:
        assert mask.size == size
        assert (np.asarray(mask) == CLASSES.index("disc")).all()


def test_a_photo_that_is_too_large_for_the_model_leaves_nothing(photo: Path, tmp_path: Path):
    segmenter = PhotoSegmenter(TorchEngine(small_segmenter()), most_pixels=70 * 90)
    with pytest.raises(ImageError, match=r"ein Foto é\.png: an image of 81x97 pixels is too large"):
        segment_file(segmenter, photo, tmp_path, "a", probabilities=True)
    assert [path.name for path in tmp_path.iterdir()] == [photo.name]


def test_a_file_that_is_no_photo(tmp_path: Path):
    broken = tmp_path / "b.jpg"
    broken.write_bytes(b"\xff\xd8\xff nothing more")
    segmenter = PhotoSegmenter(TorchEngine(small_segmenter()))
    with pytest.raises(ImageError, match=r"b\.jpg"):
        segment_file(segmenter, broken, tmp_path, "a")
    assert [path.name for path in tmp_path.iterdir()] == ["b.jpg"]
