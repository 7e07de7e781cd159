"""The loader against a plain Pillow pipeline with the same crops and flips, in one run.

    python benchmarks/loader_against_pillow.py PHOTOS
    python benchmarks/loader_against_pillow.py PHOTOS --large

`--large` turns the photos into 4000×3000 JPEGs of quality 90 first, as a phone makes them. Both
pipelines read the same files with as many workers and end with a normalised float batch in the main
process; they take turns, and the medians count. Prints one row of a Markdown table:
what, plain images/s, ours images/s, ours ÷ plain.
"""

import argparse
import dataclasses
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from xception.data.folders import Photo, PhotoSet, open_photos
from xception.data.images import decode
from xception.data.loader import TrainingStream
from xception.data.order import Draws, epoch_order
from xception.data.preprocess import Preprocess
from xception.data.store import FolderStore
from xception.data.transforms import Augment, draw_crop

AUGMENT = Augment(crop_scale=(0.08, 1.0), flip=True)
SEED = 0


class PlainDataset(Dataset):
    """What a person writes first: one image a call, whole decoding, floats in the worker."""

    def __init__(self, photos: PhotoSet, order: list[int], size: int):
        self.photos, self.order, self.size = photos, order, size
        self.members = photos.of("train")

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, place: int) -> tuple[torch.Tensor, int]:
        photo = self.members[self.order[place]]
        # The same draws as the loader's, so that both cut out the same parts.
        rng = Draws(SEED, epoch=0).at(place)
        crop = draw_crop(AUGMENT, rng)
        assert crop is not None
        image = Image.open(BytesIO(self.photos.read(photo))).convert("RGB")
        left, top, right, bottom = (round(edge) for edge in crop.box(*image.size))
        image = image.crop((left, top, right, bottom))
        image = image.resize((self.size, self.size), Image.Resampling.BILINEAR)
        if rng.random() < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        values = torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255
        return (values - 0.5) / 0.5, photo.labels[0]


def plain(photos: PhotoSet, steps: int, options: argparse.Namespace) -> Iterator[torch.Tensor]:
    order = epoch_order(len(photos.of("train")), SEED, 0).tolist()[: steps * options.batch]
    dataset = PlainDataset(photos, order, options.size)
    for values, _ in DataLoader(dataset, batch_size=options.batch, num_workers=options.workers):
        yield values


def ours(photos: PhotoSet, steps: int, options: argparse.Namespace) -> Iterator[torch.Tensor]:
    preprocess = Preprocess(size=options.size)
    stream = TrainingStream(
        photos,
        preprocess=preprocess,
        augment=AUGMENT,
        batch_size=options.batch,
        seed=SEED,
        first_step=0,
        last_step=steps,
        workers=options.workers,
    )
    for batch in stream:
        yield preprocess.normalize(batch.pixels)


def images_per_second(run: Callable[[], Iterator[torch.Tensor]]) -> float:
    start = time.perf_counter()
    count = sum(len(values) for values in run())
    return count / (time.perf_counter() - start)


def enlarged(photos: PhotoSet, count: int, folder: Path) -> PhotoSet:
    """`count` training photos as JPEGs of 4000×3000 (or 3000×4000, the way they lie)."""
    members: list[Photo] = []
    for number, photo in enumerate(photos.of("train")[:count]):
        image = decode(photos.read(photo), photo.name)
        size = (4000, 3000) if image.width > image.height else (3000, 4000)
        name = f"{number:04}.jpg"
        image.resize(size, Image.Resampling.BICUBIC).save(folder / name, quality=90)
        members.append(dataclasses.replace(photo, name=name))
    return dataclasses.replace(photos, store=FolderStore(folder), photos=tuple(members))


def compare(photos: PhotoSet, what: str, options: argparse.Namespace) -> None:
    steps = min(options.images, len(photos.of("train"))) // options.batch
    pairs = zip(plain(photos, 1, options), ours(photos, 1, options), strict=True)
    difference = max((a - b).abs().mean().item() * 127.5 for a, b in pairs)
    print(f"mean difference of the pixels: {difference:.2f} grey levels of 255", file=sys.stderr)
    speeds: dict[str, list[float]] = {"plain": [], "ours": []}
    for _ in range(options.rounds):
        speeds["plain"].append(images_per_second(lambda: plain(photos, steps, options)))
        speeds["ours"].append(images_per_second(lambda: ours(photos, steps, options)))
    ratios = [b / a for a, b in zip(speeds["plain"], speeds["ours"], strict=True)]
    before, after = statistics.median(speeds["plain"]), statistics.median(speeds["ours"])
    print(
        f"| {what}, {options.size} px, {options.workers} workers, {options.rounds} rounds of"
        f" {steps * options.batch} images | {before:.0f} | {after:.0f} |"
        f" {statistics.median(ratios):.2f} ({min(ratios):.2f} – {max(ratios):.2f}) |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("photos", type=Path)
    parser.add_argument("--large", action="store_true", help="as 4000×3000 JPEGs")
    parser.add_argument("--images", type=int, default=None, help="per round; 512, or 64 large ones")
    parser.add_argument("--size", type=int, default=299)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    options.images = options.images or (64 if options.large else 512)
    torch.set_num_threads(1)  # the cores are the workers'
    photos = open_photos(options.photos)
    if options.large:
        with tempfile.TemporaryDirectory() as folder:
            photos = enlarged(photos, options.images, Path(folder))
            compare(photos, f"{options.photos.name} as 4000×3000", options)
    else:
        compare(photos, options.photos.name, options)


if __name__ == "__main__":
    main()
