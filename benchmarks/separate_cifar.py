"""Two networks trained on CIFAR-10, separated: accuracy against multiply-accumulates.

    python benchmarks/separate_cifar.py --data cifar10.zip [--folder runs/separate-cifar]
                                        [--network vgg resnet] [--calibrate 4096]
                                        [--minutes 25 | --epochs 16]

A VGG-like and a ResNet-like network (plain torch, below) are trained within the minutes, or loaded
from the folder if they have been before. Epochs in several numbers are cycles of the rate, which
starts anew at half of what it was (warm restarts: Loshchilov & Hutter 2017). Then, on the test
photos:

- at half of the MACs, without fine-tuning: fitted to photos, from the kernels alone with the same
  plan, and from the kernels alone with a plan of its own;
- at a third, fitted to photos, and after one epoch of distillation from the original;
- Network Decoupling's rule (Guo et al. 2018, arXiv:1808.05517): per layer the smallest rank whose
  mean energy over the slices reaches a threshold, the kernels truncated; for several thresholds,
  and the MACs that our plans need for the same accuracy;
- the time of one image and of a batch before and after, by torch.

Everything is chosen on training photos; the test photos are only measured on. `--photos` takes that
many of each split only: to see that it runs, not to believe the figures.
"""

import argparse
import copy
import math
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from xception.data.folders import PhotoSet, open_photos
from xception.data.loader import evaluation_batches
from xception.data.preprocess import Preprocess
from xception.data.splits import Split
from xception.data.transforms import Augment
from xception.layers.separable import Order
from xception.separation.algebra import separability
from xception.separation.candidates import Candidate
from xception.separation.plan import Plan, make_plan
from xception.separation.sites import ORDERS
from xception.separation.surgery import Prepared, prepare
from xception.separation.timing import compare_networks
from xception.training.allocator import keep_freed_memory
from xception.training.distill import distill, distillation_config
from xception.training.distributed import World
from xception.training.interrupts import StopRequest
from xception.training.progress import Lines

SIZE, CLASSES, BATCH = 32, 10, 64
RATE = 0.06  # at its highest
TUNING_RATE = 0.02  # chosen on validation photos, with the shift
SHIFT = 2  # pixels; few epochs learn more from photos that are changed little
PREPROCESS = Preprocess(size=SIZE)
THRESHOLDS = (0.99, 0.97, 0.95, 0.93, 0.9, 0.85, 0.8, 0.7, 0.6)
FRACTIONS = (0.8, 0.7, 0.6, 0.5, 0.45, 0.4, 0.35, 0.3, 0.25)


def block(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


class Residual(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.first = block(inputs, outputs, stride)
        self.second = nn.Sequential(
            nn.Conv2d(outputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs)
        )
        self.shortcut = (
            nn.Identity()
            if stride == 1
            else nn.Sequential(
                nn.AvgPool2d(stride), nn.Conv2d(inputs, outputs, 1, bias=False),
                nn.BatchNorm2d(outputs),
            )
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.second(self.first(x)) + self.shortcut(x))


def head(channels: int) -> list[nn.Module]:
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, CLASSES)]


def vgg() -> nn.Sequential:
    """34 M MACs: 3x3 convolutions and pooling in a row."""
    return nn.Sequential(
        block(3, 32), nn.MaxPool2d(2), block(32, 64), block(64, 64), nn.MaxPool2d(2),
        block(64, 128), block(128, 128), nn.MaxPool2d(2), block(128, 256), *head(256),
    )  # fmt: skip


def resnet() -> nn.Sequential:
    """37 M MACs: four residual blocks, of which one keeps its input as it is."""
    return nn.Sequential(
        block(3, 32), Residual(32, 48, 2), Residual(48, 96, 2), Residual(96, 96, 1),
        Residual(96, 192, 2), *head(192),
    )  # fmt: skip


NETWORKS: dict[str, Callable[[], nn.Sequential]] = {"vgg": vgg, "resnet": resnet}


