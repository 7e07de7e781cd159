import pytest
import torch
from torch import nn

from xception.separation.ahead import Ahead
from xception.separation.sites import find_sites
from xception.separation.watch import pairs

from .networks import branches, images


def batches():
    return images(6).split(2)


@pytest.mark.parametrize("most_bytes", [0, 30_000, 1 << 30])
def test_pairs_are_those_of_one_layer_at_a_time(most_bytes: int):
    """Whatever fits into memory: nothing, a layer or two, all."""
    original, changed = branches(), branches()
    with torch.no_grad():
        changed.stem.weight *= 1.1
    sites = [site for site in find_sites(original, images(1)) if site.refusal is None]
    ahead = Ahead(original, sites, batches, 6, most_bytes)
    for site in sites:
        expected = list(pairs(changed, original, site.name, site.calls, batches))
        for _ in range(2):  # a very wide layer is seen twice
            found = list(ahead.pairs(changed, site))
            assert len(found) == len(expected)
            for one, other in zip(found, expected, strict=True):
                torch.testing.assert_close(one, other)
    assert not any(module._forward_hooks for module in original.modules())


def test_the_original_runs_once_where_memory_allows():
    original = branches()
    runs: list[nn.Module] = []
    sites = [site for site in find_sites(original, images(1)) if site.refusal is None]
    original.stem.register_forward_pre_hook(lambda module, args: runs.append(module))
    changed = branches()
    ahead = Ahead(original, sites, batches, 6)
    for site in sites:
        list(ahead.pairs(changed, site))
    assert len(runs) == 3  # batches
