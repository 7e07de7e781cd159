"""timm's own weight files, read into the networks called `timm:NAME`.

timm saves a network's state dict, as a safetensors file or by `torch.save`. The names are its own
but for the last layer, which is ours; what that is called there, timm says of each network.
"""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from xception.data.preprocess import RESAMPLING, Preprocess
from xception.errors import UserError
from xception.models.classifier import Classifier, as_classifier
from xception.models.network import Network
from xception.models.options import short
from xception.models.timm_models import TimmClassifier
from xception.models.zoo import create_model
from xception.weights.card import Architecture, Card
from xception.weights.imagenet import imagenet_classes
from xception.weights.names.source import OPTIONAL
from xception.weights.readers.detect import open_foreign
from xception.weights.readers.stored import ForeignFileError, StoredTensor

LAST = "head.classifier."
KNOWN_CLASSES = (1000, 1001)  # of ILSVRC-2012, without and with a background


def read_timm(
    name: str, path: Path, *, likely: Sequence[str] = (), size: int | None = None
) -> Classifier:
    """The network `timm:NAME` with the weights of a file, in evaluation mode and with a card.

    Args:
        name: "timm:resnet50".
        path: what timm saved.
        likely: what the logits stand for, if there are as many; timm's files do not say it. Else
            they are the classes of ImageNet where there are as many, or mere numbers.
        size: side of the images, by default the one that timm gives.

    Raises:
        ForeignFileError: the file is not sound, or does not hold this network.
        UserError: timm is not there or has no such network, or the network cannot be fed.
    """
    with open_foreign(path) as foreign:
        with torch.device("meta"):
            pattern = create_model(name)
        feeding = _feeding(pattern)
        theirs = feeding["classifier"]
        if not isinstance(theirs, str):
            raise UserError(f"{name} ends in several layers: its weights cannot be read")
        options = {
            "num_classes": _length(foreign.tensors, f"{theirs}.weight", 0, path),
            "in_channels": _length(foreign.tensors, f"{feeding['first_conv']}.weight", 1, path),
        }
        model = as_classifier(create_model(name, **options), name)
        weights = _weights(model, foreign.tensors, theirs, path)
    model.load_state_dict(weights)
    model.card = _card(name, model, path, feeding, likely, size)
    return model.eval()


def _feeding(model: Network) -> dict[str, Any]:
    """What timm says of a network: how it is fed, and what its first and last layers are called."""
    if not isinstance(model, TimmClassifier):
        raise UserError("only networks called timm:NAME have weight files of timm's")
    known: dict[str, Any] = dict(model.backbone.default_cfg)
    first = known.get("first_conv")
    if isinstance(first, list | tuple):
        known["first_conv"] = first[0]
    return known


def _length(tensors: Mapping[str, StoredTensor], name: str, axis: int, path: Path) -> int:
    if name not in tensors or len(tensors[name].shape) <= axis:
        raise ForeignFileError(path, f"it has no {name}; is it of this network, as timm saves it?")
    return tensors[name].shape[axis]


def _weights(
    model: Classifier, tensors: Mapping[str, StoredTensor], last: str, path: Path
) -> dict[str, Tensor]:
    """Our state dict from timm's names; ForeignFileError if they are not the same tensors."""
    wanted = {
        name: f"{last}.{name.removeprefix(LAST)}"
        if name.startswith(LAST)
        else name.removeprefix("backbone.")
        for name in model.state_dict()
    }
    lacking = [name for name in wanted.values() if name not in tensors]
    lacking = [name for name in lacking if not name.endswith(OPTIONAL)]
    extra = set(tensors) - set(wanted.values())
    if lacking or extra:
        what, which = ("lacks", min(lacking)) if lacking else ("alone has", min(extra))
        raise ForeignFileError(path, f"it is not of this network: it {what} {short(which)}")
    weights = {}
    for name, value in model.state_dict().items():
        if wanted[name] not in tensors:
            continue
        stored = tensors[wanted[name]]
        # A last layer may be a 1x1 convolution there: the same numbers with two axes more.
        shape = (*value.shape, 1, 1) if name == f"{LAST}weight" else tuple(value.shape)
        if stored.shape not in (tuple(value.shape), shape):
            raise ForeignFileError(
                path, f"{short(stored.name)} is {stored.shape}, not {tuple(value.shape)}"
            )
        weights[name] = torch.from_numpy(stored.read()).reshape(value.shape).to(value.dtype)
    counters = {n: v for n, v in model.state_dict().items() if n not in weights}
    return {**weights, **counters}


def _card(
    name: str,
    model: Classifier,
    path: Path,
    feeding: Mapping[str, Any],
    likely: Sequence[str],
    size: int | None,
) -> Card:
    count = model.options["num_classes"]
    classes = likely
    if len(likely) != count:
        known = count in KNOWN_CLASSES
        classes = imagenet_classes(count) if known else tuple(map(str, range(count)))
    channels = model.options["in_channels"]
    if channels not in (1, 3):
        raise UserError(f"{path}: a network for images of {channels} channels; 1 and 3 can be fed")
    if feeding["interpolation"] not in RESAMPLING:
        raise UserError(
            f"{name} wants its images resized by {feeding['interpolation']!r:.40}; "
            f"{' and '.join(RESAMPLING)} are known"
        )
    mean, std = ((*feeding[key],) for key in ("mean", "std"))
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return Card(
        architecture=Architecture(name=name, options=model.options),
        task="classification",
        classes=tuple(classes),
        preprocess=Preprocess(
            size=size or feeding["input_size"][-1],
            crop=feeding["crop_pct"] if size is None else 1.0,
            interpolation=feeding["interpolation"],
            channels=channels,
            mean=mean if len(mean) == channels else mean[:1],
            std=std if len(std) == channels else std[:1],
        ),
        source={"library": "timm", "network": model.options["architecture"], "file": path.name,
                "sha256": digest},
    )  # fmt: skip
