"""ONNX files of eight bits, in the form that says where numbers are rounded (QDQ).

Weights are signed and have a scale per output channel, activations are unsigned: what processors
multiply fastest. Networks are calibrated once for each way of choosing ranges.
"""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from xception.deploy import extras
from xception.deploy.material import Material
from xception.deploy.metadata import Stated
from xception.deploy.quantize import Layer
from xception.deploy.trace import IMAGE, write_metadata

# Ways of choosing ranges: the method of ONNX Runtime, and its percentile.
CALIBRATIONS = {
    "minmax": ("MinMax", None),
    "percentile 99.99": ("Percentile", 99.99),
    "percentile 99.999": ("Percentile", 99.999),
    "entropy": ("Entropy", None),
}
WEIGHTED = ("Conv", "Gemm", "MatMul")
SUMS = ("Add", "Concat")
# What passes eight bits on without a weight of its own.
PASSING = ("Relu", "Clip", "AveragePool", "GlobalAveragePool")
POOL = "MaxPool"  # too, unless an operator before it pads with minus infinity
BINS = 2048  # of a histogram of activations


class OnnxQuantizer:
    """See `Quantizer`.

    Args:
        model: an `onnx.ModelProto` of a folded network in float.
        stated: what its file says.
        material: whose `inputs` the ranges come from.
        seven_bits: weights of seven bits, for processors whose sums of products overflow
            (without VNNI: before about 2019).
    """

    def __init__(self, model: Any, stated: Stated, material: Material, *, seven_bits: bool = False):
        self._tools = extras.quantization()
        self._onnx = extras.onnx()
        self._model = self._onnx.shape_inference.infer_shapes(model)
        self._stated, self._seven_bits = stated, seven_bits
        self.layers: Sequence[Layer] = layers_of(model)
        self.calibrations: Sequence[str] = tuple(CALIBRATIONS)
        padded = any(node.op_type == "Pad" for node in model.graph.node)
        self._passing = PASSING if padded else (*PASSING, POOL)
        self._ranges = self._calibrate(material)

    def write(self, file: Path, calibration: str, layers: Sequence[Layer], note: str) -> None:
        """As `Quantizer`."""
        tools = self._tools
        chosen = {name for layer in layers for name in layer.nodes}
        whole = len(layers) > 1  # of one layer alone nothing around it is in eight bits
        kinds = [*WEIGHTED, *SUMS, *(self._passing if whole else ())]
        unchosen = [
            node.name
            for node in self._model.graph.node
            if node.op_type in (*WEIGHTED, *SUMS) and node.name not in chosen
        ]
        model = self._onnx.ModelProto()
        model.CopyFrom(self._model)
        if chosen:
            with quiet():
                quantizer = tools.QDQQuantizer(
                    model,
                    True,  # a scale per channel of the weights
                    self._seven_bits,
                    tools.QuantType.QInt8,
                    tools.QuantType.QUInt8,
                    self._ranges[calibration],
                    [],
                    unchosen,
                    kinds,
                    {},
                )
                quantizer.quantize_model()
            model = quantizer.model.model
        model.graph.ClearField("value_info")
        write_metadata(model, self._stated._replace(precision="int8", quantization=note))
        file.write_bytes(model.SerializeToString())

    def _calibrate(self, material: Material) -> dict[str, Any]:
        """The ranges of all activations, for each way of choosing them."""
        tools = self._tools
        methods = tools.CalibrationMethod
        kinds = [*WEIGHTED, *SUMS, *self._passing]
        found: dict[str, Any] = {}
        with TemporaryDirectory(prefix="xception-int8-") as folder, quiet():
            source = Path(folder) / "network.onnx"
            self._onnx.save(self._model, source)
            made: dict[str, Any] = {}
            for name, (method, percentile) in CALIBRATIONS.items():
                if method not in made:
                    histogram = {"symmetric": False}
                    if method == "Percentile":
                        histogram |= {"num_bins": BINS, "percentile": percentile}
                    made[method] = tools.create_calibrator(
                        source,
                        kinds,
                        augmented_model_path=str(Path(folder) / f"{method}.onnx"),
                        calibrate_method=methods[method],
                        extra_options=histogram,
                    )
                    for x in material.inputs():  # one by one: all outputs of all layers are kept
                        made[method].collect_data(_One(x.contiguous().numpy()))
                if percentile is not None:
                    made[method].collector.percentile = percentile
                found[name] = made[method].compute_data()
        return found


class _One:
    """One image for ONNX Runtime's calibrators."""

    def __init__(self, image: np.ndarray):
        self._image: np.ndarray | None = image

    def get_next(self) -> dict[str, np.ndarray] | None:
        """The image; None when it was taken."""
        image, self._image = self._image, None
        return None if image is None else {IMAGE: image}


def layers_of(model: Any) -> tuple[Layer, ...]:
    """The layers of a graph that have weights, and the places where paths meet as one."""
    weights = {one.name: tuple(one.dims) for one in model.graph.initializer}
    found = []
    for node in model.graph.node:
        if node.op_type in WEIGHTED:
            shape = weights.get(node.input[1], ())
            groups = [one.i for one in node.attribute if one.name == "group"]
            name = node.name.strip("/").removesuffix(f"/{node.op_type}")
            found.append(Layer(name, kind_of(shape, groups[0] if groups else 1), (node.name,)))
    meeting = tuple(node.name for node in model.graph.node if node.op_type in SUMS)
    return (*found, *([Layer("sums", "sums", meeting)] if meeting else []))


def kind_of(shape: tuple[int, ...], groups: int) -> str:
    """What kind of layer has weights of this shape."""
    if len(shape) != 4:
        return "linear"
    if groups > 1:
        return "depthwise" if shape[1] == 1 else "grouped"
    return "pointwise" if shape[2:] == (1, 1) else "regular"


@contextmanager
def quiet() -> Iterator[None]:
    """Keeps what libraries print off stdout, and their warnings away."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with redirect_stdout(StringIO()):
            yield
    finally:
        logging.disable(before)
