"""The tables and lines of `xception cost`."""

from collections.abc import Iterator

from xception.cli.output import counted, percent
from xception.cost.count import Cost
from xception.cost.measure import Measured
from xception.cost.operators import Kind
from xception.cost.rows import Layer
from xception.cost.separable import Comparison

Table = tuple[list[str], list[list[str]]]
"""Headings and rows."""


def large(number: float) -> str:
    """8357403496 -> "8.36 G"."""
    for unit, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(number) >= unit:
            return f"{number / unit:.3g} {letter}"
    return f"{number:.3g}"


def by(shape: list[int] | list[float] | None) -> str:
    """[147, 147] -> "147x147"."""
    return "–" if not shape else "x".join(f"{one:g}" for one in shape)


def layer_rows(cost: Cost, found: Measured | None) -> Table:
    """One row per layer."""
    columns = ["layer", "kind", "output", "parameters", "MACs", "read", "written", "MAC/byte"]
    columns += ["sees", "stride"]
    if found:
        columns += ["ms", "at best", "bound by"]
    rows = []
    for i, layer in enumerate(cost.layers):
        row = [
            layer["name"] or "(the network itself)",
            layer["kind"],
            by(layer["output"]),
            f"{layer['parameters']:,}",
            f"{layer['macs']:,}",
            f"{large(layer['read_bytes'])}B",
            f"{large(layer['written_bytes'])}B",
            f"{layer['macs_per_byte']:.3g}",
            by(layer["receptive_field"]),
            by(layer["stride"]),
        ]
        if found:
            row += [f"{found.layers_ms[i]:.3f}", f"{found.floors_ms[i]:.3f}", _bound(found, layer)]
        rows.append(row)
    return columns, rows


def _bound(found: Measured, layer: Layer) -> str:
    return found.machine.bound(layer["macs"], layer["bytes"])


def group_rows(cost: Cost, found: Measured | None) -> Table:
    """One row per kind of layer, and the sum."""
    columns = ["kind", "layers", "parameters", "share", "MACs", "share", "bytes", "MAC/byte"]
    columns = [name if i != 5 else "share " for i, name in enumerate(columns)]
    if found:
        columns += ["ms", "share of time", "at best"]
    whole = cost.total
    rows = []
    for group in cost.groups():
        row = [group["kind"], f"{group['layers']}"]
        row += _sums(group["parameters"], group["macs"], group["bytes"], cost)
        rows.append(row + (_times(found, group["kind"]) if found else []))
    row = ["all", f"{len(cost.layers)}"]
    row += _sums(whole["parameters"], whole["macs"], whole["bytes"], cost)
    return columns, [*rows, row + (_times(found, None) if found else [])]


def _sums(parameters: int, macs: int, moved: int, cost: Cost) -> list[str]:
    return [
        f"{parameters:,}",
        percent(parameters / max(cost.total["parameters"], 1)),
        f"{macs:,}",
        percent(macs / max(cost.total["macs"], 1)),
        f"{large(moved)}B",
        f"{macs / max(moved, 1):.3g}",
    ]


def _times(found: Measured, kind: Kind | None) -> list[str]:
    """Milliseconds, their share, and the least that they could be, of one kind or of all."""
    chosen = [i for i, layer in enumerate(found.cost.layers) if kind in (None, layer["kind"])]
    ms = sum(found.layers_ms[i] for i in chosen)
    least = sum(found.floors_ms[i] for i in chosen)
    return [f"{ms:.2f}", percent(ms / sum(found.layers_ms)), f"{least:.2f}"]


