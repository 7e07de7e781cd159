"""Files of OpenVINO's in eight bits, by NNCF (Neural Network Compression Framework)."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from xception.deploy import extras
from xception.deploy.export import openvino_model, save_openvino
from xception.deploy.material import Material
from xception.deploy.metadata import Stated
from xception.deploy.quantize import Layer
from xception.deploy.quantize_onnx import layers_of, quiet


class OpenVinoQuantizer:
    """See `Quantizer`. Its layers are those of the ONNX graph that the network comes from.

    Args:
        model: an `onnx.ModelProto` of a folded network in float.
        stated: what its file says.
        material: whose `inputs` the ranges come from.
    """

    def __init__(self, model: Any, stated: Stated, material: Material):
        self._nncf = extras.nncf()
        self._model, self._stated = model, stated
        self._images = [x.contiguous().numpy() for x in material.inputs()]
        self.layers: Sequence[Layer] = layers_of(model)
        self.calibrations: Sequence[str] = ("performance", "mixed")

    def write(self, file: Path, calibration: str, layers: Sequence[Layer], note: str) -> None:
        """As `Quantizer`."""
        nncf = self._nncf
        chosen = {name for layer in layers for name in layer.nodes}
        left = [name for layer in self.layers for name in layer.nodes if name not in chosen]
        # OpenVINO makes a convolution and an addition of an ONNX convolution with a bias, and
        # calls both after it.
        patterns = [f"^{re.escape(name)}(/.*)?$" for name in left]
        presets = nncf.QuantizationPreset
        with quiet():
            model = nncf.quantize(
                openvino_model(self._model),
                nncf.Dataset(self._images),
                preset=presets.MIXED if calibration == "mixed" else presets.PERFORMANCE,
                subset_size=len(self._images),
                ignored_scope=nncf.IgnoredScope(patterns=patterns, validate=False)
                if patterns
                else None,
            )
        stated = self._stated._replace(precision="int8", quantization=note)
        save_openvino(model, stated, file)
