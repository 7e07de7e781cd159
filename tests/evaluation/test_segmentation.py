import json
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from oracles import torchvision_models

from xception.data.pair_loader import PairBatch
from xception.errors import UserError
from xception.evaluation.segmentation import (
    CHUNK_PIXELS,
    IGNORED,
    TRIMAP_WIDTHS,
    Piece,
    PixelCounts,
    boundary_rings,
    dilated,
    evaluate_pairs,
)


def random_maps(
    photos: int, k: int, seed: int, *, used: int | None = None
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Truths (some of it ignored) and answers, of sizes of their own; only `used` classes occur."""
    rng = np.random.default_rng(seed)
    maps = []
    for _ in range(photos):
        size = tuple(rng.integers(5, 40, 2))
        truth = rng.integers(0, used or k, size).astype(np.uint8)
        truth[rng.random(size) < 0.2] = IGNORED
        maps.append((truth, rng.integers(0, used or k, size).astype(np.uint8)))
    return maps


def counted(maps: list[tuple[np.ndarray, np.ndarray]], k: int) -> PixelCounts:
    counts = PixelCounts.empty(k)
    for position, (truth, answer) in enumerate(maps):
        counts.add(position, truth, answer)
    return counts


def names(k: int) -> tuple[str, ...]:
    return tuple(f"class {i}" for i in range(k))


def slow_iou(truths: np.ndarray, answers: np.ndarray, label: int) -> float | None:
    both = either = 0
    for truth, answer in zip(truths.tolist(), answers.tolist(), strict=True):
        if truth != IGNORED:
            both += truth == label and answer == label
            either += truth == label or answer == label
    return both / either if either else None


def test_by_hand():
    truth = np.array([[0, 0, 1], [1, 1, IGNORED]], np.uint8)
    answer = np.array([[0, 1, 1], [1, 0, 2]], np.uint8)
    found = counted([(truth, answer)], 3).figures(("sky", "road", "car"))
    assert (found["samples"], found["pixels"], found["ignored"]) == (1, 5, 1)
    assert found["iou"] == {"sky": 1 / 3, "road": 2 / 4, "car": None}
    assert found["miou"] == (1 / 3 + 1 / 2) / 2
    assert found["absent"] == ["car"]
    assert found["pixel_accuracy"] == 3 / 5
    assert found["mean_accuracy"] == (1 / 2 + 2 / 3) / 2
    assert found["confusion"] == [[1, 1, 0], [1, 2, 0], [0, 0, 0]]
    assert found["per_class"]["road"] == {
        "iou": 0.5, "precision": 2 / 3, "recall": 2 / 3, "support": 3,
    }  # fmt: skip
    json.dumps(found, allow_nan=False)


def test_one_matrix_over_all_pixels_and_no_mean_over_photos():
    big, small = np.zeros((10, 10), np.uint8), np.zeros((1, 1), np.uint8)
    found = counted([(big, big), (small, small + 1)], 2).figures(("a", "b"))
    assert found["pixel_accuracy"] == 100 / 101
    assert found["iou"] == {"a": 100 / 101, "b": 0.0}  # b is only said, and counts


@pytest.mark.parametrize(("k", "used", "seed"), [(2, 2, 0), (5, 4, 1), (21, 21, 2), (30, 12, 3)])
def test_against_torchmetrics(k: int, used: int, seed: int):
    torchvision_models()  # which torchmetrics imports
    from torchmetrics.classification import MulticlassAccuracy, MulticlassJaccardIndex

    maps = random_maps(4, k, seed, used=used)
    truths, answers = (
        torch.tensor(np.concatenate([part.ravel() for part in side])).long()
        for side in zip(*maps, strict=True)
    )
    found = counted(maps, k).figures(names(k))

    def theirs(metric: torch.nn.Module) -> list[float]:
        return metric(answers, truths).double().reshape(-1).tolist()

    known: dict[str, Any] = {"num_classes": k, "ignore_index": IGNORED}
    assert theirs(MulticlassJaccardIndex(**known)) == pytest.approx([found["miou"]], rel=1e-6)
    each = theirs(MulticlassJaccardIndex(**known, average="none"))
    ours = [0.0 if iou is None else iou for iou in found["iou"].values()]
    assert each == pytest.approx(ours, rel=1e-6)
    micro = theirs(MulticlassAccuracy(**known, average="micro"))
    assert micro == pytest.approx([found["pixel_accuracy"]], rel=1e-6)
    flat = MulticlassJaccardIndex(**known, average="none")(answers[:0], truths[:0])
    assert len(flat) == k  # the oracle is the one that is meant


@pytest.mark.parametrize("seed", range(3))
def test_bands_along_boundaries_against_plain_loops(seed: int):
    rng = np.random.default_rng(seed)
    truth = np.kron(rng.integers(0, 3, (3, 4)), np.ones((7, 5), int)).astype(np.uint8)
    truth[rng.random(truth.shape) < 0.02] = IGNORED
    answer = rng.integers(0, 3, truth.shape).astype(np.uint8)
    height, width = truth.shape
    edge = [
        (i, j)
        for i in range(height)
        for j in range(width)
        for a, b in ((i - 1, j), (i + 1, j), (i, j - 1), (i, j + 1))
        if 0 <= a < height and 0 <= b < width and truth[a, b] != truth[i, j]
    ]
    found = counted([(truth, answer)], 3).figures(names(3))["trimap"]
    assert list(found) == [str(width) for width in TRIMAP_WIDTHS]
    for reach in TRIMAP_WIDTHS:
        band = np.zeros(truth.shape, bool)
        for i, j in edge:
            low, left = max(i - reach + 1, 0), max(j - reach + 1, 0)
            band[low : i + reach, left : j + reach] = True
        ious = [slow_iou(truth[band], answer[band], label) for label in range(3)]
        there = [iou for iou in ious if iou is not None]
        assert found[str(reach)] == pytest.approx(sum(there) / len(there))


def test_a_boundary_of_one_pixel_on_either_side():
    truth = np.zeros((1, 8), np.uint8)
    truth[0, 4:] = 1
    widths = [TRIMAP_WIDTHS.index(w) for w in (4, 4, 2, 1, 1, 2, 4, 4)]
    assert boundary_rings(truth).tolist() == [widths]
    assert (boundary_rings(np.ones((5, 5), np.uint8)) == len(TRIMAP_WIDTHS)).all()


def test_without_a_boundary_there_is_no_figure_for_it():
    whole = np.zeros((4, 4), np.uint8)
    assert set(counted([(whole, whole)], 2).figures(("a", "b"))["trimap"].values()) == {None}


@given(st.integers(1, 12), st.integers(1, 9), st.integers(1, 20), st.integers(0, 2**32 - 1))
def test_dilation_against_a_plain_loop(height: int, width: int, by: int, seed: int):
    band = np.random.default_rng(seed).random((height, width)) < 0.1
    expected = np.zeros_like(band)
    for i, j in zip(*band.nonzero(), strict=True):
        expected[max(i - by, 0) : i + by + 1, max(j - by, 0) : j + by + 1] = True
    assert (dilated(band, by) == expected).all()


def test_parts_are_put_together_and_a_large_photo_is_counted_in_parts(monkeypatch):
    maps = random_maps(5, 4, 7)
    whole = counted(maps, 4)
    first, last = PixelCounts.empty(4), PixelCounts.empty(4)
    monkeypatch.setattr("xception.evaluation.segmentation.CHUNK_PIXELS", 30)
    for position, (truth, answer) in enumerate(maps):
        (first if position < 2 else last).add(position, truth, answer, loss=0.5)
    both = PixelCounts.combine([last, first])
    assert (both.counts == whole.counts).all()
    assert both.counts.dtype == np.int64
    assert (both.ignored, both.loss) == (whole.ignored, 2.5)
    assert list(both.photos) == [0, 1, 2, 3, 4]
    assert both.photos == whole.photos
    with pytest.raises(ValueError, match="counted more than once"):
        PixelCounts.combine([first, first])
    assert CHUNK_PIXELS > 2**20


def test_each_photo_has_a_score_of_its_own():
    truth = np.array([[0, 0, 1, IGNORED]], np.uint8)
    counts = counted([(truth, np.array([[0, 1, 1, 1]], np.uint8))], 3)
    assert counts.photos[0].accuracy == 2 / 3
    assert counts.photos[0].miou == (1 / 2 + 1 / 2) / 2
    counts.add(1, np.full((2, 2), IGNORED, np.uint8), np.zeros((2, 2), np.uint8))
    assert counts.photos[1] == (None, None)


def test_what_cannot_be_counted():
    good, counts = np.zeros((2, 2), np.uint8), PixelCounts.empty(3)
    for truth, answer in ((good, good + 3), (good + 3, good), (good, good + IGNORED)):
        with pytest.raises(ValueError, match="none of 0 to 2"):
            counts.add(0, truth, answer)
    with pytest.raises(UserError, match="there are no photos"):
        counts.figures(names(3))
    counts.add(0, good + IGNORED, good)
    with pytest.raises(UserError, match="every pixel of the masks is ignored"):
        counts.figures(names(3))
    with pytest.raises(ValueError, match="photo 0 was counted already"):
        counts.add(0, good, good)
    with pytest.raises(ValueError, match="2 names for 3 classes"):
        counts.figures(names(2))
    with pytest.raises(ValueError, match="not 256"):
        PixelCounts.empty(256)


def test_evaluation_of_pieces_and_their_loss():
    """Two pieces side by side; the probability of a truth is written into the photo."""
    pixels = torch.zeros(1, 2, 4, 1, dtype=torch.uint8)
    pixels[0, :, :, 0] = torch.tensor([[0, 51, 102, 255], [255, 0, 0, 204]])
    target = torch.tensor([[[0, 1, 1, 1], [1, 0, IGNORED, 0]]], dtype=torch.uint8)

    def segment(photo: torch.Tensor) -> list[Piece]:
        second = photo[:, :, 0].float() / 255
        both = torch.stack([1 - second, second])
        return [Piece(0, 0, both[:, :, :1]), Piece(0, 1, both[:, :, 1:])]

    batch = PairBatch(pixels, target, torch.tensor([7]))
    counts = evaluate_pairs(segment, [batch], num_classes=2)
    found = counts.figures(("no", "yes"))
    # truths 0 1 1 1 / 1 0 - 0 with probabilities 1, .2, .4, 1 / 1, 1, -, .2
    assert found["confusion"] == [[2, 1], [2, 2]]
    assert found["log_loss"] == pytest.approx(-(2 * math.log(0.2) + math.log(0.4)) / 7, rel=1e-5)
    assert list(counts.photos) == [7]


def test_a_sure_mistake_costs_much_and_not_infinitely_much():
    def segment(photo: torch.Tensor) -> list[Piece]:
        return [Piece(0, 0, torch.tensor([[[1.0]], [[0.0]]]))]

    batch = PairBatch(
        torch.zeros(1, 1, 1, 3, dtype=torch.uint8),
        torch.ones(1, 1, 1, dtype=torch.uint8),
        torch.tensor([0]),
    )
    loss = evaluate_pairs(segment, [batch], num_classes=2).figures(("a", "b"))["log_loss"]
    assert loss == pytest.approx(-math.log(np.finfo(np.float32).eps), rel=1e-5)
