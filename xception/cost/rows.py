"""From the operators that ran to the layers that people name."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypedDict

from xception.cost.field import Field
from xception.cost.operators import Kind
from xception.cost.trace import Operator, Trace


class Layer(TypedDict):
    """One layer; a module that runs several times stands once, with the sum of its work.

    As a rule a layer is a module with all that runs in it outside its own submodules. Where one
    module multiplies by several weights, each is a layer, named by the weight.
    """

    name: str
    kind: Kind
    parameters: int
    macs: int
    bytes: int
    read_bytes: int
    written_bytes: int
    macs_per_byte: float  # arithmetic intensity; 2 x that in FLOP per byte
    output: list[int]  # shape of its (last) output, without the batch
    receptive_field: list[float] | None  # pixels that a value of the output sees, per axis
    stride: list[float] | None  # pixels between what neighbours see; None once there is no map
    offset: list[float] | None  # pixel in the middle of what the first value sees
    calls: int  # how often its module ran; 0 for parameters that no operator used


Key = tuple[str, str]
"""A module's path, and what tells its layers apart: a weight, a kind, or nothing."""


@dataclass
class Row:
    """The operators of one layer, and the values of its parameters."""

    operators: list[Operator] = field(default_factory=list)
    parameters: int = 0


class Rows:
    """Sorts operators into layers.

    Args:
        trace: what ran.
        values: how many values each parameter has, by its name.
    """

    def __init__(self, trace: Trace, values: Mapping[str, int]):
        self._trace = trace
        homes = [_home(operator) for operator in trace.operators]
        keys = self._keys(trace.operators, homes)
        rows: dict[Key, Row] = {}
        self.steps = []  # for each operator the place of its layer
        for operator, key in zip(trace.operators, keys, strict=True):
            rows.setdefault(key, Row()).operators.append(operator)
        self._place(rows, trace.operators, keys, values)
        order = {key: place for place, key in enumerate(rows)}
        self.steps = [order[key] for key in keys]
        split = {path for path, part in rows if part}
        self.layers = [self._layer(key, row, key[0] in split) for key, row in rows.items()]

    @staticmethod
    def _keys(operators: Sequence[Operator], homes: Sequence[str]) -> list[Key]:
        """The layer of each operator.

        All of a module's operators make one layer, unless it multiplies in several ways.
        """
        ways: dict[str, set[str]] = {}
        for operator, home in zip(operators, homes, strict=True):
            if operator.macs is not None:
                ways.setdefault(home, set()).add(_way(operator))
        return [
            (home, _way(operator) if len(ways.get(home, ())) > 1 else "")
            for operator, home in zip(operators, homes, strict=True)
        ]

    @staticmethod
    def _place(
        rows: dict[Key, Row],
        operators: Sequence[Operator],
        keys: Sequence[Key],
        values: Mapping[str, int],
    ) -> None:
        """Give every parameter to the layer that used it first, or to one that never ran."""
        rest = dict(values)
        for operator, key in zip(operators, keys, strict=True):
            for name in operator.weights:
                rows[key].parameters += rest.pop(name, 0)
        for name, number in rest.items():
            rows.setdefault((name.rpartition(".")[0], ""), Row()).parameters += number

    def _layer(self, key: Key, row: Row, split: bool) -> Layer:
        path, part = key
        multiplying = [one for one in row.operators if one.macs is not None]
        kinds: list[Kind] = [one.kind for one in multiplying or row.operators] or ["other"]
        read_bytes = sum(one.read_bytes for one in row.operators)
        written_bytes = sum(one.written_bytes for one in row.operators)
        macs = sum(one.macs or 0 for one in multiplying)
        shape, seen = self._output(path, row, split)
        return Layer(
            name=f"{path}.{part}".removeprefix(".") if part else path,
            kind="norm" if not multiplying and "norm" in kinds else kinds[0],
            parameters=row.parameters,
            macs=macs,
            bytes=read_bytes + written_bytes,
            read_bytes=read_bytes,
            written_bytes=written_bytes,
            macs_per_byte=macs / max(read_bytes + written_bytes, 1),
            output=list(shape[1:]),
            receptive_field=[axis.size for axis in seen] if seen else None,
            stride=_known([axis.stride for axis in seen or ()]),
            offset=[axis.offset for axis in seen] if seen else None,
            calls=self._trace.calls.get(path, 1) if row.operators else 0,
        )

    def _output(self, path: str, row: Row, split: bool) -> tuple[tuple[int, ...], Field | None]:
        """What the module returned; where it holds others or is several layers, its last step."""
        whole = self._trace.outputs.get(path)
        if whole is not None and not split and path in self._trace.leaves:
            return whole.shape, whole.field
        if not row.operators:
            return (), None
        last = row.operators[-1]
        return last.output, last.field


def _home(operator: Operator) -> str:
    """The module that a layer is named by.

    That is the one that was running, unless it multiplies by a weight that another one owns.
    """
    owners = [name.rpartition(".")[0] for name in operator.factor]
    return operator.module if not owners or operator.module in owners else owners[0]


def _way(operator: Operator) -> str:
    """What tells the operators of a module apart that are layers of their own."""
    if operator.macs is None:
        return ""
    if operator.factor:
        return operator.factor[0].rpartition(".")[2]
    return operator.kind


def _known(values: list[float | None]) -> list[float] | None:
    """The values, if there are any and all are known."""
    known = [value for value in values if value is not None]
    return known if known and len(known) == len(values) else None
