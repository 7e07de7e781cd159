"""Where a model computes, which depends on what kind of file it is."""

from pathlib import Path

import torch

from xception.deploy.engines import find_model, kind_of
from xception.training.distributed import pick_device


def device_for(run: Path, name: str) -> torch.device:
    """The device of that name; `auto` is the CPU for exported files, which know no other.

    Raises:
        UserError: there is no such device, or no model at `run`.
    """
    if name == "auto" and kind_of(find_model(run)) != "torch":
        return torch.device("cpu")
    return pick_device(name)
