"""`xception cost tables`: what the papers print about cost, beside what is counted here."""

from typing import Any

import click
import torch

from xception.cli import options
from xception.cli.output import print_json, print_table, show
from xception.cost.count import Cost, count
from xception.cost.papers import (
    MISPRINTED_IN_TABLE_1,
    MOBILENET_TABLE_1,
    ROWS,
    Row,
    agrees,
    body,
    here,
)
from xception.models.zoo import create_model

UNITS = {1e6: " (millions)", 1e9: " (billions)"}


@click.command("tables")
@options.as_json
def tables_command(as_json: bool) -> None:
    """The papers' tables of cost, beside what is counted here."""
    counter = Counter()
    numbers = [here(row, counter.cost) for row in ROWS]
    first = next(row for row in ROWS if row.model == "mobilenet_v1" and not row.options)
    layers = body(counter.cost(first, 224), (3, 224, 224))
    if as_json:
        rows = zip(ROWS, numbers, strict=True)
        print_json(
            {
                "rows": [described(row, number) for row, number in rows],
                "mobilenet_table_1": [
                    {"printed": printed, "here": counted}
                    for printed, counted in zip(MOBILENET_TABLE_1, layers, strict=True)
                ],
            }
        )
        return
    print_table(
        ["table", "row", "what", "printed", "here", "", "note"],
        [
            [
                row.table,
                row.row,
                row.quantity + UNITS.get(row.unit, ""),
                row.printed,
                rounded(number, row.printed),
                "agrees" if agrees(row, number) else "differs",
                row.note,
            ]
            for row, number in zip(ROWS, numbers, strict=True)
        ],
        right=["printed", "here"],
    )
    click.echo()
    differing = [
        i
        for i, pair in enumerate(zip(MOBILENET_TABLE_1, layers, strict=True))
        if pair[0] != pair[1]
    ]
    show(f"MobileNet, Table 1: {len(layers) - len(differing)} of {len(layers)} layers agree")
    for i in differing:
        known = ", a misprint: 7x7 goes in and comes out" if i == MISPRINTED_IN_TABLE_1 else ""
        show(f"  layer {i + 1}: printed {MOBILENET_TABLE_1[i]}, here {layers[i]}{known}")
    show(
        "space to batch: TensorFlow computed atrous convolutions on padded maps, and its profiler "
        "counted that padding"
    )


class Counter:
    """Counts every model at every size once."""

    def __init__(self):
        self._models: dict[tuple[str, str], torch.nn.Module] = {}
        self._costs: dict[tuple[str, str, int], Cost] = {}

    def cost(self, row: Row, size: int) -> Cost:
        """What the model of a row costs at a size."""
        name = (row.model, str(row.options))
        if (*name, size) not in self._costs:
            if name not in self._models:
                with torch.device("meta"):
                    self._models[name] = create_model(row.model, **row.options)
            self._costs[*name, size] = count(self._models[name], size)
        return self._costs[*name, size]


def described(row: Row, number: float) -> dict[str, Any]:
    """A row for a program."""
    return {
        "table": row.table,
        "row": row.row,
        "quantity": row.quantity,
        "unit": row.unit,
        "printed": row.printed,
        "here": number,
        "agrees": agrees(row, number),
        "model": row.model,
        "options": dict(row.options),
        "sizes": list(row.sizes),
        "times": row.times,
        "note": row.note,
    }


def rounded(number: float, printed: str) -> str:
    """A number with as many decimals as the printed one, and one more."""
    if "," in printed:
        return f"{number:,.0f}"
    return f"{number:.{len(printed.partition('.')[2]) + 1}f}"
