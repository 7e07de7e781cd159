"""Which network of which library a foreign file holds, found by names and shapes alone.

Strict and total: every tensor of the file is used, or left out under a name that says it is no
weight (a counter, an optimizer's state); every tensor of the network is filled.
"""

import json
from collections.abc import Collection, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import torch

from xception.errors import UserError
from xception.models.zoo import create_model
from xception.weights.names.source import AVERAGED, NOT_WEIGHTS, OPTIONAL, Renamed, Source
from xception.weights.names.sources import SOURCES
from xception.weights.names.table import Row
from xception.weights.readers.stored import Foreign, ForeignFileError

SHOWN = 3  # names in a message

Shape = tuple[int, ...]


class Fit(NamedTuple):
    """A file seen as one source's weights: which tensor goes where, nothing read yet."""

    source: Source
    options: dict[str, Any]
    """Of the network that answers as the source does."""
    shapes: dict[str, Shape]
    """Of its state dict."""
    rows: list[Row]
    """The tensors that the file has."""
    renamed: Renamed
    left_out: tuple[str, ...]
    """Tensors of the file that are no weights, and what holds others beside the state dict."""
    headless: bool
    """The file has no classifier."""


def identify(foreign: Foreign, path: Path) -> Fit:
    """The one source whose network the file holds.

    Raises:
        ForeignFileError: none that is known, or not exactly; one line says what differs.
    """
    complaints = []
    for source in SOURCES:
        if foreign.kind not in source.kinds:
            continue
        renamed = source.names(foreign.tensors)
        if not renamed.keys() >= set(source.marks):
            continue
        try:
            return _fit(source, foreign, renamed)
        except ValueError as error:
            complaints.append(f"almost {source.title}, but {error}")
    if complaints:
        raise ForeignFileError(path, complaints[0])
    known = dict.fromkeys(one.title for one in SOURCES if foreign.kind in one.kinds)
    raise ForeignFileError(
        path,
        f"its tensors ({some(foreign.tensors)}) are those of no network that is known; "
        f"of such files these are: {', '.join(known)}",
    )


def network_shapes(model: str, options: Mapping[str, Any]) -> dict[str, Shape]:
    """Names and shapes of the state dict of a network of the zoo, found without memory."""
    return dict(_network(model, json.dumps(dict(options))).shapes)


def network_options(model: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """All options of a network of the zoo, those that were left to it too."""
    return json.loads(_network(model, json.dumps(dict(options))).options)


def head_of(source: Source) -> str:
    """How the names of our last layer begin."""
    return heads_of(source)[0]


def heads_of(source: Source) -> tuple[str, ...]:
    """How the names of all our layers begin that give logits, the last layer first."""
    network = _network(source.model, json.dumps(dict(source.options)))
    return tuple(f"{layer}." for layer in network.heads)


class _Shapes(NamedTuple):
    shapes: tuple[tuple[str, Shape], ...]
    heads: tuple[str, ...]
    options: str  # JSON, so that nobody changes what is kept


@lru_cache(maxsize=8)
def _network(model: str, options: str) -> _Shapes:
    """To build even an empty network takes its time, and one file asks for several."""
    with torch.device("meta"):
        network = create_model(model, **json.loads(options))
    shapes = ((name, tuple(value.shape)) for name, value in network.state_dict().items())
    heads = (network.LAST_LAYER, *network.SIDE_LAYERS)
    return _Shapes(tuple(shapes), heads, json.dumps(network.options))


def some(names: Collection[str]) -> str:
    """A few of the names, for a message of one line."""
    shown = ", ".join(f"{name:.80}" for name in sorted(names)[:SHOWN])
    more = len(names) - SHOWN
    return f"{shown} and {more:,} more" if more > 0 else shown


def _fit(source: Source, foreign: Foreign, renamed: Renamed) -> Fit:
    """The file as this source's weights; ValueError if it is not exactly that."""
    found = {name: foreign.tensors[there].shape for name, there in renamed.items()}
    try:
        options, headless = _options(source, found)
        shapes = network_shapes(source.model, options)
    except UserError as error:
        raise ValueError(str(error)) from error
    head = head_of(source)
    rows = [
        row
        for row in source.rows(shapes)
        if not (headless and row.ours.startswith(head))
        and (row.theirs in found or not row.ours.endswith(OPTIONAL))
    ]
    missing = [row.theirs for row in rows if row.theirs not in found]
    if missing:
        raise ValueError(f"it lacks {some(missing)}")
    for row in rows:
        if row.our_shape(found[row.theirs]) != shapes[row.ours]:
            wanted = row.their_shape(shapes[row.ours])
            raise ValueError(f"{row.theirs} is {found[row.theirs]}, not {wanted}")
    used = {renamed[row.theirs] for row in rows}
    rest = [name for name in foreign.tensors if name not in used]
    left_out = [name for name in rest if NOT_WEIGHTS.search(name) or name + AVERAGED in used]
    if len(left_out) != len(rest):
        raise ValueError(f"it also has {some(set(rest) - set(left_out))}")
    beside = foreign.meta.get("beside")
    left_out += map(str, beside) if isinstance(beside, list) else []
    return Fit(source, options, shapes, rows, renamed, tuple(left_out), headless)


def _options(source: Source, found: Mapping[str, Shape]) -> tuple[dict[str, Any], bool]:
    """The options of the network, and whether its last layer is missing.

    What the definition leaves open is seen from the shapes of a few tensors, whose names do not
    depend on it.
    """
    options = dict(source.options)
    for option, name in source.present.items():
        options[option] = name in found
    rows = source.rows(network_shapes(source.model, options))
    by_name = {row.ours: row for row in rows}
    wanted = {"num_classes": by_name[head_of(source) + "weight"], "in_channels": rows[0]}
    if source.width_of is not None:
        wanted["width"] = by_name[source.width_of[0]]
    seen = {
        option: row.our_shape(found[row.theirs])
        for option, row in wanted.items()
        if row.theirs in found
    }
    headless = "num_classes" not in seen
    options["num_classes"] = 1 if headless else seen["num_classes"][0]
    if "in_channels" in seen:
        options["in_channels"] = seen["in_channels"][1]
    if source.width_of is not None and "width" in seen:
        options["width"] = seen["width"][0] / source.width_of[1]
    return options, headless
