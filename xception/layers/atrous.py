"""Depthwise convolutions with dilation ("atrous"), computed as convolutions without.

Two pixels meet in such a convolution only if their distance is a multiple of the rate, on both
axes. So an image falls apart into rate² small ones, its phases, each of which is convolved by
itself and without dilation (Chen et al. 2017, arXiv:1606.00915, §3.1). That is what is done here,
for a convolution that keeps the image's size, and for its gradients; results are those of
`torch.nn.functional.conv2d` but for rounding.

Torch 2.13 has fast kernels (oneDNN's) for depthwise convolutions on x86 processors. Forwards they
know dilation, as long as the padding at the left is a few pixels wide; backwards they know none,
and what stands in for them is many times slower than the same convolution without dilation
(benchmarks/atrous_depthwise.py). `pays` says where the way round is worth it.

Phases of equal size are convolved together: those of different rows as images of a batch, those of
different columns as channels, so that they are copied in long rows. There are at most four sizes.
"""

from itertools import product
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn import functional as F

WIDEST_PADDING = {"AVX512": 6, "AVX2": 4}
"""Pixels at the left that oneDNN's forward kernel (`jit_uni_dw_conv`) takes, by processor."""

LEAST_VALUES = 2**17
"""Of a batch; below, the many small calls cost more than they save …"""

LEAST_PLANES = 1536
"""… unless the batch has this many images × channels for each call: backwards torch takes its time
for each of them, however small it is."""

_LIBRARY = torch.library.Library("xception", "DEF")
_LIBRARY.define(
    "convolution(Tensor input, Tensor weight, Tensor? bias, SymInt[] stride, SymInt[] padding, "
    "SymInt[] dilation, bool transposed, SymInt[] output_padding, SymInt groups) -> Tensor"
)


def atrous_depthwise(
    x: Float[Tensor, "b c h w"],
    kernel: Float[Tensor, "c 1 k k"],
    bias: Float[Tensor, " c"] | None,
    rate: int,
) -> Float[Tensor, "b c h w"]:
    """`conv2d(x, kernel, bias, padding=rate * (k // 2), dilation=rate, groups=c)`, by phases.

    It may be differentiated once by the fast way; where the gradients are to be differentiated too
    (`create_graph`), they are computed by torch's plain convolution. It is not for tensors that
    `torch.func` or forward-mode differentiation has wrapped: `pays` is False for them.

    Whoever counts operators (`torch.utils._python_dispatch`, the profiler) sees one, called
    "convolution" and with the arguments of `aten::convolution`.

    Raises:
        ValueError: the kernel has no middle, is not square, or there is not one a channel.
    """
    size = kernel.shape[-1]
    if size % 2 == 0 or tuple(kernel.shape) != (x.shape[1], 1, size, size):
        raise ValueError(
            f"one odd square kernel for each of {x.shape[1]} channels, not {tuple(kernel.shape)}"
        )
    if torch.is_grad_enabled() and any(
        one is not None and one.requires_grad for one in (x, kernel, bias)
    ):
        return _Atrous.apply(x, kernel, bias, rate)
    return torch.ops.xception.convolution(*_arguments(x, kernel, bias, rate))


def pays(x: Float[Tensor, "b c h w"], kernel: Float[Tensor, "c 1 k k"], rate: int) -> bool:
    """Whether `atrous_depthwise` is the quicker way here, and may be taken.

    It is on x86 processors with AVX2 or AVX-512, in float32 and channels_last, with kernels of 3x3,
    for batches that are large enough: in training at any rate above 1, without gradients at rates
    beyond WIDEST_PADDING. It may not be taken where somebody wants to see a plain
    convolution (tracing, export, compilation) or to treat it in a way of his own (autocast,
    `torch.func`, forward-mode differentiation, subclasses of Tensor).
    """
    if type(x) is not Tensor or type(kernel) not in (Tensor, nn.Parameter) or _watched(x, kernel):
        return False
    widest = _widest_padding()
    learning = torch.is_grad_enabled() and (x.requires_grad or kernel.requires_grad)
    return (
        widest is not None
        and (x.device.type, x.dtype) == ("cpu", torch.float32)
        and (kernel.device.type, kernel.dtype) == ("cpu", torch.float32)
        and kernel.shape[2:] == (3, 3)
        and x.is_contiguous(memory_format=torch.channels_last)
        and (rate > widest or (learning and rate > 1))
        and (x.numel() > LEAST_VALUES or (learning and _many_planes(x, rate)))
    )


