"""Before anything is trained: can all networks be built, and are they as equal as the study says?

What a network costs depends on the photos, of which each class is a row of the last layer, and on
what a person sets. So it is counted here, on shapes alone.
"""

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import torch
from torch import nn

from xception.cost.count import count
from xception.data.folders import open_photos
from xception.errors import UserError
from xception.models.zoo import create_model
from xception.studies.cells import Cell
from xception.studies.study import Equal, Scale, Study

_MADE_FOR = {"tiny": 10, "full": 1000}  # classes


def settle(study: Study, scale: Scale, grid: Sequence[Cell], photos: Path) -> list[Cell]:
    """The cells as they are trained on these photos, with budgets that fit their classes.

    Args:
        study: what is compared.
        scale: "tiny" or "full".
        grid: all its cells.
        photos: what they are trained on.

    Raises:
        UserError: a network cannot be built, they are not equal, or a cell was begun with other
            settings.
    """
    settled, classes = list(grid), None
    if study.equal is not None:
        classes = len(open_photos(photos).classes)
        settled = _budgeted(study.equal, grid, classes)
        _check_equal(study.equal, scale, settled, classes)
    for cell in {cell.arm: cell for cell in settled}.values():
        network_of(cell, classes)
    for cell in settled:
        cell.check()
    return settled


def _budgeted(equal: Equal, grid: Sequence[Cell], classes: int) -> list[Cell]:
    """Where a number of parameters is asked for, it becomes that of the arm all are measured by."""
    if equal.what != "parameters":
        return list(grid)
    measure = next(cell for cell in grid if cell.arm == equal.to)
    budget = {"parameters": parameters(network_of(measure, classes))}

    def budgeted(cell: Cell) -> Cell:
        options = cell.config.model_options
        if "parameters" not in options:
            return cell
        return cell._replace(
            config=cell.config.model_copy(update={"model_options": options | budget})
        )

    return [budgeted(cell) for cell in grid]


def _check_equal(equal: Equal, scale: Scale, grid: Sequence[Cell], classes: int) -> None:
    """UserError if an arm costs more or less than the one that all are measured by."""
    found: dict[str, int] = {}
    for cell in grid:
        if cell.arm not in found:
            network, seen = network_of(cell, classes), cell.config.preprocess
            found[cell.arm] = (
                parameters(network)
                if equal.what == "parameters"
                else count(network, seen.size, seen.channels).total["macs"]
            )
    allowed, measure = equal.within(scale), found[equal.to]
    if any(abs(number - measure) > allowed * measure for number in found.values()):
        numbers = ", ".join(f"{arm} {number:,}" for arm, number in found.items())
        raise UserError(
            f"study {grid[0].study}: with {classes} classes and these settings its networks are "
            f"not within {100 * allowed:g} % of as many {equal.words}: {numbers}; at scale {scale} "
            f"they are, with {_MADE_FOR[scale]} classes and without --set"
        )


def network_of(cell: Cell, classes: int | None) -> nn.Module:
    """The network of a cell, without memory for its weights; None is any number of classes.

    Raises:
        UserError: it cannot be built.
    """
    options = {**cell.config.model_options, "in_channels": cell.config.preprocess.channels}
    if classes is not None:
        options["num_classes"] = classes
    try:
        return _built(cell.config.model, json.dumps(options, sort_keys=True))
    except UserError as error:
        raise UserError(f"study {cell.study}, arm {cell.arm}: {error}") from None


@cache
def _built(model: str, options: str) -> nn.Module:
    with torch.device("meta"):
        return create_model(model, **json.loads(options))


def parameters(network: nn.Module) -> int:
    """How many numbers it learns."""
    return sum(values.numel() for values in network.parameters())
