"""Eight bits against float of the same engine: milliseconds, and right answers on test photos.

    xception train clothing.zip --out runs/xception
    xception train clothing.zip --out runs/mobilenet --model mobilenet_v1
    python benchmarks/eight_bits.py clothing.zip runs/xception runs/mobilenet

Each run is exported twice: in float and, as `xception export --int8` does it, in eight bits: ranges
are chosen on training photos, the layers that stay in float by validation photos. Then both are
asked for the same images in turn, one at a time and in batches, and for the test photos, which no
choice has seen. The bars are 1.5 times the speed and one point of accuracy. Prints rows of a
Markdown table. With --keep the files stay, and are taken again the next time.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch

from xception.cli.evaluate import fit_classes
from xception.cli.material import open_material
from xception.data.folders import open_photos
from xception.data.loader import evaluation_batches
from xception.data.scan import scan
from xception.deploy.compare import find_photos
from xception.deploy.engines import Engine, EngineModule, find_model, load_network, open_engine
from xception.deploy.export import SUFFIXES, Format, export
from xception.deploy.int8 import export_int8
from xception.deploy.material import METRICS, spaced
from xception.errors import UserError
from xception.evaluation.evaluate import outcomes
from xception.models.network import Network

FASTER, LOST = 1.5, 0.01  # the bars


class Speed(NamedTuple):
    """Milliseconds of a call, medians, and the ratio of each round."""

    float_ms: float
    int8_ms: float
    ratios: list[float]


def progress(line: str) -> None:
    print(f"  {line}", file=sys.stderr, flush=True)


def made(network: Network, format: Format, folder: Path, options: argparse.Namespace) -> list[Path]:
    """The files of float and of eight bits."""
    files = [folder / f"{name}{SUFFIXES[format]}" for name in ("float", "int8")]
    if not files[0].exists():
        export(network, format, files[0], find_photos(None))
    note = files[1].with_suffix(".json")
    if not files[1].exists():
        material = open_material(
            options.photos,
            network.card,
            calibration=options.calibration,
            held_out=options.held_out,
            quiet=True,
        )
        outcome = export_int8(network, format, files[1], material, max_drop=LOST, say=progress)
        note.write_text(json.dumps(outcome.told(), ensure_ascii=False))
    return files


def score(engine: Engine, options: argparse.Namespace) -> tuple[float, int]:
    """The measure of the card's task on the test photos, and how many these are."""
    card = engine.card
    photos = fit_classes(open_photos(options.photos), card, options.photos)
    everything = photos.of("test")
    looks = scan(photos.store, [photo.name for photo in everything])
    readable = [photo for photo, look in zip(everything, looks, strict=True) if not look.reason]
    test = spaced(readable, options.test)
    if not test:
        raise UserError(f"{options.photos}: no test photos")
    batches = evaluation_batches(
        replace(photos, photos=test), "test", preprocess=card.preprocess, batch_size=16, workers=0
    )
    found = outcomes(
        EngineModule(engine), batches, card.preprocess, device="cpu", task=card.image_task
    )
    return float(found.measure(card.classes, card.image_task)[METRICS[card.task]]), len(test)


def speed(engines: list[Engine], batch: int, options: argparse.Namespace) -> Speed:
    card = engines[0].card
    side = card.preprocess.size
    x = torch.randn(batch, card.preprocess.channels, side, side)
    times: list[list[float]] = [[], []]
    for engine in engines:
        engine(x)
    for number in range(options.rounds):
        for place in (0, 1) if number % 2 else (1, 0):
            start = time.perf_counter()
            for _ in range(options.calls):
                engines[place](x)
            times[place].append(1000 * (time.perf_counter() - start) / options.calls)
    before, after = (statistics.median(one) for one in times)
    return Speed(before, after, [a / b for a, b in zip(*times, strict=True)])


def measure(run: Path, format: Format, folder: Path, options: argparse.Namespace) -> None:
    network = load_network(find_model(run))
    name, side = network.card.architecture.name, network.card.preprocess.size
    files = made(network, format, folder, options)
    told = json.loads(files[1].with_suffix(".json").read_text("utf-8"))
    floating = sum(layer["precision"] == "fp32" for layer in told["layers"])
    engines = [open_engine(file) for file in files]
    subject = f"{name}, {side} px, {engines[0].name}"
    for batch in options.batches:
        found = speed(engines, batch, options)
        ratio = statistics.median(found.ratios)
        print(
            f"| {subject}, batch {batch} | {found.float_ms:.2f} ms | {found.int8_ms:.2f} ms | "
            f"{ratio:.2f}× ({min(found.ratios):.2f}–{max(found.ratios):.2f}, {options.rounds} "
            f"rounds) | ≥ {FASTER}× | {'met' if ratio >= FASTER else 'NOT MET'} |",
            flush=True,
        )
    (before, count), (after, _) = (score(engine, options) for engine in engines)
    good = before - after <= LOST + 1e-9
    print(
        f"| {subject}, {told['metric']} of {count:,} test photos | {100 * before:.2f} % | "
        f"{100 * after:.2f} % | {100 * (before - after):+.2f} points lost; {floating} of "
        f"{len(told['layers'])} layers in float, ranges by {told['calibration']} | ≤ 1 | "
        f"{'met' if good else 'NOT MET'} |",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("photos", type=Path, help="with test photos, as for a training")
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN")
    parser.add_argument("--formats", nargs="+", default=["onnx"], choices=["onnx", "openvino"])
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--calls", type=int, default=3, help="of a round")
    parser.add_argument("--test", type=int, default=10_000, help="test photos, at most")
    parser.add_argument("--calibration", type=int, default=64, help="photos")
    parser.add_argument("--held-out", type=int, default=1000, help="photos that judge layers")
    parser.add_argument("--keep", type=Path, help="a folder for the files")
    options = parser.parse_args()
    print("| what | float | eight bits | | bar | |\n|---|---|---|---|---|---|")
    for run in options.runs:
        for format in options.formats:
            with tempfile.TemporaryDirectory() as temporary:
                folder = Path(temporary)
                if options.keep is not None:
                    folder = options.keep / run.name / format
                    folder.mkdir(parents=True, exist_ok=True)
                measure(run, format, folder, options)


if __name__ == "__main__":
    main()
