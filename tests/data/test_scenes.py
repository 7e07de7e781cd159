import math
from pathlib import Path

import numpy as np
import pytest

from xception.data.pair_audit import audit_pairs
from xception.data.pair_loader import read_pair
from xception.data.pairs import open_pairs
from xception.data.scenes import SCENE_CLASSES, scene, write_scenes


def test_scenes_are_a_sound_set(tmp_path: Path) -> None:
    write_scenes(tmp_path, 40, 48, 0)
    pairs = open_pairs(tmp_path)
    assert pairs.classes == ("ground", "disc", "square", "triangle")
    assert pairs.colours == tuple(colour for _, colour in SCENE_CLASSES)
    found = audit_pairs(pairs)
    assert found.counts == {"train": 28, "validation": 4, "test": 8}
    assert found.refusal is None
    assert not {finding.severity for finding in found.findings} & {"error", "warning"}
    # Every class has its share, the ground the largest.
    shares = np.array(list(found.pixels["train"].values())) / (28 * 48**2)
    assert shares.min() > 0.03
    assert shares.argmax() == 0


def test_the_same_arguments_give_the_same_bytes(tmp_path: Path) -> None:
    for name, seed in (("one", 1), ("same", 1), ("other", 2)):
        write_scenes(tmp_path / name, 3, 32, seed)
    contents = [
        [file.read_bytes() for file in sorted((tmp_path / name).rglob("*.*"))]
        for name in ("one", "same", "other")
    ]
    assert contents[0] == contents[1]
    assert contents[0] != contents[2]


def test_masks_are_exact() -> None:
    # Follow the drawing of the shapes by hand, pixel by pixel.
    size = 40
    for seed in range(12):
        _, mask = scene(size, np.random.default_rng(seed))
        rng = np.random.default_rng(seed)
        rng.uniform(-1, 1, 2)
        rng.normal(0, 12, (size, size, 1))
        shapes = []
        for _ in range(rng.integers(2, 6)):
            number = int(rng.integers(1, 4))
            radius, turn = size * rng.uniform(0.12, 0.28), rng.uniform(0, 2 * np.pi)
            middle = rng.uniform(0.15, 0.85, 2) * size
            shapes.append((number, radius, turn, middle))
            for drawn in ((size, size, 1), (), (3,)):  # grain, brightness, hue
                rng.normal(size=drawn)
        for y in range(0, size, 3):
            for x in range(0, size, 3):
                expected = 0
                for number, radius, turn, middle in shapes:
                    if inside(number, x + 0.5 - middle[0], y + 0.5 - middle[1], radius, turn):
                        expected = number
                assert mask[y, x] == expected


def inside(number: int, dx: float, dy: float, radius: float, turn: float) -> bool:
    """By angle and distance, other than the code does it."""
    distance, angle = math.hypot(dx, dy), math.atan2(dy, dx) - turn
    if number == 1:
        return distance <= radius
    if number == 2:
        return distance * max(abs(math.cos(angle)), abs(math.sin(angle))) <= 0.85 * radius
    # A triangle with a corner at 90°: the farthest that its sides allow at this angle.
    sides = [distance * math.cos(angle - math.radians(middle)) for middle in (30, 150, 270)]
    return max(sides) <= radius / 2


def test_photos_show_the_classes(tmp_path: Path) -> None:
    write_scenes(tmp_path, 10, 64, 5)
    pairs = open_pairs(tmp_path)
    means: dict[int, list[np.ndarray]] = {}
    for pair in pairs.pairs:
        image, mask = read_pair(pairs, pair)
        for number in np.unique(mask).tolist():
            means.setdefault(number, []).append(np.array(image)[mask == number].mean(0))
    assert set(means) == {0, 1, 2, 3}
    # Discs are reddish, squares greenish, triangles bluish, on the whole.
    for number, channel in ((1, 0), (2, 1), (3, 2)):
        assert np.mean(means[number], axis=0).argmax() == channel


def test_too_small(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least 16"):
        write_scenes(tmp_path, 1, 8, 0)
