"""All sources whose weights can be read, and those that can be written again."""

from collections.abc import Callable, Collection, Iterable, Iterator
from types import MappingProxyType

from xception.weights.names import (
    aligned_xception,
    deeplab_v3plus,
    inception_v3,
    mobilenet_v1,
)
from xception.weights.names import xception as chollet
from xception.weights.names.source import (
    KERAS3_FILES,
    KERAS_FILES,
    TENSORFLOW_FILES,
    TORCH_FILES,
    Source,
    averaged_names,
    keras3_names,
    keras_names,
    plain_names,
)
from xception.weights.names.table import KERAS, TENSORFLOW, TORCH, Part, Row, keras3_rows, rows

Parts = Callable[[Collection[str]], Iterable[Part]]

MOBILENET_KERAS = MappingProxyType({"padding": "keras", "norm_epsilon": 1e-3})
MOBILENET_TORCH = MappingProxyType({"padding": "symmetric", "norm_epsilon": 1e-5})
MOBILENET_PREPROCESS = MappingProxyType({"crop": 0.875, "interpolation": "bicubic"})

XCEPTION_KERAS = MappingProxyType({"padding": "same", "norm_epsilon": 1e-3})
XCEPTION_TORCH = MappingProxyType({"padding": "symmetric", "norm_epsilon": 1e-5})
# 299 of 333 pixels, as the ports of Keras' weights were measured.
XCEPTION_PREPROCESS = MappingProxyType({"crop": 0.8975, "interpolation": "bicubic"})


def _keras(parts: Parts) -> Callable[[Collection[str]], list[Row]]:
    return lambda ours: rows(parts(ours), KERAS, ours)


def _keras3(parts: Parts) -> Callable[[Collection[str]], list[Row]]:
    return lambda ours: keras3_rows(parts(ours), ours)


def _torch(parts: Parts) -> Callable[[Collection[str]], list[Row]]:
    return lambda ours: rows(parts(ours), TORCH, ours)


def _tensorflow(parts: Parts) -> Callable[[Collection[str]], list[Row]]:
    return lambda ours: rows(parts(ours), TENSORFLOW, ours)


def _xception() -> Iterator[Source]:
    keras = Source(
        layout="keras",
        network="Xception",
        model="xception",
        kinds=KERAS3_FILES,
        marks=("layers/separable_conv2d_33/vars/1",),
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
        marks=("block14_sepconv2/pointwise_kernel",),
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
            marks=("block12.rep.4.pointwise.weight",),
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
        marks=("layers/depthwise_conv2d_12/vars/0",),
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
        marks=("conv_dw_13/depthwise_kernel",),
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
        marks=("blocks.4.1.conv_dw.weight",),
        rows=_torch(mobilenet_v1.timm_parts),
        options=MOBILENET_TORCH,
        preprocess=MOBILENET_PREPROCESS,
        names=plain_names,
        width_of=mobilenet_v1.DEEPEST,
    )


# Both libraries define them as our defaults do.
ALIGNED = MappingProxyType({"padding": "symmetric", "norm_epsilon": 1e-3, "activation": "none"})
ALIGNED_PREPROCESS = MappingProxyType({"crop": 0.903, "interpolation": "bicubic"})
LAYERS = {41: 12, 65: 20, 71: 22}  # the last block that timm counts, by the number of layers


# Their tensors are those of the other files, so that nothing tells them.
TORCHVISION_NOTE = (
    "its card feeds it numbers from -1 to 1, as torchvision and timm's tv_in1k, tf_in1k and "
    "tf_adv_in1k want; timm's gluon_in1k was trained on ImageNet's mean and std"
)
XCEPTION65_NOTE = "its card crops as timm's tf_in1k wants, 0.903; timm's ra3_in1k wants 0.94"


def _aligned_xception() -> Iterator[Source]:
    for layers, last in LAYERS.items():
        name, scope = f"xception{layers}", f"xception_{layers}"
        yield Source(
            layout="timm",
            network=name,
            model=name,
            kinds=TORCH_FILES,
            marks=(f"blocks.{last}.stack.conv3.conv_pw.weight",),
            rows=_torch(aligned_xception.timm_parts),
            options=ALIGNED,
            preprocess=ALIGNED_PREPROCESS,
            note=XCEPTION65_NOTE if layers == 65 else "",
            names=plain_names,
        )
        yield Source(
            layout="tensorflow",
            network=scope,
            model=name,
            kinds=TENSORFLOW_FILES,
            marks=(f"{scope}/entry_flow/conv1_1/weights",),
            rows=_tensorflow(
                lambda ours, scope=scope: aligned_xception.tensorflow_parts(ours, scope)
            ),
            options=ALIGNED,
            preprocess=ALIGNED_PREPROCESS,
            names=averaged_names,
        )


