import pytest
import torch
import torch.distributed as dist

from xception.layers import Dropout


def test_a_share_is_dropped_and_the_rest_makes_up_for_it():
    torch.manual_seed(0)
    y = Dropout(0.3)(torch.ones(1000, 20))
    assert (y == 0).float().mean().item() == pytest.approx(0.3, abs=0.02)
    assert y[y != 0].unique().tolist() == pytest.approx([1 / 0.7])


def test_evaluation_drops_nothing():
    x = torch.randn(3, 4, 2, 2)
    assert torch.equal(Dropout(0.9).eval()(x), x)


def test_everything_can_be_dropped():
    assert torch.equal(Dropout(1.0)(torch.ones(2, 3)), torch.zeros(2, 3))


def test_processes_share_the_mask_of_the_whole_batch(monkeypatch):
    x = torch.randn(6, 5, 2, 2)

    def answer(rows, size, rank):
        monkeypatch.setattr(dist, "is_initialized", lambda: size > 1)
        monkeypatch.setattr(dist, "get_world_size", lambda: size)
        monkeypatch.setattr(dist, "get_rank", lambda: rank)
        torch.manual_seed(7)
        return Dropout(0.5)(rows)

    parts = [answer(part, 3, rank) for rank, part in enumerate(x.chunk(3))]
    assert torch.equal(torch.cat(parts), answer(x, 1, 0))
