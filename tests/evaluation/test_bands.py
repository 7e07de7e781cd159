import pytest
import torch
from segmenters import small_segmenter, smooth

from xception.evaluation.bands import BandedImage, steps_of
from xception.evaluation.inference import View
from xception.models.classifier import Classifier
from xception.models.deeplab_v3plus import DeepLabV3Plus


@pytest.mark.parametrize("backbone", ["xception41", "xception71", "xception", "mobilenet_v1"])
def test_the_steps_are_the_backbone(backbone: str):
    network = small_segmenter(backbone).get_submodule("backbone")
    assert isinstance(network, Classifier)
    x = torch.randn(1, 3, 65, 49, generator=torch.Generator().manual_seed(0))
    steps, before_low, low = steps_of(network)
    with torch.inference_mode():
        stages = network.forward_features(x)
        given = []
        for step in steps:
            x = step.run(x)
            given.append(x.clone())
        torch.testing.assert_close(given[-1], list(stages.values())[-1])
        torch.testing.assert_close(low.run(given[before_low]), stages[network.LOW_LEVEL])
    with pytest.raises(TypeError, match="layers of a Classifier are not known"):
        steps_of(Classifier())


def test_bands_are_narrow():
    """What a layer is given at once is a small part of the image."""
    network = small_segmenter()
    assert isinstance(network, DeepLabV3Plus)
    heights: list[int] = []
    *_, deepest = network.backbone.get_submodule("middle").children()
    deepest.register_forward_pre_hook(lambda module, inputs: heights.append(inputs[0].shape[2]))
    pixels, view = smooth(1601, 64), View(1601, 64)
    with torch.inference_mode():
        image = BandedImage(
            network, view, pixels, network.card.preprocess, torch.device("cpu"), band_bytes=20_000
        )
        assert image.rows(700, 703).shape == (4, 3, 65)
    sample, *bands = heights  # the first one is narrow and tells heights
    assert sample == 101
    assert max(bands) < 30
