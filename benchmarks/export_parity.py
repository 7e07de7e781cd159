"""Exported networks of full size against torch: how far apart, at which sizes.

    python benchmarks/export_parity.py
    python benchmarks/export_parity.py --models --runs runs/streets runs/shirts
    python benchmarks/export_parity.py --models deeplab_v3plus --sizes 65 66 129 256 321 512 513

Xception, MobileNet V1 and Inception V3 at their size, DeepLab V3+ over Xception-65 at sizes from 65
to 513, odd and even and not square, each as ONNX (ONNX Runtime) and OpenVINO. Weights are random,
and the statistics those of a batch of pictures, so that no layer is idle; logits have the standard
deviation 2. The bars are 1e-4 between probabilities and 99.99 % of equal pixels. Beside them stands
how far torch's own float32 is from float64 there. Prints rows of a Markdown table.
"""

import argparse
import copy
import sys
import tempfile
from itertools import chain, pairwise
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

from xception.data.preprocess import Preprocess
from xception.deploy.compare import PROBABILITY, SAME_PIXELS
from xception.deploy.engines import TorchEngine, find_model, load_network, open_engine
from xception.deploy.export import SUFFIXES, Format, formats, write
from xception.models.aligned_xception import Block
from xception.models.network import Network
from xception.models.zoo import create_model, find_entry
from xception.weights.card import Architecture, Card

MODELS = ("xception", "mobilenet_v1", "inception_v3", "deeplab_v3plus")
LEARNT_SIZE = 321  # pixels of the pictures that give the statistics
# What DeepLab says of a whole picture is one value for each: statistics of two pictures would
# divide by next to nothing.
LEARNT = 8
PATCH = 32  # pixels
# Of what a block adds to its input. Where each block replaces half of what it is given, as in a
# fresh network, 65 layers make float32 differ from float64 by more than the bar; training ends far
# from there (Goyal et al. 2017, arXiv:1706.02677, §5.1, begins with 0).
ADDED = 0.25
SPREAD = 2.0  # standard deviation of the logits: about that of a network that is sure of little


def pictures(number: int, height: int, width: int) -> torch.Tensor:
    """Patches of colour with noise, as large in every picture: in [-1, 1] or a little more.

    Were they as broad as the picture, what is learnt at one size would not hold at another.
    """
    cells = (height // PATCH + 2, width // PATCH + 2)
    patches = F.interpolate(torch.randn(number, 3, *cells), (height, width), mode="bilinear")
    return 0.5 * patches + 0.1 * torch.randn(number, 3, height, width)


def make(name: str) -> Network:
    torch.manual_seed(0)
    model = create_model(name)
    segments = "segmentation" in model.TASKS
    size = find_entry(name).size
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
        if isinstance(module, Block) and isinstance(module.shortcut, nn.Identity):
            *_, last = (one for one in module.modules() if isinstance(one, nn.BatchNorm2d))
            nn.init.constant_(last.weight, ADDED)
    with torch.no_grad():
        learnt = pictures(LEARNT, *[LEARNT_SIZE if segments else size] * 2)
        model.train()(learnt)
        nn.init.normal_(model.classifier.weight, std=model.classifier.weight.shape[1] ** -0.5)
        if model.classifier.bias is not None:
            nn.init.zeros_(model.classifier.bias)
        model.classifier.weight *= SPREAD / model.eval()(learnt).std()
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
    parser.add_argument("--models", nargs="*", default=MODELS, help="with random weights")
    parser.add_argument("--runs", nargs="+", type=Path, default=[], help="trained ones")
    parser.add_argument("--sizes", nargs="+", type=int, default=[65, 66, 129, 200, 321, 512, 513])
    options = parser.parse_args()
    kinds: list[Format] = [kind for kind in formats() if kind != "torch"]
    failed = False
    made = ((name, make(name)) for name in options.models)
    trained = ((run.name, load_network(find_model(run))) for run in options.runs)
    for name, model in chain(made, trained):
        exact = copy.deepcopy(model).double()
        original = TorchEngine(model)
        for kind in kinds:
            with tempfile.TemporaryDirectory() as folder:
                file = Path(folder) / f"m{SUFFIXES[kind]}"
                write(model, kind, file)
                engine = open_engine(file)
                largest, least, rounding = 0.0, 1.0, 0.0
                sizes = sizes_of(model, options.sizes)
                for height, width in sizes:
                    x = pictures(1, height, width)
                    a, b = original(x).softmax(1), engine(x).softmax(1)
                    with torch.inference_mode():
                        c = exact(x.double()).softmax(1)
                    rounding = max(rounding, float((a - c).abs().max()))
                    largest = max(largest, float((a - b).abs().max()))
                    same = (a.argmax(1) == b.argmax(1)).double().mean()
                    least = min(least, float(same))
            good = largest <= PROBABILITY and least >= SAME_PIXELS
            failed |= not good
            shown = ", ".join(f"{h}x{w}" for h, w in sizes)
            print(
                f"| {name} | {engine.name} | {shown} | {largest:.1e} | {least:.4%} | "
                f"torch itself {rounding:.1e} | "
                f"{'met' if good else 'NOT MET'} |"
            )
    sys.exit(failed)


if __name__ == "__main__":
    main()
