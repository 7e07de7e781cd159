import json
import math

import numpy as np
import pytest
from scipy import stats

from xception.errors import UserError
from xception.evaluation.metrics import (
    calibration_error,
    classification,
    multilabel,
    reliability_bins,
    wilson,
)

# Four samples of three classes; the third class has no sample, the second is never predicted.
PROBABILITIES = np.array(
    [[0.7, 0.2, 0.1], [0.5, 0.3, 0.2], [0.1, 0.3, 0.6], [0.9, 0.05, 0.05]], dtype=np.float32
)
TARGETS = np.array([0, 1, 1, 0])


def random_case(samples: int, k: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(samples, k)) * 2
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return probabilities.astype(np.float32), rng.integers(0, k, samples)


def test_classification_by_hand():
    found = classification(PROBABILITIES, TARGETS, ("a", "b", "c"))
    assert found["samples"] == 4
    assert found["top1"] == 0.5
    assert (found["top5"], found["top_k"]) == (1.0, 3)
    assert found["confusion"] == [[2, 0, 0], [1, 0, 1], [0, 0, 0]]
    assert found["per_class"] == {
        "a": {"precision": 2 / 3, "recall": 1.0, "f1": 0.8, "support": 2},
        "b": {"precision": None, "recall": 0.0, "f1": 0.0, "support": 2},
        "c": {"precision": 0.0, "recall": None, "f1": 0.0, "support": 0},
    }
    assert found["balanced_accuracy"] == 0.5
    assert found["macro_f1"] == pytest.approx(0.8 / 3)
    expected = -(math.log(0.7) + 2 * math.log(0.3) + math.log(0.9)) / 4
    assert found["log_loss"] == pytest.approx(expected, rel=1e-6)
    # Each sample has a bin of its own: |0.7-1|, |0.5-0|, |0.6-0|, |0.9-1|.
    assert found["ece"] == pytest.approx((0.3 + 0.5 + 0.6 + 0.1) / 4, rel=1e-6)


def test_results_are_valid_json_with_null_and_not_nan():
    json.dumps(classification(PROBABILITIES, TARGETS, ("a", "b", "c")), allow_nan=False)
    text = json.dumps(multilabel(PROBABILITIES, np.zeros((4, 3)), ("a", "b", "c")), allow_nan=False)
    assert json.loads(text)["map"] is None  # no class has a positive


def test_classification_against_plain_loops():
    probabilities, targets = random_case(300, 8)
    names = [f"class {i}" for i in range(8)]
    found = classification(probabilities, targets, names)
    ranked = [sorted(range(8), key=lambda c, row=row: (-row[c], c)) for row in probabilities]
    guess = [row[0] for row in ranked]
    assert found["top1"] == sum(g == t for g, t in zip(guess, targets, strict=True)) / 300
    assert found["top5"] == sum(t in r[:5] for r, t in zip(ranked, targets, strict=True)) / 300
    assert found["top_k"] == 5
    for c, name in enumerate(names):
        tp = sum(g == t == c for g, t in zip(guess, targets, strict=True))
        fp = sum(g == c != t for g, t in zip(guess, targets, strict=True))
        fn = sum(t == c != g for g, t in zip(guess, targets, strict=True))
        row = found["per_class"][name]
        assert row["precision"] == pytest.approx(tp / (tp + fp))
        assert row["recall"] == pytest.approx(tp / (tp + fn))
        assert row["f1"] == pytest.approx(2 * tp / (2 * tp + fp + fn))
        assert row["support"] == tp + fn
    entropy = -sum(math.log(row[t]) for row, t in zip(probabilities, targets, strict=True)) / 300
    assert found["log_loss"] == pytest.approx(entropy, rel=1e-6)


def test_equal_probabilities_rank_by_index_so_that_top1_is_the_diagonal():
    found = classification(np.full((3, 3), 1 / 3, np.float32), np.array([0, 1, 2]), ("a", "b", "c"))
    assert found["top1"] == pytest.approx(1 / 3)
    assert np.trace(found["confusion"]) == 1


def test_a_sure_mistake_has_a_finite_log_loss():
    found = classification(np.array([[1.0, 0.0]], np.float32), np.array([1]), ("a", "b"))
    assert found["log_loss"] == pytest.approx(23 * math.log(2))


@pytest.mark.parametrize(("hits", "samples"), [(0, 1), (1, 1), (7, 10), (150, 214), (214, 214)])
def test_wilson_against_scipy(hits, samples):
    expected = stats.binomtest(hits, samples).proportion_ci(0.95, method="wilson")
    assert wilson(hits, samples) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_reliability_bins_close_on_the_right():
    bins = reliability_bins(
        np.array([1 / 15, 0.07, 1.0, 0.0]), np.array([True, False, True, False])
    )
    assert [row["samples"] for row in bins] == [2, 1] + [0] * 12 + [1]
    assert bins[0]["confidence"] == pytest.approx(1 / 30)
    assert bins[0]["accuracy"] == 0.5
    assert bins[2]["confidence"] is None
    assert bins[2]["accuracy"] is None
    assert calibration_error(bins) == pytest.approx((2 * (0.5 - 1 / 30) + 0.07 + 0) / 4)


