"""A separation from a trained model to a new one: the order of things, each done elsewhere."""

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from xception.cli.separation_target import (
    Target,
    check_operable,
    plan_for,
    point,
    scores,
    sentence,
    way,
)
from xception.data.folders import PhotoSet
from xception.data.loader import evaluation_batches
from xception.data.splits import Split
from xception.errors import UserError
from xception.evaluation.evaluate import Outcomes, outcomes
from xception.evaluation.separation_report import Point, Tuning
from xception.models.classifier import Classifier
from xception.models.surgery import Exchange
from xception.separation.plan import Plan
from xception.separation.sites import ORDERS
from xception.separation.surgery import Exchanged, Prepared, prepare
from xception.training.distill import distill, distillation_config
from xception.training.distributed import World
from xception.training.interrupts import stop_on_signals
from xception.training.progress import Progress
from xception.weights.card import Card

BATCH_PIXELS = 1 << 20  # of the images that layers are fitted to at a time
MOST_BATCH = 64
BATCHES = 4  # at least, where there are as many images: one of four measures what the others fit
TRIES = 6  # plans that the search for an accuracy looks at
ROUNDING = 1e-9  # of differences of accuracies: 0.90 - 0.89 is not 0.01 to a computer

Say = Callable[[str], None]


class Ways(NamedTuple):
    """What `prepare` is told."""

    orders: Sequence[str]
    equal: bool
    keep: Sequence[str]


class Result(NamedTuple):
    """A network after the surgery of a plan."""

    plan: Plan
    model: Classifier
    done: list[Exchanged]


