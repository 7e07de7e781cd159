"""Other libraries' weight files to models of ours, and back.

Values are never touched, only the order of their axes. The options of the network are set to the
source's definition, so that it answers as the source does, number for number.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from xception.data.preprocess import Preprocess
from xception.errors import UserError
from xception.models.network import Network
from xception.models.zoo import ZOO, create_model
from xception.weights.card import Architecture, Card, read_card
from xception.weights.definition import check_definition
from xception.weights.header import CARD_KEY, MAX_HEADER_BYTES, open_regular
from xception.weights.identify import Fit, head_of, heads_of, identify, some
from xception.weights.imagenet import imagenet_classes
from xception.weights.model_file import load_model, save_tensors
from xception.weights.names.source import OPTIONAL, Source
from xception.weights.names.table import LAYOUTS
from xception.weights.readers.detect import open_foreign
from xception.weights.readers.stored import Foreign, ForeignFileError, StoredTensor
from xception.weights.tensor_file import Lazy

NO_CLASSIFIER = ("no classifier",)
"""The classes of a model whose file had none: its last layer gives zeros until it is trained."""

MAX_CLASSES_BYTES = MAX_HEADER_BYTES // 2  # the rest of a file's header must fit too


class Converted(NamedTuple):
    """A model made of another library's file; its `card` says what it is."""

    model: Network
    source: Source
    left_out: tuple[str, ...]
    """Tensors of the file that are no weights, and what holds others beside the state dict."""
    headless: bool
    """The file had no classifier: see NO_CLASSIFIER."""


class Wishes(NamedTuple):
    """What a file does not say of itself."""

    classes: Sequence[str] | Literal["imagenet"] | None = None
    """What the logits stand for; by default their numbers."""
    background: bool = True
    """Keep the first logit, which is no class in 1001-class networks of TensorFlow."""
    license: str | None = None
    """SPDX identifier of the weights' licence, for the card."""
    origin: Mapping[str, str] = MappingProxyType({})
    """Where the file comes from, for the card."""


NONE = Wishes()


def load_any(path: Path) -> Network:
    """The model of a file, ours or another library's, in evaluation mode.

    Raises:
        UserError: the file is not sound, or holds no network that is known.
    """
    return load_model(path) if is_ours(path) else read_foreign(path).model


def card_of(path: Path) -> Card:
    """The card of a file, ours or another library's; its weights are not read.

    Raises:
        UserError: the file is not sound, or holds no network that is known.
    """
    if is_ours(path):
        return read_card(path)
    with open_foreign(path) as foreign:
        return _plan(foreign, path, NONE).model.card


def is_ours(path: Path) -> bool:
    """Whether a file looks like one of our model files; a folder never does.

    Raises:
        UserError: the file cannot be read.
    """
    if path.is_dir() or not path.exists():  # a TensorFlow checkpoint may be a mere prefix
        return False
    with open_regular(path) as file:
        length = int.from_bytes(file.read(8), "little")
        return length <= MAX_HEADER_BYTES and CARD_KEY.encode() in file.read(length)


def read_foreign(path: Path, wishes: Wishes = NONE) -> Converted:
    """The model that another library's file holds, in evaluation mode.

    Args:
        path: see `weights.readers.detect`.
        wishes: what the file does not say.

    Raises:
        ForeignFileError: the file is not sound, or holds no network that is known.
        UserError: the wishes do not fit it.
    """
    with open_foreign(path) as foreign:
        plan = _plan(foreign, path, wishes)
        weights = {name: tensor.make().contiguous() for name, tensor in plan.tensors.items()}
    plan.model.load_state_dict(weights, assign=True)
    return _converted(plan)


def convert_file(path: Path, out: Path, wishes: Wishes = NONE) -> Converted:
    """Write another library's file as a model file of ours, one tensor after the other.

    Returns:
        What was written; the network has shapes, but no memory.

    Raises:
        ForeignFileError: the file is not sound, or holds no network that is known.
        UserError: the wishes do not fit it, or the file cannot be written.
    """
    with open_foreign(path) as foreign:
        plan = _plan(foreign, path, wishes)
        save_tensors(out, plan.model, plan.model.card, plan.tensors)
    return _converted(plan)


class _Plan(NamedTuple):
    """A network without memory, and how each of its tensors is got."""

    model: Network
    tensors: dict[str, Lazy]
    fit: Fit


def _plan(foreign: Foreign, path: Path, wishes: Wishes) -> _Plan:
    fit = identify(foreign, path)
    tensors = lazy_weights(foreign, fit, path)
    if not wishes.background:
        _drop_first(fit, tensors, path)
    with torch.device("meta"):
        model = create_model(fit.source.model, **fit.options)
    model.card = _card(model, fit, path, wishes)
    return _Plan(model, tensors, fit)


