import io
import random

import numpy as np
import pytest
from jaxtyping import UInt8, UInt64
from PIL import Image, ImageEnhance

from xception.data import duplicates
from xception.data.duplicates import MAX_BITS, alike, exact_groups, near_groups
from xception.data.scan import THUMBNAIL, difference_hash


def test_exact_groups() -> None:
    assert exact_groups([b"a", b"b", b"", b"a", b"", b"c", b"b", b"a"]) == [[0, 3, 7], [1, 6]]
    assert exact_groups([]) == []


def hashes(n: int, rng: np.random.Generator) -> UInt64[np.ndarray, " n"]:
    """Clusters of hashes a few bits apart, some bits nearly constant as with a white margin."""
    centres = rng.integers(0, 2**64, n // 4 + 1, np.uint64)
    found = []
    for centre in rng.choice(centres, n):
        flips = rng.choice(64, rng.integers(0, 12), replace=False)
        found.append(int(centre) ^ sum(1 << int(bit) for bit in flips))
    margin = np.uint64(0xFFFF_0000_0000_00FF)
    return np.array(found, np.uint64) & (margin if n % 2 else ~np.uint64(0))


def distant(a: np.uint64, b: np.uint64) -> bool:
    return bin(int(a) ^ int(b)).count("1") > MAX_BITS


@pytest.mark.parametrize("n", [0, 1, 2, 50, 301, 600])
def test_no_near_pair_is_missed(n: int) -> None:
    rng = np.random.default_rng(n)
    fingerprints = hashes(n, rng)
    same = np.tile(rng.integers(0, 255, (1, 768), np.uint8), (n, 1))  # all alike: the hashes decide
    # A plain double loop, and groups by relabelling until nothing changes.
    labels = list(range(n))
    for i in range(n):
        for j in range(i):
            if not distant(fingerprints[i], fingerprints[j]):
                old, new = labels[i], labels[j]
                labels = [new if label == old else label for label in labels]
    expected = {frozenset(k for k in range(n) if labels[k] == label) for label in labels}
    found = near_groups(fingerprints, same)
    assert found.complete
    assert {frozenset(group) for group in found.groups} == {g for g in expected if len(g) > 1}
    assert all(group == sorted(group) for group in found.groups)


@pytest.mark.parametrize("limit", ["MAX_CANDIDATES", "MAX_LOOKS"])
def test_a_hopeless_search_is_given_up(monkeypatch: pytest.MonkeyPatch, limit: str) -> None:
    monkeypatch.setattr(duplicates, limit, 1000)
    different = np.random.default_rng(0).integers(0, 255, (100, 768), np.uint8)
    found = near_groups(np.zeros(100, np.uint64), different)
    assert found == ([], False)


def test_the_hash_by_hand() -> None:
    # A ramp to the right brightens at each of the 8 steps of each of the 8 rows; to the left none.
    ramp = np.tile(np.arange(0, 90, 10, dtype=np.uint8), (8, 1))
    assert difference_hash(Image.fromarray(ramp).convert("RGB")) == 2**64 - 1
    assert difference_hash(Image.fromarray(ramp[:, ::-1].copy()).convert("RGB")) == 0
    half = ramp.copy()
    half[1:] = 7  # only the first row still rises: the highest eight bits
    assert difference_hash(Image.fromarray(half).convert("RGB")) == 0xFF << 56


def scene(seed: int) -> Image.Image:
    """A few soft shapes on a gradient, 160 x 120."""
    chance = random.Random(seed)
    y, x = np.mgrid[0:120, 0:160]
    canvas = np.stack([chance.uniform(0, 90) + chance.uniform(-0.5, 0.5) * x
                       + chance.uniform(-0.5, 0.5) * y for _ in range(3)], -1)  # fmt: skip
    for _ in range(9):
        cx, cy, r = chance.uniform(0, 160), chance.uniform(0, 120), chance.uniform(8, 40)
        weight = 1 / (1 + np.exp(np.hypot(x - cx, y - cy) - r))[..., None]
        canvas = canvas * (1 - weight) + weight * [chance.uniform(0, 255) for _ in range(3)]
    return Image.fromarray(canvas.clip(0, 255).astype(np.uint8))


def thumbnail(image: Image.Image) -> UInt8[np.ndarray, " d"]:
    side = (THUMBNAIL, THUMBNAIL)
    return np.asarray(image.resize(side, Image.Resampling.BOX)).ravel()


def test_changed_copies_are_found_and_other_scenes_are_not() -> None:
    scenes = [scene(seed) for seed in range(150)]
    images = list(scenes)
    for image in scenes[:50]:
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=50)
        images.append(Image.open(buffer).convert("RGB"))
        images.append(image.resize((80, 60), Image.Resampling.LANCZOS))
        images.append(ImageEnhance.Brightness(image).enhance(1.05))
    fingerprints = np.array([difference_hash(image) for image in images], np.uint64)
    found = near_groups(fingerprints, np.stack([thumbnail(image) for image in images]))
    origin = [*range(150), *(seed for seed in range(50) for _ in range(3))]
    assert all(len({origin[i] for i in group}) == 1 for group in found.groups)  # nothing false
    assert sum(len(group) - 1 for group in found.groups) >= 0.95 * 150  # hardly any missed


def test_alike_ignores_brightness_but_not_flat_differences() -> None:
    rng = np.random.default_rng(0)
    a = rng.integers(50, 200, (1, 768)).astype(np.uint8)
    assert alike(a, a + np.uint8(40)).all()
    assert not alike(a, np.roll(a, 7)).any()
    # Two nearly flat pictures are close in grey levels, yet need not be the same.
    flat = rng.integers(100, 104, (2, 768)).astype(np.uint8)
    assert not alike(flat[:1], flat[1:]).any()
