import math
from collections import Counter

import numpy as np
import pytest
import torch
from torch import nn

from xception.layers.conv import Conv2d
from xception.separation.windows import gain, overlap, padded, patches, window_edges


@pytest.mark.parametrize("kernel", [1, 2, 3, 5])
@pytest.mark.parametrize("stride", [1, 2, 3, 4])
@pytest.mark.parametrize("dilation", [1, 2, 3, 4])
def test_overlap_is_counted_pixel_by_pixel(kernel, stride, dilation):
    seen = Counter(place * stride + tap * dilation for place in range(40) for tap in range(kernel))
    conv = nn.Conv2d(1, 1, kernel, stride=stride, dilation=dilation)
    assert overlap(conv) == max(seen.values()) ** 2


def test_overlap_of_a_long_kernel():
    assert overlap(nn.Conv2d(1, 1, (1, 7), stride=(1, 2))) == 4


@pytest.mark.parametrize(
    ("conv", "edges"),
    [
        (nn.Conv2d(1, 1, 3), (0, 0, 0, 0)),
        (nn.Conv2d(1, 1, 3, padding=1), (1, 1, 1, 1)),
        (nn.Conv2d(1, 1, (1, 7), padding=(0, 3)), (3, 3, 0, 0)),
        (nn.Conv2d(1, 1, (2, 4), padding="same"), (1, 2, 0, 1)),
        (nn.Conv2d(1, 1, 3, padding="valid"), (0, 0, 0, 0)),
        (Conv2d(1, 1, 3, stride=2), (1, 1, 0, 1)),  # 8 x 7 pixels
        (Conv2d(1, 1, 3, padding=(1, 2, 3, 4)), (1, 2, 3, 4)),
    ],
)
def test_the_edges_that_are_added(conv, edges):
    assert window_edges(conv, 8, 7) == edges


@pytest.mark.parametrize(
    "conv",
    [
        nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=2, bias=False),
        nn.Conv2d(2, 3, (1, 3), dilation=2, padding=(1, 2), padding_mode="circular", bias=False),
        Conv2d(2, 3, 3, stride=2, bias=False),
    ],
    ids=str,
)
def test_patches_times_weights_are_the_outputs(conv):
    torch.manual_seed(0)
    x = torch.randn(2, conv.in_channels, 8, 7)
    rows = conv.weight.flatten(1).unflatten(0, (conv.groups, -1))
    y = torch.einsum("gnd,bgdp->bgnp", rows, patches(conv, x)).flatten(1, 2)
    torch.testing.assert_close(y, conv(x).flatten(2))


def test_the_gain_of_a_blur_is_that_of_a_flat_image():
    """All images come out of a mean over windows at most as strong as they went in."""
    conv = nn.Conv2d(1, 1, 3)
    assert gain(conv, torch.full((1, 1, 3, 3), 1 / 9)) == pytest.approx(1)


def test_the_gain_of_a_dense_matrix_is_its_largest_singular_value():
    torch.manual_seed(0)
    kernel = torch.randn(5, 3, 1, 1, dtype=torch.float64)
    largest = np.linalg.svd(kernel[:, :, 0, 0].numpy(), compute_uv=False)[0]
    assert gain(nn.Conv2d(3, 5, 1), kernel) == pytest.approx(largest)


def test_the_gain_with_a_stride_as_wide_as_the_window():
    """Windows do not overlap: the patches are the image."""
    kernel = torch.randn(2, 1, 3, 3, generator=torch.Generator().manual_seed(0)).double()
    largest = np.linalg.svd(kernel.flatten(1).numpy(), compute_uv=False)[0]
    assert gain(nn.Conv2d(1, 2, 3, stride=3), kernel) == pytest.approx(largest)


def test_the_gain_of_groups_is_that_of_the_worst():
    kernel = torch.zeros(2, 1, 3, 3)
    kernel[0, 0, 1, 1], kernel[1, 0, 1, 1] = 1, 5
    assert gain(nn.Conv2d(2, 2, 3, groups=2), kernel) == pytest.approx(15)  # √9 · 5
    assert math.isclose(gain(nn.Conv2d(2, 2, 3, groups=2), kernel[:1].repeat(2, 1, 1, 1)), 3)


def test_without_edges_the_image_itself_is_taken():
    x = torch.ones(1, 1, 3, 3)
    assert padded(nn.Conv2d(1, 1, 3), x) is x
