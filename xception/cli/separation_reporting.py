"""Brings together what a separation came to, and has the report written."""

import copy
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import torch
from torch import nn

from xception._version import __version__
from xception.cli.separating import Bench, Result
from xception.cli.separation_target import Target
from xception.cost.count import count
from xception.evaluation.machine import environment
from xception.evaluation.separation_report import (
    Figures,
    Layer,
    Left,
    Point,
    Separation,
    Tuning,
    write_separation,
)
from xception.models.classifier import Classifier
from xception.separation.surgery import Exchanged, Prepared
from xception.separation.timing import compare_layers, compare_networks

NAMED = 3  # layers that a remark names


def report_separation(
    folder: Path,
    bench: Bench,
    prepared: Prepared,
    result: Result,
    final: Classifier,
    tuning: Tuning | None,
    points: Sequence[Point],
    *,
    images: int,
    target: Target,
    command: str,
) -> Separation:
    """Measure before and after, and write `separation.json` and `report.html` into a folder.

    Args:
        folder: exists.
        bench: the original model and its photos.
        prepared: what was seen of it.
        result: the surgery.
        final: the network of the new file, fine-tuned or not.
        tuning: how the fine-tuning went, if there was one.
        points: of the curve.
        images: that layers were fitted to.
        target: what was asked for.
        command: what repeats it.
    """
    before, after = (copy.deepcopy(one).eval() for one in (bench.model, final))
    for network in (before, after):
        network.to(bench.device)
        network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    size, channels = bench.card.preprocess.size, bench.card.preprocess.channels
    generator = torch.Generator().manual_seed(bench.seed)
    image = torch.randn(1, channels, size, size, generator=generator)
    image = image.to(bench.device, memory_format=torch.channels_last)
    changed = {one.name for one in result.done}
    exchanged = [site for site in prepared.sites if site.name in changed]
    layers_ms = compare_layers(before, after, exchanged, image)
    whole_ms = compare_networks(before, after, image)
    layers = tuple(_layer(one, *layers_ms[one.name]) for one in result.done)
    figures = [
        _figures(bench, network, ms)
        for network, ms in zip((bench.model, final), whole_ms, strict=True)
    ]
    report = Separation(
        title=folder.resolve().name,
        created_by=f"xception {__version__}",
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        command=command,
        model=bench.card.architecture.name,
        target=target.words,
        score=bench.measure,
        split=bench.held_out,
        samples=len(bench.photos.of(bench.held_out)),
        calibration=images,
        before=figures[0],
        after=figures[1],
        agreement=bench.agreement(final),
        layers=layers,
        left=tuple(
            Left(
                name=site.name,
                reason=site.refusal or target.why_left,
                macs=site.macs,
            )
            for site in prepared.sites
            if site.name not in changed
        ),
        curve=tuple(sorted(points, key=lambda one: -one.fraction)),
        tuning=tuning,
        remarks=tuple(remarks(layers, figures[0], figures[1])),
        environment=environment(bench.device),
    )
    write_separation(folder, report)
    return report


def remarks(layers: Sequence[Layer], before: Figures, after: Figures) -> list[str]:
    """What became slower, though it has fewer MACs."""
    found = []
    slower = [layer.name for layer in layers if layer.slower]
    if slower:
        names = ", ".join(slower[:NAMED])
        more = f" and {len(slower) - NAMED} more" if len(slower) > NAMED else ""
        found.append(
            f"{len(slower)} of {len(layers)} exchanged layers have fewer MACs but take longer here "
            f"({names}{more}): --keep leaves a layer as it is"
        )
    if after.ms > before.ms:
        found.append(
            f"the network has {100 * after.macs / before.macs:.0f} % of its MACs, but takes "
            f"{after.ms:.1f} ms instead of {before.ms:.1f} ms here: measure it on the engine that "
            "will run it"
        )
    return found


def _layer(one: Exchanged, ms_before: float, ms_after: float) -> Layer:
    mean = one.ranks if isinstance(one.ranks, int) else sum(one.ranks) / len(one.ranks)
    return Layer(
        name=one.name,
        order=one.order,
        ranks=one.ranks,
        mean_rank=mean,
        error=one.error,
        output_error=one.output_error,
        output_bound=one.output_bound,
        macs_before=one.macs_before,
        macs_after=one.macs_after,
        ms_before=ms_before,
        ms_after=ms_after,
    )


def _figures(bench: Bench, network: nn.Module, ms: float) -> Figures:
    preprocess = bench.card.preprocess
    total = count(network, preprocess.size, preprocess.channels).total
    return Figures(
        macs=total["macs"],
        parameters=total["parameters"],
        ms=ms,
        score=bench.score(network, bench.held_out),
    )
