"""Photos to batches, in worker processes, the same bits whatever their number.

Everything random is a function of (seed, epoch, place in the epoch), never of the worker, the
process or the time: a training that starts again at step k sees what it would have seen, and so do
two processes that share a batch. A worker fills whole batches of uint8 pixels; normalising them is
left to the training device, so that a quarter of the bytes travels.
"""

import signal
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from xception.data.folders import Photo, PhotoSet
from xception.data.images import decode
from xception.data.order import Draws, balanced_weights, epoch_order, steps_per_epoch
from xception.data.preprocess import Preprocess
from xception.data.splits import Split
from xception.data.transforms import Augment, augment_cropped, draw_crop
from xception.errors import UserError

StartMethod = Literal["fork", "spawn", "forkserver"]


class LoaderError(UserError):
    """A batch cannot be had: a worker died, or the batch cannot be shared as asked."""


class Batch(NamedTuple):
    """Some photos as the network's input, before normalisation."""

    pixels: UInt8[Tensor, "b h w c"]
    targets: Int64[Tensor, "b"] | Float[Tensor, "b k"]
    """The class of each photo; with several labels a photo, 1.0 at each of its classes."""
    positions: Int64[Tensor, "b"]
    """Where each photo stands in `photos.of(split)`."""


class BatchKey(NamedTuple):
    """What a worker needs to know to make one batch."""

    epoch: int
    place: int
    """Of the first photo, in the epoch; each photo's random changes come from its own place."""
    positions: list[int]


@dataclass(frozen=True)
class BatchMaker(Dataset):
    """Makes the batch of a key; the part of the loader that lives in the workers."""

    photos: PhotoSet
    members: tuple[Photo, ...]
    preprocess: Preprocess
    augment: Augment | None
    """None for evaluation: nothing random."""
    seed: int
    sizes: tuple[int, ...] = ()
    """Sides of the photos in the first epochs, in pixels; later ones have `preprocess.size`."""

    def __getitem__(self, key: BatchKey) -> Batch | UserError:
        """A batch, or what is wrong with one of its photos: returned, because torch would wrap a
        raised error into the text of a traceback.
        """
        preprocess = self.preprocess
        if key.epoch < len(self.sizes):
            preprocess = preprocess.model_copy(update={"size": self.sizes[key.epoch]})
        size, channels = preprocess.size, preprocess.channels
        pixels = torch.empty((len(key.positions), size, size, channels), dtype=torch.uint8)
        rows = pixels.numpy()
        draws = Draws(self.seed, key.epoch)
        try:
            for i, position in enumerate(key.positions):
                rng = draws.at(key.place + i)
                rows[i] = self._pixels(self.members[position], preprocess, rng)
        except UserError as error:
            return error
        return Batch(pixels, self._targets(key.positions), torch.tensor(key.positions))

    def _pixels(
        self, photo: Photo, preprocess: Preprocess, rng: np.random.Generator
    ) -> UInt8[np.ndarray, "h w c"]:
        data = self.photos.read(photo)
        if self.augment is None:
            return preprocess.pixels(decode(data, photo.name, min_side=preprocess.min_side))
        # The crop comes before the decoding: a large photo is then decoded no larger than needed.
        crop = draw_crop(self.augment, rng)
        min_side = preprocess.min_side if crop is None else crop.min_side(preprocess.size)
        image = decode(data, photo.name, min_side=min_side)
        return augment_cropped(image, crop, preprocess, self.augment, rng)

    def _targets(self, positions: list[int]) -> Int64[Tensor, "b"] | Float[Tensor, "b k"]:
        labels = [self.members[position].labels for position in positions]
        if not self.photos.multilabel:
            return torch.tensor([own[0] for own in labels])
        targets = torch.zeros(len(labels), len(self.photos.classes))
        for row, own in zip(targets, labels, strict=True):
            row[list(own)] = 1
        return targets


class TrainingStream:
    """The batches of the training steps `first_step` to `last_step` (excluded), one after another.

    Each epoch is a new order of the training photos, cut into batches; what is left over at its end
    waits for another epoch. With `world` processes each gets its contiguous part of every batch.
    The sampler "balanced" draws photos with replacement so that classes come equally often; a photo
    with several labels weighs as its rarest one.
    """

    def __init__(
        self,
        photos: PhotoSet,
        *,
        preprocess: Preprocess,
        augment: Augment,
        batch_size: int,
        seed: int,
        first_step: int,
        last_step: int,
        workers: int,
        rank: int = 0,
        world: int = 1,
        sampler: Literal["shuffle", "balanced"] = "shuffle",
        sizes: tuple[int, ...] = (),
        pin_memory: bool = False,
        start_method: StartMethod | None = None,
    ):
        """`batch_size` counts the photos of all processes together; `sizes` are the sides of the
        photos in the first epochs, others have `preprocess.size`; `pin_memory` is for CUDA.

        Raises `LoaderError` for a batch that `world` processes cannot share evenly.
        """
        members = photos.of("train")
        if not members:
            raise LoaderError("there are no training photos")
        self._batch_size, self._part = share_batch(batch_size, len(members), rank, world)
        if world > 1 and (augment.mixup or augment.cutmix) and self._batch_size // world % 2:
            raise LoaderError(
                f"mixup and cutmix pair photos within a process: choose a batch size that"
                f" {2 * world} divides instead of {self._batch_size}"
            )
        self._count, self._seed = len(members), seed
        self._weights = balanced_weights(members) if sampler == "balanced" else None
        self._steps = range(first_step, last_step)
        self._maker = BatchMaker(photos, members, preprocess, augment, seed, sizes)
        self._workers, self._pin_memory = workers, pin_memory
        self._start_method: StartMethod | None = start_method

    def __len__(self) -> int:
        """The number of steps."""
        return len(self._steps)

    def __iter__(self) -> Iterator[Batch]:
        """Start the workers, which live as long as the iterator; raises `LoaderError`."""
        keys = training_keys(
            self._count, self._batch_size, self._part, self._steps, self._seed, self._weights
        )
        return made_batches(
            self._maker,
            keys,
            workers=self._workers,
            pin_memory=self._pin_memory,
            start_method=self._start_method,
        )


