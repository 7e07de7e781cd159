"""Eight bits where they do no harm.

A layer in eight bits is quicker and a little wrong. How wrong is measured, never assumed: first the
way of choosing the ranges of the numbers (several are tried), then each layer alone, and in the end
the accuracy of the whole. While it is more than a permitted amount below that of the original, the
layers that do the most harm are left in float.

The ranges are taken from photos by which nothing is measured. Harm is measured on some of the
photos that the accuracy is measured on: which way and which layers are chosen depends on those few.

Harm is the Kullback-Leibler divergence from the original's probabilities to the changed network's,
in nats, the mean over photos (and pixels): it sees more than the few photos whose answer changes.
Layers do it together, of course; the shares that are reported are of each alone.
"""

import json
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from xception.deploy.engines import Engine, open_engine
from xception.deploy.material import Material
from xception.errors import UserError
from xception.weights.card import Card

ROUNDING = 1e-9  # of a score: 0.90 - 0.01 is a little more than 0.89


class Layer(NamedTuple):
    """What is in eight bits as a whole or not at all."""

    name: str
    kind: str
    """"depthwise", "pointwise", "regular", "linear", or "sums": where paths meet."""
    nodes: tuple[str, ...]
    """Their names in the graph."""


class Share(NamedTuple):
    """What a layer alone does to the answers."""

    layer: Layer
    harm: float
    """Nats."""
    share: float
    """Of the sum over all layers."""


@runtime_checkable
class Quantizer(Protocol):
    """Makes a network of eight bits of one of float."""

    layers: Sequence[Layer]
    calibrations: Sequence[str]
    """Ways of choosing ranges."""

    def write(self, file: Path, calibration: str, layers: Sequence[Layer], note: str) -> None:
        """Write the network with some of the layers in eight bits, and a note in its metadata."""
        ...


class Outcome(NamedTuple):
    """How the eight bits were chosen, and what they cost."""

    metric: str
    before: float
    after: float
    held_out: int
    calibration: str
    tried: dict[str, float]
    """Harm of each way of choosing ranges, with all layers in eight bits."""
    calibrated_with: int
    shares: tuple[Share, ...]
    """The most harmful first."""
    in_float: tuple[Layer, ...]
    max_drop: float

    def told(self) -> dict[str, Any]:
        """For JSON."""
        floating = {layer.name for layer in self.in_float}
        return {
            "metric": self.metric,
            "fp32": self.before,
            "int8": self.after,
            "drop": self.before - self.after,
            "max_drop": self.max_drop,
            "held_out_photos": self.held_out,
            "calibration": self.calibration,
            "calibrations_tried": self.tried,
            "calibration_photos": self.calibrated_with,
            "layers": [
                {
                    "name": one.layer.name,
                    "kind": one.layer.kind,
                    "precision": "fp32" if one.layer.name in floating else "int8",
                    "harm": one.harm,
                    "share": one.share,
                }
                for one in self.shares
            ],
        }


def quantize(
    original: Engine,
    quantizer: Quantizer,
    judge: Quantizer,
    material: Material,
    out: Path,
    *,
    max_drop: float,
    say: Callable[[str], None],
) -> Outcome:
    """Write a network with as many layers in eight bits as the permitted loss allows.

    Args:
        original: the network in float.
        quantizer: makes what is written.
        judge: makes the networks by which the layers are ranked; the same, or a quicker one with
            the same layers.
        material: photos.
        out: the file to write; it has the ending of its kind.
        max_drop: how much of the measure may be lost, in its own unit: 0.01 is one point.
        say: told what is going on, a line at a time.

    Raises:
        UserError: the loss is larger even with one layer in eight bits.
    """
    search = _Search(original, quantizer, judge, material, out, say)
    before = material.score(original)
    say(f"{material.metric} in float: {before:.4f} on {material.held_out:,} photos held out")
    calibration, tried = search.best_calibration()
    say(f"ranges by {calibration}")
    shares = search.shares(calibration)
    ranked = [one.layer for one in shares]
    kept, after = search.gate(ranked, calibration, before - max_drop - ROUNDING)
    outcome = Outcome(
        material.metric,
        before,
        after,
        material.held_out,
        calibration,
        tried,
        material.calibration,
        shares,
        tuple(ranked[:kept]),
        max_drop,
    )
    note = json.dumps(outcome.told(), ensure_ascii=False, allow_nan=False)
    quantizer.write(out, calibration, ranked[kept:], note)
    return outcome


