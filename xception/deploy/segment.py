"""Photos of any size to the class of each pixel, as a trained model says it.

One answer, or the mean of several: at the scales of Chen et al. 2018, arXiv:1802.02611 (Table 5:
0.5 to 1.75), mirrored, at another output stride than the network was trained with. How large photos
pass through the network says `evaluation.any_size`.
"""

from collections.abc import Sequence
from pathlib import Path

import torch

from xception.data.legend import default_colours
from xception.deploy.engines import STATISTICS, Engine, EngineModule, TorchEngine, open_engine
from xception.deploy.fold import fold
from xception.errors import UserError
from xception.evaluation.any_size import MOST_PIXELS, WHOLE_PIXELS, AnyPhoto
from xception.evaluation.bands import BAND_BYTES
from xception.evaluation.segmentation import IGNORED
from xception.models.network import Network
from xception.models.surgery import operate
from xception.models.zoo import create_model
from xception.weights.card import Card

SCALES = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)  # Table 5, "MS"


class PhotoSegmenter(AnyPhoto):
    """A trained model that takes photos of any size; gives their pieces.

    Args:
        engine: of a model that segments.
        scales: sizes at which it sees a photo; the mean of its probabilities counts.
        mirror: whether it sees the photo mirrored too; None leaves it to the model's card.
        whole_pixels: an image of more pixels than this passes through the network in bands.
        band_bytes: of the largest map between two layers, then.
        most_pixels: a photo whose image would have more than this is refused.

    Raises:
        UserError: the model does not segment, or its card is not sound.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        scales: Sequence[float] = (1.0,),
        mirror: bool | None = None,
        whole_pixels: int = WHOLE_PIXELS,
        band_bytes: int = BAND_BYTES,
        most_pixels: int = MOST_PIXELS,
    ):
        self.card: Card = engine.card
        if self.card.task != "segmentation":
            raise UserError("this model classifies images; one that segments them is needed")
        if len(self.card.classes) > IGNORED:
            raise UserError(f"more classes than a mask can hold: {len(self.card.classes)}")
        self.classes = self.card.classes
        # Those of the masks that it learnt from, where it knows.
        self.colours = self.card.colours or default_colours(len(self.classes))
        options, device = self.card.architecture.options, torch.device("cpu")
        if isinstance(engine, TorchEngine):
            options, device = engine.network.options, engine.device
        super().__init__(
            engine.network if isinstance(engine, TorchEngine) else EngineModule(engine),
            self.card.preprocess,
            num_classes=len(self.classes),
            device=device,
            output_stride=_whole_number(options.get("output_stride"), "output_stride"),
            minimum_size=engine.minimum_size,
            shorter_side=shorter_side(self.card),
            scales=scales,
            mirror=mirror,
            whole_pixels=whole_pixels,
            band_bytes=band_bytes,
            most_pixels=most_pixels,
        )


def open_segmenter(
    path: str | Path,
    *,
    device: torch.device | str = "cpu",
    scales: Sequence[float] = (1.0,),
    mirror: bool | None = None,
    output_stride: int | None = None,
) -> PhotoSegmenter:
    """The model at a path, ready for photos; on a CPU with its normalisations folded.

    Args:
        path: a run folder, a model file, or an exported one.
        device: where to compute.
        scales: see `PhotoSegmenter`.
        mirror: the same.
        output_stride: 32, 16 or 8; None is that of the training.

    Raises:
        UserError: there is no sound model, it does not segment, or it is an exported one, which
            keeps its output stride.
    """
    engine = open_engine(path, device=device)
    if engine.card.task != "segmentation":
        raise UserError(f"{path}: classifies images; a model that segments them is needed")
    if isinstance(engine, TorchEngine):
        network = engine.network
        if output_stride is not None:
            network = at_output_stride(network, output_stride)
        if engine.device.type == "cpu":
            fold(network)
        engine = TorchEngine(network, device)
    elif output_stride not in (None, engine.card.architecture.options.get("output_stride")):
        raise UserError(f"{path}: an exported model keeps its output stride; give the model file")
    return PhotoSegmenter(engine, scales=scales, mirror=mirror)


def at_output_stride(network: Network, output_stride: int) -> Network:
    """The same network with the same weights at another output stride (Table 5, "eval OS").

    Raises:
        UserError: there is no such output stride.
    """
    if network.options.get("output_stride") == output_stride:
        return network
    name = network.card.architecture.name
    weights = network.state_dict()
    with torch.device("meta"):
        other = create_model(name, **{**network.options, "output_stride": output_stride})
        operate(other, network.surgery)
        if not any(key.endswith(STATISTICS) for key in weights):
            fold(other)
    other.load_state_dict(weights, assign=True)
    other.card = network.card
    return other.eval()


def shorter_side(card: Card) -> int | None:
    """The pixels of the shorter side to which the training scaled photos; None: their own.

    Raises:
        UserError: the card is not sound.
    """
    joint = card.training.get("joint")
    side = joint.get("shorter_side") if isinstance(joint, dict) else None
    return None if side is None else _whole_number(side, "joint.shorter_side")


def _whole_number(value: object, name: str) -> int:
    if type(value) is not int or not 1 <= value <= 2**16:
        raise UserError(f"the model's card is wrong at {name!r}: {value!r:.60}")
    return value
