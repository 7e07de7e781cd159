import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from xception.layers import Conv2d, MaxPool2d


def convolve(x, kernels, stride, dilation, before, after):
    """A convolution of one image as plain loops; `before` and `after` are (rows, columns)."""
    x = np.pad(x, ((0, 0), *zip(before, after, strict=True)))
    filters, _, size, _ = kernels.shape
    reach = (size - 1) * dilation + 1
    rows = range(0, x.shape[1] - reach + 1, stride)
    columns = range(0, x.shape[2] - reach + 1, stride)
    out = np.zeros((filters, len(rows), len(columns)))
    for f in range(filters):
        for i, top in enumerate(rows):
            for j, left in enumerate(columns):
                for u in range(size):
                    for v in range(size):
                        pixel = x[:, top + u * dilation, left + v * dilation]
                        out[f, i, j] += pixel @ kernels[f, :, u, v]
    return out


@pytest.mark.parametrize("height", [4, 5])
@pytest.mark.parametrize("width", [6, 7])
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_same_convolution_is_the_loop(height, width, stride):
    torch.manual_seed(0)
    layer = Conv2d(2, 3, 3, stride=stride, bias=False).double()
    x = torch.randn(1, 2, height, width, dtype=torch.float64)

    def total(size):  # TensorFlow's rule, written out
        return max((-(-size // stride) - 1) * stride + 3 - size, 0)

    before = total(height) // 2, total(width) // 2
    after = total(height) - before[0], total(width) - before[1]
    expected = convolve(x[0].numpy(), layer.weight.detach().numpy(), stride, 1, before, after)
    np.testing.assert_allclose(layer(x)[0].detach().numpy(), expected, atol=1e-12)


def test_explicit_padding_may_differ_on_all_sides():
    torch.manual_seed(0)
    layer = Conv2d(2, 3, 3, padding=(1, 2, 3, 0), dilation=2, bias=False).double()
    x = torch.randn(1, 2, 6, 5, dtype=torch.float64)
    expected = convolve(x[0].numpy(), layer.weight.detach().numpy(), 1, 2, (3, 1), (0, 2))
    np.testing.assert_allclose(layer(x)[0].detach().numpy(), expected, atol=1e-12)


@pytest.mark.parametrize(
    ("padding", "added"), [("same", (0,) * 4), (1, (1,) * 4), ((0, 2, 1, 0), (0, 2, 1, 0))]
)
@pytest.mark.parametrize(("height", "width"), [(1, 1), (4, 5), (7, 6)])
@pytest.mark.parametrize("stride", [2, 3])
def test_a_strided_1x1_convolution_is_the_loop(height, width, stride, padding, added):
    layer = Conv2d(2, 3, 1, stride=stride, padding=padding, bias=False).double()
    x = torch.randn(1, 2, height, width, dtype=torch.float64)
    left, right, top, bottom = added
    expected = convolve(
        x[0].numpy(), layer.weight.detach().numpy(), stride, 1, (top, left), (bottom, right)
    )
    np.testing.assert_allclose(layer(x)[0].detach().numpy(), expected, atol=1e-12)


@pytest.mark.parametrize("channels", [3, 4, 8, 16])
def test_few_channels_survive_a_strided_backward_pass(channels):
    """torch 2.13 ends the process ("double free") in the plain strided form."""
    layer = Conv2d(channels, 8, 1, stride=2, bias=False)
    x = torch.randn(4, channels, 64, 64).to(memory_format=torch.channels_last).requires_grad_()
    layer(x).sum().backward()
    assert x.grad is not None
    kept = layer.weight.detach().sum(0)[:, 0, 0]  # each seen pixel's gradient, by hand
    assert torch.allclose(x.grad[:, :, ::2, ::2], kept[:, None, None].expand(4, -1, 32, 32))
    assert x.grad[:, :, 1::2].abs().max() == 0


def test_symmetric_padding_is_left_to_the_convolution(monkeypatch):
    layer = Conv2d(1, 1, 3, stride=2)
    monkeypatch.setattr(F, "pad", lambda *_: pytest.fail("copied"))
    assert layer(torch.zeros(1, 1, 7, 9)).shape == (1, 1, 4, 5)


def test_a_printed_convolution_tells_its_padding():
    assert "padding='same'" in repr(Conv2d(1, 1, 3))
    assert "padding='same'" in repr(MaxPool2d(3, 2))


@given(
    st.integers(1, 12),
    st.integers(1, 12),
    st.sampled_from([(1, 1), (3, 1), (5, 1), (1, 2), (2, 2), (3, 2), (4, 2), (3, 3), (2, 4)]),
)
@settings(deadline=None)
def test_pooling_without_copies_equals_padding_with_minus_infinity(height, width, window):
    kernel, stride = window
    generator = torch.Generator().manual_seed(height * 100 + width)
    x = torch.randn(1, 2, height, width, generator=generator, requires_grad=True)

    def split(size):
        total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
        return total // 2, total - total // 2

    grown = F.pad(x, (*split(width), *split(height)), value=-torch.inf)
    expected = F.max_pool2d(grown, kernel, stride)
    got = MaxPool2d(kernel, stride)(x)
    assert torch.equal(got, expected)
    assert got.shape[2:] == (-(-height // stride), -(-width // stride))
    weights = torch.randn(got.shape, generator=generator)
    assert torch.equal(
        torch.autograd.grad((got * weights).sum(), x)[0],
        torch.autograd.grad((expected * weights).sum(), x)[0],
    )


def pool(x, kernel, stride, dilation, before, count):
    """Maximum over windows of one axis after the other as plain loops; outside is -infinity."""

    def along_rows(x, before, count):
        rows = np.full((count, x.shape[1]), -np.inf)
        for i in range(count):
            for u in range(kernel):
                place = i * stride + u * dilation - before
                if 0 <= place < len(x):
                    rows[i] = np.maximum(rows[i], x[place])
        return rows

    return along_rows(along_rows(x, before[0], count[0]).T, before[1], count[1]).T


@pytest.mark.parametrize("padding", ["same", 0, 1])
@pytest.mark.parametrize(("stride", "dilation"), [(1, 2), (2, 2), (2, 3), (3, 1), (1, 4)])
@pytest.mark.parametrize(("height", "width"), [(9, 12), (14, 11)])
def test_dilated_pooling_is_the_loop(height, width, stride, dilation, padding):
    x = np.random.default_rng(0).standard_normal((height, width))
    reach = 2 * dilation + 1
    if padding == "same":
        count = [-(-size // stride) for size in x.shape]
        total = [max((n - 1) * stride + reach - s, 0) for n, s in zip(count, x.shape, strict=True)]
        before = [one // 2 for one in total]
    else:
        count = [(size + 2 * padding - reach) // stride + 1 for size in x.shape]
        before = [padding, padding]
    got = MaxPool2d(3, stride, dilation=dilation, padding=padding)(torch.from_numpy(x)[None, None])
    np.testing.assert_array_equal(got[0, 0], pool(x, 3, stride, dilation, before, count))


@pytest.mark.parametrize("dilation", [1, 2, 4])
@pytest.mark.parametrize(
    ("kernel", "stride", "padding"),
    [(3, 2, "same"), (3, 2, 1), (3, 2, 0), (2, 2, "same"), (3, 3, "same"), (5, 2, 2), (3, 1, 1)],
)
def test_plain_pooling_is_among_the_dense(kernel, stride, padding, dilation):
    for height, width in ((1, 2), (3, 8), (9, 14), (15, 12), (16, 17)):
        x = torch.randn(1, 2, height, width, generator=torch.Generator().manual_seed(height))
        coarse = x[:, :, ::dilation, ::dilation]
        if padding == 0 and min(coarse.shape[2:]) < kernel:
            continue  # no window fits there
        plain = MaxPool2d(kernel, stride, padding=padding)(coarse)
        dense = MaxPool2d(kernel, stride, padding=padding, dilation=dilation, dense=True)(x)
        assert dense.shape == x.shape
        step = dilation * stride
        dense = dense[:, :, ::step, ::step]
        if padding == 0:  # the last windows of the dense run over the edge and have no twin
            dense = dense[:, :, : plain.shape[2], : plain.shape[3]]
        assert torch.equal(dense, plain), (height, width)


def test_dense_pooling_learns():
    x = torch.tensor([[1.0, 3.0, 2.0, 0.0]], requires_grad=True)
    pooled = MaxPool2d(3, 2, dense=True)(x[None, None])  # an even size: windows begin at the pixel
    assert pooled.flatten().tolist() == [3, 3, 2, 0]
    pooled.sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [[0, 2, 1, 1]]


@pytest.mark.parametrize(
    ("kernel", "stride", "options", "message"),
    [
        (2, 1, {}, "even kernel"),
        (0, 1, {}, "at least 1"),
        (3, 0, {}, "at least 1"),
        (3, 1, {"dilation": 0}, "at least 1"),
        (3, 1, {"padding": 2}, "padding must be 'same' or 0 … 1, not 2"),
        (3, 1, {"padding": -1}, "padding"),
    ],
)
def test_windows_that_cannot_be_pooled_are_refused(kernel, stride, options, message):
    with pytest.raises(ValueError, match=message):
        MaxPool2d(kernel, stride, **options)
