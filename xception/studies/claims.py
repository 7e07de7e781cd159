"""What a study may claim of its arms, and when its repeats support it.

A claim is supported when all of the differences it speaks of are there, each beyond its 95 %
interval: asking for all needs no correction. It is not supported when one of them goes the other
way beyond doubt; because any of several would do for that, their intervals share the 5 %
(Bonferroni). Everything else is undecided at this size.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

from xception.studies.statistics import CONFIDENCE, Difference, Verdict, difference

_DOUBT = round(100 * (1 - CONFIDENCE))  # per cent
Scores = Mapping[str, Sequence[float]]
"""Arm -> one score a seed, the larger the better, the seeds in the same order."""


@runtime_checkable
class Claim(Protocol):
    """Something that a paper says of arms, which their scores can support or not."""

    @property
    def any_will_do(self) -> bool:
        """Whether one of the pairs suffices, so that their intervals must share the 5 %."""
        ...

    @property
    def against(self) -> str:
        """What it means that it is not supported."""
        ...

    @property
    def doubt(self) -> str:
        """What it means that it is undecided."""
        ...

    def pairs(self) -> tuple[tuple[str, str], ...]:
        """The arms that are compared: first with second."""
        ...

    def verdict(self, scores: Scores) -> Verdict:
        """What the scores say."""
        ...


@dataclass(frozen=True)
class Better:
    """One arm is better than each of the others."""

    arm: str
    than: tuple[str, ...]
    any_will_do = False
    against = "a difference goes the other way beyond chance"
    doubt = "not all of the differences it speaks of are larger than chance makes them"

    def pairs(self) -> tuple[tuple[str, str], ...]:
        """The arm with each of the others."""
        return tuple((self.arm, other) for other in self.than)

    def verdict(self, scores: Scores) -> Verdict:
        """Supported where all differences are above 0, not supported where one is below."""
        if all(gap.low > 0 for gap in compare(self, scores)):
            return "supported"
        if any(gap.high < 0 for gap in compare(self, scores, shared=True)):
            return "not supported"
        return "undecided"


@dataclass(frozen=True)
class Alike:
    """It does not matter which of two arms one takes: they differ by less than a margin."""

    arm: str
    other: str
    margin: float
    any_will_do = False
    against = "the two differ by more than the margin, beyond chance"
    doubt = "the difference may be smaller than the margin, and may be larger"

    def pairs(self) -> tuple[tuple[str, str], ...]:
        """The two."""
        return ((self.arm, self.other),)

    def verdict(self, scores: Scores) -> Verdict:
        """Supported where the interval lies within the margin, not where it lies outside."""
        (gap,) = compare(self, scores)
        if -self.margin < gap.low and gap.high < self.margin:
            return "supported"
        if gap.low > self.margin or gap.high < -self.margin:
            return "not supported"
        return "undecided"


@dataclass(frozen=True)
class SomeBetter:
    """At least one of several arms is better than a given one."""

    arms: tuple[str, ...]
    than: str
    any_will_do = True
    against = "all of them are worse beyond chance"
    doubt = "none is better, and not all are worse, by more than chance makes of it"

    def pairs(self) -> tuple[tuple[str, str], ...]:
        """Each of the arms with the given one."""
        return tuple((arm, self.than) for arm in self.arms)

    def verdict(self, scores: Scores) -> Verdict:
        """Supported where one is better beyond doubt, not supported where all are worse."""
        if any(gap.low > 0 for gap in compare(self, scores, shared=True)):
            return "supported"
        if all(gap.high < 0 for gap in compare(self, scores)):
            return "not supported"
        return "undecided"


class Rule(NamedTuple):
    """How the differences are shown, so that they say what the verdict says."""

    shared: bool
    """Whether their intervals share the 5 %."""
    words: str
    """The same for a reader; nothing where there is one difference only."""


def rule(claim: Claim, verdict: Verdict) -> Rule:
    """What is for a claim and what is against it are judged by different intervals.

    Shown are those that decided; where nothing did, those that are for the claim.
    """
    if len(claim.pairs()) == 1:
        return Rule(shared=False, words="")
    lone = "for" if claim.any_will_do else "against"
    turned = {"for": "", "against": " the other way"}
    other = "against" if lone == "for" else "for"
    sharing = (
        f"One of these differences{turned[lone]} is enough {lone} the claim: their intervals share "
        f"the {_DOUBT} %, and each p counts as often as there are differences (Bonferroni)."
    )
    alone = (
        f"All of these differences{turned[other]} are needed {other} the claim: "
        f"each interval has the {_DOUBT} % to itself."
    )
    shared = claim.any_will_do != (verdict == "not supported")
    shown, hidden = (sharing, alone) if shared else (alone, sharing)
    if verdict != "undecided":
        return Rule(shared, shown)
    return Rule(shared, f"{shown} So they are shown. {hidden} Neither decides.")


def compare(claim: Claim, scores: Scores, *, shared: bool = False) -> list[Difference]:
    """The differences that a claim speaks of.

    With `shared` their intervals share the 5 %, and each p counts as often as there are pairs.
    """
    pairs = claim.pairs()
    chances = len(pairs) if shared else 1
    confidence = 1 - (1 - CONFIDENCE) / chances
    gaps = [difference(scores[a], scores[b], confidence) for a, b in pairs]
    return [gap._replace(p=min(1.0, gap.p * chances)) for gap in gaps]
