import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from xception.layers.padding import check_padding, edges, pad, same_padding


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "dilation", "expected"),
    [
        (5, 3, 1, 1, (1, 1)),
        (299, 3, 2, 1, (1, 1)),  # odd: as torch's padding=1
        (74, 3, 2, 1, (0, 1)),  # even: the odd pixel comes after
        (1, 3, 2, 1, (1, 1)),
        (1, 1, 2, 1, (0, 0)),
        (8, 1, 2, 1, (0, 0)),  # stride larger than the kernel: nothing
        (33, 3, 1, 12, (12, 12)),
        (6, 2, 1, 1, (0, 1)),
        (7, 5, 3, 1, (2, 2)),
        (8, 5, 3, 1, (1, 2)),
    ],
)
def test_same_padding_by_hand(size, kernel, stride, dilation, expected):
    assert same_padding(size, kernel, stride, dilation) == expected


@given(st.integers(1, 60), st.integers(1, 7), st.integers(1, 4), st.integers(1, 12))
def test_same_gives_one_output_per_stride(size, kernel, stride, dilation):
    before, after = same_padding(size, kernel, stride, dilation)
    assert 0 <= after - before <= 1
    covered = (kernel - 1) * dilation + 1
    outputs = len(range(0, size + before + after - covered + 1, stride))
    assert outputs == len(range(0, size, stride))


def test_edges_name_left_right_top_bottom():
    assert edges(7, 8, "same", 3, 2) == (0, 1, 1, 1)
    assert edges(7, 8, "valid", 3, 2) == (0, 0, 0, 0)
    assert edges(7, 8, 2, 3) == (2, 2, 2, 2)
    assert edges(7, 8, (1, 2, 3, 4), 3) == (1, 2, 3, 4)


def test_pad_adds_the_value_and_copies_only_where_needed():
    x = torch.ones(1, 1, 4, 4)
    assert pad(x, "valid", 3) is x
    grown = pad(x, "same", 3, stride=2, value=-5.0)
    assert torch.equal(grown, F.pad(x, (0, 1, 0, 1), value=-5.0))


@pytest.mark.parametrize("padding", ["Same", "reflect", -1, (1, 2), (1, 2, 3, -4)])
@pytest.mark.usefixtures("unchecked_types")
def test_unknown_padding_is_refused(padding):
    with pytest.raises(ValueError, match="padding"):
        check_padding(padding)
