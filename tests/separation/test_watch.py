import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from xception.separation.watch import pairs, seen_inputs, watch_all

from .networks import Branches, branches, images


def batches():
    return images(6).split(2)


def by_hand(model: Branches, x: Tensor) -> dict[str, list[Tensor]]:
    """Inputs of the layers, as the network's own code says, without writing into anything."""
    x = F.relu(model.stem(x))
    left = x
    x = model.norm(torch.cat([model.left(x), model.right(x)], 1))
    once = F.relu(model.twice(x))
    y = F.relu(model.twice(once) + x)
    return {"left": [left], "twice": [x, once], "later": [model.mix(y)]}


@pytest.mark.parametrize(("name", "calls"), [("left", 1), ("twice", 2), ("later", 1)])
@torch.no_grad()
def test_inputs_of_one_network_beside_outputs_of_another(name: str, calls: int):
    original, changed = branches(), branches()
    changed.stem.weight *= 1.1
    seen = list(pairs(changed, original, name, calls, batches))
    assert len(seen) == 3 * calls
    given = [x for part in batches() for x in by_hand(changed, part)[name]]
    wanted = [
        original.get_submodule(name)(x) for part in batches() for x in by_hand(original, part)[name]
    ]
    for (x, y), right_x, right_y in zip(seen, given, wanted, strict=True):
        torch.testing.assert_close(x, right_x)
        torch.testing.assert_close(y, right_y)


def test_the_network_runs_no_further_than_it_must():
    model = branches()
    ran = []
    model.later.register_forward_pre_hook(lambda module, args: ran.append(module))
    list(pairs(model, model, "left", 1, batches))
    assert not ran
    with pytest.raises(ValueError, match="was not reached"):
        list(pairs(model, model, "unused", 1, batches))


@torch.no_grad()
def test_inputs_for_some_images():
    model = branches().train()
    x = images(3)
    given = seen_inputs(model, "twice", 2, x)
    for one, right in zip(given, by_hand(model.eval(), x)["twice"], strict=True):
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
