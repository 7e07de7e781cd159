"""Model files: the weights, and a card that says what they are and how to feed them.

A model file is a safetensors file whose metadata has one key, `xception.card`, with the card as
JSON. The architecture comes from the zoo by name and options; no code and no pickle is ever read.
"""

import json
from collections.abc import Callable, Mapping
from io import BufferedReader
from pathlib import Path

import torch

from xception.errors import UserError
from xception.models.classifier import Classifier, as_classifier
from xception.models.network import Network
from xception.models.segmenter import Segmenter
from xception.models.surgery import operate
from xception.models.zoo import create_model
from xception.weights.atomic import write_whole
from xception.weights.card import VERSION, Card, parse_card
from xception.weights.header import (
    CARD_KEY,
    MAX_HEADER_BYTES,
    Header,
    ModelFileError,
    Stored,
    open_regular,
    parse_json,
    read_header,
)
from xception.weights.tensor_file import Lazy, header_bytes, lazy, write_tensors

MODEL_FILE = "model.safetensors"
"""What the model file of a run is called."""


def save_model(path: str | Path, model: Network, card: Card) -> None:
    """Write the weights and their card; the same weights and card give the same bytes.

    Raises:
        ValueError: the card is not this model's, is too long, or holds a number that is not finite.
        UserError: the file cannot be written; a file that stood there stays as it was.
    """
    if card.architecture.options != model.options:
        raise ValueError(f"card of {card.architecture.options}, but model of {model.options}")
    if card.surgery != model.surgery:
        raise ValueError("the surgery of the card is not that of the model")
    save_tensors(path, model, card, {k: lazy(value) for k, value in model.state_dict().items()})


def save_tensors(path: str | Path, model: Network, card: Card, tensors: Mapping[str, Lazy]) -> None:
    """The same for weights that are made one after the other; `model` may be without memory.

    Raises:
        ValueError: as for `save_model`, or the tensors are not those of the model.
        UserError: the file cannot be written; a file that stood there stays as it was.
    """
    _check_agreement(card, model)
    shapes = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    if shapes != {name: tensor.shape for name, tensor in tensors.items()}:
        raise ValueError("the tensors are not those of the model")
    card = card.model_copy(update={"version": VERSION})
    text = json.dumps(
        card.model_dump(mode="json"),
        sort_keys=True,
        ensure_ascii=False,
        allow_nan=False,
        separators=(",", ":"),
    )
    length = len(header_bytes(tensors, {CARD_KEY: text}))
    if length > MAX_HEADER_BYTES:
        raise ValueError(f"the card is too long: {length:,} bytes, {MAX_HEADER_BYTES:,} at most")
    parse_json(text)  # it must also be readable under the limits
    write_whole(Path(path), lambda file: write_tensors(file, tensors, {CARD_KEY: text}))


Shaped = Callable[[Network], None]
"""Changes the structure of a network that has no memory yet."""


def load_model(path: str | Path, *, shaped: Shaped | None = None) -> Network:
    """The model of a file, float32, in evaluation mode; its `card` is the file's.

    Everything is judged on the header and on a network without memory ("meta") before any weight is
    read: a file that passes holds exactly the tensors of the network that its card describes.

    Args:
        path: of the file.
        shaped: what else the weights' network went through, such as the folding of its batch
            normalisation, after the surgery that the card tells of.

    Raises:
        ModelFileError: wrong, truncated, foreign or hostile file; one line says why.
    """
    path = Path(path)
    with open_regular(path) as file:
        header = read_header(file, path)
        card = parse_card(header.card, path)
        model = _build_empty(card, path, shaped)
        _check_tensors(header, model, path)
        weights = {tensor.name: _read_values(file, tensor, path) for tensor in header.tensors}
    model.load_state_dict(weights, assign=True)
    if any(buffer.is_meta for buffer in model.buffers()):  # tables that a network makes for itself
        model = _build(card, shaped)
        model.load_state_dict(weights)
    model.card = card
    return model.eval()


def load_classifier(path: str | Path) -> Classifier:
    """The model of a file that classifies whole images, as `load_model` gives it.

    Raises:
        ModelFileError: the file is not sound.
        UserError: its network segments images.
    """
    return as_classifier(load_model(path), str(path))


FREE_OPTIONS = ("num_classes", "dropout", "output_stride", "auxiliary")
"""Options that change no weight but the last layer's, or only add some (a tower)."""


def load_weights(
    model: Network, path: str | Path, *, classes: tuple[str, ...] | None = None
) -> list[str]:
    """Start `model` from a model file of the same architecture, or of its backbone's.

    The last layer is left as it is where its classes are not those of the file: another number of
    them, or other names or another order if the `classes` of `model` are given. A segmentation
    network whose backbone is started is left as it is in all that comes behind.

    Returns:
        The names of the weights of `model` that were left as they were.

    Raises:
        ModelFileError: the file is not sound.
        UserError: the file holds another architecture.
    """
    return start_from(model, load_model(path), path, classes=classes)


