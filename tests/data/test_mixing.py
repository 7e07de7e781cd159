import numpy as np
import pytest
import torch

from xception.data.mixing import cutmix, mixup, neighbours
from xception.data.transforms import Augment, mix


def batch(count: int, side: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    """Image i is full of the value i; target i is class i."""
    images = torch.arange(float(count))[:, None, None, None].expand(count, 3, side, side).clone()
    return images, torch.eye(count)


def test_neighbours_change_places():
    assert neighbours(torch.arange(6.0)).tolist() == [1, 0, 3, 2, 5, 4]
    assert neighbours(torch.arange(5.0)).tolist() == [1, 0, 3, 2, 4]
    assert neighbours(torch.arange(1.0)).tolist() == [0]


def test_mixup_by_hand():
    images, targets = mixup(*batch(3), share=0.75)
    # 0.75·0 + 0.25·1, 0.75·1 + 0.25·0, and the lonely one.
    assert images[:, 0, 0, 0].tolist() == [0.25, 0.75, 2.0]
    assert targets.tolist() == [[0.75, 0.25, 0], [0.25, 0.75, 0], [0, 0, 1]]


def test_cutmix_by_hand():
    # A quarter of 4×4 is 2×2; centred on row 2 of 4 and column 3 of 4: rows 1, 2 and columns 2, 3.
    images, targets = cutmix(*batch(2), share=0.75, centre=(0.5, 0.75))
    expected = torch.zeros(4, 4)
    expected[1:3, 2:4] = 1
    assert torch.equal(images[0, 1], expected)
    assert torch.equal(images[1, 2], 1 - expected)
    assert targets.tolist() == [[0.75, 0.25], [0.25, 0.75]]


def test_cutmix_counts_what_the_border_leaves():
    # Centred on the corner, one pixel of the 2×2 rectangle is within the image: 1/16.
    images, targets = cutmix(*batch(2), share=0.75, centre=(0.0, 0.0))
    assert images[0, 0].sum() == 1
    assert images[0, 0, 0, 0] == 1
    assert targets.tolist() == [[0.9375, 0.0625], [0.0625, 0.9375]]


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_cutmix_of_all_or_nothing(share):
    images, targets = cutmix(*batch(2), share=share, centre=(0.5, 0.5))
    assert images[0].unique().tolist() == [1 - share]
    assert targets[0].tolist() == [share, 1 - share]


def test_mixing_leaves_its_input_alone_and_keeps_the_memory_format():
    images, targets = batch(4)
    images = images.contiguous(memory_format=torch.channels_last)
    before = images.clone()
    for mixed, _ in (mixup(images, targets, 0.3), cutmix(images, targets, 0.3, (0.5, 0.5))):
        assert mixed.is_contiguous(memory_format=torch.channels_last)
        assert torch.equal(images, before)


@pytest.mark.parametrize("alphas", [{"mixup": 0.2}, {"cutmix": 1.0}, {"mixup": 0.4, "cutmix": 1.0}])
def test_a_batch_may_be_shared_between_processes(alphas):
    images, targets = torch.rand(8, 3, 6, 6), torch.rand(8, 5)
    for seed in range(8):
        whole = mix(images, targets, Augment(**alphas), np.random.default_rng(seed))
        parts = [
            mix(images[part], targets[part], Augment(**alphas), np.random.default_rng(seed))
            for part in (slice(0, 4), slice(4, 8))
        ]
        assert torch.equal(whole[0], torch.cat([part[0] for part in parts]))
        assert torch.equal(whole[1], torch.cat([part[1] for part in parts]))


def test_mix_off_changes_nothing_and_draws_nothing():
    images, targets = batch(2)
    rng = np.random.default_rng(0)
    assert mix(images, targets, Augment(), rng)[0] is images
    assert rng.random() == np.random.default_rng(0).random()


def test_mixed_targets_still_sum_to_one():
    images, targets = batch(6)
    for seed in range(50):
        _, mixed = mix(images, targets, Augment(mixup=1, cutmix=1), np.random.default_rng(seed))
        torch.testing.assert_close(mixed.sum(1), torch.ones(6))


def test_mixup_and_cutmix_come_evenly():
    # Mixup of two constant images is constant, CutMix is not (or is one of the two originals).
    images, targets = batch(2, side=16)
    constant = 0
    for seed in range(300):
        mixed, _ = mix(images, targets, Augment(mixup=1, cutmix=1), np.random.default_rng(seed))
        value = mixed[0].unique()
        constant += len(value) == 1 and 0 < value.item() < 1
    assert 110 < constant < 190  # 150 ± 4.6 standard deviations


def test_the_share_follows_its_distribution():
    # Beta(a, a) has mean 1/2 and variance 1 / (4 (2a + 1)).
    images, targets = batch(2, side=1)
    augment, rng = Augment(mixup=0.5), np.random.default_rng(0)
    shares = torch.tensor([mix(images, targets, augment, rng)[1][0, 0] for _ in range(2000)])
    assert abs(shares.mean().item() - 0.5) < 0.03
    assert abs(shares.var().item() - 1 / 8) < 0.01
