"""The card: what a model file says about itself, and how it is read from one."""

import json
import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    ValidationError,
    field_validator,
    model_validator,
)

from xception._version import __version__
from xception.data.preprocess import Preprocess
from xception.errors import UserError
from xception.models.surgery import Exchange
from xception.weights.header import ModelFileError as ModelFileError
from xception.weights.header import open_regular, parse_json, read_header

VERSION = "1.2"
"""Of the card's format: the minor number grows with new fields (older programs ignore them, older
files get their defaults), the major one when an older program would misunderstand a file.

1.1: the task "segmentation", which an older program refuses by name, and `source`.
1.2: `surgery`, without which an older program finds that the tensors do not fit, and `colours`.
"""


Channel = Annotated[int, Field(ge=0, le=255)]


class Architecture(BaseModel):
    """Which network of the zoo it is."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(max_length=100)
    """As in `list_models()`."""
    options: dict[str, JsonValue]
    """All arguments of `create_model`, `model.options`."""


class Card(BaseModel):
    """What a model file says about itself."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal["xception"] = "xception"
    """Whose card it is."""
    version: str = VERSION
    """Of this format, as major.minor."""
    architecture: Architecture
    """Which network the weights belong to."""
    surgery: tuple[Exchange, ...] = ()
    """Convolutions of that network that were exchanged for separable ones."""
    task: Literal["classification", "multilabel", "segmentation"]
    """One class per image (softmax), any number (sigmoid), or one class per pixel (softmax)."""
    classes: tuple[str, ...] = Field(min_length=1)
    """What the logits stand for, in their order."""
    colours: tuple[tuple[Channel, Channel, Channel], ...] = ()
    """Of the classes in pictures of masks: red, green, blue; none, where there are none of them."""
    preprocess: Preprocess
    """From a file to the network's input."""
    training: dict[str, JsonValue] = {}
    """The configuration of the training, as it was run."""
    metrics: dict[str, JsonValue] = {}
    """What was measured, and on what."""
    source: dict[str, JsonValue] = {}
    """Of weights that were converted: library, network, file and its sha256."""
    license: str | None = None
    """SPDX identifier of the weights' licence, if one was given."""
    package_version: str = __version__
    """Of the program that wrote the file."""

    @property
    def image_task(self) -> Literal["classification", "multilabel"]:
        """The task, known to be one about whole images; UserError if it is not."""
        if self.task == "segmentation":
            raise UserError("this model segments images; one that classifies them is needed")
        return self.task

    @field_validator("classes")
    @classmethod
    def _distinct(cls, classes: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(classes)) != len(classes):
            raise ValueError("a class stands there twice")
        return classes

    @model_validator(mode="after")
    def _one_colour_each(self) -> "Card":
        if self.colours and len(self.colours) != len(self.classes):
            raise ValueError(f"{len(self.colours)} colours for {len(self.classes)} classes")
        return self


def read_card(path: str | Path) -> Card:
    """The card of a model file; its weights are not read.

    Raises:
        ModelFileError: it is not a sound model file.
    """
    path = Path(path)
    with open_regular(path) as file:
        return parse_card(read_header(file, path).card, path)


def parse_card(text: str, path: Path) -> Card:
    """The card that the JSON of the file at `path` holds.

    Raises:
        ModelFileError: it is damaged, of another program, or of a version not to be understood.
    """
    try:
        content = parse_json(text)
        json.dumps(content, ensure_ascii=False).encode()  # half a surrogate pair is no text
    except (ValueError, RecursionError) as error:
        raise ModelFileError(path, f"its card is not sound: {error}") from error
    version = content.get("version")
    numbers = re.fullmatch(r"(\d{1,4})\.(\d{1,4})", version) if isinstance(version, str) else None
    if content.get("format") != "xception" or numbers is None:
        raise ModelFileError(path, "its card is not one of this program (format, version)")
    ours = tuple(map(int, VERSION.split(".")))
    theirs = tuple(map(int, numbers.groups()))
    if theirs[0] != ours[0]:
        raise ModelFileError(
            path,
            f"its card has version {version}, this program reads {ours[0]}.x: "
            + ("a newer program is needed" if theirs > ours else "it is too old"),
        )
    if theirs > ours:
        content = _known_fields(content, Card)
    try:
        return Card.model_validate(content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise ModelFileError(path, f"its card is wrong at {where!r:.60}: {first['msg']}") from error


def _known_fields(content: dict[str, Any], record: type[BaseModel]) -> dict[str, Any]:
    """`content` without the fields that only a newer minor version knows."""
    known = {name: value for name, value in content.items() if name in record.model_fields}
    parts: dict[str, type[BaseModel]] = {"architecture": Architecture, "preprocess": Preprocess}
    for name in parts.keys() & known.keys():
        if isinstance(known[name], dict):
            known[name] = _known_fields(known[name], parts[name])
    return known
