"""What a large photo takes: `xception predict` on one of 6000x4000 pixels, in a process of its own.

    python benchmarks/large_photo.py
    python benchmarks/large_photo.py --width 1200 --height 900 --whole

A DeepLab V3+ over 65 layers with 21 classes and fresh weights segments a synthetic photo; printed
are the time and the most memory that the process held (resident, all of it: Python, torch, weights,
the decoded photo). With --whole the same photo is also segmented at once, and the largest
difference of a probability is printed: the bands promise the answer of the whole.
"""

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

from xception.data.preprocess import Preprocess
from xception.deploy.engines import TorchEngine
from xception.deploy.segment import PhotoSegmenter
from xception.models.network import Network
from xception.models.zoo import create_model
from xception.weights.card import Architecture, Card
from xception.weights.model_file import save_model

CLASSES = 21


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--width", type=int, default=6000)
    parser.add_argument("--height", type=int, default=4000)
    parser.add_argument("--backbone", default="xception65")
    parser.add_argument("--output-stride", type=int, default=16)
    parser.add_argument("--whole", action="store_true", help="compare with the whole photo")
    arguments = parser.parse_args()
    network = make_network(arguments.backbone, arguments.output_stride)
    pixels = make_photo(arguments.height, arguments.width)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        save_model(folder / "model.safetensors", network, network.card)
        Image.fromarray(pixels).save(folder / "photo.jpg", quality=90)
        if arguments.whole:
            compare(network, pixels)
        del network, pixels
        command = [sys.executable, "-m", "xception", "predict", folder / "model.safetensors"]
        command += [folder / "photo.jpg", "--out", folder / "masks"]
        started = time.monotonic()
        subprocess.run(command, check=True)
        seconds = time.monotonic() - started
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024  # KiB on Linux
    print(
        f"{arguments.width}x{arguments.height}, {arguments.backbone} at output stride "
        f"{arguments.output_stride}, {torch.get_num_threads()} threads: {seconds:.0f} s, "
        f"{peak / 1e9:.2f} GB at most"
    )


def make_network(backbone: str, output_stride: int) -> Network:
    torch.manual_seed(0)
    network = create_model(
        "deeplab_v3plus", num_classes=CLASSES, backbone=backbone, output_stride=output_stride
    )
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # the mean over all batches
    preprocess = Preprocess(size=513)
    photos = torch.from_numpy(np.stack([make_photo(257, 257, seed) for seed in (1, 2)]))
    with torch.no_grad():
        network.train()(preprocess.normalize(photos))
        network.get_parameter("head.classifier.weight").mul_(20)
    network.card = Card(
        architecture=Architecture(name="deeplab_v3plus", options=network.options),
        task="segmentation",
        classes=tuple(f"class {i}" for i in range(CLASSES)),
        preprocess=preprocess,
    )
    return network.eval()


def make_photo(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Patches of several sizes, and grain."""
    rng = np.random.default_rng(seed)
    total = np.full((height, width, 3), 128, np.float32)
    for cell in (40, 300):
        coarse = rng.integers(0, 256, (height // cell + 2, width // cell + 2, 3)).astype(np.uint8)
        patches = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
        total += 0.4 * (np.asarray(patches, np.float32) - 128)
    total += rng.integers(-8, 9, total.shape, dtype=np.int8)
    return total.clip(0, 255).astype(np.uint8)


def compare(network: Network, pixels: np.ndarray) -> None:
    engine, photo = TorchEngine(network), torch.from_numpy(pixels)
    (whole,) = PhotoSegmenter(engine, whole_pixels=2**40)(photo)
    worst = 0.0
    for top, _, found in PhotoSegmenter(engine, whole_pixels=1)(photo):
        part = whole.probabilities[:, top : top + found.shape[1]]
        worst = max(worst, float((found - part).abs().max()))
    spread = float(whole.probabilities.std(dim=(1, 2)).max())
    print(f"bands against the whole: {worst:.1e} at most (probabilities spread by {spread:.2f})")


if __name__ == "__main__":
    main()
