"""The figures of an evaluation, for a person to read."""

from typing import Any

import click

from xception.cli.output import counted, percent, print_table, show


def print_metrics(metrics: dict[str, Any], split: str) -> None:
    """The figures of `evaluation.metrics` on stdout: a table of classes, then the sum of it."""
    columns = ["precision", "recall", "f1"]
    if "ap" in next(iter(metrics["per_class"].values())):
        columns.insert(0, "ap")
    rows = [
        [name, *(percent(row[column]) for column in columns), f"{row['support']:,}"]
        for name, row in metrics["per_class"].items()
    ]
    numbers = [*columns, "photos"]
    print_table(["class", *numbers], rows, right=numbers)
    click.echo()
    click.echo(summary(metrics, split))


def print_pixel_metrics(metrics: dict[str, Any], split: str) -> None:
    """The figures of `PixelCounts` on stdout: a table of classes, then the sum of it."""
    columns = ["iou", "precision", "recall"]
    rows = [
        [
            name,
            *(percent(row[column]) for column in columns),
            percent(row["support"] / metrics["pixels"]),
        ]
        for name, row in metrics["per_class"].items()
    ]
    numbers = [*columns, "pixels"]
    print_table(["class", *numbers], rows, right=numbers)
    click.echo()
    click.echo(summary(metrics, split))
    if metrics["absent"]:
        show(f"in neither masks nor answers, so not in the mean: {', '.join(metrics['absent'])}")


def summary(metrics: dict[str, Any], split: str) -> str:
    """One or two lines: the accuracy with its interval, the mean average precision, or mean IoU."""
    photos = counted(metrics["samples"], f"{split} photo" if split != "all" else "photo")
    if "miou" in metrics:
        near = ", ".join(f"{percent(iou)} at {width}" for width, iou in metrics["trimap"].items())
        return (
            f"mean IoU {percent(metrics['miou'])}, {percent(metrics['pixel_accuracy'])} of the "
            f"pixels right on {photos}\n"
            f"mean IoU within so many pixels of a boundary: {near}"
        )
    if "map" in metrics:
        return (
            f"mean average precision {percent(metrics['map'])}, "
            f"MAP@{metrics['k']} {percent(metrics['map_at_k'])} on {photos}"
        )
    low, high = map(percent, metrics["top1_interval"])
    lines = f"accuracy {percent(metrics['top1'])} on {photos} (95 % interval {low} to {high})"
    if metrics["top_k"] > 1:
        lines += f"\ntop-{metrics['top_k']} {percent(metrics['top5'])}"
        lines += f", calibration error {percent(metrics['ece'])}"
    return lines
