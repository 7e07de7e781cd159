"""Each shape is held against the real operator, run on a CPU."""

import itertools

import pytest
import torch
from torch.nn import functional as F

from xception.cost.shapes import BY_PLACE, SHAPES

aten = torch.ops.aten


def sizes(out) -> list[tuple[int, ...]]:
    tensors = out if isinstance(out, tuple | list) else [out]
    return [tuple(tensor.shape) for tensor in tensors]


def same(operator, *args) -> None:
    """The operator gives what SHAPES says it does, on meta tensors."""
    shapes = [
        [one.to("meta") for one in arg]
        if isinstance(arg, list) and arg and isinstance(arg[0], torch.Tensor)
        else arg.to("meta")
        if isinstance(arg, torch.Tensor)
        else arg
        for arg in args
    ]
    said = SHAPES[operator.__name__](shapes)
    assert said is not None
    assert sizes(said)[0] == sizes(operator(*args))[0]


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("axes", [1, 2, 3])
def test_convolutions(axes: int, transposed: bool):
    settings = itertools.product((1, 2, 3), (0, 1), (1, 2), (1, 2))
    for stride, padding, dilation, groups in settings:
        x = torch.zeros(2, 4, *(9, 8, 7)[:axes])
        weight = torch.zeros(4, 6 // groups if transposed else 4 // groups, *(3, 2, 1)[:axes])
        extra = stride - 1 if transposed else 0
        same(aten.convolution, x, weight, None, [stride] * axes, [padding] * axes,
             [dilation] * axes, transposed, [extra] * axes, groups)  # fmt: skip


def test_one_number_for_all_axes():
    same(aten.convolution, torch.zeros(1, 2, 9, 7), torch.zeros(3, 2, 3, 3), None, [2], [1], [1],
         False, [0], 1)  # fmt: skip


@pytest.mark.parametrize("ceil", [False, True])
@pytest.mark.parametrize("size", [6, 7, 8, 9])
def test_pooling(size: int, ceil: bool):
    x = torch.rand(1, 2, size, size + 1)
    for kernel, stride, padding in itertools.product((2, 3), (1, 2, 3), (0, 1)):
        window = ([kernel, kernel], [stride, stride], [padding, padding])
        same(aten.max_pool2d_with_indices, x, *window, [1, 1], ceil)
        same(aten.avg_pool2d, x, *window, ceil)
    same(aten.max_pool2d_with_indices, x, [2, 2])
    same(aten.max_pool2d_with_indices, x, [2, 2], [2, 2], [0, 0], [2, 2], ceil)
    same(aten.avg_pool2d, x, [3, 2])


def test_other_operators():
    x = torch.rand(2, 3, 5, 4)
    same(aten.mean, x, [2, 3])
    same(aten.mean, x, [-1], True)
    same(aten.addmm, torch.zeros(7), torch.zeros(2, 3), torch.zeros(3, 7))
    same(aten.cat, [x, x[:, :2]], 1)
    same(aten.cat, [x, x], -1)
    same(aten.cat, [x, x])
    same(aten.upsample_bilinear2d, x, [9, 7], True)
    same(aten.native_batch_norm, x, None, None, torch.zeros(3), torch.ones(3), False, 0.1, 1e-3)


@pytest.mark.parametrize("name", [*BY_PLACE, *(f"{name}_" for name in BY_PLACE)])
def test_place_by_place(name: str):
    x = torch.rand(2, 3, 5, 4)
    operator = getattr(aten, name)
    if name.rstrip("_") in ("add", "sub", "mul", "div"):
        for other in (x, torch.rand(3, 1, 1), torch.rand(2, 1, 1, 4)):
            same(operator, x.clone(), other)
        same(operator, x.clone(), 2.0)
    elif name.startswith("clamp"):
        same(operator, x.clone(), 0.0)
    else:
        same(operator, x.clone())


def test_what_is_left_to_torch():
    numbers = torch.zeros(2, dtype=torch.int64, device="meta")
    floats = torch.zeros(2, device="meta")
    assert SHAPES["add"]((numbers, 1)) is None  # the type may change
    assert SHAPES["add"]((floats, numbers)) is None
    assert SHAPES["mul_"]((floats, torch.zeros(3, 2, device="meta"))) is None
    assert SHAPES["mean"]((floats, None)) is None
    assert SHAPES["cat"](([floats, numbers],)) is None


BAD = [
    ("convolution", (torch.zeros(1, 3, 5, 5), torch.zeros(4, 2, 3, 3), None, [1, 1], [0, 0],
                     [1, 1], False, [0, 0], 1)),
    ("convolution", (torch.zeros(1, 2, 2, 2), torch.zeros(4, 2, 3, 3), None, [1, 1], [0, 0],
                     [1, 1], False, [0, 0], 1)),
    ("max_pool2d_with_indices", (torch.zeros(1, 2, 2, 2), [3, 3])),
    ("add", (torch.zeros(2, 3), torch.zeros(2, 2))),
    ("addmm", (torch.zeros(2), torch.zeros(2, 3), torch.zeros(4, 2))),
    ("cat", ([torch.zeros(2, 3), torch.zeros(2, 2)],)),
]  # fmt: skip


@pytest.mark.parametrize(("name", "args"), BAD)
def test_what_torch_refuses_is_refused(name: str, args):
    with pytest.raises(RuntimeError):
        getattr(aten, name)(*args)
    with pytest.raises(RuntimeError):
        SHAPES[name](args)


def test_a_tensor_in_another_order_stays_in_it():
    x = torch.zeros(1, 3, 4, 5, device="meta").permute(0, 2, 3, 1)
    assert SHAPES["relu"]((x,)).stride() == x.stride()
    assert F.relu(x).stride() == x.stride()
