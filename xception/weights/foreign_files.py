"""Writing weights under another library's names, as files which that library loads."""

import io
from pathlib import Path

import numpy as np
import safetensors.torch
import torch

from xception.errors import UserError
from xception.models.network import Network
from xception.weights.atomic import write_whole
from xception.weights.convert import to_foreign
from xception.weights.names.source import Source
from xception.weights.names.sources import SOURCES

KERAS_ENDING = ".weights.h5"
TORCH_ENDINGS = (".pth", ".pt")
SAFETENSORS_ENDING = ".safetensors"
OURS = "xception"
"""The layout of our own model files."""


def is_ours_to_be(path: Path, layout: str | None) -> bool:
    """Whether a model file of ours is to be written; arguments as for `choose_source`."""
    return path.name.lower().endswith(SAFETENSORS_ENDING) and layout in (None, OURS)


def choose_source(path: Path, model: str, layout: str | None) -> Source | None:
    """The layout that a file is to be written in; None stands for our own.

    Args:
        path: its ending says which kind of file it will be.
        model: the zoo's name of the network.
        layout: a library, where the ending leaves a choice.

    Raises:
        UserError: such files are not written, or not in that layout.
    """
    if is_ours_to_be(path, layout):
        return None
    name = path.name.lower()
    if name.endswith(KERAS_ENDING):
        kind = "keras_weights_h5"
    elif name.endswith(TORCH_ENDINGS):
        kind = "torch"
    elif name.endswith(SAFETENSORS_ENDING):
        kind = "safetensors"
    else:
        raise UserError(
            f"{path}: what kind of file? .safetensors (ours, or with --layout another's), "
            "KERAS.weights.h5, .pth and .pt are written"
        )
    fitting = [one for one in SOURCES if one.model == model and kind in one.kinds]
    if not fitting:
        raise UserError(f"{path}: no library that has {model} reads such files")
    layouts = ", ".join(source.layout for source in fitting)
    if layout is None and len(fitting) > 1:
        raise UserError(f"{path}: --layout says whose names to write: {layouts}")
    for source in fitting:
        if layout in (None, source.layout):
            return source
    raise UserError(f"{path}: {layout} has no {model} in such files; --layout may be {layouts}")


def write_foreign(path: Path, model: Network, source: Source) -> None:
    """Write a model's weights whole or not at all, under the names of `source`.

    Raises:
        UserError: the library's definition would not answer as this model does, or the file cannot
            be written.
    """
    arrays = to_foreign(model, source)
    name = path.name.lower()
    if name.endswith(KERAS_ENDING):
        data = keras_bytes(arrays)
        write_whole(path, lambda file: file.write(data))
        return
    tensors = {key: torch.from_numpy(array) for key, array in arrays.items()}
    if name.endswith(SAFETENSORS_ENDING):
        data = safetensors.torch.save(tensors, {"format": "pt"})
        write_whole(path, lambda file: file.write(data))
    else:
        memory = io.BytesIO()  # on a full disk torch would fail otherwise than with an OSError
        torch.save(tensors, memory)
        write_whole(path, lambda file: file.write(memory.getbuffer()))


def keras_bytes(arrays: dict[str, np.ndarray]) -> memoryview:
    """A `.weights.h5` of Keras 3."""
    try:
        import h5py
    except ImportError as error:
        raise UserError("Keras files are written by h5py: pip install 'xception[keras]'") from error
    memory = io.BytesIO()
    with h5py.File(memory, "w") as file:
        file.create_group("vars")
        for name, array in arrays.items():
            file.create_dataset(name, data=array)
    return memory.getbuffer()
