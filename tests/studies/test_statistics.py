import numpy as np
import pytest
from scipy import stats

from xception.studies.claims import Better
from xception.studies.statistics import difference, mean, quantile, within

FREEDOMS = (1, 2, 3, 4, 9, 30, 200)


@pytest.mark.parametrize("freedom", FREEDOMS)
def test_students_distribution_is_that_of_scipy(freedom: int):
    for t in (0.0, 0.3, 1.0, 2.5, 12.0, 300.0):
        expected = stats.t.cdf(t, freedom) - stats.t.cdf(-t, freedom)
        assert within(t, freedom) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("freedom", FREEDOMS)
@pytest.mark.parametrize("confidence", [0.5, 0.95, 0.9875, 0.999])
def test_quantiles_are_those_of_scipy(freedom: int, confidence: float):
    expected = stats.t.ppf((1 + confidence) / 2, freedom)
    assert quantile(confidence, freedom) == pytest.approx(expected, rel=1e-9)


def test_a_table_of_every_textbook():
    """The first rows of Student's table, two-sided 5 %."""
    found = [round(quantile(0.95, freedom), 3) for freedom in (1, 2, 3, 4, 5, 10)]
    assert found == [12.706, 4.303, 3.182, 2.776, 2.571, 2.228]


def test_means_and_intervals_are_those_of_scipy():
    values = [0.71, 0.74, 0.69, 0.72]
    expected = stats.t.interval(0.95, 3, np.mean(values), stats.sem(values))
    assert mean(values) == pytest.approx((np.mean(values), *expected))


def test_the_paired_test_is_that_of_scipy():
    rng = np.random.default_rng(5)
    first, second = rng.normal(0.7, 0.02, 6), rng.normal(0.68, 0.02, 6)
    expected = stats.ttest_rel(first, second)
    bounds = expected.confidence_interval(0.95)
    found = difference(first.tolist(), second.tolist())
    assert found.p == pytest.approx(expected.pvalue)
    assert (found.low, found.high) == pytest.approx((bounds.low, bounds.high))
    assert found.value == pytest.approx(np.mean(first - second))


def test_one_repeat_has_no_interval():
    found = mean([0.7])
    assert (found.value, found.low, found.high) == (0.7, -np.inf, np.inf)
    gap = difference([0.7], [0.6])
    assert (gap.low, gap.high, gap.p) == (-np.inf, np.inf, 1.0)


def test_differences_that_never_vary_are_certain():
    gap = difference([0.5, 0.75], [0.25, 0.5])
    assert gap == (0.25, 0.25, 0.25, 0.0)
    assert difference([0.5, 0.5], [0.5, 0.5]) == (0.0, 0.0, 0.0, 1.0)


def test_p_is_never_below_nothing():
    """Gaps of which one is a millionth or less larger: to the last digit p is 0."""
    gaps = [k * 10.0**-digits for k in (1, 2, 3, 4, 5) for digits in range(6, 15)]
    found = [difference([1.0, 1.0 + gap, 1.0, 1.0], [0.0] * 4).p for gap in gaps]
    assert all(0 <= p < 1e-12 for p in found)
    assert {f"{p:.3f}" for p in found} == {"0.000"}


@pytest.mark.parametrize("repeats", [3, 5])
def test_the_same_arm_twice_is_undecided_nine_times_of_ten(repeats: int):
    rng = np.random.default_rng(0)
    claim = Better("one", than=("same",))
    verdicts = []
    for _ in range(100):
        # A seed moves both arms alike, and each arm a little on its own.
        seeds = rng.normal(0.7, 0.02, repeats)
        scores = {arm: (seeds + rng.normal(0, 0.01, repeats)).tolist() for arm in ("one", "same")}
        verdicts.append(claim.verdict(scores))
    assert verdicts.count("undecided") >= 90


def test_pairs_must_be_pairs():
    with pytest.raises(ValueError, match="shorter"):
        difference([1.0, 2.0], [1.0])
    with pytest.raises(ValueError, match="nothing"):
        mean([])
