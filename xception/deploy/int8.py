"""A trained network as a file of eight bits: what is made of which format, and by what."""

import tempfile
from collections.abc import Callable
from pathlib import Path

from xception.deploy.engines import open_engine
from xception.deploy.export import Format, graph, placed
from xception.deploy.material import Material
from xception.deploy.metadata import Stated
from xception.deploy.quantize import Outcome, Quantizer, quantize
from xception.deploy.quantize_onnx import OnnxQuantizer
from xception.deploy.quantize_openvino import OpenVinoQuantizer
from xception.deploy.trace import write_metadata
from xception.errors import UserError
from xception.models.network import Network


def export_int8(
    network: Network,
    format: Format,
    out: Path,
    material: Material,
    *,
    max_drop: float,
    seven_bits: bool = False,
    say: Callable[[str], None],
) -> Outcome:
    """Write a network in eight bits, if that costs no more than is allowed.

    Args:
        network: with its card, as `load_model` gives it, on a CPU.
        format: "onnx" or "openvino".
        out: the file to write; one that is there is replaced.
        material: photos to calibrate with and to measure.
        max_drop: the permitted loss, 0.01 for a point of accuracy or mIoU.
        seven_bits: see `OnnxQuantizer`; of ONNX only.
        say: told what is going on.

    Raises:
        UserError: a library is missing, the format has no eight bits, or they cost too much; then
            nothing is written.
    """
    if format == "torch":
        raise UserError("eight bits are for ONNX and OpenVINO: give --format onnx or openvino")
    if seven_bits and format != "onnx":
        raise UserError("weights of seven bits are for ONNX; OpenVINO sees to that itself")
    stated = Stated(network.card, "fp32", network.MINIMUM_SIZE)
    model = graph(network)
    judge = OnnxQuantizer(model, stated, material, seven_bits=seven_bits)
    quantizer: Quantizer = judge
    if format == "openvino":
        quantizer = OpenVinoQuantizer(model, stated, material)
    with tempfile.TemporaryDirectory(prefix="xception-int8-") as folder:
        source = Path(folder) / "float.onnx"
        write_metadata(model, stated)
        source.write_bytes(model.SerializeToString())
        original = open_engine(source)

        def make(file: Path) -> Outcome:
            return quantize(original, quantizer, judge, material, file, max_drop=max_drop, say=say)

        return placed(out, make)
