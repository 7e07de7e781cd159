"""A network as an ONNX graph.

Written by torch's older exporter, which follows one pass through the network. The newer one was
measured on a small DeepLab V3+ (2 cores): 52 s in the place of 1.2 s, and two more libraries
(onnxscript, onnx-ir), for the same numbers. What a trace cannot follow are sizes that decide
something in Python, and there are few of them: the paddings of our own convolutions and poolings.
They are exchanged for layers that write one operator each, with its padding as an attribute:
numbers, which may differ from side to side, where the size of the image is known; where it is not,
the operator's own "same" ("SAME_UPPER" is TensorFlow's). No image is ever copied only to be padded.
"""

import warnings
from collections import Counter
from io import BytesIO
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from xception.deploy import extras
from xception.deploy.metadata import Stated
from xception.errors import UserError
from xception.layers.conv import Conv2d, MaxPool2d
from xception.layers.padding import Edges, Padding, edges
from xception.models.network import Network

OPSET = 17
IMAGE, LOGITS = "image", "logits"
TRACED_BATCH = 2  # of one image alone some networks think otherwise
MAX_BYTES = 2**31 - 1  # of a message of protocol buffers


class Window(NamedTuple):
    """How a window slides over an image."""

    kernel: tuple[int, int]
    stride: tuple[int, int]
    dilation: tuple[int, int]
    groups: int
    padding: Padding
    any_size: bool

    def attributes(self, height: int, width: int) -> dict[str, Any]:
        """Of the ONNX operator, for images of this size, or of any."""
        found: dict[str, Any] = {
            "kernel_shape_i": list(self.kernel),
            "strides_i": list(self.stride),
            "dilations_i": list(self.dilation),
        }
        if self.any_size and self.padding == "same" and self.stride != (1, 1):
            return found | {"auto_pad_s": "SAME_UPPER"}
        # At stride 1 "same" does not depend on the size.
        left, right, top, bottom = self.edges(height, width)
        return found | {"pads_i": [top, left, bottom, right]}

    def edges(self, height: int, width: int) -> Edges:
        """Pixels that lie beyond an image of this size."""
        return edges(height, width, self.padding, self.kernel[0], self.stride[0], self.dilation[0])


class _Conv(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *args: Any) -> Tensor:
        x, weight, bias, window, height, width = args
        x = F.pad(x, window.edges(height, width))
        return F.conv2d(x, weight, bias, window.stride, 0, window.dilation, window.groups)

    @staticmethod
    def symbolic(
        g: Any, x: Any, weight: Any, bias: Any, window: Window, height: int, width: int
    ) -> Any:
        operands = [x, weight] if bias is None else [x, weight, bias]
        return g.op("Conv", *operands, group_i=window.groups, **window.attributes(height, width))


class _MaxPool(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *args: Any) -> Tensor:
        x, window, height, width = args
        x = F.pad(x, window.edges(height, width), value=-torch.inf)
        return F.max_pool2d(x, window.kernel, window.stride, 0, window.dilation)

    @staticmethod
    def symbolic(g: Any, x: Any, window: Window, height: int, width: int) -> Any:
        return g.op("MaxPool", x, **window.attributes(height, width))


class TracedConv(nn.Module):
    """A convolution of ours that is written as one operator."""

    def __init__(self, conv: Conv2d, *, any_size: bool):
        super().__init__()
        if any_size and conv.edge_padding == "same" and conv.stride[0] > 1 < conv.dilation[0]:
            raise ValueError('"same" of a dilated convolution with a stride depends on the size')
        self.weight, self.bias, self.in_channels = conv.weight, conv.bias, conv.in_channels
        self.window = Window(
            (conv.kernel_size[0], conv.kernel_size[1]),
            (conv.stride[0], conv.stride[1]),
            (conv.dilation[0], conv.dilation[1]),
            conv.groups,
            conv.edge_padding,
            any_size,
        )

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b f i j"]:
        """The convolution."""
        height, width = int(x.shape[2]), int(x.shape[3])
        return _Conv.apply(x, self.weight, self.bias, self.window, height, width)


class TracedMaxPool(nn.Module):
    """A pooling of ours that is written as one operator."""

    def __init__(self, pool: MaxPool2d, *, any_size: bool):
        super().__init__()
        if pool.dilation > 1 and any_size and pool.padding == "same":
            raise ValueError('"same" of a dilated pooling with a stride depends on the size')
        step, apart = pool.stride, pool.dilation
        kernel = pool.kernel_size
        self.window = Window(
            (kernel, kernel), (step, step), (apart, apart), 1, pool.padding, any_size
        )

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c i j"]:
        """The largest value of each window."""
        return _MaxPool.apply(x, self.window, int(x.shape[2]), int(x.shape[3]))


