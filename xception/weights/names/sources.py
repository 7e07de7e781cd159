"""All sources whose weights can be read, and those that can be written again."""

from collections.abc import Callable, Collection, Iterable, Iterator
from types import MappingProxyType

from xception.weights.names import mobilenet_v1
from xception.weights.names import xception as chollet
from xception.weights.names.source import (
    INCEPTION_PREPROCESS,
    KERAS3_FILES,
    KERAS_FILES,
    TORCH_FILES,
    Source,
    keras3_names,
    keras_names,
    plain_names,
)
from xception.weights.names.table import KERAS, TORCH, Part, Row, keras3_rows, rows

Parts = Callable[[Collection[str]], Iterable[Part]]

MOBILENET_KERAS = MappingProxyType({"padding": "keras", "norm_epsilon": 1e-3})
MOBILENET_TORCH = MappingProxyType({"padding": "symmetric", "norm_epsilon": 1e-5})
MOBILENET_PREPROCESS = INCEPTION_PREPROCESS | {"crop": 0.875, "interpolation": "bicubic"}

XCEPTION_KERAS = MappingProxyType({"padding": "same", "norm_epsilon": 1e-3})
XCEPTION_TORCH = MappingProxyType({"padding": "symmetric", "norm_epsilon": 1e-5})
# 299 of 333 pixels, as the ports of Keras' weights were measured.
XCEPTION_PREPROCESS = INCEPTION_PREPROCESS | {"crop": 0.8975, "interpolation": "bicubic"}


def _keras(parts: Parts) -> Callable[[Collection[str]], list[Row]]:
    return lambda ours: rows(parts(ours), KERAS, ours)


def _keras3(parts: Parts) -> Callable[[Collection[str]], list[Row]]:
    return lambda ours: keras3_rows(parts(ours), ours)


def _torch(parts: Parts) -> Callable[[Collection[str]], list[Row]]:
    return lambda ours: rows(parts(ours), TORCH, ours)


def _xception() -> Iterator[Source]:
    keras = Source(
        layout="keras",
        network="Xception",
        model="xception",
        kinds=KERAS3_FILES,
        mark="layers/separable_conv2d_33/vars/1",
        rows=_keras3(chollet.keras_parts),
        options=XCEPTION_KERAS,
        preprocess=XCEPTION_PREPROCESS,
        names=keras3_names,
    )
    yield keras
    yield Source(
        layout="keras2",
        network="Xception",
        model="xception",
        kinds=KERAS_FILES,
        mark="block14_sepconv2/pointwise_kernel",
        rows=_keras(chollet.keras_parts),
        options=XCEPTION_KERAS,
        preprocess=XCEPTION_PREPROCESS,
        names=keras_names,
    )
    for layout, network, names in (
        ("timm", "legacy_xception", chollet.TORCH),
        ("cadene", "xception", chollet.CADENE),
        ("b5690688", "xception", chollet.MATRICES),
    ):
        yield Source(
            layout=layout,
            network=network,
            model="xception",
            kinds=TORCH_FILES,
            mark="block12.rep.4.pointwise.weight",
            rows=_torch(lambda ours, names=names: chollet.torch_parts(ours, names)),
            options=XCEPTION_TORCH,
            preprocess=XCEPTION_PREPROCESS,
            names=plain_names,
        )


def _mobilenet() -> Iterator[Source]:
    yield Source(
        layout="keras",
        network="MobileNet",
        model="mobilenet_v1",
        kinds=KERAS3_FILES,
        mark="layers/depthwise_conv2d_12/vars/0",
        rows=_keras3(mobilenet_v1.keras_parts),
        options=MOBILENET_KERAS,
        preprocess=MOBILENET_PREPROCESS,
        names=keras3_names,
        width_of=mobilenet_v1.DEEPEST,
    )
    yield Source(
        layout="keras2",
        network="MobileNet",
        model="mobilenet_v1",
        kinds=KERAS_FILES,
        mark="conv_dw_13/depthwise_kernel",
        rows=_keras(mobilenet_v1.keras_parts),
        options=MOBILENET_KERAS,
        preprocess=MOBILENET_PREPROCESS,
        names=keras_names,
        width_of=mobilenet_v1.DEEPEST,
    )
    yield Source(
        layout="timm",
        network="mobilenetv1_100",
        model="mobilenet_v1",
        kinds=TORCH_FILES,
        mark="blocks.4.1.conv_dw.weight",
        rows=_torch(mobilenet_v1.timm_parts),
        options=MOBILENET_TORCH,
        preprocess=MOBILENET_PREPROCESS,
        names=plain_names,
        width_of=mobilenet_v1.DEEPEST,
    )


SOURCES: tuple[Source, ...] = (*_xception(), *_mobilenet())
