"""The whole operation on networks that do what most do not."""

import copy
import pickle
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import prune

from xception.errors import UserError
from xception.separation.surgery import Exchanged, prepare

from .networks import Row, images


def batches():
    return images(16).split(4)


def operated(model: nn.Module, **options: Any) -> tuple[nn.Module, list[Exchanged]]:
    prepared = prepare(model, 12, 3, batches=batches, images=16, **options)
    return prepared.operate(prepared.of_rank(2))


class Keeping(Row):
    """Keeps what it last saw, also within a list."""

    def forward(self, x: Tensor) -> Tensor:
        self.last = self.stem(x)
        self.all = [self.last.exp()]
        return super().forward(x)


def pruned() -> nn.Module:
    model = Row()
    prune.l1_unstructured(model.first, "weight", 0.5)
    return model


def with_weight_norm() -> nn.Module:
    model = Row()
    with pytest.warns(FutureWarning, match="weight_norm"):
        nn.utils.weight_norm(model.first)
    return model


@pytest.mark.parametrize("made", [Keeping, pruned, with_weight_norm])
def test_what_a_network_keeps_of_a_run_is_no_hindrance(made: Callable[[], nn.Module]):
    """Values with derivatives cannot be copied, and measuring harm leaves them behind."""
    changed, done = operated(made())
    assert done[-1].name == "second"
    with torch.no_grad():
        assert changed(images(2)).shape == (2, 5)


class Overwriting(Row):
    def forward(self, x: Tensor) -> Tensor:
        x.sub_(0.5).div_(2)
        return super().forward(x)


class Copying(Row):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward((x - 0.5) / 2)


def test_a_network_that_writes_into_its_images():
    photos = images(16)
    kept = photos.clone()
    found = []
    for network in (Overwriting, Copying):
        prepared = prepare(network(), 12, 3, batches=lambda: photos.split(4), images=16)
        found.append(prepared.operate(prepared.within(0.6))[1])
    assert torch.equal(photos, kept)
    for ours, theirs in zip(*found, strict=True):
        assert ours.output_error == pytest.approx(theirs.output_error, rel=1e-4)


class Gated(Row):
    """What it does with images depends on the brightest of their batch, by what a module keeps."""

    def __init__(self, limit: float, *, hidden: bool):
        super().__init__()
        self.limit, self.hidden = limit, hidden
        self.gate = nn.Identity()
        self.gate.register_forward_hook(self.look)
        self.open = False

    def look(self, module: nn.Module, args: Any, out: Tensor) -> None:
        if isinstance(out, Tensor):
            self.open = bool(out.max() > self.limit)

    def forward(self, x: Tensor) -> Tensor:
        x = self.gate(x)
        if not self.hidden and float(x.mean()) > 1e9:  # so that it cannot be written down
            x = -x
        return super().forward(3 * x - 1 if self.open else x)


def test_what_went_astray_is_done_once_more():
    """One batch opens the gate, none of the start does: the fit is that of runs from the start."""
    ordered = sorted((one.clamp(-9, 9) for one in batches()), key=lambda one: float(one.max()))
    limit = 0.5 * float(ordered[-1].max() + ordered[-2].max())
    found = []
    for hidden in (True, False):
        model = Gated(limit, hidden=hidden)
        told: list[str] = []
        prepared = prepare(model, 12, 3, batches=partial(list, ordered), images=16, with_menu=False)
        model.open = False
        changed, done = prepared.operate(
            prepared.of_rank(2), told=lambda one, told=told: told.append(one.name)
        )
        assert [one.name for one in done] == ["first", "second"]
        assert told == (["first", *told[-2:]] if hidden else ["first", "second"])
        found.append((changed, done))
    (ours, done), (theirs, right) = found
    for one, other in zip(done, right, strict=True):
        assert one.output_error == other.output_error
    for one, other in zip(ours.state_dict().values(), theirs.state_dict().values(), strict=True):
        assert torch.equal(one, other)


def test_nothing_is_left_behind():
    class Failing(Row):
        def forward(self, x: Tensor) -> Tensor:
            self.features = self.stem(x)
            assert self.features.shape[1] == 16
            return super().forward(x)

    model = Failing()
    changed, _ = operated(model, with_menu=False)
    assert type(model.features) is type(changed.get_submodule("").features) is Tensor
    with torch.no_grad():
        pickle.dumps(changed.state_dict())
        copy.deepcopy(changed)


@pytest.mark.parametrize("learns", [True, False])
def test_a_frozen_layer_stays_frozen(learns: bool):
    model = Row().requires_grad_(learns)
    changed, done = operated(model, with_menu=False)
    assert len(done) == 2
    assert {one.requires_grad for one in changed.parameters()} == {learns}


def test_weights_that_are_buffers():
    model = Row()
    for conv in (model.first, model.second):
        for name in ("weight", "bias"):
            value = getattr(conv, name).detach()
            delattr(conv, name)
            conv.register_buffer(name, value)
    (_, ours), (_, theirs) = operated(model), operated(Row())
    for one, other in zip(ours, theirs, strict=True):
        assert one.output_error == pytest.approx(other.output_error, rel=1e-6)


class Deciding(Row):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).argmax(1)


class Detached(Row):
    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x)


@pytest.mark.parametrize("network", [Deciding, Detached])
def test_answers_without_derivatives(network: type[Row]):
    with pytest.raises(UserError, match="have no derivatives"):
        operated(network())
    assert len(operated(network(), with_menu=False)[1]) == 2


def test_a_plan_by_macs_needs_the_menu():
    with pytest.raises(ValueError, match="with_menu=True"):
        prepare(Row(), 12, 3, with_menu=False).within(0.5)
