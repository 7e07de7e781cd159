"""What a separation is to reach, and how it is told."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from xception.errors import UserError
from xception.evaluation.separation_report import Point
from xception.separation.plan import Plan
from xception.separation.surgery import Exchanged, Prepared


@dataclass(frozen=True)
class Target:
    """What a plan is to reach: one of these."""

    macs: float | None = None
    """The fraction of the MACs that may be kept."""
    max_drop: float | None = None
    """Of accuracy, on the validation photos."""
    energy: float | None = None
    """The share of each kernel's squared norm that is kept."""
    rank: int | None = None
    """The same for all layers."""

    @property
    def words(self) -> str:
        """For the report."""
        if self.macs is not None:
            return f"{100 * self.macs:.3g} % of the MACs"
        if self.max_drop is not None:
            return f"at most {100 * self.max_drop:.3g} points of accuracy lost"
        if self.energy is not None:
            return f"{100 * self.energy:.3g} % of the energy of every kernel"
        return f"rank {self.rank} everywhere"

    @property
    def why_left(self) -> str:
        """Why a layer that could be exchanged was not."""
        if self.needs_menu:
            return "it hurts less to save in other layers"
        return "it would not become cheaper by that"

    @property
    def needs_menu(self) -> bool:
        """Whether all ways to write each layer are to be tried."""
        return self.macs is not None or self.max_drop is not None


def check_operable(prepared: Prepared) -> None:
    """Refuse a network in which nothing can be exchanged, with the reasons."""
    if not any(site.refusal is None for site in prepared.sites):
        reasons = sorted({site.refusal for site in prepared.sites if site.refusal})
        raise UserError(f"nothing can be exchanged in this network: {'; '.join(reasons[:4])}")


def plan_for(prepared: Prepared, target: Target) -> Plan:
    """The plan of a target that needs no search.

    Raises:
        UserError: it cannot be had, or no layer becomes cheaper.
    """
    if target.macs is not None:
        plan = prepared.within(target.macs)
    elif target.rank is not None:
        plan = prepared.of_rank(target.rank)
    else:
        assert target.energy is not None
        plan = prepared.of_energy(target.energy)
    if not plan.choices:
        raise UserError(f"{target.words}: no layer becomes cheaper by that, so nothing was changed")
    return plan


def way(prepared: Prepared) -> Literal["data_free", "data_aware"]:
    """The way in which layers are exchanged, as a point of the curve calls it."""
    return "data_free" if prepared.photos is None else "data_aware"


def point(prepared: Prepared, plan: Plan, **scores: float | None) -> Point:
    """A point of the curve."""
    return Point(fraction=plan.macs / prepared.total_macs, macs=plan.macs, **scores)


def sentence(one: Exchanged) -> str:
    """What is said of a layer that has been exchanged."""
    mean = one.ranks if isinstance(one.ranks, int) else sum(one.ranks) / len(one.ranks)
    order = one.order.replace("_", " ")
    error = one.error if one.output_error is None else one.output_error
    what = "kernel" if one.output_error is None else "output"
    return (
        f"{one.name}: {order}, rank {mean:.3g}, {100 * one.macs_after / one.macs_before:.0f} % of "
        f"its MACs, error of the {what} {100 * error:.1f} %"
    )


def scores(known: Mapping[str, float | None]) -> str:
    """The scores of a point, in one line."""
    return ", ".join(
        f"{name.replace('_', ' ')} {100 * one:.2f} %"
        for name, one in known.items()
        if one is not None
    )
