"""Other libraries' networks, imported for tests only: `timm()` and `torchvision_models()`.

Both are installed without their dependencies (`pip install --no-deps`), which would bring another
torch. torchvision's compiled operators want the torch that it was built for, and its wheel is built
for CUDA. Its Python code, all that its definitions of networks need, imports once the operators
that it decorates on the way have a schema; they are never called.
"""

import importlib
import importlib.util
from functools import cache
from pathlib import Path
from types import ModuleType

import pytest
import torch

# The operators that torchvision 0.28.0 decorates while it is imported.
SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)


def timm() -> ModuleType:
    """The package timm, or the test is skipped."""
    _find("timm")
    torchvision_models()  # timm imports it
    return importlib.import_module("timm")


def torchvision_models() -> ModuleType:
    """The module torchvision.models, or the test is skipped."""
    _find("torchvision")
    _schemas()
    return importlib.import_module("torchvision.models")


def _find(package: str) -> Path:
    """The folder of an installed package; the test is skipped where there is none."""
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        pytest.skip(f"THE ORACLE IS MISSING: pip install --no-deps {package}")
    return Path(spec.origin).parent


@cache
def _schemas() -> torch.library.Library | None:
    """Declare what torchvision's own operators would, where they cannot be loaded.

    The declarations live as long as what is returned, which the cache keeps.
    """
    try:
        torch.ops.load_library(_find("torchvision") / "_C.so")
    except OSError:
        library = torch.library.Library("torchvision", "DEF")
        for schema in SCHEMAS:
            library.define(schema)
        return library
    return None
