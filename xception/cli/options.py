"""Options that several verbs have, and what their values may be."""

from pathlib import Path
from typing import Any

import click

from xception.data.splits import SPLITS, split_named


class FilePath(click.Path):
    """A path, as `Path`; an empty one is a script's unset variable and not the current folder."""

    def __init__(self, **options: Any):
        super().__init__(path_type=Path, **options)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Refuse what is empty."""
        if not str(value):
            self.fail("the path is empty", param, ctx)
        return super().convert(value, param, ctx)


class PhotoPath(FilePath):
    """A path, or a URL such as s3://bucket/photos, which stays text."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """As it is meant."""
        return value if "://" in str(value) else super().convert(value, param, ctx)


class SplitName(click.ParamType):
    """A split by any name that a folder of it may have, or "all"."""

    name = "split"

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        """The usual names."""
        return f"[{'|'.join([*SPLITS, 'all'])}]"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The usual name."""
        if value == "all":
            return value
        split = split_named(value)
        if split is None:
            self.fail(f"{value!r} is not one of {', '.join([*SPLITS, 'all'])}", param, ctx)
        return split


# Bounds that no machine reaches; beyond them stand typing errors.
SIDE = click.IntRange(1, 4096)
EPOCHS = click.IntRange(1, 1_000_000)
BATCH = click.IntRange(1, 1_000_000)
WORKERS = click.IntRange(0, 64)
SEED = click.IntRange(0, 2**63 - 1)
TOP = click.IntRange(1, 1_000_000)

as_json = click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
quiet = click.option("--quiet", "-q", is_flag=True, help="No progress and no remarks.")
device = click.option(
    "--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1, mps."
)
batch_size = click.option(
    "--batch-size",
    default=32,
    show_default=True,
    type=BATCH,
    metavar="N",
    help="Photos computed at once.",
)