def _converted(plan: _Plan) -> Converted:
    return Converted(plan.model.eval(), plan.fit.source, plan.fit.left_out, plan.fit.headless)


def lazy_weights(foreign: Foreign, fit: Fit, path: Path) -> dict[str, Lazy]:
    """Our state dict, each tensor read when it is asked for and while the file is open.

    Raises:
        ForeignFileError: a tensor holds no numbers that float32 can hold exactly.
    """
    rows = {row.ours: row for row in fit.rows}
    tensors = {}
    for name, shape in fit.shapes.items():
        dtype = torch.int64 if name.endswith(OPTIONAL) else torch.float32
        if name in rows:
            stored = foreign.tensors[fit.renamed[rows[name].theirs]]
            _check_type(stored, dtype, path)
            make = partial(_read, stored, rows[name].layout, dtype)
        else:  # a counter of batches that older files lack, or a missing classifier
            make = partial(torch.zeros, shape, dtype=dtype)
        tensors[name] = Lazy(dtype, shape, make)
    return tensors


def _read(stored: StoredTensor, layout: str, dtype: torch.dtype) -> Tensor:
    """The values of one tensor in our order of axes; in memory they lie as they were read."""
    return torch.from_numpy(LAYOUTS[layout].to_ours(stored.read())).to(dtype)


def _check_type(stored: StoredTensor, dtype: torch.dtype, path: Path) -> None:
    """ForeignFileError unless the values can be kept without rounding."""
    whole = np.dtype(stored.dtype).kind in "iu"
    if dtype == torch.int64 and not whole:
        raise ForeignFileError(path, f"{stored.name} counts in {stored.dtype}")
    if dtype == torch.float32 and stored.dtype not in ("float32", "float16"):
        raise ForeignFileError(
            path, f"{stored.name} holds {stored.dtype}; float32 and shorter floats are understood"
        )


def to_foreign(model: Network, source: Source) -> dict[str, np.ndarray]:
    """The weights of a model under another library's names, in its order of axes.

    Counters of batches are left out where the library has none, and the last layer of a model that
    has no classifier.

    Raises:
        UserError: the library's definition would not answer as this model does.
    """
    state = model.state_dict()
    check_definition(model, source)
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


def _drop_first(fit: Fit, tensors: dict[str, Lazy], path: Path) -> None:
    """Forget the first logit, also that of a tower."""
    if fit.headless or fit.options["num_classes"] < 2:
        raise UserError(f"{path} has no background class to drop")
    for name, (dtype, shape, make) in tensors.items():
        if name.startswith(heads_of(fit.source)):
            rest = partial(_without_first, make)
            tensors[name] = Lazy(dtype, (shape[0] - 1, *shape[1:]), rest)
    fit.options["num_classes"] -= 1


def _without_first(make: Callable[[], Tensor]) -> Tensor:
    return make()[1:]


def _card(model: Network, fit: Fit, path: Path, wishes: Wishes) -> Card:
    channels = model.options["in_channels"]
    if channels not in (1, 3):
        raise UserError(f"a network for images of {channels} channels; 1 and 3 can be fed")
    fed = {"size": ZOO[fit.source.model].size, **fit.source.preprocess, "channels": channels}
    origin = {
        "library": fit.source.layout,
        "network": fit.source.network,
        "file": _readable(path.name),
    }
    if path.is_file():
        with path.open("rb") as file:
            origin["sha256"] = hashlib.file_digest(file, "sha256").hexdigest()
    return Card(
        architecture=Architecture(name=fit.source.model, options=model.options),
        task="segmentation" if "segmentation" in model.TASKS else "classification",
        classes=_classes(fit, wishes.classes, path),
        preprocess=Preprocess(**fed),
        source={**origin, **wishes.origin},
        license=wishes.license,
    )


def _readable(name: str) -> str:
    """A file's name as text: Linux allows bytes in it that are none."""
    return name.encode("utf-8", "replace").decode()


def _classes(
    fit: Fit, classes: Sequence[str] | Literal["imagenet"] | None, path: Path
) -> tuple[str, ...]:
    count = fit.options["num_classes"]
    if fit.headless:
        if classes is not None:
            raise UserError(f"{path} has no classifier, so no classes to name")
        return NO_CLASSIFIER
    if classes is None:
        return tuple(str(number) for number in range(count))
    if classes == "imagenet":
        try:
            return imagenet_classes(count)
        except ValueError as error:
            raise UserError(f"{path} has {count} logits: {error}") from error
    if len(classes) != count:
        raise UserError(f"{path} has {count} logits, but {len(classes)} classes were named")
    size = len(json.dumps(list(classes), ensure_ascii=False).encode())
    if size > MAX_CLASSES_BYTES:
        raise UserError(
            f"the names of the classes take {size:,} bytes of the card; "
            f"{MAX_CLASSES_BYTES:,} at most"
        )
    return tuple(classes)
