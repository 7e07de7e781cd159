"""Photos with masks to batches, as `loader` does it for classes: the same bits for any workers."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from xception.data.images import inspect
from xception.data.joint import JointAugment, augment_drawn, draw_geometry
from xception.data.loader import (
    BatchKey,
    LoaderError,
    StartMethod,
    made_batches,
    share_batch,
    training_keys,
)
from xception.data.masks import check_sizes
from xception.data.order import Draws
from xception.data.pairs import Pair, PairSet
from xception.data.preprocess import Preprocess, to_array
from xception.data.splits import Split
from xception.errors import UserError


class PairBatch(NamedTuple):
    """Some photos, before normalisation, with the class of every pixel."""

    pixels: UInt8[Tensor, "b h w c"]
    targets: UInt8[Tensor, "b h w"]
    """Class numbers, 255 where a pixel does not count."""
    positions: Int64[Tensor, "b"]
    """Where each pair stands in `pairs.of(split)`."""


class ReadPair(NamedTuple):
    """A photo and what each of its pixels shows."""

    image: Image.Image
    """Mode RGB, upright, perhaps at reduced scale."""
    mask: UInt8[np.ndarray, "h w"]
    """At full scale."""


def read_pair(
    pairs: PairSet, pair: Pair, *, scaled_side: Callable[[tuple[int, int]], int] | None = None
) -> ReadPair:
    """Decode a photo and its mask; they are of one size.

    `scaled_side` gives for the photo's width and height the shorter side that it is going to be
    scaled to: it may then be decoded at reduced scale.

    Raises `ImageError` for a file that cannot be read, `MaskError` for a mask of another size than
    its photo or that holds what means nothing.
    """
    mask = pairs.mask(pair)
    height, width = mask.shape
    min_side = None if scaled_side is None else scaled_side((width, height))
    decoded = inspect(pairs.photo(pair), pair.photo, min_side=min_side)
    check_sizes(pair.mask, (width, height), decoded.size)
    return ReadPair(decoded.image, mask)


@dataclass(frozen=True)
class PairMaker(Dataset):
    """Makes the batch of a key; the part of the loader that lives in the workers."""

    pairs: PairSet
    members: tuple[Pair, ...]
    preprocess: Preprocess
    augment: JointAugment | None
    """None for evaluation: the photo's own size, nothing random."""
    seed: int

    def __getitem__(self, key: BatchKey) -> PairBatch | UserError:
        """A batch, or what is wrong with one of its pairs: returned, because torch would wrap a
        raised error into the text of a traceback.
        """
        draws = Draws(self.seed, key.epoch)
        made = []
        try:
            for i, position in enumerate(key.positions):
                made.append(self._pair(self.members[position], draws.at(key.place + i)))
        except UserError as error:
            return error
        return PairBatch(
            torch.from_numpy(np.stack([pixels for pixels, _ in made])),
            torch.from_numpy(np.stack([targets for _, targets in made])),
            torch.tensor(key.positions),
        )

    def _pair(
        self, pair: Pair, rng: np.random.Generator
    ) -> tuple[UInt8[np.ndarray, "h w c"], UInt8[np.ndarray, "h w"]]:
        if self.augment is None:
            read = read_pair(self.pairs, pair)
            return to_array(read.image, self.preprocess.channels), read.mask
        augment = self.augment
        # The size comes before the decoding: a photo is then decoded no larger than needed.
        geometry = draw_geometry(augment, rng)
        read = read_pair(
            self.pairs,
            pair,
            scaled_side=lambda size: min(geometry.scaled(size, augment.shorter_side)),
        )
        return augment_drawn(read.image, read.mask, geometry, augment, self.preprocess, rng)


class PairStream:
    """The batches of the training steps `first_step` to `last_step` (excluded), one after another.

    Orders, random numbers, sharing by processes: those of `TrainingStream`.
    """

    def __init__(
        self,
        pairs: PairSet,
        *,
        preprocess: Preprocess,
        augment: JointAugment,
        batch_size: int,
        seed: int,
        first_step: int,
        last_step: int,
        workers: int,
        rank: int = 0,
        world: int = 1,
        pin_memory: bool = False,
        start_method: StartMethod | None = None,
    ):
        """Of `preprocess` count channels, interpolation and the mean (the colour beyond a photo);
        the size is that of `augment.crop`. `batch_size` counts the photos of all processes
        together; `pin_memory` is for CUDA.

        Raises `LoaderError` for a batch that `world` processes cannot share evenly.
        """
        members = pairs.of("train")
        if not members:
            raise LoaderError("there are no training photos")
        self._batch_size, self._part = share_batch(batch_size, len(members), rank, world)
        self._steps, self._seed = range(first_step, last_step), seed
        self._maker = PairMaker(pairs, members, preprocess, augment, seed)
        self._workers, self._pin_memory = workers, pin_memory
        self._start_method: StartMethod | None = start_method

    def __len__(self) -> int:
        """The number of steps."""
        return len(self._steps)

    def __iter__(self) -> Iterator[PairBatch]:
        """Start the workers, which live as long as the iterator.

        Raises `LoaderError`; `UserError` for a pair that cannot be used.
        """
        count = len(self._maker.members)
        return made_batches(
            self._maker,
            training_keys(count, self._batch_size, self._part, self._steps, self._seed),
            workers=self._workers,
            pin_memory=self._pin_memory,
            start_method=self._start_method,
        )


def evaluation_pairs(
    pairs: PairSet,
    split: Split,
    *,
    preprocess: Preprocess,
    workers: int,
    rank: int = 0,
    world: int = 1,
    pin_memory: bool = False,
    start_method: StartMethod | None = None,
) -> Iterator[PairBatch]:
    """Every photo of the split once, in order, one at a time and at its own size.

    Each process gets a contiguous part. Of `preprocess` count the channels only. Raises
    `LoaderError`; `UserError` for a photo or mask that cannot be used.
    """
    members = pairs.of(split)
    positions = range(len(members) * rank // world, len(members) * (rank + 1) // world)
    return made_batches(
        PairMaker(pairs, members, preprocess, None, 0),
        [BatchKey(0, position, [position]) for position in positions],
        workers=workers,
        pin_memory=pin_memory,
        start_method=start_method,
    )