def start_from(
    model: Network, source: Network, path: str | Path, *, classes: tuple[str, ...] | None = None
) -> list[str]:
    """The same from a model that was loaded from `path`, whatever kind of file that is."""
    if isinstance(model, Segmenter) and isinstance(source, Classifier):
        _check_same(model.backbone, source, path)
        weights = {f"backbone.{name}": value for name, value in source.state_dict().items()}
    else:
        _check_same(model, source, path)
        weights = source.state_dict()
        same_classes = source.options["num_classes"] == model.options["num_classes"]
        if classes is not None and classes != source.card.classes:
            same_classes = False
        if not same_classes:
            last = tuple(f"{layer}." for layer in (model.LAST_LAYER, *model.SIDE_LAYERS))
            weights = {name: weights[name] for name in weights if not name.startswith(last)}
    known = model.state_dict()
    weights = {name: value for name, value in weights.items() if name in known}
    model.load_state_dict(weights, strict=False)
    return [name for name in known if name not in weights]


def _check_same(model: Network, source: Network, path: str | Path) -> None:
    """UserError unless the weights of `source` are of the same network as those of `model`."""
    if source.surgery != model.surgery:
        raise UserError(
            f"{path} holds a network whose convolutions were exchanged for separable ones: it can "
            "start no other; fine-tune it with `xception separate --finetune`"
        )
    here = {key: value for key, value in model.options.items() if key not in FREE_OPTIONS}
    there = {key: value for key, value in source.options.items() if key not in FREE_OPTIONS}
    if type(model) is not type(source) or here != there:
        differ = [key for key in here | there if here.get(key) != there.get(key)]
        raise UserError(
            f"{path} holds a {_describe(source, differ)}, "
            f"which cannot start a {_describe(model, differ)}"
        )


def _describe(model: Network, options: list[str]) -> str:
    chosen = ", ".join(f"{key} {model.options.get(key)}" for key in options)
    return f"{type(model).__name__}({chosen})"


def _build_empty(card: Card, path: Path, shaped: Shaped | None) -> Network:
    """The network of the card on the meta device: shapes without memory."""
    try:
        with torch.device("meta"):
            model = _build(card, shaped)
        _check_agreement(card, model)
    except (UserError, ValueError) as error:
        raise ModelFileError(path, f"its card is wrong: {error}") from error
    return model


def _build(card: Card, shaped: Shaped | None) -> Network:
    """A fresh network with the structure that the card describes.

    Raises:
        UserError: the zoo has none such.
        ValueError: the network does not allow the surgery.
    """
    model = create_model(card.architecture.name, **card.architecture.options)
    operate(model, card.surgery)
    if shaped is not None:
        shaped(model)
    return model


def _check_agreement(card: Card, model: Network) -> None:
    """ValueError unless task, classes and channels of the card are those of the model."""
    if card.task not in model.TASKS:
        raise ValueError(f"task {card.task}, but the network does {' or '.join(model.TASKS)}")
    if len(card.classes) != model.options["num_classes"]:
        raise ValueError(f"{len(card.classes)} classes, but {model.options['num_classes']} logits")
    if card.preprocess.channels != model.options["in_channels"]:
        raise ValueError(
            f"preprocessing gives {card.preprocess.channels} channels, "
            f"the network takes {model.options['in_channels']}"
        )


def _check_tensors(header: Header, model: Network, path: Path) -> None:
    """Names, shapes and kinds of the file must be those of the model, no more and no fewer."""
    expected = {
        name: (tuple(value.shape), value.is_floating_point())
        for name, value in model.state_dict().items()
    }
    found = {one.name: (one.shape, one.dtype.is_floating_point) for one in header.tensors}
    both = expected.keys() & found.keys()
    differences = {
        "it lacks": expected.keys() - found.keys(),
        "it alone has": found.keys() - expected.keys(),
        "it has in another shape or kind": {name for name in both if expected[name] != found[name]},
    }
    for what, names in differences.items():
        if names:
            count = f"{len(names)} tensors, for example {min(names)!r:.80}"
            raise ModelFileError(path, f"does not fit the network of its card: {what} {count}")


def _read_values(file: BufferedReader, tensor: Stored, path: Path) -> torch.Tensor:
    """The values of the next tensor of the file, in float32 if they are fractions."""
    memory = torch.empty(tensor.end - tensor.begin, dtype=torch.uint8)
    if file.readinto(memory.numpy().data) != len(memory):
        raise ModelFileError(path, "the file became shorter while it was read")
    values = memory.view(tensor.dtype).reshape(tensor.shape)
    return values.float() if values.is_floating_point() else values
