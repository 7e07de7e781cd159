"""`last.ckpt`: everything a training needs to go on, written whole or not at all."""

import io
from pathlib import Path
from typing import Any

import torch

from xception.errors import UserError
from xception.weights.atomic import write_whole

FORMAT = 1


class CheckpointError(UserError):
    """A checkpoint that cannot be written or read."""


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write tensors and plain values, whole or not at all.

    Raises:
        CheckpointError: the disk is full or the folder cannot be written; the old file stays.
    """
    buffer = io.BytesIO()  # torch's own writer would hide the reason of a failure
    torch.save({"format": FORMAT, **state}, buffer)
    try:
        write_whole(path, lambda file: file.write(buffer.getbuffer()))
    except UserError as error:
        kept = f"; the last good checkpoint, {path}, is untouched" if path.exists() else ""
        raise CheckpointError(f"{error}{kept}") from error


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint on the CPU, refusing anything but tensors and plain values.

    Raises:
        CheckpointError: it is missing, damaged, or of another format.
    """
    if not path.is_file():
        raise CheckpointError(f"nothing to resume: there is no {path}")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever the reader meets, it is not one of ours
        raise CheckpointError(
            f"{path} is not a checkpoint of ours: {type(error).__name__}"
        ) from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise CheckpointError(f"{path} is not a checkpoint of format {FORMAT}")
    return state
