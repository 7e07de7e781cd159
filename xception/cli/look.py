"""How a model that segments is to look at photos: options of the verbs, and what they mean."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import torch

from xception.deploy.engines import engine_card
from xception.deploy.segment import SCALES, PhotoSegmenter, open_segmenter
from xception.errors import UserError

LEAST_SCALE, MOST_SCALE = 0.1, 4.0


class Scales(click.ParamType):
    """Sizes separated by commas, or "all" for those of the paper."""

    name = "scales"

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        """An example."""
        return "0.5,1,1.5|all"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The numbers."""
        if not isinstance(value, str):
            return value
        if value == "all":
            return SCALES
        try:
            scales = tuple(float(part) for part in value.split(","))
        except ValueError:
            self.fail(f"{value!r} is no list of numbers such as 0.5,1,1.5", param, ctx)
        if not all(LEAST_SCALE <= scale <= MOST_SCALE for scale in scales):
            self.fail(f"scales lie between {LEAST_SCALE:g} and {MOST_SCALE:g}", param, ctx)
        return scales


@dataclass(frozen=True)
class Look:
    """How a model that segments is to look at photos."""

    scales: Sequence[float] = (1.0,)
    mirror: bool | None = None
    output_stride: int | None = None

    def open(self, run: Path, device: torch.device) -> PhotoSegmenter:
        """The model of a run, looking so. Raises `UserError` as `open_segmenter`."""
        return open_segmenter(
            run,
            device=device,
            scales=self.scales,
            mirror=self.mirror,
            output_stride=self.output_stride,
        )

    def words(self) -> str:
        """What was asked for, for a report; nothing where that is plain."""
        parts = []
        if tuple(self.scales) != (1.0,):
            parts.append(
                f"at {len(self.scales)} scales ({', '.join(f'{s:g}' for s in self.scales)})"
            )
        if self.mirror:
            parts.append("mirrored too")
        if self.output_stride is not None:
            parts.append(f"at output stride {self.output_stride}")
        return f"The network saw each photo {', '.join(parts)}." if parts else ""


scales_option = click.option(
    "--scales",
    type=Scales(),
    default=(1.0,),
    help="Masks: sizes at which the model sees each photo; the mean of its answers counts.",
)
mirror_option = click.option(
    "--mirror/--no-mirror", default=None, help="Masks: whether it sees the photo mirrored too."
)
output_stride_option = click.option(
    "--output-stride",
    type=click.Choice(["8", "16", "32"]),
    callback=lambda ctx, param, value: None if value is None else int(value),
    help="Masks: another than that of the training; 8 is finer and slower.",
)


def segments(run: Path) -> bool:
    """Whether the model at a path segments photos. Raises `UserError` if there is no sound one."""
    return engine_card(run).task == "segmentation"


def look_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--scales`, `--mirror` and `--output-stride`: `scales`, `mirror`, `output_stride`."""
    return scales_option(mirror_option(output_stride_option(command)))


def refuse_classes(run: Path, given: Mapping[str, object]) -> None:
    """Refuse options of classes where the model at `run` segments.

    Raises:
        UserError: one of them was given.
    """
    named = [name for name, value in given.items() if value]
    if named:
        raise UserError(
            f"{', '.join(named)}: for models that classify, and {run} segments; "
            "--out FOLDER takes the masks"
        )


def refuse_masks(look: Look, given: Mapping[str, object]) -> None:
    """Refuse options of masks where the model classifies: those of `look`, and others `given`.

    Raises:
        UserError: one of them was given.
    """
    options = {
        "--scales": tuple(look.scales) != (1.0,),
        "--mirror": look.mirror is not None,
        "--output-stride": look.output_stride is not None,
        **given,
    }
    named = [name for name, value in options.items() if value]
    if named:
        raise UserError(f"{', '.join(named)}: for models that segment, and this one classifies")