class TracedDensePool(nn.Module):
    """A pooling with a window at every pixel.

    Its windows begin `before` pixels outside, which for "same" depends on the parity of the size:
    for any size there is then one row of windows more than needed, and the first or the last of
    them is dropped.
    """

    def __init__(self, pool: MaxPool2d, *, any_size: bool):
        super().__init__()
        self.kernel, self.dilation = pool.kernel_size, pool.dilation
        self.pool = pool
        self.by_parity = any_size and pool.padding == "same"
        if self.by_parity and (pool.kernel_size, pool.stride) != (3, 2):
            raise ValueError('"same" of a dense pooling is known for windows of 3 at stride 2')

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """The largest value of each window."""
        d = self.dilation
        if not self.by_parity:
            (top, bottom), (left, right) = (self.pool._edges(int(size)) for size in x.shape[2:])
            return self._slide(x, (left, right, top, bottom))
        windows = self._slide(x, (d, 2 * d, d, 2 * d))
        # The sizes are traced: these are operators of the graph, not numbers.
        height, width = x.shape[2], x.shape[3]
        top, left = (d * (1 - (size + d - 1) // d % 2) for size in (height, width))
        return windows[:, :, top : top + height, left : left + width]

    def _slide(self, x: Tensor, outside: Edges) -> Tensor:
        """All windows of an image with pixels around it that never win.

        Engines take fewer of these than a window is wide; more are put there by an operator.
        """
        kernel, d = self.kernel, self.dilation
        if max(outside) < kernel:
            window = Window((kernel, kernel), (1, 1), (d, d), 1, outside, any_size=True)
            return _MaxPool.apply(x, window, int(x.shape[2]), int(x.shape[3]))
        return F.max_pool2d(F.pad(x, outside, value=-torch.inf), kernel, 1, 0, d)


def traceable(network: nn.Module, *, any_size: bool) -> None:
    """Exchange, in place, what a trace cannot follow; the network is only good for tracing then."""
    for module in list(network.modules()):
        if isinstance(module, Network):
            module.check_size = _accept  # decides in Python; the engines check sizes themselves
        for name, child in module.named_children():
            if isinstance(child, Conv2d):
                setattr(module, name, TracedConv(child, any_size=any_size))
            elif isinstance(child, MaxPool2d):
                kind = TracedDensePool if child.dense else TracedMaxPool
                setattr(module, name, kind(child, any_size=any_size))


def _accept(x: Tensor) -> None:
    """Any image."""


def trace(network: Network, size: tuple[int, int], *, any_size: bool) -> Any:
    """The network as a model of the library onnx, `onnx.ModelProto`.

    Args:
        network: folded, on a CPU; it is changed and good for nothing else afterwards.
        size: height and width of the image to follow through the network.
        any_size: the graph takes images of any size, not only of this one; of any number always.

    Raises:
        UserError: onnx is not installed, or something in the network has no ONNX operator.
    """
    onnx = extras.onnx()
    traceable(network, any_size=any_size)
    # In channels_last, in which an engine may have left it, some layers take other operators.
    network.to(memory_format=torch.contiguous_format)  # pyright: ignore[reportCallIssue]
    axes = {0: "batch", 2: "height", 3: "width"} if any_size else {0: "batch"}
    channels = network.options["in_channels"]
    buffer = BytesIO()
    with warnings.catch_warnings(), torch.no_grad():
        # Of the exporter, that there is a newer one; of the trace, that it follows only one size:
        # what it made is compared at others, and refused if it differs (deploy/compare.py).
        warnings.filterwarnings("ignore", category=DeprecationWarning, module="torch")
        tracer = torch.jit.TracerWarning  # pyright: ignore[reportPrivateImportUsage]
        warnings.filterwarnings("ignore", category=tracer)
        warnings.filterwarnings("ignore", message="Constant folding")
        warnings.filterwarnings("ignore", message="You are using the legacy TorchScript")
        try:
            torch.onnx.export(
                network.eval(),
                (torch.zeros(TRACED_BATCH, channels, *size),),
                buffer,  # pyright: ignore[reportArgumentType]  # as the older exporter takes it
                dynamo=False,
                opset_version=OPSET,
                input_names=[IMAGE],
                output_names=[LOGITS],
                dynamic_axes={IMAGE: axes, LOGITS: axes},
            )
        except torch.onnx.errors.UnsupportedOperatorError as error:
            reason = str(error).splitlines()[0]
            raise UserError(f"the network cannot be written as ONNX: {reason:.200}") from error
    if buffer.tell() > MAX_BYTES:
        raise UserError("the network is larger than the 2 GiB that an ONNX file can hold")
    model = onnx.load_from_string(buffer.getvalue())
    inline_constants(model)
    # Behind a resizing the exporter is not sure of the number of channels.
    logits = model.graph.output[0].type.tensor_type.shape
    logits.dim[1].dim_value = network.options["num_classes"]
    return model


def inline_constants(model: Any) -> None:
    """Constants as initial values, each with a name of its own, where quantisers look for them.

    The exporter writes small constants as nodes, and equal weights once, with `Identity` nodes.
    """
    graph, make = model.graph, extras.onnx().TensorProto
    values = {one.name: one for one in graph.initializer}
    kept = []
    for node in graph.node:
        constant = node.op_type == "Constant" and node.attribute[0].name == "value"
        copied = node.op_type == "Identity" and node.input[0] in values
        if not (constant or copied):
            kept.append(node)
            continue
        value = make()
        value.CopyFrom(node.attribute[0].t if constant else values[node.input[0]])
        value.name = node.output[0]
        graph.initializer.append(value)
        values[value.name] = value
    remaining = type(graph)()
    remaining.node.extend(kept)
    graph.ClearField("node")
    graph.node.extend(remaining.node)


def write_metadata(model: Any, stated: Stated) -> None:
    """Put the card and what belongs to it into the model, in the place of what stood there."""
    del model.metadata_props[:]
    for key, text in stated.texts().items():
        entry = model.metadata_props.add()
        entry.key, entry.value = key, text
    model.producer_name, model.producer_version = "xception", stated.card.package_version
    model.doc_string = f"{stated.card.architecture.name}, {stated.card.task}"


def operators(model: Any) -> Counter[str]:
    """How many nodes of each kind a model has."""
    return Counter(node.op_type for node in model.graph.node)
