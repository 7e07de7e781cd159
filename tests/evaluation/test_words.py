import numpy as np
import pytest

from xception.evaluation import words
from xception.evaluation.metrics import classification


def measured(matrix: list[list[int]], confidence: float = 0.8) -> dict:
    """The metrics of outcomes with this confusion matrix, all answers equally sure."""
    k = len(matrix)
    pairs = [(t, p) for t in range(k) for p in range(k) for _ in range(matrix[t][p])]
    probabilities = np.full((len(pairs), k), (1 - confidence) / (k - 1), np.float32)
    probabilities[np.arange(len(pairs)), [p for _, p in pairs]] = confidence
    return classification(probabilities, np.array([t for t, _ in pairs]), "abcdefgh"[:k])


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (words.percent(0.724), "72.4 %"),
        (words.percent(1.0, 0), "100 %"),
        (words.percent(None), "–"),
        (words.count(22855952), "22,855,952"),
        (words.magnitude(22855952), "22.9 M"),
        (words.magnitude(8357403496), "8.36 G"),
        (words.magnitude(999), "999"),
        (words.duration(2.345), "2.3 s"),
        (words.duration(59.6), "1 min 0 s"),
        (words.duration(31), "31 s"),
        (words.duration(151), "2 min 31 s"),
        (words.duration(3 * 3600 + 59), "3 h 0 min"),
        (words.photos(1), "1 photo"),
        (words.photos(1214, "test"), "1,214 test photos"),
    ],
)
def test_numbers_as_people_write_them(written, expected):
    assert written.replace(words.THIN, " ") == expected


def test_guessing_the_most_common_class():
    assert words.guessing(measured([[1, 0], [1, 6]])) == ("b", 7 / 8)


def test_confused_pairs_most_frequent_first_and_none_without_a_mistake():
    metrics = measured([[5, 3, 0], [1, 9, 0], [0, 4, 6]])
    assert words.mistaken(metrics) == 8
    assert words.confused_pairs(metrics, "abc", limit=2) == [
        {"truth": "c", "predicted": "b", "count": 4, "share": 0.4},
        {"truth": "a", "predicted": "b", "count": 3, "share": 3 / 8},
    ]
    assert len(words.confused_pairs(metrics, "abc")) == 3
    assert words.confused_pairs(measured([[2, 0], [0, 2]]), "ab") == []


def test_hardest_first_leaves_out_what_was_not_measured():
    metrics = measured([[9, 1, 0], [5, 5, 0], [0, 0, 0]])
    assert [name for name, _ in words.hardest_first(metrics, "recall")] == ["b", "a"]
    assert words.unmeasured(metrics) == ["c"]


@pytest.mark.parametrize(
    ("confidence", "verdict"),
    [(0.79, "about as sure"), (0.86, "a little too sure"), (0.99, "far too sure"), (0.6, "modest")],
)
def test_calibration_in_words(confidence, verdict):
    assert verdict in words.calibration(measured([[4, 1], [1, 4]], confidence))
