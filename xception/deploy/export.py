"""A trained network as a file for other runtimes: written, compared with the original, kept.

    onnx       one file, for ONNX Runtime and many others
    openvino   an .xml and a .bin file, for Intel's processors
    torch      a model file of ours with folded normalisations: quicker, and no other library needed

Each holds the card, so that it is fed as the network was trained. What differs from the original is
refused, and nothing is left of it.
"""

import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from PIL import Image

from xception.deploy import extras
from xception.deploy.compare import SIZES, Comparison, compare
from xception.deploy.engines import TorchEngine, open_engine
from xception.deploy.fold import folded
from xception.deploy.metadata import Stated
from xception.deploy.openvino_files import write_stated
from xception.deploy.trace import trace, write_metadata
from xception.errors import UserError
from xception.models.network import Network
from xception.weights.model_file import save_tensors
from xception.weights.tensor_file import lazy

Format = Literal["onnx", "openvino", "torch"]
SUFFIXES: Mapping[Format, str] = MappingProxyType(
    {"onnx": ".onnx", "openvino": ".xml", "torch": ".safetensors"}
)
NEEDS: Mapping[Format, tuple[str, ...]] = MappingProxyType(
    {"torch": (), "onnx": ("onnx", "onnxruntime"), "openvino": ("onnx", "openvino")}
)


def export(
    network: Network, format: Format, out: Path, photos: Sequence[Image.Image]
) -> Comparison:
    """Write a network in another format, if it answers as before.

    Args:
        network: with its card, as `load_model` gives it, on a CPU.
        format: which.
        out: the file to write; OpenVINO's .bin comes beside it. One that is there is replaced.
        photos: to compare the two networks on, in mode RGB, of any size.

    Returns:
        How far they are apart.

    Raises:
        UserError: a library is missing, the network cannot be written so, it differs afterwards
            (then nothing is written), or the disk refuses.
    """

    def make(file: Path) -> Comparison:
        write(network, format, file)
        found = compare(TorchEngine(network), open_engine(file), network.card, photos)
        if found.refusal is not None:
            raise UserError(f"the exported network is another one: {found.refusal}")
        return found

    return placed(out, make)


def write(network: Network, format: Format, file: Path) -> None:
    """Write a network in another format, without comparing.

    Raises:
        UserError: a library is missing, or the network cannot be written so.
    """
    stated = Stated(network.card, "fp32", network.MINIMUM_SIZE)
    if format == "torch":
        network = folded(network)
        tensors = {name: lazy(value) for name, value in network.state_dict().items()}
        save_tensors(file, network, network.card, tensors)
        return
    model = graph(network)
    write_metadata(model, stated)
    if format == "onnx":
        file.write_bytes(model.SerializeToString())
    else:
        save_openvino(openvino_model(model), stated, file)


def graph(network: Network) -> Any:
    """The folded network as an `onnx.ModelProto`, without metadata.

    Raises:
        UserError: onnx is not installed, or cannot say what the network does.
    """
    card = network.card
    if card.task == "segmentation":
        return trace(folded(network), SIZES[0], any_size=True)
    return trace(folded(network), (card.preprocess.size,) * 2, any_size=False)


def openvino_model(model: Any) -> Any:
    """An `onnx.ModelProto` as a network of OpenVINO's, by OpenVINO's own converter."""
    return extras.openvino().Core().read_model(model.SerializeToString())


def save_openvino(model: Any, stated: Stated, file: Path) -> None:
    """Write .xml and .bin, in the precision that the network has."""
    write_stated(model, stated)
    extras.openvino().save_model(model, file, compress_to_fp16=False)


def placed(out: Path, make: Callable[[Path], Any]) -> Any:
    """What `make` answers when it has written a file, which is then put at `out`.

    The file is made in a folder of its own beside `out`; after an error nothing is left of it, and
    what stood at `out` stays. Of OpenVINO's two files the weights are placed first.

    Raises:
        UserError: the folder of `out` cannot be written to.
    """
    try:
        with tempfile.TemporaryDirectory(dir=out.parent, prefix=".export-") as folder:
            file = Path(folder) / out.name
            result = make(file)
            for made in sorted(Path(folder).iterdir()):  # .bin before .xml
                os.replace(made, out.with_name(made.name))
    except OSError as error:
        raise UserError(f"cannot write {out}: {(error.strerror or str(error)).lower()}") from error
    return result


def formats() -> list[Format]:
    """The formats whose libraries are installed here."""
    return [name for name, needed in NEEDS.items() if all(map(extras.installed, needed))]
