"""A training step of DeepLab V3+ over Xception 65: ours against segmentation-models-pytorch's.

    python benchmarks/segmentation_step.py [--rounds 3] [--batch 4] [--size 256] [--threads 2]

Each round starts one fresh process for each side, in turn, so that both see the same machine; each
process takes two steps to warm up and reports the median of `--steps`. Both networks have the
same backbone, 21 classes, output stride 16 and the rates 6, 12, 18. Ours takes the step of
`xception train` on the CPU (channels last, freed memory kept, the loss of its recipes); theirs the
textbook loop: forward, cross-entropy with 255 ignored, backward, SGD with momentum, in torch's
default layout (`--channels-last`: in ours). With `--forward` it is the forward pass in evaluation
mode that is timed, one image at a time.

segmentation-models-pytorch is for this comparison only:

    pip install --no-deps segmentation-models-pytorch==0.5.0 timm torchvision

torchvision's operators do not load beside a CPU-only torch; tests/oracles.py says what is done
about it.
"""

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

CLASSES, IGNORED, RATES, WARM_UP = 21, 255, (6, 12, 18), 2
SIDES = ("ours", "smp")
Step = Callable[[], object]


def batch(arguments: argparse.Namespace):
    """Pixels around 0, and masks of which a tenth of the pixels is ignored."""
    import torch

    generator = torch.Generator().manual_seed(0)
    images = 1 if arguments.forward else arguments.batch
    shape = images, 3, arguments.size, arguments.size
    x = torch.randn(shape, generator=generator)
    y = torch.randint(CLASSES, (images, *shape[2:]), generator=generator)
    y[torch.rand(y.shape, generator=generator) < 0.1] = IGNORED
    return x, y


def ours(arguments: argparse.Namespace) -> Step:
    import torch

    from xception.models.zoo import create_model
    from xception.training.allocator import keep_freed_memory
    from xception.training.config import PixelLoss, TrainConfig
    from xception.training.distributed import World
    from xception.training.loop import Trainer
    from xception.training.objectives import PixelLabels
    from xception.training.progress import Silent

    torch.manual_seed(0)
    x, y = batch(arguments)
    x = x.to(memory_format=torch.channels_last)
    model = create_model("deeplab_v3plus", num_classes=CLASSES)
    if arguments.forward:
        model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        return evaluated(model, x)
    keep_freed_memory()

    class Random:
        steps_per_epoch = 10**9

        def training(self, first_step: int, last_step: int) -> Iterator[tuple]:
            while True:
                yield x, y

        def validation(self, module: object) -> None:
            return None

    optimizer = {"name": "sgd", "learning_rate": 0.007, "momentum": 0.9, "weight_decay": 4e-5}
    config = TrainConfig.model_validate(
        {
            "model": "deeplab_v3plus",
            "preprocess": {"size": arguments.size},
            "batch_size": arguments.batch,
            "optimizer": optimizer,
        }
    )
    trainer = Trainer(
        model,
        Random(),
        PixelLabels(parts=PixelLoss()),
        config,
        World(),
        keep_best=lambda *_: None,
        folder=Path(),
        fingerprint="",
        progress=Silent(),
    )
    trainer.module.train()
    batches = trainer.feed.training(0, 1)
    return lambda: trainer._step(*next(batches))


def smp(arguments: argparse.Namespace) -> Step:
    import torch
    import torch.nn.functional as F

    sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
    from oracles import torchvision_models

    torchvision_models()  # timm imports it
    import segmentation_models_pytorch

    torch.manual_seed(0)
    model = segmentation_models_pytorch.DeepLabV3Plus(
        "tu-xception65",
        encoder_weights=None,
        encoder_output_stride=16,
        decoder_atrous_rates=RATES,
        classes=CLASSES,
    )
    x, y = batch(arguments)
    if arguments.channels_last:
        x = x.to(memory_format=torch.channels_last)
        model.to(memory_format=torch.channels_last)
    if arguments.forward:
        return evaluated(model, x)
    model.train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.007, momentum=0.9, weight_decay=4e-5)

    def step() -> None:
        loss = F.cross_entropy(model(x), y, ignore_index=IGNORED)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        loss.item()

    return step


def evaluated(model, x) -> Step:
    import torch

    model.eval()

    def step() -> None:
        with torch.no_grad():
            model(x)

    return step


def child(arguments: argparse.Namespace) -> None:
    import torch

    torch.set_num_threads(arguments.threads)
    clock = time.process_time if arguments.clock == "process" else time.perf_counter
    step = {"ours": ours, "smp": smp}[arguments.child](arguments)
    times = []
    for _ in range(WARM_UP + arguments.steps):
        start = clock()
        step()
        times.append(clock() - start)
    print(statistics.median(times[WARM_UP:]))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--forward", action="store_true", help="no step: evaluate one image")
    parser.add_argument("--channels-last", action="store_true", help="theirs too")
    parser.add_argument("--clock", choices=["wall", "process"], default="wall")
    parser.add_argument("--child", choices=SIDES)
    arguments = parser.parse_args()
    if arguments.child:
        child(arguments)
        return
    times: dict[str, list[float]] = {side: [] for side in SIDES}
    for _ in range(arguments.rounds):
        for side in SIDES:
            command = [sys.executable, __file__, *sys.argv[1:], "--child", side]
            output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
            times[side].append(float(output.split()[-1]))
            print(f"{side}: {times[side][-1]:.2f} s", file=sys.stderr)
    ratios = [theirs / mine for mine, theirs in zip(*times.values(), strict=True)]
    mine, theirs = (statistics.median(one) for one in times.values())
    what = "forward, batch 1" if arguments.forward else f"training step, batch {arguments.batch}"
    rounds = ", ".join(f"{one:.2f}" for one in ratios)
    print(
        f"| DeepLab V3+ over Xception 65, {what}, {arguments.size} px | ours {mine:.2f} s, smp "
        f"{theirs:.2f} s | {statistics.median(ratios):.2f}× faster (rounds: {rounds}) |"
    )


if __name__ == "__main__":
    main()
