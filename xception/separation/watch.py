"""What goes into a convolution and comes out of it, seen while a network runs.

Nothing is kept but what is asked for: a network runs batch by batch, and no further than to the
convolution that is watched. What is seen is handed on at once and may be freed after that.
"""

from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from functools import partial

import torch
from torch import Tensor, nn

from xception.cost.count import evaluation

Batches = Callable[[], Iterable[Tensor]]
"""Gives the same small batches of images each time it is called."""


class _Enough(BaseException):
    """Everything that was wanted has been seen; the rest of the network need not run.

    No `Exception`, which a network may catch.
    """


@torch.no_grad()
def seen_inputs(model: nn.Module, name: str, calls: int, images: Tensor) -> list[Tensor]:
    """What a convolution is given for some images, call by call; the last one ends the run.

    Args:
        model: the network.
        name: the path of the convolution.
        calls: how often it runs for one image.
        images: a batch.

    Raises:
        ValueError: the network did not run as often through it.
    """
    seen: list[Tensor] = []

    def before(module: nn.Module, args: tuple[Tensor, ...]) -> None:
        # Copies, where there are several calls: what runs between them may write into them.
        seen.append(args[0] if calls == 1 else args[0].clone())
        if len(seen) == calls:
            raise _Enough

    handle = model.get_submodule(name).register_forward_pre_hook(before)
    try:
        with evaluation(model):
            model(images.clone())  # it may write into what it is given
    except _Enough:
        return seen
    finally:
        handle.remove()
    raise ValueError("the network did not run as it did before: a convolution was not reached")


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
            model(images.clone())