class Cifar:
    """The photos as uint8 pixels in memory."""

    def __init__(self, path: Path, most: int | None):
        photos = open_photos(path)
        if most is not None:
            kept = [photo for s in ("train", "validation", "test") for photo in photos.of(s)]
            step = {s: max(1, len(photos.of(s)) // most) for s in ("train", "validation", "test")}
            places = dict.fromkeys(step, 0)
            chosen = []
            for photo in kept:
                if places[photo.split] % step[photo.split] == 0:
                    chosen.append(photo)
                places[photo.split] += 1
            photos = replace(photos, photos=tuple(chosen))
        self.photos: PhotoSet = photos
        self.splits = {s: self._read(s) for s in ("train", "test")}

    def _read(self, split: Split) -> tuple[Tensor, Tensor]:
        batches = list(
            evaluation_batches(self.photos, split, preprocess=PREPROCESS, batch_size=500, workers=0)
        )
        return torch.cat([b.pixels for b in batches]), torch.cat([b.targets for b in batches])

    def calibration(self, count: int) -> tuple[Callable[[], Iterator[Tensor]], int]:
        pixels, _ = self.splits["train"]
        chosen = torch.randperm(len(pixels), generator=torch.Generator().manual_seed(0))[:count]
        parts = pixels[chosen].split(BATCH)
        return lambda: (PREPROCESS.normalize(part) for part in parts), len(chosen)

    @torch.inference_mode()
    def accuracy(self, model: nn.Module) -> float:
        pixels, targets = self.splits["test"]
        model = copy.deepcopy(model).eval()
        model.to(memory_format=torch.channels_last)
        right = sum(
            int((model(PREPROCESS.normalize(x)).argmax(1) == y).sum())
            for x, y in zip(pixels.split(500), targets.split(500), strict=True)
        )
        return right / len(pixels)


def augmented(pixels: Tensor) -> Tensor:
    """Shifted by up to SHIFT pixels, and mirrored half of the time."""
    count = len(pixels)
    padded = F.pad(pixels.permute(0, 3, 1, 2), (SHIFT,) * 4)
    rows = torch.randint(0, 2 * SHIFT + 1, (count, 1)) + torch.arange(SIZE)
    columns = torch.randint(0, 2 * SHIFT + 1, (count, 1)) + torch.arange(SIZE)
    columns = torch.where(torch.rand(count, 1) < 0.5, columns, columns.flip(1))
    images = torch.arange(count)[:, None, None]
    return padded.permute(0, 2, 3, 1)[images, rows[:, :, None], columns[:, None, :]]


def train(model: nn.Module, data: Cifar, epochs: int, highest: float) -> None:
    """SGD with one cycle of the rate over so many epochs."""
    pixels, targets = data.splits["train"]
    model.train().to(memory_format=torch.channels_last)
    optimizer = optimizer_of(model)
    per_epoch = max(1, len(pixels) // BATCH)
    steps = epochs * per_epoch
    for epoch in range(epochs):
        order = torch.randperm(len(pixels))
        for place in range(per_epoch):
            done = (epoch * per_epoch + place) / steps
            share = done / 0.2 if done < 0.2 else 0.5 + 0.5 * math.cos((done - 0.2) / 0.8 * math.pi)
            chosen = order[place * BATCH : (place + 1) * BATCH]
            step(model, optimizer, pixels[chosen], targets[chosen], highest * share)
        print(f"  epoch {epoch + 1}/{epochs}: test {data.accuracy(model):.4f}", flush=True)


def optimizer_of(model: nn.Module) -> torch.optim.SGD:
    return torch.optim.SGD(
        model.parameters(), lr=RATE, momentum=0.9, nesterov=True, weight_decay=5e-4
    )


def step(
    model: nn.Module, optimizer: torch.optim.SGD, pixels: Tensor, targets: Tensor, rate: float
) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate
    x = PREPROCESS.normalize(augmented(pixels))
    F.cross_entropy(model(x), targets, label_smoothing=0.05).backward()
    optimizer.step()
    optimizer.zero_grad()


def affordable(model: nn.Module, data: Cifar, minutes: float) -> int:
    """The epochs, up to 30, that fit into so many minutes, by the time of ten steps of a copy."""
    pixels, targets = data.splits["train"]
    model = copy.deepcopy(model).train().to(memory_format=torch.channels_last)
    optimizer = optimizer_of(model)
    begin = time.perf_counter()
    for _ in range(10):
        step(model, optimizer, pixels[:BATCH], targets[:BATCH], RATE)
    seconds = (time.perf_counter() - begin) / 10
    return min(max(int(60 * minutes * BATCH / (seconds * len(pixels))), 1), 30)


def trained(name: str, data: Cifar, arguments: argparse.Namespace) -> nn.Sequential:
    """The network from the folder, or trained now and put there after each cycle."""
    folder: Path = arguments.folder
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    model = NETWORKS[name]()
    cycles = arguments.epochs or [affordable(model, data, arguments.minutes)]
    for cycle, epochs in enumerate(cycles):
        path = folder / f"{name}-{'-'.join(map(str, cycles[: cycle + 1]))}.pt"
        if path.exists():
            model.load_state_dict(torch.load(path, weights_only=True))
            continue
        torch.manual_seed(cycle)
        begin = time.perf_counter()
        train(model, data, epochs, RATE / 2**cycle)
        print(f"  {epochs} epochs in {(time.perf_counter() - begin) / 60:.1f} min")
        torch.save(model.state_dict(), path)
    return model.eval()


def decoupling(prepared: Prepared, order: Order, threshold: float) -> Plan:
    """Network Decoupling's plan: one rank for a layer, by the mean energy of its slices."""
    choices = {}
    for site in prepared.sites:
        if site.refusal is None:
            spectrum = separability(site.conv).of(order)
            rank = next(
                r for r in range(1, site.most(order) + 1)
                if r == site.most(order) or spectrum.mean_energy(r) >= threshold
            )  # fmt: skip
            macs = site.macs_of(order, rank)
            if macs < site.macs:
                choices[site.name] = Candidate(order, rank, macs, spectrum.error(rank), 0.0)
    return make_plan(prepared.sites, prepared.total_macs, choices)


def needed(points: list[tuple[float, float]], accuracy: float) -> float | None:
    """The share of the MACs from which on our plans have this accuracy, between two of them."""
    ordered = sorted(points)  # by share, rising
    if ordered[0][1] >= accuracy:
        return ordered[0][0]
    for (low, below), (high, above) in pairwise(ordered):
        if below < accuracy <= above:
            return low + (high - low) * (accuracy - below) / (above - below)
    return None


def percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.2f} %"


def judge(name: str, data: Cifar, arguments: argparse.Namespace) -> None:
    print(f"\n## {name}")
    model = trained(name, data, arguments)
    before = data.accuracy(model)
    batches, count = data.calibration(arguments.calibrate)
    begin = time.perf_counter()
    ours = prepare(model, SIZE, 3, batches=batches, images=count)
    looked = time.perf_counter() - begin
    kernels = prepare(model, SIZE, 3)
    same = replace(ours, photos=None)
    print(
        f"{ours.total_macs:,} MACs, test {percent(before)} (bar: 85 %), looked at in {looked:.0f} s"
    )

    begin = time.perf_counter()
    half, done = ours.operate(ours.within(0.5))
    spent = time.perf_counter() - begin
    aware = data.accuracy(half)
    free = data.accuracy(same.operate(ours.within(0.5))[0])
    own = data.accuracy(kernels.operate(kernels.within(0.5))[0])
    print(f"half of the MACs, fitted in {spent:.0f} s:")
    for one in done:
        print(f"  {one.name}: {one.order}, rank {mean_rank(one.ranks):.2f}, "
              f"output error {percent(one.output_error)}")  # fmt: skip
    loss = before - aware
    print(
        f"| fitted to {count} photos | {percent(aware)} | loses {percent(loss)} (bar: 2 points) |"
    )
    print(f"| kernels alone, same plan | {percent(free)} | loses {percent(before - free)} |")
    print(f"| kernels alone, own plan | {percent(own)} | loses {percent(before - own)} |")
    least = min(before - free, before - own)
    share = f"{loss / least:.2f}" if least > 0 else "–"
    print(f"share of the smaller of both losses: {share} (bar: 0.50)")
    times("half", model, half)

    third, _ = ours.operate(ours.within(1 / 3))
    fitted = data.accuracy(third)
    tuned = copy.deepcopy(third)
    tune(tuned, model, data)
    print(f"| a third, fitted | {percent(fitted)} | loses {percent(before - fitted)} |")
    after = data.accuracy(tuned)
    loss = percent(before - after)
    print(f"| a third, one epoch | {percent(after)} | loses {loss} (bar: 2 points) |")
    times("a third", model, third)
    against_decoupling(model, ours, same, data)


def tune(student: nn.Module, teacher: nn.Module, data: Cifar) -> None:
    config = distillation_config(
        PREPROCESS, epochs=1, batch_size=BATCH, workers=0, learning_rate=TUNING_RATE,
        augment=Augment(pad_crop=SHIFT, flip=True), device="cpu",
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        distill(
            student, teacher, data.photos, config, Path(folder), World(), StopRequest(), Lines()
        )
    student.eval()


def against_decoupling(model: nn.Module, ours: Prepared, same: Prepared, data: Cifar) -> None:
    """The MACs for the accuracy that Network Decoupling's rule reaches."""
    points = [(1.0, data.accuracy(model))]
    for fraction in FRACTIONS:
        if fraction >= ours.least:
            plan = ours.within(fraction)
            points.append((plan.macs / ours.total_macs, data.accuracy(ours.operate(plan)[0])))
    print("ours: " + ", ".join(f"{share:.3f}: {percent(a)}" for share, a in points))
    print("| Network Decoupling | threshold | MACs | test | ours for that | its ranks, our fit |")
    for order in ORDERS:
        for threshold in THRESHOLDS:
            plan = decoupling(ours, order, threshold)
            share = plan.macs / ours.total_macs
            if not plan.choices:
                continue
            accuracy = data.accuracy(same.operate(plan)[0])
            fitted = data.accuracy(ours.operate(plan)[0])
            print(
                f"| {order} | {threshold} | {share:.3f} | {percent(accuracy)} | "
                f"{share_text(needed(points, accuracy))} | {percent(fitted)}, ours "
                f"{share_text(needed(points, fitted))} |"
            )


def share_text(share: float | None) -> str:
    return "–" if share is None else f"{share:.3f}"


def times(what: str, before: nn.Module, after: nn.Module) -> None:
    both = [copy.deepcopy(one).eval() for one in (before, after)]
    for one in both:
        one.to(memory_format=torch.channels_last)
    for batch in (1, 64):
        x = torch.randn(batch, 3, SIZE, SIZE).to(memory_format=torch.channels_last)
        old, new = compare_networks(*both, x)
        print(f"| {what}, torch, batch {batch} | {old:.2f} ms | {new:.2f} ms | {old / new:.2f}x |")


def mean_rank(ranks: int | tuple[int, ...]) -> float:
    return ranks if isinstance(ranks, int) else sum(ranks) / len(ranks)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--folder", type=Path, default=Path("runs/separate-cifar"))
    parser.add_argument("--network", nargs="+", choices=list(NETWORKS), default=list(NETWORKS))
    parser.add_argument("--minutes", type=float, default=25, help="of training, for each network")
    parser.add_argument("--epochs", type=int, nargs="+", help="of each cycle, not by --minutes")
    parser.add_argument("--calibrate", type=int, default=4096, help="photos to fit layers to")
    parser.add_argument("--photos", type=int, help="of each split, to try it out")
    arguments = parser.parse_args()
    keep_freed_memory()
    data = Cifar(arguments.data, arguments.photos)
    for name in arguments.network:
        judge(name, data, arguments)


if __name__ == "__main__":
    main()