def share_batch(batch_size: int, count: int, rank: int, world: int) -> tuple[int, slice]:
    """The photos in a batch of `count` at most, and which of them this process gets.

    Raises `LoaderError` for a batch that `world` processes cannot share evenly.
    """
    batch_size = min(batch_size, count)
    if batch_size % world:
        raise LoaderError(
            f"{world} processes cannot share a batch of {batch_size} photos evenly:"
            f" choose a batch size that {world} divides, of at most {count}"
        )
    part = batch_size // world
    return batch_size, slice(rank * part, (rank + 1) * part)


def training_keys(
    count: int,
    batch_size: int,
    part: slice,
    steps: range,
    seed: int,
    weights: Float[np.ndarray, " n"] | None = None,
) -> Iterator[BatchKey]:
    """What the workers need to know for each step; `part` of every batch is this process'."""
    per_epoch = steps_per_epoch(count, batch_size)
    known, order = -1, np.empty(0, dtype=np.int64)
    for step in steps:
        epoch, index = divmod(step, per_epoch)
        if epoch != known:
            known, order = epoch, epoch_order(count, seed, epoch, weights)
        start = index * batch_size + part.start
        stop = index * batch_size + part.stop
        yield BatchKey(epoch, start, order[start:stop].tolist())


def evaluation_batches(
    photos: PhotoSet,
    split: Split,
    *,
    preprocess: Preprocess,
    batch_size: int,
    workers: int,
    rank: int = 0,
    world: int = 1,
    pin_memory: bool = False,
    start_method: StartMethod | None = None,
) -> Iterator[Batch]:
    """Every photo of the split once, in order, of which each process gets a contiguous part.

    `batch_size` is per process; the last batch may be smaller. Raises `LoaderError`.
    """
    members = photos.of(split)
    positions = range(len(members) * rank // world, len(members) * (rank + 1) // world)
    keys = [
        BatchKey(0, start, list(positions[start : start + batch_size]))
        for start in range(0, len(positions), batch_size)
    ]
    return made_batches(
        BatchMaker(photos, members, preprocess, None, 0),
        keys,
        workers=workers,
        pin_memory=pin_memory,
        start_method=start_method,
    )


def made_batches(
    maker: Dataset,
    keys: Iterable[BatchKey],
    *,
    workers: int,
    pin_memory: bool,
    start_method: StartMethod | None,
) -> Iterator[Any]:
    """What `maker` makes of each key, in order, in worker processes.

    Raises the `UserError` that it gives back for a key, `LoaderError` for a worker that dies.
    """
    loader = DataLoader(
        maker,
        sampler=keys,
        batch_size=None,  # each key is a whole batch
        num_workers=workers,
        worker_init_fn=_leave_interrupts_to_the_parent,
        pin_memory=pin_memory,
        multiprocessing_context=start_method if workers else None,
        generator=torch.Generator(),  # its own, or starting it would move the global one
    )
    iterator = _start(loader)
    try:
        while (made := _next(iterator, workers)) is not None:
            if isinstance(made, UserError):
                raise made
            yield made
    finally:
        del iterator  # stops the workers now, though the traceback of an error may keep this frame


def _next(iterator: Iterator[Any], workers: int) -> Any:
    """The next answer of the workers, None after the last. Raises `LoaderError` for a dead one."""
    try:
        return next(iterator, None)
    except (RuntimeError, OSError, EOFError) as error:
        if not workers or str(error).startswith(
            "Caught "
        ):  # raised by our code, in a worker or here
            raise
        raise LoaderError(
            f"a data worker died ({error}). Often memory or shared memory (/dev/shm) ran out:"
            " try fewer workers or a smaller batch"
        ) from error


def _start(loader: DataLoader) -> Iterator[Any]:
    """Start the workers without torch's SIGCHLD handler.

    The handler would raise the death of a worker anywhere in the training; without it, it is seen
    where the next batch is asked for, within seconds.
    """
    if threading.current_thread() is not threading.main_thread():
        return iter(loader)  # no handler is set from other threads
    before = signal.getsignal(signal.SIGCHLD)
    iterator = iter(loader)
    signal.signal(signal.SIGCHLD, before)
    return iterator


def _leave_interrupts_to_the_parent(worker: int) -> None:
    # Ctrl-C reaches the whole group of processes; the parent decides, and stops the workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