def _many_planes(x: Tensor, rate: int) -> bool:
    """Whether there are so many images × channels that their size does not matter."""
    return x.shape[0] * x.shape[1] >= LEAST_PLANES * len(_groups(x, rate))


def _widest_padding() -> int | None:
    """Of this processor; None where oneDNN has no fast kernels, or may not be used."""
    if not (torch.backends.mkldnn.is_available() and torch.backends.mkldnn.enabled):
        return None
    return WIDEST_PADDING.get(torch.backends.cpu.get_cpu_capability())


def _watched(*tensors: Tensor) -> bool:
    """Whether something other than plain eager torch is at work."""
    return (
        torch.compiler.is_compiling()
        or torch.jit.is_tracing()  # pyright: ignore[reportPrivateImportUsage]
        or torch.is_autocast_enabled("cpu")
        or torch._C._are_functorch_transforms_active()  # as autograd.Function itself asks
        or any(forward_ad.unpack_dual(one).tangent is not None for one in tensors)
    )


class _Phases(NamedTuple):
    """Neighbouring phases of one axis that have equally many pixels."""

    first: int
    number: int
    pixels: int  # of each


class _Group(NamedTuple):
    """Phases that have equally many rows and equally many columns."""

    rows: _Phases
    columns: _Phases

    def of(self, x: Tensor, rate: int) -> Tensor:
        """A view of their pixels: image, phase down and across, channel, row, column."""
        for axis, phases in ((2, self.rows), (3, self.columns)):
            span = (phases.pixels - 1) * rate + phases.number
            x = x.narrow(axis, phases.first, span).unfold(axis, phases.number, rate)
        return x.permute(0, 4, 5, 1, 2, 3)

    def take(self, x: Tensor, rate: int) -> Tensor:
        """The phases of `x` as images (those down) and channels (those across), channels last."""
        view = self.of(x, rate)
        batch, down, across, channels, rows, columns = view.shape
        taken = torch.empty(
            (batch * down, across * channels, rows, columns),
            dtype=x.dtype,
            device=x.device,
            memory_format=torch.channels_last,
        )
        self._apart(taken).copy_(view)
        return taken

    def put(self, values: Tensor, y: Tensor, rate: int) -> None:
        """Write what became of the phases to their places in `y`."""
        self.of(y, rate).copy_(self._apart(values))

    def _apart(self, taken: Tensor) -> Tensor:
        """What `take` put together, in the order of `of`."""
        return taken.unflatten(1, (self.columns.number, -1)).unflatten(0, (-1, self.rows.number))

    def slide(self, x: Tensor, kernel: Tensor, bias: Tensor | None = None) -> Tensor:
        """The convolution of what `take` gave."""
        taps = kernel[:, :, self.seen(kernel)].repeat(self.columns.number, 1, 1, 1)
        bias = bias if bias is None else bias.repeat(self.columns.number)
        padding = taps.shape[2] // 2, taps.shape[3] // 2
        return F.conv2d(x, taps, bias, 1, padding, 1, x.shape[1])

    def kernel_gradient(self, x: Tensor, grad: Tensor, kernel: Tensor) -> Tensor:
        """Of the taps that `seen` names, from what `take` gave."""
        taps = kernel[:, :, self.seen(kernel)].repeat(self.columns.number, 1, 1, 1)
        short = taps.shape[2] - x.shape[2]
        if short > 0:  # too few rows for oneDNN's kernel
            x, grad = (F.pad(one, (0, 0, 0, short)) for one in (x, grad))
        got = _kernel_gradient(x, grad, taps)
        return got.unflatten(0, (self.columns.number, -1)).sum(0)

    def seen(self, kernel: Tensor) -> slice:
        """The rows of the kernel that find pixels at all.

        All its columns are kept: oneDNN has no fast kernel for windows of one pixel.
        """
        half = kernel.shape[2] // 2
        reach = min(half, self.rows.pixels - 1)
        return slice(half - reach, half + reach + 1)


def _phases(size: int, rate: int) -> list[_Phases]:
    """The phases of an axis: the first ones may have a pixel more than the last."""
    pixels, longer = divmod(size, rate)
    groups = _Phases(0, longer, pixels + 1), _Phases(longer, rate - longer, pixels)
    return [one for one in groups if one.number and one.pixels]


