"""Photos with masks for a segmentation network.

How well it does is counted on whole photos, those larger than memory should hold at once in bands,
as `xception evaluate` does it. Photos that are too large even for that are known before the first
step: no epoch is lost to them.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from xception.data.names import some
from xception.data.order import steps_per_epoch
from xception.data.pair_loader import PairStream, evaluation_pairs
from xception.data.pairs import PairSet
from xception.data.splits import Split
from xception.errors import UserError
from xception.evaluation.any_size import AnyPhoto, too_large
from xception.evaluation.segmentation import PixelCounts, evaluate_pairs
from xception.models.segmenter import Segmenter
from xception.training.config import TrainConfig
from xception.training.distributed import World, gather
from xception.training.feeds import Validation

MEASURED: tuple[Split, ...] = ("validation", "test")


@dataclass
class PairFeed:
    """Photos with masks, decoded and augmented by the loader, normalised here.

    Validation shows every photo whole, and counts the pixels of its mask.
    """

    pairs: PairSet
    config: TrainConfig
    world: World
    workers: int

    def __post_init__(self) -> None:
        self.steps_per_epoch = steps_per_epoch(len(self.pairs.of("train")), self.config.batch_size)

    def training(
        self, first_step: int, last_step: int
    ) -> Iterator[tuple[Float[Tensor, "b c h w"], Int64[Tensor, "b h w"]]]:
        """Normalised crops, channels last, and the class of each pixel, or IGNORED."""
        config = self.config
        stream = PairStream(
            self.pairs,
            preprocess=config.preprocess,
            augment=config.joint,
            batch_size=config.batch_size,
            seed=config.seed,
            first_step=first_step,
            last_step=last_step,
            workers=self.workers,
            rank=self.world.rank,
            world=self.world.size,
            pin_memory=self.world.device.type == "cuda",
        )
        for batch in stream:
            pixels = batch.pixels.to(self.world.device, non_blocking=True)
            targets = batch.targets.to(self.world.device, non_blocking=True)
            yield config.preprocess.normalize(pixels), targets.long()

    def validation(self, module: nn.Module) -> Validation | None:
        """See `Feed`."""
        if not isinstance(module, Segmenter):
            raise TypeError(f"{type(module).__name__} does not answer for pixels")
        counts = count_pixels(
            module, self.pairs, "validation", self.config, self.world, self.workers
        )
        return None if counts is None else judge_counts(counts, self.pairs.classes)


def judge_counts(counts: PixelCounts, classes: tuple[str, ...]) -> Validation:
    """The figures of an epoch's validation, and the score that decides which epoch is best."""
    figures = counts.figures(classes)
    miou, loss = figures["miou"], figures["log_loss"]
    return Validation(
        miou,
        loss,
        {"val_loss": loss, "val_miou": miou, "val_pixel_accuracy": figures["pixel_accuracy"]},
    )


def refuse_too_large(network: Segmenter, pairs: PairSet, config: TrainConfig) -> None:
    """Refuse photos that will be counted of which the network would see too large an image.

    Raises:
        UserError: there are some; it names them.
    """
    segment = _any_photo(network, pairs, config, torch.device("cpu"))
    measured = [pair.photo for split in MEASURED for pair in pairs.of(split)]
    refused = too_large(segment, pairs.store, measured)
    if refused:
        first, reason = next(iter(refused.items()))
        raise UserError(
            f"{first}: {reason}\n"
            "Photos for validation and test are measured whole: training can begin without "
            f"{some(list(refused))}, or with the parts that they are cut into."
        )


def _any_photo(
    network: Segmenter, pairs: PairSet, config: TrainConfig, device: torch.device
) -> AnyPhoto:
    return AnyPhoto(
        network,
        config.preprocess,
        num_classes=len(pairs.classes),
        device=device,
        output_stride=network.options["output_stride"],
        minimum_size=network.MINIMUM_SIZE,
        shorter_side=config.joint.shorter_side,
    )


def count_pixels(
    network: Segmenter,
    pairs: PairSet,
    split: Split,
    config: TrainConfig,
    world: World,
    workers: int,
) -> PixelCounts | None:
    """The pixels of a split, each counted once however many processes share the work."""
    if not pairs.of(split):
        return None
    batches = evaluation_pairs(
        pairs,
        split,
        preprocess=config.preprocess,
        workers=workers,
        rank=world.rank,
        world=world.size,
    )
    segment = _any_photo(network, pairs, config, world.device)
    mine = evaluate_pairs(segment, batches, num_classes=len(pairs.classes))
    return PixelCounts.combine(gather(world, mine))
