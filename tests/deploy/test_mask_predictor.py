import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from segmenters import CLASSES, small_segmenter, smooth

import xception
from xception.data.images import ImageError
from xception.deploy.export import SUFFIXES, formats, write
from xception.deploy.mask_predictor import MaskPredictor
from xception.deploy.runtime import Predictor
from xception.errors import UserError
from xception.weights.model_file import save_model

CLOSE = 1e-3  # the logits of such networks are large; test_trace.py explains


@pytest.fixture(scope="module")
def photo() -> Image.Image:
    return Image.fromarray(smooth(65, 97).numpy())  # nothing is added to such sides


def test_what_the_network_says_of_each_pixel(photo: Image.Image, tmp_path: Path):
    network = small_segmenter(backbone="mobilenet_v1").eval()
    file = tmp_path / f"m{SUFFIXES['torch']}"
    write(network, "torch", file)
    x = network.card.preprocess.normalize(torch.from_numpy(np.array(photo))[None])
    with torch.no_grad():
        expected = network(x)[0].softmax(0).numpy()
    predictor = xception.MaskPredictor(file)
    assert predictor.classes == CLASSES
    photo.save(tmp_path / "é.png")
    buffer = io.BytesIO()
    photo.save(buffer, "PNG")
    found = predictor(photo)
    assert (found.mask == expected.argmax(0)).mean() > 0.999  # folded, and some are undecided
    for source in (tmp_path / "é.png", str(tmp_path / "é.png"), buffer.getvalue()):
        assert (predictor(source).mask == found.mask).all()
    assert list(found.coverage) == list(CLASSES)
    assert sum(found.coverage.values()) == pytest.approx(1)
    assert found.coverage["disc"] == (found.mask == 1).mean()
    np.testing.assert_allclose(predictor.probabilities(photo), expected, atol=CLOSE)
    with pytest.raises(ImageError, match="the image: "):
        predictor(b"nothing")
    with pytest.raises(UserError, match="for `MaskPredictor`"):
        Predictor(file)


def test_a_sliver_that_would_grow_too_large(tmp_path: Path):
    network = small_segmenter(training={"joint": {"shorter_side": 384}})
    save_model(tmp_path / "m.safetensors", network, network.card)
    photo = Image.new("RGB", (20_000, 1))
    with pytest.raises(ImageError, match="the image: an image of 385x7680001 pixels is too large"):
        MaskPredictor(tmp_path / "m.safetensors")(photo)


def test_the_same_mask_whatever_computes_it(photo: Image.Image, tmp_path: Path):
    network = small_segmenter(backbone="mobilenet_v1").eval()
    kinds = formats()
    if len(kinds) < 3:
        pytest.skip(f"NOT TESTED: masks of all formats; here are only {', '.join(kinds)}")
    predictors = []
    for kind in kinds:
        write(network, kind, tmp_path / f"m{SUFFIXES[kind]}")
        predictors.append(MaskPredictor(tmp_path / f"m{SUFFIXES[kind]}"))
    for other in predictors[1:]:
        assert (other(photo).mask == predictors[0](photo).mask).mean() > 0.999
        found, expected = (one.probabilities(photo) for one in (other, predictors[0]))
        np.testing.assert_allclose(found, expected, atol=CLOSE)
