import pytest
import torch
from torch import Tensor, nn

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


class Overwriting(nn.Module):
    """Normalises its images where they are, and hides errors of its convolution."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x.sub_(0.5).div_(2)
        try:
            return self.conv(x).mean((2, 3))
        except Exception:
            return x.mean((2, 3))


def test_images_that_a_network_writes_into_stay():
    model, photos = Overwriting(), images(4)
    right = (photos - 0.5) / 2
    kept = photos.clone()
    told: list[Tensor] = []
    for _ in range(2):
        (given,) = seen_inputs(model, "conv", 1, photos)
        torch.testing.assert_close(given, right)
        watch_all(model, [model.conv], lambda: [photos], lambda place, x, y: told.append(x))
        torch.testing.assert_close(told[-1], right)
    assert torch.equal(photos, kept)
