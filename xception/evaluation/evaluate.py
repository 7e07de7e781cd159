"""What a network says about photos: its probabilities beside the truth, in float32."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int, Num
from torch import Tensor, nn

from xception.data.loader import Batch
from xception.data.preprocess import Preprocess
from xception.errors import UserError
from xception.evaluation import metrics

Task = Literal["classification", "multilabel"]


@dataclass(frozen=True)
class Outcomes:
    """One row per photo; `positions` say which photo of the split a row belongs to."""

    probabilities: Float[np.ndarray, "n k"]
    targets: Num[np.ndarray, "n *labels"]
    """Class indices (n), or zeros and ones per class (n k) when there are several labels."""
    positions: Int[np.ndarray, " n"]

    def measure(
        self,
        classes: Sequence[str],
        task: Task,
        *,
        weights: dict[str, float | int] | None = None,
    ) -> dict[str, Any]:
        """The figures of `metrics.classification` or, with class weights, `metrics.multilabel`."""
        if task == "classification":
            return metrics.classification(self.probabilities, self.targets, classes)
        return metrics.multilabel(self.probabilities, self.targets, classes, weights=weights)


def outcomes(
    model: nn.Module,
    batches: Iterable[Batch],
    preprocess: Preprocess,
    *,
    device: torch.device | str,
    task: Task,
    precision: torch.dtype | None = None,
) -> Outcomes:
    """Shows every photo to the network, once, in evaluation mode.

    Args:
        model: already on `device`; its modes (training or not) are as before afterwards.
        batches: uint8 photos with targets and positions, as `evaluation_batches` gives them.
        preprocess: turns the pixels into the network's input.
        device: where to compute.
        task: softmax for one class per photo, sigmoid for several labels; always in float32.
        precision: run the network under autocast to this type; None keeps float32.

    Returns:
        The outcomes in the order of the batches; no rows when there is no batch.

    Raises:
        UserError: the network answers with NaN or infinity.
    """
    device = torch.device(device)
    answers, targets, positions = [], [], []
    with evaluating(model), torch.inference_mode():
        for batch in batches:
            x = preprocess.normalize(batch.pixels.to(device, non_blocking=True))
            with torch.autocast(device.type, precision, enabled=precision is not None):
                logits = preprocess.answers(model, x)
            names = [f"photo {position} of the split" for position in batch.positions.tolist()]
            answers.append(probabilities(logits, task, names))
            targets.append(batch.targets.numpy())
            positions.append(batch.positions.numpy())
    if not positions:
        empty = np.zeros(0, np.int64)
        return Outcomes(np.zeros((0, 0), np.float32), empty, empty)
    return Outcomes(*(np.concatenate(part) for part in (answers, targets, positions)))


def combine(parts: Sequence[Outcomes]) -> Outcomes:
    """The outcomes of several processes as one, in the order of the photos.

    Raises:
        ValueError: a photo was counted more than once.
    """
    filled = [part for part in parts if len(part.positions)] or parts[:1]
    positions = np.concatenate([part.positions for part in filled])
    order = np.argsort(positions, kind="stable")
    if (np.diff(positions[order]) == 0).any():
        raise ValueError("the parts overlap: a photo was counted more than once")
    return Outcomes(
        np.concatenate([part.probabilities for part in filled])[order],
        np.concatenate([part.targets for part in filled])[order],
        positions[order],
    )


@runtime_checkable
class HasModules(Protocol):
    """A network, as far as its modes are concerned."""

    def modules(self) -> Iterator[nn.Module]:
        """Every module of the network, itself among them."""
        ...


@contextmanager
def evaluating(model: HasModules) -> Iterator[None]:
    """Puts every module into evaluation mode, and each back into its own mode afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    for module, _ in modes:
        module.training = False
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def probabilities(
    logits: Float[Tensor, "b k"], task: Task, names: Sequence[str]
) -> Float[np.ndarray, "b k"]:
    """Softmax for one class per photo, sigmoid for several labels, in float32.

    `names`: of the photos, for the error.

    Raises:
        UserError: the network answers with NaN or infinity.
    """
    logits = logits.float()
    finite = logits.isfinite().all(dim=1).tolist()
    bad = [name for name, sound in zip(names, finite, strict=True) if not sound]
    if bad:
        raise UserError(
            f"the network answers {len(bad)} of {len(names)} photos of a batch with NaN or "
            f"infinity (first: {bad[0]}).\n"
            "Its weights are damaged or its training diverged; a lower learning rate or gradient "
            "clipping keeps a training from that."
        )
    answer = logits.softmax(dim=1) if task == "classification" else logits.sigmoid()
    return answer.cpu().numpy()
