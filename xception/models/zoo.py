"""The models by name."""

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any, NamedTuple

from xception.errors import UserError
from xception.models import timm_models
from xception.models.aligned_xception import Xception41, Xception65, Xception71
from xception.models.building import build, closest
from xception.models.deeplab_v3plus import DeepLabV3Plus
from xception.models.inception_v3 import InceptionV3
from xception.models.inception_v3_2016 import InceptionV3August2016
from xception.models.mobilenet_v1 import MobileNetV1
from xception.models.network import Network
from xception.models.options import short
from xception.models.xception import Xception


class Entry(NamedTuple):
    """What the zoo knows of one model."""

    name: str
    build: Callable[..., Network]
    size: int  # pixels of the side of the image, where nothing else is asked for
    summary: str  # one line
    citation: str


DEEPLAB = (
    'Chen et al., "Encoder-Decoder with Atrous Separable Convolution for Semantic Image '
    'Segmentation", ECCV 2018, arXiv:1802.02611'
)
_ENTRIES = (
    Entry(
        "xception",
        Xception,
        299,
        "36 layers of depthwise separable convolutions with residual connections",
        'Chollet, "Xception: Deep Learning with Depthwise Separable Convolutions", CVPR 2017, '
        "arXiv:1610.02357",
    ),
    Entry(
        "mobilenet_v1",
        MobileNetV1,
        224,
        "one convolution and 13 separable ones, of any width; small and quick",
        'Howard et al., "MobileNets: Efficient Convolutional Neural Networks for Mobile Vision '
        'Applications", 2017, arXiv:1704.04861',
    ),
    *(
        Entry(f"xception{layers}", make, 299, f"aligned Xception of {layers} layers", DEEPLAB)
        for layers, make in ((41, Xception41), (65, Xception65), (71, Xception71))
    ),
    Entry(
        "deeplab_v3plus",
        DeepLabV3Plus,
        513,
        "segmentation: a dilated backbone, atrous pyramid pooling and a decoder",
        DEEPLAB,
    ),
    Entry(
        "inception_v3",
        InceptionV3,
        299,
        "modules of parallel convolutions with factorised filters; what Xception is measured by",
        'Szegedy et al., "Rethinking the Inception Architecture for Computer Vision", CVPR 2016, '
        "arXiv:1512.00567",
    ),
    Entry(
        "inception_v3_2016",
        InceptionV3August2016,
        299,
        "the Inception V3 of Table 3 of the Xception paper, as Keras had it in August 2016",
        'Chollet, "Xception: Deep Learning with Depthwise Separable Convolutions", CVPR 2017, '
        "arXiv:1610.02357",
    ),
)
ZOO: Mapping[str, Entry] = MappingProxyType({entry.name: entry for entry in _ENTRIES})


def list_models() -> list[str]:
    """The names that `create_model` knows, but for those of timm (`timm:NAME`)."""
    return list(ZOO)


def find_entry(name: str) -> Entry:
    """What the zoo knows of the model of this name: of `list_models()`, or `timm:NAME`.

    Raises:
        UserError: there is no such model, or timm is not installed; says what would be right.
    """
    if name in ZOO:
        return ZOO[name]
    if not name.startswith(timm_models.PREFIX):
        raise UserError(f"no model is called {short(name)}{closest(name, ZOO)}")
    architecture = name.removeprefix(timm_models.PREFIX)
    return Entry(
        name,
        partial(timm_models.TimmClassifier, architecture=architecture),
        timm_models.image_size(architecture),
        f"{architecture} of timm",
        timm_models.CITATION,
    )


def create_model(name: str, **options: Any) -> Network:
    """A fresh model of the zoo, in training mode.

    Args:
        name: one of `list_models()`, or `timm:NAME` for any classification network of timm.
        options: the arguments of that model's class.

    Raises:
        UserError: the name, an option or its value is not right; says what would be.
    """
    make = find_entry(name).build
    architecture = name.removeprefix(timm_models.PREFIX)
    if name not in ZOO and options.get("architecture", architecture) != architecture:
        raise UserError(f"{name}: the architecture must be {architecture!r}, or be left out")
    return build(name, make, options)
