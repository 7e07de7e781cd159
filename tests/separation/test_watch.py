import pytest
import torch
from torch import Tensor

from xception.separation.watch import seen_inputs, watch_all

from .networks import branches, images, inputs_by_hand


def batches():
    return images(6).split(2)


def test_the_network_runs_no_further_than_it_must():
    model = branches()
    ran = []
    model.later.register_forward_pre_hook(lambda module, args: ran.append(module))
    seen_inputs(model, "left", 1, images(2))
    assert not ran
    with pytest.raises(ValueError, match="was not reached"):
        seen_inputs(model, "unused", 1, images(2))
    assert not model.left._forward_pre_hooks
    assert not model.unused._forward_pre_hooks


@pytest.mark.parametrize(("name", "calls"), [("left", 1), ("twice", 2), ("later", 1)])
@torch.no_grad()
def test_inputs_for_some_images(name: str, calls: int):
    model = branches().train()
    x = images(3)
    given = seen_inputs(model, name, calls, x)
    assert model.training
    for one, right in zip(given, inputs_by_hand(model.eval(), x)[name], strict=True):
        torch.testing.assert_close(one, right)


def test_all_in_one_pass():
    model = branches()
    told: list[tuple[int, Tensor, Tensor]] = []

    def tell(place: int, x: Tensor, y: Tensor) -> None:
        told.append((place, x.clone(), y.clone()))

    watch_all(model, [model.left, model.twice], batches, tell)
    assert [place for place, _, _ in told] == [0, 1, 1] * 3
    for place, x, y in told:
        conv = (model.left, model.twice)[place]
        torch.testing.assert_close(y, conv(x).detach())
    assert not any(module._forward_hooks for module in model.modules())
