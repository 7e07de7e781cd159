"""A training step of Xception at 299 pixels, batch 8: ours against a plain eager loop of another.

    python benchmarks/training_step.py [--against timm|keras] [--rounds 3]

Each round starts one fresh process for each side, in turn, so that both see the same machine; each
process takes two steps to warm up and reports the median of four. Ours is the step of `xception
train` on the CPU (channels last, freed memory kept); theirs is the textbook loop: forward,
cross-entropy, backward, SGD with momentum. timm imports torchvision, whose operators do not load on
a CPU-only torch; install both with `pip install --no-deps timm torchvision huggingface-hub` and
this script declares the operators that the import asks for.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

# What torchvision 0.28 registers shapes for; none of them is used here.
TORCHVISION_OPERATORS = (
    "roi_align",
    "_roi_align_backward",
    "ps_roi_align",
    "_ps_roi_align_backward",
    "roi_pool",
    "_roi_pool_backward",
    "ps_roi_pool",
    "_ps_roi_pool_backward",
    "nms",
    "qnms",
    "deform_conv2d",
    "_deform_conv2d_backward",
)
BATCH, SIZE, CLASSES, WARM_UP, STEPS = 8, 299, 1000, 2, 4


def ours() -> Callable[[], object]:
    import torch

    from xception.models.zoo import create_model
    from xception.training.allocator import keep_freed_memory
    from xception.training.config import TrainConfig
    from xception.training.distributed import World
    from xception.training.loop import Trainer
    from xception.training.objectives import PhotoLabels
    from xception.training.progress import Silent

    keep_freed_memory()
    torch.manual_seed(0)

    class Random:
        steps_per_epoch = 10**9

        def training(self, first_step: int, last_step: int) -> Iterator[tuple]:
            x = torch.randn(BATCH, 3, SIZE, SIZE).to(memory_format=torch.channels_last)
            y = torch.eye(CLASSES)[torch.arange(BATCH)]
            while True:
                yield x, y

        def validation(self, module: object) -> None:
            return None

    optimizer = {"name": "sgd", "learning_rate": 0.01, "momentum": 0.9, "weight_decay": 1e-5}
    config = TrainConfig.model_validate({"preprocess": {"size": SIZE}, "optimizer": optimizer})
    trainer = Trainer(
        create_model("xception", num_classes=CLASSES),
        Random(),
        PhotoLabels(multilabel=False),
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


def plain(model: object) -> Callable[[], object]:
    import torch
    import torch.nn.functional as F

    assert isinstance(model, torch.nn.Module)
    model.train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-5)
    x, y = torch.randn(BATCH, 3, SIZE, SIZE), torch.arange(BATCH)

    def step() -> None:
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        loss.item()

    return step


def timm() -> Callable[[], object]:
    import torch

    library = torch.library.Library("torchvision", "DEF")
    for operator in TORCHVISION_OPERATORS:
        library.define(f"{operator}(Tensor x) -> Tensor")
    from timm.models import create_model

    return plain(create_model("legacy_xception", num_classes=CLASSES))


def keras() -> Callable[[], object]:
    os.environ["KERAS_BACKEND"] = "torch"
    import keras
    import torch

    keras.backend.set_image_data_format("channels_first")
    model = keras.applications.Xception(weights=None, classifier_activation=None)

    class AsModule(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = model

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.inner(x, training=True)

    return plain(AsModule())


def child(side: str) -> None:
    step = {"ours": ours, "timm": timm, "keras": keras}[side]()
    times = []
    for _ in range(WARM_UP + STEPS):
        start = time.perf_counter()
        step()
        times.append(time.perf_counter() - start)
    print(statistics.median(times[WARM_UP:]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--against", choices=["timm", "keras"], default="timm")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--child", choices=["ours", "timm", "keras"])
    arguments = parser.parse_args()
    if arguments.child:
        child(arguments.child)
        return
    sides: dict[str, list[float]] = {"ours": [], arguments.against: []}
    for _ in range(arguments.rounds):
        for side, times in sides.items():
            command = [sys.executable, __file__, "--child", side]
            output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
            times.append(float(output.split()[-1]))
            print(f"{side}: {times[-1]:.2f} s", file=sys.stderr)
    a, b = (statistics.median(times) for times in sides.values())
    ratios = [y / x for x, y in zip(*sides.values(), strict=True)]
    print(
        f"| training step, Xception 299, batch 8 | ours {a:.2f} s, {arguments.against} {b:.2f} s "
        f"| {statistics.median(ratios):.2f}× faster (rounds: "
        f"{', '.join(f'{r:.2f}' for r in ratios)}) |"
    )


if __name__ == "__main__":
    main()