# The released code pads an image to a square that holds it; nothing is cut off.
DEEPLAB_PREPROCESS = MappingProxyType({"resize": "pad"})


def _deeplab_v3plus() -> Iterator[Source]:
    for layers in LAYERS:
        name, scope = f"xception{layers}", f"xception_{layers}"
        yield Source(
            layout="tensorflow",
            network=f"DeepLab V3+ over {scope}",
            model="deeplab_v3plus",
            kinds=TENSORFLOW_FILES,
            marks=(f"{scope}/entry_flow/conv1_1/weights", "concat_projection/weights"),
            rows=_tensorflow(
                lambda ours, scope=scope: deeplab_v3plus.tensorflow_parts(ours, scope)
            ),
            options=MappingProxyType({"backbone": name, "norm_epsilon": 1e-5}),
            preprocess=DEEPLAB_PREPROCESS,
            names=averaged_names,
            present={
                "decoder": "decoder/feature_projection0/weights",
                "image_pooling": "image_pooling/weights",
                "separable": "aspp1_depthwise/depthwise_weights",
            },
        )


INCEPTION_KERAS = MappingProxyType(
    {"norm_scale": False, "norm_epsilon": 1e-3, "pool_border": "exclude", "auxiliary": False}
)
INCEPTION_TORCH = MappingProxyType(
    {"norm_scale": True, "norm_epsilon": 1e-3, "pool_border": "include"}
)
INCEPTION_SLIM = MappingProxyType({"norm_epsilon": 1e-3, "pool_border": "exclude"})
# TF-slim's evaluation: the middle 87.5 % of each side, stretched to a square.
SLIM_PREPROCESS = MappingProxyType({"resize": "squash", "crop": 0.875})
KERAS_PREPROCESS = MappingProxyType({"crop": 0.875})
# torchvision's network turns its own normalisation into this one (`transform_input`).
TORCHVISION_PREPROCESS = MappingProxyType({"crop": 0.875, "interpolation": "bicubic"})


def _inception_v3() -> Iterator[Source]:
    yield Source(
        layout="keras",
        network="InceptionV3",
        model="inception_v3",
        kinds=KERAS3_FILES,
        marks=("layers/conv2d_93/vars/0",),
        rows=_keras3(inception_v3.keras_parts),
        options=INCEPTION_KERAS,
        preprocess=KERAS_PREPROCESS,
        names=keras3_names,
    )
    yield Source(
        layout="keras2",
        network="InceptionV3",
        model="inception_v3",
        kinds=KERAS_FILES,
        marks=("conv2d_94/kernel",),
        rows=_keras(inception_v3.keras_parts),
        options=INCEPTION_KERAS,
        preprocess=KERAS_PREPROCESS,
        names=keras_names,
    )
    yield Source(
        layout="torchvision",
        network="inception_v3",
        model="inception_v3",
        kinds=TORCH_FILES,
        marks=("Mixed_7c.branch_pool.conv.weight",),
        rows=_torch(inception_v3.torch_parts),
        options=INCEPTION_TORCH,
        preprocess=TORCHVISION_PREPROCESS,
        note=TORCHVISION_NOTE,
        names=plain_names,
        present={"auxiliary": "AuxLogits.conv0.conv.weight"},
    )
    yield Source(
        layout="tensorflow",
        network="inception_v3",
        model="inception_v3",
        kinds=TENSORFLOW_FILES,
        marks=("InceptionV3/Conv2d_1a_3x3/weights",),
        rows=_tensorflow(inception_v3.slim_parts),
        options=INCEPTION_SLIM,
        preprocess=SLIM_PREPROCESS,
        names=averaged_names,
        present={
            "auxiliary": "InceptionV3/AuxLogits/Conv2d_1b_1x1/weights",
            "norm_scale": "InceptionV3/Conv2d_1a_3x3/BatchNorm/gamma",
        },
    )


SOURCES: tuple[Source, ...] = (
    *_xception(),
    *_mobilenet(),
    *_deeplab_v3plus(),  # before its backbone, whose names it has too
    *_aligned_xception(),
    *_inception_v3(),
)