class _Search:
    """The steps of `quantize`, over networks that are written to a temporary folder."""

    def __init__(
        self,
        original: Engine,
        quantizer: Quantizer,
        judge: Quantizer,
        material: Material,
        out: Path,
        say: Callable[[str], None],
    ):
        self.quantizer, self.judge, self.material, self.say = quantizer, judge, material, say
        self.suffix = out.suffix
        self.answers = [probabilities(original(x), material.card) for x in material.questions()]

    def best_calibration(self) -> tuple[str, dict[str, float]]:
        """The way of choosing ranges that does the least harm, and the harm of each."""
        tried = {}
        for calibration in self.quantizer.calibrations:
            layers = self.quantizer.layers
            tried[calibration] = self._made(self.quantizer, calibration, layers, self._harm)
            self.say(f"ranges by {calibration}: {tried[calibration]:.5f} nats")
        return min(tried, key=lambda name: tried[name]), tried

    def shares(self, calibration: str) -> tuple[Share, ...]:
        """What each layer alone does, the most harmful first."""
        if calibration not in self.judge.calibrations:
            calibration = self.judge.calibrations[0]
        harms = []
        for number, layer in enumerate(self.judge.layers, start=1):
            harms.append(max(self._made(self.judge, calibration, [layer], self._harm), 0.0))
            self.say(
                f"layer {number} of {len(self.judge.layers)}, {layer.name}: {harms[-1]:.2e} nats"
            )
        total = sum(harms) or 1.0
        known = {layer.name: layer for layer in self.quantizer.layers}
        found = [
            Share(known[layer.name], harm, harm / total)
            for layer, harm in zip(self.judge.layers, harms, strict=True)
        ]
        return tuple(sorted(found, key=lambda one: -one.harm))

    def gate(self, ranked: Sequence[Layer], calibration: str, least: float) -> tuple[int, float]:
        """How many of the most harmful layers stay in float for the score to be at least `least`.

        Twice as many at each step, then halfway back until the number is known to an eighth.
        """
        steps = [0]
        while 2 * max(steps[-1], 1) < len(ranked):
            steps.append(2 * steps[-1] or 1)
        steps.append(max(len(ranked) - 1, 0))
        failed, good, score = -1, None, 0.0
        for kept in steps:
            score = self._score(ranked, kept, calibration)
            if score >= least:
                good = (kept, score)
                break
            failed = kept
        if good is None:
            raise UserError(
                f"eight bits cost more than is allowed, even with {failed} of {len(ranked)} "
                f"layers in float: {self.material.metric} {score:.4f}, at least {least:.4f} is "
                "asked for; --max-drop allows more"
            )
        while good[0] - failed > max(1, good[0] // 8):
            middle = (good[0] + failed) // 2
            score = self._score(ranked, middle, calibration)
            if score >= least:
                good = (middle, score)
            else:
                failed = middle
        return good

    def _score(self, ranked: Sequence[Layer], kept: int, calibration: str) -> float:
        score = self._made(self.quantizer, calibration, ranked[kept:], self.material.score)
        self.say(f"{self.material.metric} with {kept} layers in float: {score:.4f}")
        return score

    def _made(
        self,
        quantizer: Quantizer,
        calibration: str,
        layers: Sequence[Layer],
        measure: Callable[[Engine], float],
    ) -> float:
        """What is measured of a network that is made only for that."""
        suffix = ".onnx" if quantizer is self.judge is not self.quantizer else self.suffix
        with tempfile.TemporaryDirectory(prefix="xception-int8-") as folder:
            file = Path(folder) / f"network{suffix}"
            quantizer.write(file, calibration, layers, "")
            return measure(open_engine(file))

    def _harm(self, engine: Engine) -> float:
        card = self.material.card
        changed = (probabilities(engine(x), card) for x in self.material.questions())
        return divergence(zip(self.answers, changed, strict=True))


def probabilities(logits: Tensor, card: Card) -> Tensor:
    """Of the classes, along axis 1, in float64; of several labels each is one of two classes."""
    logits = logits.double().cpu()
    if card.task == "multilabel":
        share = logits.sigmoid()
        return torch.stack([share, 1 - share], dim=1)
    return logits.softmax(1)


def divergence(
    pairs: Iterable[tuple[Float[Tensor, "b k *places"], Float[Tensor, "b k *places"]]],
) -> float:
    """The mean of sum(p·log(p/q)) over photos and places, in nats."""
    total, count = 0.0, 0
    for p, q in pairs:
        nats = torch.special.xlogy(p, p) - torch.special.xlogy(p, q.clamp(min=1e-12))
        total += float(nats.sum(1).mean())
        count += 1
    return total / count
