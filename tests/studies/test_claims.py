import pytest

from xception.studies.claims import Alike, Better, Claim, SomeBetter, compare, rule
from xception.studies.statistics import Verdict

HIGH = [0.80, 0.82, 0.81, 0.83]
MIDDLE = [0.71, 0.72, 0.70, 0.73]
LOW = [0.60, 0.62, 0.61, 0.62]
WILD = [0.60, 0.95, 0.70, 0.85]
SCORES = {
    "high": HIGH,
    "middle": MIDDLE,
    "low": LOW,
    "wild": WILD,
    "twin": [x + 1e-4 for x in HIGH],
    "near": [x + 0.009 for x in HIGH],
    "about": [x + gap for x, gap in zip(HIGH, (0.007, 0.009, 0.011, 0.012), strict=True)],
}


@pytest.mark.parametrize(
    ("claim", "verdict"),
    [
        (Better("high", than=("middle", "low")), "supported"),
        (Better("high", than=("middle", "wild")), "undecided"),
        (Better("middle", than=("high", "low")), "not supported"),
        (Better("wild", than=("high",)), "undecided"),
        (Alike("high", "twin", margin=0.01), "supported"),
        (Alike("high", "near", margin=0.01), "supported"),  # certain, and within the margin
        (Alike("high", "about", margin=0.01), "undecided"),  # perhaps within, perhaps beyond it
        (Alike("high", "low", margin=0.01), "not supported"),
        (Alike("high", "wild", margin=0.01), "undecided"),
        (SomeBetter(("low", "high"), than="middle"), "supported"),
        (SomeBetter(("low", "middle"), than="high"), "not supported"),
        (SomeBetter(("low", "wild"), than="high"), "undecided"),
    ],
)
def test_verdicts(claim: Claim, verdict: str):
    assert claim.verdict(SCORES) == verdict


def test_several_chances_to_be_right_must_share_the_doubt():
    """Three degrees of freedom: t = 3.3 is beyond 3.182 of one pair, not beyond 4.177 of two."""
    scores = {"base": [0.0, 0.0, 0.0, 0.0], "a": [0.6, 1.4, 0.2, 1.8], "b": [0.0, 0.1, -0.1, 0.0]}
    gap = Better("a", than=("base",)).verdict(scores)
    t = 1.0 / (0.7302967433402214 / 2)  # mean over standard error: 2.74
    assert t < 3.182
    assert gap == "undecided"
    wider = {**scores, "a": [0.7, 1.3, 0.45, 1.55]}  # t = 3.93
    assert SomeBetter(("a",), than="base").verdict(wider) == "supported"
    both = SomeBetter(("a", "b"), than="base")
    assert both.verdict(wider) == "undecided"
    alone, shared = (compare(both, wider, shared=one)[0] for one in (False, True))
    assert shared.p == pytest.approx(2 * alone.p)
    assert shared.low < 0 < alone.low


ONE_FOR = "One of these differences is enough for the claim: their intervals share"
ONE_AGAINST = "One of these differences the other way is enough against the claim: their intervals"
ALL_FOR = "All of these differences are needed for the claim: each interval has the 5 % to itself"
ALL_AGAINST = "All of these differences the other way are needed against the claim: each interval"


@pytest.mark.parametrize(
    ("claim", "verdict", "shared", "words"),
    [
        (Better("a", than=("b", "c")), "supported", False, [ALL_FOR]),
        (Better("a", than=("b", "c")), "not supported", True, [ONE_AGAINST]),
        (Better("a", than=("b", "c")), "undecided", False, [ALL_FOR, ONE_AGAINST]),
        (SomeBetter(("a", "b"), than="c"), "supported", True, [ONE_FOR]),
        (SomeBetter(("a", "b"), than="c"), "not supported", False, [ALL_AGAINST]),
        (SomeBetter(("a", "b"), than="c"), "undecided", True, [ONE_FOR, ALL_AGAINST]),
    ],
)
def test_the_intervals_shown_are_those_that_decided(
    claim: Claim, verdict: Verdict, shared: bool, words: list[str]
):
    found = rule(claim, verdict)
    assert found.shared == shared
    every = (ONE_FOR, ONE_AGAINST, ALL_FOR, ALL_AGAINST)
    assert [one for one in every if one in found.words] == sorted(words, key=every.index)


def test_one_difference_needs_no_rule():
    assert rule(Better("a", than=("b",)), "not supported").words == ""
    assert rule(Alike("a", "b", margin=0.01), "undecided").words == ""


def test_all_are_worse_and_so_it_is_shown():
    """Each of three is worse by itself; with a third of the 5 % each, one would reach 0."""
    worse = {"a": (-0.010, 0.003), "b": (-0.016, 0.001), "c": (-0.013, 0.001)}
    scores = {name: [0.8 + m - s, 0.8 + m, 0.8 + m + s] for name, (m, s) in worse.items()}
    scores["base"] = [0.8, 0.8, 0.8]
    claim = SomeBetter(("a", "b", "c"), than="base")
    assert claim.verdict(scores) == "not supported"
    assert max(gap.high for gap in compare(claim, scores, shared=True)) > 0
    assert (
        max(gap.high for gap in compare(claim, scores, shared=rule(claim, "not supported").shared))
        < 0
    )
