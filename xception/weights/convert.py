"""Other libraries' weight files to models of ours, and back.

Values are never touched, only the order of their axes. The options of the network are set to the
source's definition, so that it answers as the source does, number for number.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from xception.data.preprocess import Preprocess
from xception.errors import UserError
from xception.models.network import Network
from xception.models.zoo import ZOO, create_model
from xception.weights.card import Architecture, Card
from xception.weights.header import CARD_KEY, MAX_HEADER_BYTES, open_regular
from xception.weights.identify import Fit, head_of, identify, network_shapes, some
from xception.weights.model_file import load_model
from xception.weights.names.source import OPTIONAL, Source
from xception.weights.names.table import LAYOUTS, Row
from xception.weights.readers.detect import open_foreign
from xception.weights.readers.stored import Foreign, ForeignFileError, StoredTensor

NO_CLASSIFIER = ("no classifier",)
"""The classes of a model whose file had none: its last layer gives zeros until it is trained."""


class Converted(NamedTuple):
    """A model made of another library's file; its `card` says what it is."""

    model: Network
    source: Source
    left_out: tuple[str, ...]
    """Tensors of the file that are no weights."""
    headless: bool
    """The file had no classifier: see NO_CLASSIFIER."""


def load_any(path: Path) -> Network:
    """The model of a file, ours or another library's, in evaluation mode.

    Raises:
        UserError: the file is not sound, or holds no network that is known.
    """
    return load_model(path) if is_ours(path) else read_foreign(path).model


def is_ours(path: Path) -> bool:
    """Whether a file looks like one of our model files; a folder never does.

    Raises:
        UserError: there is no such file.
    """
    if path.is_dir() or not path.exists():  # a TensorFlow checkpoint may be a mere prefix
        return False
    with open_regular(path) as file:
        length = int.from_bytes(file.read(8), "little")
        return length <= MAX_HEADER_BYTES and CARD_KEY.encode() in file.read(length)


def read_foreign(
    path: Path,
    *,
    classes: Sequence[str] | None = None,
    background: bool = True,
    license: str | None = None,
) -> Converted:
    """The model that another library's file holds, in evaluation mode.

    Args:
        path: see `weights.readers.detect`.
        classes: what the logits stand for; by default their numbers.
        background: keep the first logit, which is no class in 1001-class networks of TensorFlow.
        license: SPDX identifier of the weights' licence, for the card.

    Raises:
        ForeignFileError: the file is not sound, or holds no network that is known.
        UserError: the number of `classes` is not that of the logits.
    """
    with open_foreign(path) as foreign:
        fit = identify(foreign, path)
        weights = read_weights(foreign, fit, path)
    if not background:
        _drop_first(fit, weights, path)
    with torch.device("meta"):
        model = create_model(fit.source.model, **fit.options)
    model.load_state_dict(weights, assign=True)
    model.card = _card(model, fit, _classes(fit, classes, path), license)
    return Converted(model.eval(), fit.source, fit.left_out, fit.headless)


def read_weights(foreign: Foreign, fit: Fit, path: Path) -> dict[str, Tensor]:
    """Our state dict, one tensor of the file after the other.

    Raises:
        ForeignFileError: a tensor holds no numbers that float32 can hold exactly.
    """
    weights = {}
    for row in fit.rows:
        values = _numbers(foreign.tensors[fit.renamed[row.theirs]], row, path)
        ours = np.asarray(LAYOUTS[row.layout].to_ours(values), order="C")
        weights[row.ours] = torch.from_numpy(ours)
    for name, shape in fit.shapes.items():
        if name not in weights:  # counters of batches that older files lack, and a missing head
            whole = name.endswith(OPTIONAL)
            weights[name] = torch.zeros(shape, dtype=torch.int64 if whole else torch.float32)
    return weights


def to_foreign(model: Network, source: Source) -> dict[str, np.ndarray]:
    """The weights of a model under another library's names, in its order of axes.

    Counters of batches are left out where the library has none, and the last layer of a model that
    has no classifier.

    Raises:
        UserError: the library's definition would not answer as this model does.
    """
    state = model.state_dict()
    _check_definition(model, source)
    rows = source.rows(state)
    used = {row.ours for row in rows}
    lost = [name for name in state if name not in used and not name.endswith(OPTIONAL)]
    if lost:
        raise UserError(f"{source.title} has no {some(lost)}")
    headless = model.card is not None and model.card.classes == NO_CLASSIFIER
    return {
        row.theirs: np.asarray(LAYOUTS[row.layout].to_theirs(state[row.ours].numpy()), order="C")
        for row in rows
        if not (headless and row.ours.startswith(head_of(source)))
    }


def _check_definition(model: Network, source: Source) -> None:
    """UserError unless the library's definition can be the model's."""
    for option, value in source.options.items():
        if option in model.options and model.options[option] != value:
            raise UserError(
                f"{source.title} has {option} {value}, this model {model.options[option]}: "
                "there it would answer otherwise"
            )
    open_options = {"num_classes", "in_channels", *source.present}
    open_options |= {"width"} if source.width_of is not None else set()
    options = {key: model.options[key] for key in open_options if key in model.options}
    here = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    there = network_shapes(source.model, {**source.options, **options})
    if here != there:
        differ = [name for name in here | there if here.get(name) != there.get(name)]
        raise UserError(f"this model is not {source.title}; it differs at {some(differ)}")


def _numbers(tensor: StoredTensor, row: Row, path: Path) -> np.ndarray:
    """The values of a tensor in the type of ours; never rounded."""
    if row.ours.endswith(OPTIONAL):
        if np.dtype(tensor.dtype).kind not in "iu":
            raise ForeignFileError(path, f"{tensor.name} counts in {tensor.dtype}")
        return tensor.read().astype(np.int64, copy=False)
    if tensor.dtype not in ("float32", "float16"):
        raise ForeignFileError(
            path, f"{tensor.name} holds {tensor.dtype}; float32 and shorter floats are understood"
        )
    return tensor.read().astype(np.float32, copy=False)


def _drop_first(fit: Fit, weights: dict[str, Tensor], path: Path) -> None:
    """Forget the first logit."""
    if fit.headless or fit.options["num_classes"] < 2:
        raise UserError(f"{path} has no background class to drop")
    for name in weights:
        if name.startswith(head_of(fit.source)):
            weights[name] = weights[name][1:].contiguous()
    fit.options["num_classes"] -= 1


def _classes(fit: Fit, classes: Sequence[str] | None, path: Path) -> tuple[str, ...]:
    count = fit.options["num_classes"]
    if fit.headless:
        if classes is not None:
            raise UserError(f"{path} has no classifier, so no classes to name")
        return NO_CLASSIFIER
    if classes is None:
        return tuple(str(number) for number in range(count))
    if len(classes) != count:
        raise UserError(f"{path} has {count} logits, but {len(classes)} classes were named")
    return tuple(classes)


def _card(model: Network, fit: Fit, classes: tuple[str, ...], license: str | None) -> Card:
    channels = model.options["in_channels"]
    if channels not in (1, 3):
        raise UserError(f"a network for images of {channels} channels; 1 and 3 can be fed")
    fed = {"size": ZOO[fit.source.model].size, **fit.source.preprocess, "channels": channels}
    return Card(
        architecture=Architecture(name=fit.source.model, options=model.options),
        task="segmentation" if "segmentation" in model.TASKS else "classification",
        classes=classes,
        preprocess=Preprocess(**fed),
        license=license,
    )
