"""What errors in the output of a layer do to the answers of a network.

The harm of writing a layer otherwise is the squared change of the network's answers that it causes
on its own, as a share of the squared answers. The change is taken to first order: with J the
derivative of the answers by the layer's output, an error δ of that output changes them by Jδ. Its
squared length is the mean of (gᵀδ)² over random directions v of the answers, with g = Jᵀv (the
estimator of Hutchinson 1989, doi:10.1080/03610918908812806). So one pass forward and a few backward
serve every way to write every layer. The mean over the classes, which a softmax does not see, is
taken off the answers first; a sigmoid sees it, so that there it stays.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial

import torch
from torch import Tensor, nn

from xception.cost.count import evaluation
from xception.errors import UserError
from xception.separation.watch import Batches

LEAST_IMPORTANCE = 1e-3  # of the mean: no channel is given up altogether

Calls = list[tuple[Tensor, Tensor]]
"""Input and output of each time that a convolution ran."""
Gradients = list[list[list[Tensor]]]
"""By random direction, convolution and call."""


def importances(
    model: nn.Module,
    convolutions: Sequence[nn.Module],
    batches: Batches,
    draws: int,
    seed: int,
    sigmoid: bool = False,
) -> list[Tensor]:
    """How much an error in each output channel of each convolution matters, 1 on the average.

    That is the mean square of the derivative of the answers by the channel's values.

    Args:
        model: answers with one tensor, batch first.
        convolutions: modules of it.
        batches: of images.
        draws: random directions per image.
        seed: of these directions.
        sigmoid: whether each answer counts for itself, and not beside the other classes only.

    Raises:
        ValueError: the network answers otherwise.
        UserError: its answers are not all finite numbers.
    """
    sums: list[Tensor | None] = [None for _ in convolutions]
    generator = torch.Generator().manual_seed(seed)
    with evaluation(model):
        for images in batches():
            answers, seen = _forward(model, convolutions, images)
            for drawn in _gradients(answers, seen, draws, generator, sigmoid):
                for place, own in enumerate(drawn):
                    for gradient in own:
                        square = gradient.double().square().sum((0, 2, 3))
                        known = sums[place]
                        sums[place] = square if known is None else known + square
    found = []
    for one in sums:
        if one is None:
            raise ValueError("there are no images to measure on")
        mean = one.mean().clamp_min(torch.finfo(one.dtype).tiny)
        found.append((one / mean).clamp_min(LEAST_IMPORTANCE))
    return found


def harms(
    model: nn.Module,
    convolutions: Sequence[nn.Module],
    modules: Sequence[Sequence[nn.Module]],
    batches: Batches,
    draws: int,
    seed: int,
    sigmoid: bool = False,
) -> list[list[float]]:
    """For each convolution, and each module that could take its place: the harm.

    Args:
        model: answers with one tensor, batch first.
        convolutions: modules of it.
        modules: for each of them those that are judged.
        batches: of images.
        draws: random directions per image.
        seed: of these directions.
        sigmoid: whether each answer counts for itself, and not beside the other classes only.

    Raises:
        ValueError: the network answers otherwise.
        UserError: its answers are not all finite numbers.
    """
    sums = [[0.0] * len(own) for own in modules]
    answered = 0.0
    generator = torch.Generator().manual_seed(seed)
    with evaluation(model):
        for images in batches():
            answers, seen = _forward(model, convolutions, images)
            answered += float(_counted(answers.detach(), sigmoid).double().square().sum())
            gradients = _gradients(answers, seen, draws, generator, sigmoid)
            del answers  # and with it all that the network remembers of these images
            for place, calls in enumerate(seen):
                own = [drawn[place] for drawn in gradients]
                for one, module in enumerate(modules[place]):
                    sums[place][one] += _harm(module, calls, own, len(images))
    return [[one / max(answered, 1e-30) for one in own] for own in sums]


def _forward(
    model: nn.Module, convolutions: Sequence[nn.Module], images: Tensor
) -> tuple[Tensor, list[Calls]]:
    """The answers, and what went through each convolution, all of it with its derivatives."""
    seen: list[Calls] = [[] for _ in convolutions]

    def after(place: int, module: nn.Module, args: tuple[Tensor, ...], out: Tensor) -> Tensor:
        seen[place].append((args[0].detach().clone(), out))
        return out.clone()  # what follows may write into it

    with ExitStack() as hooks, torch.enable_grad():
        for place, conv in enumerate(convolutions):
            hooks.callback(conv.register_forward_hook(partial(after, place)).remove)
        # Not with the leaf itself, into which a network could not write.
        answers = model(images.detach().requires_grad_().clone())
    if not isinstance(answers, Tensor):
        raise ValueError(f"the network must answer with one tensor, not {type(answers).__name__}")
    if not answers.requires_grad:
        raise UserError(
            "the network's answers have no derivatives, by which errors of its layers are judged: "
            "let it run without no_grad, give what stands before argmax, or plan by rank or energy"
        )
    if not torch.isfinite(answers).all():
        raise UserError("the network's answers to the photos are not all finite numbers")
    return answers, seen


def _gradients(
    answers: Tensor, seen: Sequence[Calls], draws: int, generator: torch.Generator, sigmoid: bool
) -> Gradients:
    """The derivatives of random sums of the answers by the outputs.

    The outputs in `seen` are then cut off from the network that they came from.
    """
    outputs = [y for calls in seen for _, y in calls]
    drawn = []
    for draw in range(draws):
        drawn_now = torch.randn(answers.shape, generator=generator).to(answers)
        direction = _counted(drawn_now, sigmoid)
        again = draw + 1 < draws
        # Of a sum, and not of the answers in a direction: for that torch would load its compiler's
        # algebra, which takes seconds. Of a layer that leads nowhere there are zeros.
        with torch.enable_grad():
            total = (answers * direction).sum()
        found = iter(
            torch.autograd.grad(total, outputs, retain_graph=again, materialize_grads=True)
        )
        drawn.append([[next(found) for _ in calls] for calls in seen])
    for calls in seen:
        calls[:] = [(x, y.detach()) for x, y in calls]
    return drawn


@torch.no_grad()
def _harm(
    module: nn.Module, calls: Calls, gradients: Sequence[Sequence[Tensor]], images: int
) -> float:
    """Sum over images, and mean over directions, of the squared change of the answers.

    Where the network makes a batch of parts of images, whose they are is not known. The square of
    the sum over all images has the same mean, as their directions have nothing to do with each
    other; it only scatters more.
    """
    errors = [module(x) - y for x, y in calls]
    whole = all(len(error) == images for error in errors)
    total = 0.0
    for own in gradients:
        parts = [_products(g, e) for g, e in zip(own, errors, strict=True)]
        if not whole:
            parts = [part.sum(0, keepdim=True) for part in parts]
        total += float(torch.stack(parts).sum(0).double().square().sum())
    return total / len(gradients)


def _products(gradients: Tensor, errors: Tensor) -> Tensor:
    """Their inner product for each image, in single precision at least."""
    wide = torch.promote_types(gradients.dtype, torch.float32)
    return (gradients.to(wide) * errors.to(wide)).flatten(1).sum(1)


def _counted(answers: Tensor, sigmoid: bool) -> Tensor:
    """Less the mean over the classes, which a softmax does not see. It never has a single one."""
    if sigmoid or answers.ndim < 2 or answers.shape[1] == 1:
        return answers
    return answers - answers.mean(1, keepdim=True)
