"""Xception and its relatives: from a folder of photos to a trained, measured, explained classifier.

The public names are loaded when they are first asked for, so that importing the package is quick.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from xception._version import __version__

if TYPE_CHECKING:
    from xception.deploy.mask_predictor import MaskPredictor
    from xception.deploy.runtime import Predictor
    from xception.models.zoo import create_model, list_models
    from xception.weights.model_file import load_model

__all__ = [
    "MaskPredictor",
    "Predictor",
    "__version__",
    "create_model",
    "list_models",
    "load_model",
]

HOMES = {
    "MaskPredictor": "xception.deploy.mask_predictor",
    "Predictor": "xception.deploy.runtime",
    "create_model": "xception.models.zoo",
    "list_models": "xception.models.zoo",
    "load_model": "xception.weights.model_file",
}


def __getattr__(name: str) -> Any:
    if name not in HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *HOMES])
