"""`xception cost`: what a network costs, on paper and measured."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import torch

from xception.cli import options
from xception.cli.assignments import parse_assignment
from xception.cli.cost_tables import tables_command
from xception.cli.costing import (
    exchange_rows,
    group_rows,
    layer_rows,
    measured_lines,
    remarks,
    whole_network,
)
from xception.cli.network import Asked, find_network
from xception.cli.output import counted, print_json, print_table, say, show
from xception.cost.count import Cost, count
from xception.cost.measure import Measured, measure
from xception.cost.roofline import FORMATS, draw
from xception.cost.separable import Comparison, compare
from xception.cost.textbook import Textbook
from xception.errors import UserError
from xception.training.distributed import pick_device
from xception.weights.atomic import write_whole


class Verb(click.Group):
    """`cost MODEL`, but for the words that stand for something of their own."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Take what is no word of ours for a model and its options."""
        if args and args[0] not in (*self.commands, *ctx.help_option_names):
            args = ["model", *args]
        return super().parse_args(ctx, args)

    def format_usage(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """All forms, one a line."""
        for form in ("MODEL [OPTIONS]", "conv [OPTIONS]", "tables [OPTIONS]"):
            formatter.write_usage(ctx.command_path, form)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """What the forms are for, and the options of the first."""
        with formatter.section("Forms"):
            formatter.write_dl(
                [(name, one.get_short_help_str(90)) for name, one in self.commands.items()]
            )
        self.commands["model"].format_options(ctx, formatter)


@click.group("cost", cls=Verb, no_args_is_help=True)
def command() -> None:
    """What a network costs: parameters, MACs and bytes by layer, on paper and in time.

    MODEL is a name of `xception models`, timm:NAME, a model file or the folder of a run.

    \b
    Examples:
      xception cost xception
      xception cost timm:resnet50 --layers
      xception cost runs/shirts-1 --measure --plot roofline.svg
      xception cost mobilenet_v1 --set width=0.5 --size 160 --json
      xception cost conv --input 11x11x3 --kernel 3 --filters 16 --stride 2 --padding 1
      xception cost tables
    """


@command.command("model")
@click.argument("model")
@click.option("--size", metavar="PIXELS", help="Side of the image, or HEIGHTxWIDTH.")
@click.option(
    "--set",
    "assignments",
    multiple=True,
    metavar="KEY=VALUE",
    help="An option of the model, e.g. width=0.5; may be repeated.",
)
@click.option("--layers", is_flag=True, help="Every layer, and not only the sums by kind.")
@click.option(
    "--separable", is_flag=True, help="Every separable convolution beside its regular one."
)
@click.option("--measure", "measured", is_flag=True, help="Time every layer on this machine.")
@click.option(
    "--plot",
    type=options.FilePath(dir_okay=False),
    metavar="FILE",
    help="Measure, and draw the roofline as .svg or .png.",
)
@options.device
@options.as_json
@options.quiet
def model_command(
    model: str,
    size: str | None,
    assignments: Sequence[str],
    layers: bool,
    separable: bool,
    measured: bool,
    plot: Path | None,
    device: str,
    as_json: bool,
    quiet: bool,
) -> None:
    """A network: sums by kind, layers, and what regular convolutions would cost."""
    if plot is not None and plot.suffix.lower().removeprefix(".") not in FORMATS:
        raise UserError(
            f"--plot {plot}: the name must end in {' or '.join('.' + f for f in FORMATS)}"
        )
    chosen = dict(map(parse_assignment, assignments))
    measured = measured or plot is not None
    asked = find_network(
        model, chosen, None if size is None else read_size(size), empty=not measured
    )
    if measured:
        say(
            f"measuring {asked.title} on {counted(torch.get_num_threads(), 'thread')} …",
            quiet=quiet,
        )
        found = measure(asked.model, asked.size, asked.in_channels, device=pick_device(device))
        cost, comparison = found.cost, found.comparison
    else:
        found = None
        cost = count(asked.model, asked.size, asked.in_channels)
        comparison = compare(cost)
    if found and plot is not None:
        title = f"{asked.title}, {found.machine.device}, {counted(found.machine.threads, 'thread')}"
        picture = draw(found, title, plot.suffix.lower().removeprefix("."))
        write_whole(plot, lambda file: file.write(picture))
        say(f"roofline: {plot}", quiet=quiet)
    if as_json:
        print_json(answer(asked, cost, comparison, found))
        return
    _print(asked, cost, comparison, found, layers=layers, separable=separable)


def _print(
    asked: Asked,
    cost: Cost,
    comparison: Comparison,
    found: Measured | None,
    *,
    layers: bool,
    separable: bool,
) -> None:
    if layers:
        columns, rows = layer_rows(cost, found)
        print_table(columns, rows, right=columns[2:])
        click.echo()
    if separable and comparison.separable:
        columns, rows = exchange_rows(comparison, found)
        print_table(columns, rows, right=columns[2:])
        click.echo()
    show(asked.title)
    columns, rows = group_rows(cost, found)
    print_table(columns, rows, right=columns[1:])
    click.echo()
    for line in [*whole_network(cost, comparison), *remarks(cost)]:
        show(line)
    if found:
        click.echo()
        for line in measured_lines(found):
            show(line)


def answer(
    asked: Asked, cost: Cost, comparison: Comparison, found: Measured | None
) -> dict[str, Any]:
    """The JSON document."""
    layers: list[dict[str, Any]] = [dict(layer) for layer in cost.layers]
    exchanges: list[dict[str, Any]] = [dict(one) for one in comparison.separable]
    machine = None
    if found:
        for layer, ms, floor in zip(layers, found.layers_ms, found.floors_ms, strict=True):
            bound = found.machine.bound(layer["macs"], layer["bytes"])
            layer |= {"time_ms": ms, "floor_ms": floor, "bound": bound}
        for one, timed in zip(exchanges, found.exchanges, strict=True):
            one |= {"time_ms": timed.separable_ms, "regular_time_ms": timed.regular_ms}
        machine = {**vars(found.machine), "whole_ms": found.whole_ms}
    regular = comparison.regular
    return {
        "model": asked.name,
        "size": list(asked.size),
        "in_channels": asked.in_channels,
        "total": cost.total,
        "groups": cost.groups(),
        "layers": layers,
        "uncounted": cost.uncounted,
        "regular": {"parameters": regular["parameters"], "macs": regular["macs"]},
        "separable": exchanges,
        "alone": list(comparison.alone),
        "remark": cost.remark,
        **({"machine": machine} if machine else {}),
    }


def read_size(text: str) -> tuple[int, int]:
    """Height and width from "299" or "480x640". Raises `UserError`."""
    parts = re.fullmatch(r"([1-9]\d{0,3})(?:[x×]([1-9]\d{0,3}))?", text.strip().lower())
    if parts is None:
        raise UserError(
            f"--size wants a side or height x width of at most 9999 pixels, e.g. 299, not {text!r}"
        )
    return int(parts[1]), int(parts[2] or parts[1])


@command.command("conv")
@click.option("--input", "image", required=True, metavar="HxWxC", help="E.g. 11x11x3.")
@click.option("--kernel", type=int, required=True, metavar="K", help="Side of the window.")
@click.option("--filters", type=int, required=True, metavar="N", help="Channels of the output.")
@click.option("--stride", type=int, default=1, show_default=True, metavar="S")
@click.option("--padding", type=int, default=0, show_default=True, metavar="P")
@click.option("--dilation", type=int, default=1, show_default=True, metavar="D")
@click.option(
    "--depth-multiplier", type=int, default=1, show_default=True, metavar="M",
    help="Depthwise kernels per channel.",
)  # fmt: skip
@click.option("--bias", is_flag=True, help="Count one bias per filter.")
@options.as_json
def conv_command(
    image: str,
    kernel: int,
    filters: int,
    stride: int,
    padding: int,
    dilation: int,
    depth_multiplier: int,
    bias: bool,
    as_json: bool,
) -> None:
    """One convolution worked through by formula, regular and separable."""
    parts = re.fullmatch(r"(\d{1,7})x(\d{1,7})x(\d{1,7})", image.strip().lower().replace("×", "x"))
    if parts is None:
        raise UserError(f"--input wants height x width x channels, e.g. 11x11x3, not {image!r}")
    height, width, channels = map(int, parts.groups())
    example = Textbook(
        height=height,
        width=width,
        in_channels=channels,
        kernel=kernel,
        filters=filters,
        stride=stride,
        padding=padding,
        dilation=dilation,
        depth_multiplier=depth_multiplier,
        bias=bias,
    )
    if as_json:
        print_json(example.figures())
        return
    for line in example.steps():
        show(line)


command.add_command(tables_command)
