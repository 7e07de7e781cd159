"""One way to ask a trained network, whatever computes it: torch, ONNX Runtime or OpenVINO.

Which of them is decided by what the file is. From exported files nothing is believed: they are
judged before a runtime sees them, and what a runtime cannot take becomes one clear line.
"""

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from xception.deploy import extras
from xception.deploy.fold import fold
from xception.deploy.metadata import Precision
from xception.deploy.onnx_files import read_onnx
from xception.deploy.openvino_files import end_shapes, read_openvino
from xception.errors import UserError
from xception.models.network import Network
from xception.weights.card import Card, read_card
from xception.weights.header import ModelFileError, open_regular, read_header
from xception.weights.model_file import MODEL_FILE as MODEL_FILE
from xception.weights.model_file import load_model

STATISTICS = ".running_var"  # what no folded network has, and a network to be folded has

Kind = Literal["torch", "onnxruntime", "openvino"]


@runtime_checkable
class Engine(Protocol):
    """A trained network that can be asked, from several threads at once."""

    name: str
    """What computes it: "torch", "onnxruntime" or "openvino"."""
    precision: Precision
    """"fp32" or "int8"."""
    card: Card
    minimum_size: int
    """Pixels of the shorter side of the smallest image that it takes."""

    def __call__(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b *answer"]:
        """Float32 logits of normalised images: `b k`, or `b k h w` where each pixel has some.

        Raises:
            UserError: the images are too small, or the file cannot be computed.
        """
        ...


class TorchEngine:
    """A network of torch, on any device.

    Args:
        network: with its card, as `load_model` gives it.
        device: where to compute; the network is moved there.
    """

    name = "torch"
    precision: Precision = "fp32"

    def __init__(self, network: Network, device: torch.device | str = "cpu"):
        self.device = torch.device(device)
        self.network = network.to(self.device).eval()
        self.network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        self.card: Card = network.card
        self.minimum_size = network.MINIMUM_SIZE

    def __call__(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b *answer"]:
        """As `Engine`."""
        with torch.inference_mode():
            return self.network(x.to(self.device)).float()


class OnnxEngine:
    """An ONNX file that this program exported, computed by ONNX Runtime on the CPU.

    Args:
        path: the file.
        threads: to compute with; None for all cores.

    Raises:
        ModelFileError: the file is not sound, or none of ours.
        UserError: ONNX Runtime is not installed.
    """

    name = "onnxruntime"

    def __init__(self, path: Path, threads: int | None = None):
        data, stated = read_onnx(path)
        runtime = extras.onnxruntime()
        options = runtime.SessionOptions()
        options.log_severity_level = 4  # only what ends the process; the rest is raised
        options.intra_op_num_threads = threads or 0
        try:
            session = runtime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # the runtime has an exception for each of its faults
            raise ModelFileError(path, f"ONNX Runtime refuses it: {_line(error)}") from error
        ends = (*session.get_inputs(), *session.get_outputs())
        _check_ends(path, stated.card, [one.shape for one in ends])
        self._input, self._session, self._path = ends[0].name, session, path
        self.card, self.minimum_size = stated.card, stated.minimum_size
        self.precision: Precision = stated.precision

    def __call__(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b *answer"]:
        """As `Engine`."""
        images = _images(x, self.minimum_size)
        try:
            (logits,) = self._session.run(None, {self._input: images})
        except Exception as error:  # as above
            raise UserError(f"{self._path}: ONNX Runtime fails: {_line(error)}") from error
        return _answer(logits, x, self.card, self._path)


class OpenVinoEngine:
    """A file of OpenVINO's (.xml with its .bin) that this program exported, on the CPU.

    Args:
        path: the .xml file.
        threads: to compute with; None for all cores.

    Raises:
        ModelFileError: the files are not sound, or none of ours.
        UserError: OpenVINO is not installed.
    """

    name = "openvino"

    def __init__(self, path: Path, threads: int | None = None):
        runtime = extras.openvino()
        model, stated = read_openvino(path)
        settings: dict[str, Any] = {
            "PERFORMANCE_HINT": "LATENCY",
            # Elsewhere it may choose 16 bits by itself.
            "INFERENCE_PRECISION_HINT": "f32",
        }
        if threads is not None:
            settings["INFERENCE_NUM_THREADS"] = threads
        _check_ends(path, stated.card, end_shapes(model))
        try:
            self._compiled = runtime.Core().compile_model(model, "CPU", settings)
        except Exception as error:  # the runtime raises what it likes
            raise ModelFileError(path, f"OpenVINO refuses it: {_line(error)}") from error
        self._own, self._path = threading.local(), path
        self.card, self.minimum_size = stated.card, stated.minimum_size
        self.precision: Precision = stated.precision

    def __call__(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b *answer"]:
        """As `Engine`."""
        images = _images(x, self.minimum_size)
        request = getattr(self._own, "request", None)  # one serves one thread at a time
        if request is None:
            request = self._own.request = self._compiled.create_infer_request()
        try:
            logits = request.infer({0: images})[0]
        except Exception as error:  # as above
            raise UserError(f"{self._path}: OpenVINO fails: {_line(error)}") from error
        return _answer(np.array(logits), x, self.card, self._path)  # the memory is used again


class EngineModule(nn.Module):
    """An engine as a module, for what asks modules: evaluation, segmentation of large photos."""

    def __init__(self, engine: Engine):
        super().__init__()
        self.engine = engine

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b *answer"]:
        """The engine's answer."""
        return self.engine(x)


def open_engine(
    path: str | Path, *, device: torch.device | str = "cpu", threads: int | None = None
) -> Engine:
    """The network of a run folder or of a file, ready to be asked.

    Args:
        path: a run folder, a model file (`.safetensors`), or an exported one (`.onnx`, `.xml`).
        device: where torch computes; exported files are computed on the CPU.
        threads: to compute with, for exported files; None for all cores.

    Raises:
        UserError: there is no model at `path`, its file is not sound or hostile, a library is
            missing, or an exported file is to be computed elsewhere than on the CPU.
    """
    path = find_model(Path(path))
    kind = kind_of(path)
    if kind == "torch":
        return TorchEngine(load_network(path), device)
    if torch.device(device).type != "cpu":
        raise UserError(f"{path}: exported files are computed on the CPU; use --device cpu")
    return OnnxEngine(path, threads) if kind == "onnxruntime" else OpenVinoEngine(path, threads)


def engine_card(path: str | Path) -> Card:
    """The card of what `open_engine` would open; the network is not made ready.

    Raises:
        UserError: as `open_engine`.
    """
    path = find_model(Path(path))
    kind = kind_of(path)
    if kind == "torch":
        return read_card(path)
    return (read_onnx(path) if kind == "onnxruntime" else read_openvino(path))[1].card


def load_network(path: Path) -> Network:
    """The network of a model file, or of one whose normalisations were folded.

    Raises:
        ModelFileError: the file is not sound.
    """
    with open_regular(path) as file:
        names = [tensor.name for tensor in read_header(file, path).tensors]
    whole = any(name.endswith(STATISTICS) for name in names)
    return load_model(path) if whole else load_model(path, shaped=fold)


def kind_of(path: Path) -> Kind:
    """What computes the file at `path`, by its first bytes.

    Raises:
        ModelFileError: it cannot be read.
    """
    with open_regular(path) as file:
        head = file.read(16)
    if head[8:9] == b"{":
        return "torch"
    if head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<"):
        return "openvino"
    # An ONNX file begins with its version, a small number in field 1.
    return "onnxruntime" if head[:1] == b"\x08" and head[1:2] < b"\x40" else "torch"


def find_model(path: Path) -> Path:
    """The model file that a path means: itself, or the one in a run folder.

    Raises:
        UserError: a folder without one.
    """
    if not path.is_dir():
        network = path.with_suffix(".xml")  # of OpenVINO's two files people may name the other
        return network if path.suffix == ".bin" and network.exists() else path
    if (path / MODEL_FILE).exists():
        return path / MODEL_FILE
    runs = sorted(file.parent for file in path.glob(f"*/{MODEL_FILE}"))
    if runs:
        hint = f"there is one in {runs[-1]}"
    elif (path / "config.yaml").exists():
        hint = "a run has one after its first epoch"
    else:
        hint = "give a run folder or a .safetensors file"
    raise UserError(f"{path}: no {MODEL_FILE} there; {hint}")


def _check_ends(path: Path, card: Card, shapes: Sequence[Sequence[object]]) -> None:
    """ModelFileError unless one image goes in and one answer for the card's classes comes out.

    `shapes`: of inputs and outputs; what is no number may be any.
    """
    channels, classes = card.preprocess.channels, len(card.classes)
    places = 4 if card.task == "segmentation" else 2
    found = [(len(shape), shape[1] if len(shape) > 1 else None) for shape in shapes]
    if found != [(4, channels), (places, classes)]:
        raise ModelFileError(
            path, f"its card says {channels} channels and {classes} classes, the network does not"
        )


def _images(x: Tensor, minimum_size: int) -> np.ndarray:
    """A batch of images as runtimes want it: float32, channel by channel, on the CPU."""
    height, width = x.shape[2:]
    if min(height, width) < minimum_size:
        raise UserError(
            f"images of {height}x{width} pixels are too small for this network: "
            f"{minimum_size}x{minimum_size} is the least"
        )
    return np.ascontiguousarray(x.detach().float().cpu().numpy())


def _answer(logits: Any, x: Tensor, card: Card, path: Path) -> Tensor:
    """The logits, if they are what was asked for."""
    places = tuple(x.shape[2:]) if card.task == "segmentation" else ()
    expected = (len(x), len(card.classes), *places)
    if logits.dtype != np.float32 or logits.shape != expected:
        raise UserError(f"{path}: it answers {logits.dtype}{logits.shape}, not {expected}")
    return torch.from_numpy(logits)


def _line(error: Exception) -> str:
    """The first line of a runtime's complaint."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:200] if lines else type(error).__name__
