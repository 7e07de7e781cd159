"""A file of OpenVINO's judged before it is compiled.

The network is an XML file, its weights a .bin file beside it. The XML is looked through before
OpenVINO's own parser sees it, and the operators before they are compiled: loops and branches, which
could run for ever, and operators of others are in no file that this program writes.
"""

from pathlib import Path
from typing import Any

from xception.deploy import extras
from xception.deploy.metadata import KEYS, Stated, read_stated
from xception.weights.header import ModelFileError, open_regular

MAX_XML_BYTES = 64 << 20  # Xception-71 in eight bits: 3 MB
CONTROL = ("Loop", "TensorIterator", "If", "ReadValue", "Assign")
SECTION = "xception"  # of the runtime information in the XML


def write_stated(model: Any, stated: Stated) -> None:
    """Put the card and what belongs to it into a network of OpenVINO's."""
    for key, text in stated.texts().items():
        model.set_rt_info(text, [SECTION, key.removeprefix(f"{SECTION}.")])


def read_openvino(path: Path) -> tuple[Any, Stated]:
    """The network of an .xml file of ours with its .bin, and what it says about itself.

    Raises:
        ModelFileError: the files are not there, not sound, or none of ours; one line says why.
        UserError: OpenVINO is not installed.
    """
    with open_regular(path) as file:
        text = file.read(MAX_XML_BYTES + 1)
    if len(text) > MAX_XML_BYTES:
        raise ModelFileError(path, f"larger than {MAX_XML_BYTES >> 20} MiB, so none of ours")
    if b"\0" in text:  # in UTF-16, what is looked for below would not be found
        raise ModelFileError(path, "XML that is not UTF-8, so none of ours")
    if b"<!" in text.replace(b"<!--", b""):
        raise ModelFileError(path, "XML with definitions of its own, so none of ours")
    weights = path.with_suffix(".bin")
    open_regular(weights).close()
    openvino = extras.openvino()
    try:
        model = openvino.Core().read_model(path, weights)
    except Exception as error:  # the parser raises what it likes
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        reason = lines[-1][:200] if lines else type(error).__name__
        raise ModelFileError(path, f"OpenVINO cannot read it: {reason}") from error
    kinds = {operator.get_type_name() for operator in model.get_ops()}
    if control := kinds.intersection(CONTROL):
        raise ModelFileError(path, f"it holds loops or branches ({min(control)}): none of ours")
    found = {}
    for key in KEYS:
        place = [SECTION, key.removeprefix(f"{SECTION}.")]
        if model.has_rt_info(place):
            found[key] = str(model.get_rt_info(place).value)
    return model, read_stated(found, path)


def end_shapes(model: Any) -> list[list[int | None]]:
    """The shapes of inputs and outputs; None is a size that may be any."""
    shapes = []
    for end in (*model.inputs, *model.outputs):
        shape = end.get_partial_shape()
        sizes = shape if shape.rank.is_static else []
        shapes.append([None if size.is_dynamic else size.get_length() for size in sizes])
    return shapes