def test_calibration_error_against_a_loop():
    probabilities, targets = random_case(500, 4, seed=3)
    gap = 0.0
    for low in range(15):
        inside = [
            (row.max(), row.argmax() == t)
            for row, t in zip(probabilities, targets, strict=True)
            if low / 15 < row.max() <= (low + 1) / 15
        ]
        gap += abs(sum(float(c) - hit for c, hit in inside))
    found = classification(probabilities, targets, "abcd")
    assert found["ece"] == pytest.approx(gap / 500, rel=1e-5)


def test_average_precision_by_hand():
    # Ranking of a: + - + gives (1/1 + 2/3) / 2; b ties all three: one step with precision 1/3.
    probabilities = np.array([[0.9, 0.5, 0.1], [0.8, 0.5, 0.2], [0.7, 0.5, 0.3]], np.float32)
    targets = np.array([[1, 0, 0], [0, 1, 0], [1, 0, 0]], np.float32)
    found = multilabel(probabilities, targets, ("a", "b", "c"))
    assert found["per_class"]["a"]["ap"] == pytest.approx(5 / 6)
    assert found["per_class"]["b"]["ap"] == pytest.approx(1 / 3)
    assert found["per_class"]["c"]["ap"] is None
    assert found["map"] == pytest.approx((5 / 6 + 1 / 3) / 2)
    assert found["map_at_k"] == found["map"]
    assert found["positives"] == 3
    # At 0.5 all samples get a and b: three hits of six guesses, three positives.
    assert found["micro_f1"] == pytest.approx(2 * 3 / (6 + 3))
    assert found["macro_f1"] == pytest.approx((0.8 + 0.5) / 2)
    right = [0.9, 0.5, 0.9, 0.2, 0.5, 0.8, 0.7, 0.5, 0.7]
    assert found["log_loss"] == pytest.approx(-sum(map(math.log, right)) / 9, rel=1e-6)


def test_map_at_k_by_hand():
    # k=1: the samples propose a, a, b. The second positive of b (sample 1) is never proposed.
    probabilities = np.array([[0.9, 0.1], [0.8, 0.7], [0.2, 0.6]], np.float32)
    targets = np.array([[0, 0], [1, 1], [0, 1]], np.float32)
    found = multilabel(probabilities, targets, ("a", "b"), weights={"a": 3, "b": 1}, k=1)
    assert found["map_at_k"] == pytest.approx((3 * (1 / 2) + 1 * (1 / 2)) / 4)
    found = multilabel(probabilities, targets, ("a", "b"), weights={"a": 3, "b": 1}, k=2)
    assert found["map_at_k"] == pytest.approx((3 * (1 / 2) + 1 * 1.0) / 4)
    assert found["map"] == pytest.approx((1 / 2 + 1) / 2)


def test_multilabel_average_precision_against_a_loop():
    rng = np.random.default_rng(5)
    scores = rng.random((80, 6)).round(1).astype(np.float32)  # rounded: many ties
    targets = (rng.random((80, 6)) < 0.3).astype(np.float32)
    found = multilabel(scores, targets, "abcdef")
    for c, name in enumerate("abcdef"):
        area, recall = 0.0, 0.0
        for threshold in sorted(set(scores[:, c]), reverse=True):
            chosen = scores[:, c] >= threshold
            hits = targets[chosen, c].sum()
            area += (hits / targets[:, c].sum() - recall) * hits / chosen.sum()
            recall = hits / targets[:, c].sum()
        assert found["per_class"][name]["ap"] == pytest.approx(area)


def test_a_class_never_proposed_scores_nothing():
    found = multilabel(np.array([[0.9, 0.1]]), np.array([[0.0, 1.0]]), ("a", "b"), k=1)
    assert found["map_at_k"] == 0.0
    assert found["map"] == 1.0


def test_nothing_to_measure_is_said():
    with pytest.raises(UserError, match="no photo was evaluated"):
        classification(np.zeros((0, 2), np.float32), np.zeros(0, np.int64), ("a", "b"))
    with pytest.raises(UserError, match="no photo was evaluated"):
        multilabel(np.zeros((0, 2), np.float32), np.zeros((0, 2)), ("a", "b"))


def test_wrong_arguments():
    with pytest.raises(ValueError, match="columns"):
        classification(PROBABILITIES, TARGETS, ("a", "b"))
    with pytest.raises(ValueError, match="columns"):
        classification(PROBABILITIES, TARGETS, ("a", "a", "b"))
    with pytest.raises(ValueError, match="expected 4 targets"):
        classification(PROBABILITIES, TARGETS + 2, ("a", "b", "c"))
    with pytest.raises(ValueError, match="finite"):
        classification(PROBABILITIES * np.nan, TARGETS, ("a", "b", "c"))
    with pytest.raises(ValueError, match="zeros and ones"):
        multilabel(PROBABILITIES, PROBABILITIES, ("a", "b", "c"))
    with pytest.raises(ValueError, match="at least 1"):
        multilabel(PROBABILITIES, np.zeros((4, 3)), ("a", "b", "c"), k=0)
    other, negative = {"a": 1, "b": 1, "d": 1}, {"a": 1, "b": 1, "c": -1}
    with pytest.raises(UserError, match=r"these differ: \['c', 'd'\]"):
        multilabel(PROBABILITIES, np.zeros((4, 3)), ("a", "b", "c"), weights=other)
    with pytest.raises(UserError, match="below zero"):
        multilabel(PROBABILITIES, np.zeros((4, 3)), ("a", "b", "c"), weights=negative)
