import pytest

from xception.studies.claims import Alike, Better, Claim, SomeBetter, compare

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
