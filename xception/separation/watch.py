"""What goes into a convolution and comes out of it, seen while a network runs.

Nothing is kept but what is asked for: a network runs batch by batch, and no further than to the
convolution that is watched. What is seen is handed on at once and may be freed after that.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial

import torch
from torch import Tensor, nn

from xception.cost.count import evaluation

Batches = Callable[[], Iterable[Tensor]]
"""Gives the same small batches of images each time it is called."""


class _Enough(Exception):
    """Everything that was wanted has been seen; the rest of the network need not run."""


@contextmanager
def _seeing(conv: nn.Module, calls: int, *, outputs: bool) -> Iterator[list[Tensor]]:
    """A list that fills with the input, or the output, of each call; the last one ends the run.

    Where there are several calls, copies are kept: what runs between them may write into them.
    """
    seen: list[Tensor] = []

    def keep(tensor: Tensor) -> None:
        seen.append(tensor if calls == 1 else tensor.clone())
        if len(seen) == calls:
            raise _Enough

    def before(module: nn.Module, args: tuple[Tensor, ...]) -> None:
        keep(args[0])

    def after(module: nn.Module, args: tuple[Tensor, ...], out: Tensor) -> None:
        keep(out)

    handle = (
        conv.register_forward_hook(after) if outputs else conv.register_forward_pre_hook(before)
    )
    try:
        yield seen
    finally:
        handle.remove()


def _run(model: nn.Module, images: Tensor) -> None:
    try:
        model(images)
    except _Enough:
        return
    raise ValueError("the network did not run as it did before: a convolution was not reached")


def pairs(
    changed: nn.Module, original: nn.Module, name: str, calls: int, batches: Batches
) -> Iterator[tuple[Tensor, Tensor]]:
    """A convolution's inputs in the changed network, each beside its output in the original one.

    Args:
        changed: the network of which earlier layers have been exchanged.
        original: the network as it was, or the same one.
        name: the path of the convolution, which both still have.
        calls: how often it runs for one image.
        batches: the images.

    Yields:
        An input (b m h w) and an output (b n i j) of the same images.
    """
    ours, theirs = changed.get_submodule(name), original.get_submodule(name)
    for images in batches():
        with torch.no_grad(), evaluation(changed), evaluation(original):
            with _seeing(theirs, calls, outputs=True) as wanted:
                _run(original, images)
            with _seeing(ours, calls, outputs=False) as given:
                _run(changed, images)
        yield from zip(given, wanted, strict=True)


@torch.no_grad()
def seen_inputs(model: nn.Module, name: str, calls: int, images: Tensor) -> list[Tensor]:
    """What a convolution is given for some images, call by call."""
    with evaluation(model), _seeing(model.get_submodule(name), calls, outputs=False) as given:
        _run(model, images)
    return given


def watch_all(
    model: nn.Module,
    convolutions: Sequence[nn.Module],
    batches: Batches,
    tell: Callable[[int, Tensor, Tensor], None],
) -> None:
    """Tell inputs and outputs of several convolutions of one network, in one pass.

    Args:
        model: the network.
        convolutions: modules of it.
        batches: the images.
        tell: is given the place among `convolutions`, an input (b m h w) and its output (b n i j).
    """

    def after(place: int, module: nn.Module, args: tuple[Tensor, ...], out: Tensor) -> None:
        tell(place, args[0], out)

    with ExitStack() as hooks, torch.no_grad(), evaluation(model):
        for place, conv in enumerate(convolutions):
            hooks.callback(conv.register_forward_hook(partial(after, place)).remove)
        for images in batches():
            model(images)
