"""Exported networks of full size against torch: how far apart, at which sizes.

    python benchmarks/export_parity.py
    python benchmarks/export_parity.py --models deeplab_v3plus --sizes 65 66 129 256 321 512 513

Xception, MobileNet V1 and Inception V3 at their size, DeepLab V3+ over Xception-65 at sizes from 65
to 513, odd and even and not square, each as ONNX (ONNX Runtime) and OpenVINO. Weights are random,
and the statistics those of a batch of pictures, so that no layer is idle. The bars are 1e-4 between
probabilities and 99.99 % of equal pixels. Prints rows of a Markdown table.
"""

import argparse
import sys
import tempfile
from itertools import pairwise
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

from xception.data.preprocess import Preprocess
from xception.deploy.compare import PROBABILITY, SAME_PIXELS
from xception.deploy.engines import TorchEngine, open_engine
from xception.deploy.export import SUFFIXES, Format, formats, write
from xception.models.network import Network
from xception.models.zoo import create_model, find_entry
from xception.weights.card import Architecture, Card

MODELS = ("xception", "mobilenet_v1", "inception_v3", "deeplab_v3plus")
LEARNT_SIZE = 129  # pixels of the pictures that give the statistics


def pictures(number: int, height: int, width: int) -> torch.Tensor:
    """Broad patches of colour with noise, in [-1, 1] or a little more."""
    patches = F.interpolate(torch.randn(number, 3, 4, 4), (height, width), mode="bilinear")
    return 0.5 * patches + 0.1 * torch.randn(number, 3, height, width)


def make(name: str) -> Network:
    torch.manual_seed(0)
    model = create_model(name)
    segments = "segmentation" in model.TASKS
    size = find_entry(name).size
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        model.train()(pictures(2, *[LEARNT_SIZE if segments else size] * 2))
        nn.init.normal_(model.classifier.weight, std=model.classifier.weight.shape[1] ** -0.5)
    model.eval()
    model.card = Card(
        architecture=Architecture(name=name, options=model.options),
        task="segmentation" if segments else "classification",
        classes=tuple(str(i) for i in range(model.options["num_classes"])),
        preprocess=Preprocess(size=size),
    )
    return model


def sizes_of(model: Network, sizes: list[int]) -> list[tuple[int, int]]:
    if model.card.task != "segmentation":
        return [(model.card.preprocess.size,) * 2]
    return [*[(side, side) for side in sizes], *pairwise(sizes)]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--sizes", nargs="+", type=int, default=[65, 66, 129, 200, 321, 512, 513])
    options = parser.parse_args()
    kinds: list[Format] = [kind for kind in formats() if kind != "torch"]
    failed = False
    for name in options.models:
        model = make(name)
        original = TorchEngine(model)
        for kind in kinds:
            with tempfile.TemporaryDirectory() as folder:
                file = Path(folder) / f"m{SUFFIXES[kind]}"
                write(model, kind, file)
                engine = open_engine(file)
                largest, least = 0.0, 1.0
                sizes = sizes_of(model, options.sizes)
                for height, width in sizes:
                    x = pictures(1, height, width)
                    a, b = original(x).softmax(1), engine(x).softmax(1)
                    largest = max(largest, float((a - b).abs().max()))
                    same = (a.argmax(1) == b.argmax(1)).double().mean()
                    least = min(least, float(same))
            good = largest <= PROBABILITY and least >= SAME_PIXELS
            failed |= not good
            shown = ", ".join(f"{h}x{w}" for h, w in sizes)
            print(
                f"| {name} | {engine.name} | {shown} | {largest:.1e} | {least:.4%} | "
                f"{'met' if good else 'NOT MET'} |"
            )
    sys.exit(failed)


if __name__ == "__main__":
    main()