def _groups(x: Tensor, rate: int) -> list[_Group]:
    """All phases of the images."""
    height, width = x.shape[2:]
    return [_Group(*pair) for pair in product(_phases(height, rate), _phases(width, rate))]


def _kernel_gradient(x: Tensor, grad: Tensor, kernel: Tensor) -> Tensor:
    """Of a convolution without dilation; of the kernel only the shape is looked at."""
    padding = [kernel.shape[2] // 2, kernel.shape[3] // 2]
    window = [1, 1], padding, [1, 1], False, [0, 0], x.shape[1]
    backward = torch.ops.aten.convolution_backward
    return backward(grad, x, kernel, None, *window, [False, True, False])[1]


def _arguments(x: Tensor, kernel: Tensor, bias: Tensor | None, rate: int) -> tuple[Any, ...]:
    """Those of `aten::convolution`."""
    padding = [rate * (kernel.shape[-1] // 2)] * 2
    return x, kernel, bias, [1, 1], padding, [rate, rate], False, [0, 0], x.shape[1]


@torch.library.impl(_LIBRARY, "convolution", "CPU")
def _convolution(
    x: Tensor,
    kernel: Tensor,
    bias: Tensor | None,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    transposed: bool,
    output_padding: list[int],
    groups: int,
) -> Tensor:
    """The operator behind `atrous_depthwise`, which alone calls it."""
    return _slide(x, kernel, bias, dilation[0])


def _slide(x: Tensor, kernel: Tensor, bias: Tensor | None, rate: int) -> Tensor:
    """The convolution, in one piece where oneDNN can, else phase by phase."""
    if _in_one_piece(kernel, rate):
        padding = rate * (kernel.shape[-1] // 2)
        return F.conv2d(x, kernel, bias, 1, padding, rate, x.shape[1])
    y = torch.empty_like(x, memory_format=torch.channels_last)
    for group in _groups(x, rate):
        group.put(group.slide(group.take(x, rate), kernel, bias), y, rate)
    return y


def _in_one_piece(kernel: Tensor, rate: int) -> bool:
    """Whether oneDNN's forward kernel takes a convolution of this rate."""
    return rate * (kernel.shape[-1] // 2) <= (_widest_padding() or 0)


class _Atrous(torch.autograd.Function):
    """The convolution with its gradients."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, kernel: Tensor, bias: Tensor | None, rate: int) -> Tensor:
        ctx.save_for_backward(x, kernel)
        ctx.rate = rate
        return torch.ops.xception.convolution(*_arguments(x, kernel, bias, rate))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (grad,) = grads
        x, kernel = ctx.saved_tensors
        wanted = list(ctx.needs_input_grad[:3])
        if torch.is_grad_enabled():  # somebody will differentiate the gradients
            _, _, _, *window = _arguments(x, kernel, None, ctx.rate)
            sizes = [x.shape[1]] if wanted[2] else None
            plain = torch.ops.aten.convolution_backward
            return *plain(grad, x, kernel, sizes, *window, wanted), None
        grad = grad.contiguous(memory_format=torch.channels_last)
        of_bias = grad.sum((0, 2, 3)) if wanted[2] else None
        return *_gradients(grad, x, kernel, ctx.rate, wanted), of_bias, None


def _gradients(
    grad: Tensor, x: Tensor, kernel: Tensor, rate: int, wanted: list[bool]
) -> tuple[Tensor | None, Tensor | None]:
    """Of the loss by the image and by the kernel, as far as they are wanted.

    The first is the convolution of the incoming gradient with the kernel turned by 180°.
    """
    turned = kernel.flip(2, 3)
    whole = _in_one_piece(kernel, rate)
    of_x = of_kernel = None
    if wanted[0]:
        of_x = _slide(grad, turned, None, rate) if whole else torch.empty_like(grad)
    if wanted[1]:
        of_kernel = torch.zeros_like(kernel)
    if of_kernel is None and (of_x is None or whole):
        return of_x, None
    for group in _groups(x, rate):
        incoming = group.take(grad, rate)
        if of_x is not None and not whole:
            group.put(group.slide(incoming, turned), of_x, rate)
        if of_kernel is not None:
            got = group.kernel_gradient(group.take(x, rate), incoming, kernel)
            of_kernel[:, :, group.seen(kernel)] += got
    return of_x, of_kernel
