"""How long it takes to separate a network of 25 million parameters, and in how much memory.

    python benchmarks/separate_large.py --data clothing.zip [--photos 256] [--size 224]
                                        [--network inception_v3]

ResNet-50 (He et al. 2016, arXiv:1512.03385, Table 1; 25.6 M parameters, plain torch, below) with
fresh weights and the batch statistics of the photos: what weights are makes no difference to the
time. It is looked at (the ways to write each layer, with their harm to the answers), planned to
save half of what can be saved (more than half of its MACs are in 1x1 convolutions), and exchanged
layer by layer, fitted to the photos. Bars: ten minutes on two cores, 6 GB for the whole process.
With `--network inception_v3` it is Inception V3, whose 1x7 and 7x1 kernels need no rank above 7:
the largest ranks that exchanged layers got are printed for each shape of kernel.
"""

import argparse
import resource
import time
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from xception.data.folders import open_photos
from xception.data.loader import evaluation_batches
from xception.data.preprocess import Preprocess
from xception.models.zoo import create_model
from xception.separation.surgery import Exchanged, prepare
from xception.separation.timing import compare_networks

BATCH = 16
STAGES = ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2))  # width, blocks, stride


class Bottleneck(nn.Module):
    def __init__(self, inputs: int, width: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * width)
        self.shortcut = (
            nn.Identity()
            if stride == 1 and inputs == 4 * width
            else nn.Sequential(
                nn.Conv2d(inputs, 4 * width, 1, stride, bias=False), nn.BatchNorm2d(4 * width)
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        y = F.relu(self.bn2(self.conv2(y)))
        return F.relu(self.bn3(self.conv3(y)) + self.shortcut(x))


def resnet50() -> nn.Sequential:
    layers: list[nn.Module] = [
        nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(),
        nn.MaxPool2d(3, 2, 1),
    ]  # fmt: skip
    inputs = 64
    for width, blocks, stride in STAGES:
        for place in range(blocks):
            layers.append(Bottleneck(inputs, width, stride if place == 0 else 1))
            inputs = 4 * width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, 1000))


def peak() -> float:
    """The most memory that this process has had, in GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--photos", type=int, default=256)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--network", choices=["resnet50", "inception_v3"], default="resnet50")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    preprocess = Preprocess(size=arguments.size)
    pixels: list[Tensor] = []
    stream = evaluation_batches(
        open_photos(arguments.data), "train", preprocess=preprocess, batch_size=BATCH, workers=0
    )
    for batch in stream:
        pixels.append(batch.pixels)
        if BATCH * len(pixels) >= arguments.photos:
            break
    count = sum(map(len, pixels))
    model = resnet50() if arguments.network == "resnet50" else create_model("inception_v3")
    model.to(memory_format=torch.channels_last)
    with torch.no_grad():
        for part in pixels[:4]:
            model.train()(preprocess.normalize(part))
    model.eval()
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters, {count} photos, "
          f"{torch.get_num_threads()} threads")  # fmt: skip

    def told(one: Exchanged) -> None:
        error = "not known" if one.output_error is None else f"{one.output_error:.3f}"
        print(f"  {one.name}: output error {error}", flush=True)

    begin = time.perf_counter()
    prepared = prepare(
        model,
        arguments.size,
        3,
        batches=lambda: (preprocess.normalize(part) for part in pixels),
        images=count,
    )
    looked = time.perf_counter()
    first = peak()
    plan = prepared.within((1 + prepared.least) / 2)
    changed, exchanged = prepared.operate(plan, told=told)
    done = time.perf_counter()
    whole = peak()
    image = torch.randn(1, 3, arguments.size, arguments.size)
    before, after = compare_networks(model, changed, image.to(memory_format=torch.channels_last))
    print(f"| looked at | {looked - begin:.0f} s |")
    print(f"| exchanged | {done - looked:.0f} s |")
    print(f"| together | {(done - begin) / 60:.1f} min (bar: 10) |")
    print(f"| peak memory | {whole:.2f} GB, {first:.2f} while looked at (bar: 6) |")
    kernels = {site.name: site.conv.kernel_size for site in prepared.sites}
    ranks: dict[tuple[int, ...], int] = {}
    for one in exchanged:
        rank = one.ranks if isinstance(one.ranks, int) else max(one.ranks)
        kernel = kernels[one.name]
        ranks[kernel] = max(rank, ranks.get(kernel, 0))
    for kernel, rank in ranks.items():
        print(f"| {kernel[0]}x{kernel[1]} | rank {rank} at most, of {kernel[0] * kernel[1]} |")
    kept = plan.macs / prepared.total_macs
    print(f"| one image, torch | {before:.1f} ms, {after:.1f} ms at {kept:.0%} of the MACs |")


if __name__ == "__main__":
    main()