def exchange_rows(comparison: Comparison, found: Measured | None) -> Table:
    """One row per separable convolution, beside the regular one that it replaces."""
    columns = ["depthwise", "pointwise", "channels", "kernel", "output", "MACs", "regular"]
    columns += ["ratio", "1/N + 1/k²"]
    if found:
        columns += ["ms", "regular ms", "ratio of times"]
    rows = []
    for i, one in enumerate(comparison.separable):
        row = [
            one["depthwise"],
            one["pointwise"],
            f"{one['in_channels']} to {one['out_channels']}",
            _window(one["kernel"], one["stride"], one["dilation"], one["depth_multiplier"]),
            by(one["output"]),
            f"{one['macs']:,}",
            f"{one['regular_macs']:,}",
            f"{one['ratio']:.4f}",
            f"{one['theory']:.4f}",
        ]
        if found:
            timed = found.exchanges[i]
            row += [f"{timed.separable_ms:.3f}", f"{timed.regular_ms:.3f}", f"{timed.ratio:.4f}"]
        rows.append(row)
    return columns, rows


def _window(kernel: list[int], stride: list[int], dilation: list[int], multiplier: int) -> str:
    text = by(kernel)
    text += f" /{max(stride)}" if max(stride) > 1 else ""
    text += f" rate {max(dilation)}" if max(dilation) > 1 else ""
    return text + (f" times {multiplier}" if multiplier > 1 else "")


def whole_network(cost: Cost, comparison: Comparison) -> Iterator[str]:
    """FLOPs, and what the network would cost with regular convolutions."""
    macs = cost.total["macs"]
    yield f"{large(macs)}MACs for one image; FLOPs, counted as 2 x MACs: {large(2 * macs)}"
    pairs = comparison.separable
    if not pairs:
        yield "no separable convolutions"
        return
    regular = comparison.regular
    low, high = (pick(one["ratio"] for one in pairs) for pick in (min, max))
    ratio = f"{percent(low)} to {percent(high)}" if high - low > 0.0005 else percent(low)
    yield (
        f"{counted(len(pairs), 'separable convolution')}, each {ratio} of the MACs of the regular "
        "one that it replaces"
    )
    yield (
        f"with regular convolutions: {regular['macs']:,} MACs "
        f"({regular['macs'] / max(macs, 1):.2f} times), {regular['parameters']:,} parameters "
        f"({regular['parameters'] / max(cost.total['parameters'], 1):.2f} times)"
    )
    if comparison.alone:
        alone = counted(len(comparison.alone), "depthwise convolution")
        yield f"{alone} with no pointwise one beside"


def remarks(cost: Cost) -> Iterator[str]:
    """What the sums leave out, and how they were come by."""
    if cost.uncounted:
        listed = ", ".join(f"{name} {times}" for name, times in cost.uncounted.items())
        yield f"ran and has no MACs: {listed}"
    unused = sum(layer["parameters"] for layer in cost.layers if not layer["calls"])
    if unused:
        yield f"{unused:,} parameters are not used for this answer"
    if cost.remark:
        yield cost.remark


def measured_lines(found: Measured) -> Iterator[str]:
    """The ceilings, the whole, and what is left of the saving."""
    machine = found.machine
    yield (
        f"this machine ({machine.device}, {counted(machine.threads, 'thread')}, float32): "
        f"{machine.macs_per_second / 1e9:.3g} GMAC/s in a large matrix product, "
        f"{machine.bytes_per_second / 1e9:.3g} GB/s in a large sum of arrays"
    )
    layers, least = sum(found.layers_ms), sum(found.floors_ms)
    yield (
        f"one image: {found.whole_ms:.1f} ms; its layers one by one {layers:.1f} ms; at best "
        f"{least:.1f} ms, each from memory, at the ceilings (a cache may beat that)"
    )
    if found.disturbed:
        yield (
            "layers were faster than the arithmetic ceiling: other work must have been running; "
            "measure again when the machine is idle"
        )
    if found.exchanges:
        separable = sum(one.separable_ms for one in found.exchanges)
        regular = sum(one.regular_ms for one in found.exchanges)
        macs = sum(one["macs"] for one in found.comparison.separable)
        regular_macs = sum(one["regular_macs"] for one in found.comparison.separable)
        yield (
            f"separable convolutions: {separable:.1f} ms where regular ones take {regular:.1f} ms, "
            f"{percent(separable / regular)} of the time for {percent(macs / regular_macs)} of the "
            "MACs"
        )