@dataclass(frozen=True)
class Bench:
    """A trained model with the photos that it is to be measured on."""

    model: Classifier
    card: Card
    photos: PhotoSet
    """Readable ones, with the classes of the model in their order."""
    device: torch.device
    """Where networks answer and are fine-tuned; layers are fitted on the CPU."""
    batch_size: int
    workers: int
    seed: int
    ways: Ways
    """What of the network may be changed, and how."""
    known: dict[Split, Outcomes] = field(default_factory=dict)
    """What the original says, by split."""

    @property
    def held_out(self) -> Split:
        """The photos that the last word is spoken on: those for the test, if there are any."""
        return "test" if self.photos.of("test") else "validation"

    def outcomes(self, network: nn.Module, split: Split) -> Outcomes:
        """What a network says about the photos of a split; the original is asked only once."""
        if network is self.model and split in self.known:
            return self.known[split]
        network.to(self.device)
        found = outcomes(
            network,
            evaluation_batches(
                self.photos,
                split,
                preprocess=self.card.preprocess,
                batch_size=self.batch_size,
                workers=self.workers,
            ),
            self.card.preprocess,
            device=self.device,
            task=self.card.image_task,
        )
        network.to("cpu")
        if network is self.model:
            self.known[split] = found
        return found

    def score(self, network: nn.Module, split: Split) -> float:
        """Top-1 accuracy, or the mean average precision where a photo has several labels."""
        metrics = self.outcomes(network, split).measure(self.card.classes, self.card.image_task)
        return metrics[self.measure] or 0.0

    @property
    def measure(self) -> Literal["top1", "map"]:
        """The key of the score among the metrics."""
        return "top1" if self.card.task == "classification" else "map"

    def agreement(self, network: nn.Module) -> float:
        """The share of the held-out photos that get the same answer as from the original."""
        ours, theirs = (
            self.outcomes(one, self.held_out).probabilities for one in (network, self.model)
        )
        if self.card.task == "classification":
            return float((ours.argmax(1) == theirs.argmax(1)).mean())
        return float(((ours >= 0.5) == (theirs >= 0.5)).all(1).mean())

    def calibration(self, count: int) -> tuple[list[Tensor], int]:
        """Some training photos as uint8 pixels in small batches, and how many there are."""
        members = self.photos.of("train")
        order = np.random.default_rng(self.seed).permutation(len(members))[:count]
        chosen = replace(self.photos, photos=tuple(members[i] for i in order))
        size = self.card.preprocess.size
        batch = min(MOST_BATCH, BATCH_PIXELS // size**2, len(order) // BATCHES)
        batches = evaluation_batches(
            chosen,
            "train",
            preprocess=self.card.preprocess,
            batch_size=max(1, batch),
            workers=self.workers,
        )
        return [one.pixels for one in batches], len(order)

    def prepare(self, count: int, *, with_menu: bool, say: Say) -> tuple[Prepared, int]:
        """The model looked at with so many training photos; 0 goes by the kernels alone."""
        preprocess = self.card.preprocess
        pixels, images = self.calibration(count) if count else ([], 0)

        def batches() -> Iterator[Tensor]:
            return (preprocess.normalize(one) for one in pixels)

        if images:
            say(f"looking at each layer, with {images:,} training photos")
        prepared = prepare(
            self.model,
            preprocess.size,
            preprocess.channels,
            batches=batches if images else None,
            images=images,
            orders=[order for order in ORDERS if order in self.ways.orders],
            equal=self.ways.equal,
            keep=self.ways.keep,
            with_menu=with_menu,
            seed=self.seed,
            sigmoid=self.card.task != "classification",
        )
        return prepared, images

    @cached_property
    def by_kernels(self) -> Prepared:
        """The model looked at without photos, for the curve."""
        return self.prepare(0, with_menu=True, say=lambda text: None)[0]

    def data_free(self, fraction: float) -> float | None:
        """The score at a share of the MACs by the kernels alone; None if so few cannot be had."""
        known = self.by_kernels
        if fraction < known.least:
            return None
        free = self.operate(known, known.within(fraction), say=lambda text: None)
        return self.score(free.model, "validation")

    def operate(self, prepared: Prepared, plan: Plan, *, say: Say) -> Result:
        """The network of a plan, as a model that can be saved."""
        changed, done = prepared.operate(plan, told=lambda one: say(sentence(one)))
        assert isinstance(changed, Classifier)
        exchanges = (
            Exchange(layer=one.name, order=one.order, ranks=one.ranks, bias=one.bias)
            for one in done
        )
        changed.surgery = (*changed.surgery, *exchanges)
        return Result(plan, changed, done)

    def reach(self, prepared: Prepared, target: Target, say: Say) -> tuple[Result, list[Point]]:
        """The network that does what was asked, and others that were tried on the way.

        Raises:
            UserError: it cannot be had, or nothing can be exchanged.
        """
        check_operable(prepared)
        tried: list[Point] = []
        if target.max_drop is not None:
            result = self._search(prepared, target.max_drop, tried, say)
        else:
            result = self.operate(prepared, plan_for(prepared, target), say=say)
        return result, tried

    def _search(self, prepared: Prepared, max_drop: float, tried: list[Point], say: Say) -> Result:
        """The cheapest of some plans that loses no more; halving what lies between."""
        before = self.score(self.model, "validation")
        low, high, best = prepared.least, 1.0, None
        for _ in range(TRIES):
            fraction = (low + high) / 2
            result = self.operate(prepared, prepared.within(fraction), say=lambda text: None)
            score = self.score(result.model, "validation")
            say(
                f"{100 * fraction:.1f} % of the MACs: {100 * score:.2f} % "
                f"instead of {100 * before:.2f} % of the validation photos"
            )
            tried.append(point(prepared, result.plan, **{way(prepared): score}))
            if before - score <= max_drop + ROUNDING:
                best, high = result, fraction
            else:
                low = fraction
        if best is None:
            raise UserError(
                f"no plan loses as little as {100 * max_drop:g} points: even "
                f"{100 * low:.1f} % of the MACs lose more; fine-tuning with --macs may help"
            )
        return best

    def fine_tune(
        self, network: Classifier, epochs: int, folder: Path, progress: Progress
    ) -> tuple[Classifier, Tuning]:
        """The network after epochs of learning from the original, unless it was better before."""
        tuned = copy.deepcopy(network)
        config = distillation_config(
            self.card.preprocess,
            epochs=epochs,
            batch_size=self.batch_size,
            seed=self.seed,
            workers=self.workers,
            device=self.device.type,
        )
        with stop_on_signals() as stop:
            distill(
                tuned, self.model, self.photos, config, folder, World(device=self.device), stop,
                progress,
            )  # fmt: skip
        tuned = tuned.to("cpu").eval()
        self.model.to("cpu")
        if not self.photos.of("validation"):
            return tuned, Tuning(epochs=epochs, score_before=None, score_after=None, kept=True)
        before, after = (self.score(one, "validation") for one in (network, tuned))
        kept = after >= before
        return tuned if kept else network, Tuning(
            epochs=epochs, score_before=before, score_after=after, kept=kept
        )

    def curve(
        self,
        prepared: Prepared,
        fractions: Sequence[float],
        tune: Callable[[Classifier], tuple[Classifier, Tuning]] | None,
        say: Say,
    ) -> list[Point]:
        """Other plans: what accuracy each would come to, on the validation photos."""
        points: list[Point] = []
        if not fractions:
            return points
        for fraction in fractions:
            if fraction < prepared.least:
                say(f"{100 * fraction:.3g} % of the MACs cannot be had")
                continue
            known: dict[str, float | None] = {"data_free": self.data_free(fraction)}
            plan = prepared.within(fraction)
            if prepared.photos is not None:
                aware = self.operate(prepared, plan, say=lambda text: None)
                known["data_aware"] = self.score(aware.model, "validation")
                if tune is not None:
                    known["fine_tuned"] = tune(aware.model)[1].score_after
            points.append(point(prepared, plan, **known))
            say(f"{100 * fraction:.3g} % of the MACs: {scores(known)}")
        return points

    def with_chosen(
        self,
        points: Sequence[Point],
        prepared: Prepared,
        result: Result,
        tuning: Tuning | None,
    ) -> list[Point]:
        """The points with that of the network that was made, where there are validation photos."""
        if not self.photos.of("validation"):
            return list(points)
        own: dict[str, float | None] = {}
        if prepared.photos is not None:
            own["data_free"] = self.data_free(result.plan.macs / prepared.total_macs)
        own[way(prepared)] = self.score(result.model, "validation")
        if tuning is not None:
            own["fine_tuned"] = tuning.score_after
        others = [one for one in points if one.macs != result.plan.macs]
        return [*others, point(prepared, result.plan, **own)]
