"""Libraries that only some need, imported when they are asked for.

Each function gives the module, or raises `UserError`, which says how to install it.
"""

import os
from types import ModuleType

from xception.errors import UserError

# What each library is for, and the extra of this package that installs it.
PURPOSES = {
    "onnx": ("to write ONNX files", "onnx"),
    "onnxruntime": ("for ONNX files", "onnx"),
    "openvino": ("for files of OpenVINO", "openvino"),
    "nncf": ("for eight bits in files of OpenVINO", "openvino"),
    "pyarrow": ("for Parquet", "parquet"),
    "ray": ("to compute on several machines", "ray"),
}


def onnx() -> ModuleType:
    """Makes and changes ONNX files."""
    try:
        import onnx as package
    except (ImportError, RuntimeError, OSError) as error:
        raise _absent("onnx", error) from error
    return package


def onnxruntime() -> ModuleType:
    """Computes ONNX files."""
    try:
        import onnxruntime as package
    except (ImportError, RuntimeError, OSError) as error:
        raise _absent("onnxruntime", error) from error
    return package


def quantization() -> ModuleType:
    """ONNX Runtime's tools for eight bits, which need onnx too."""
    onnx()
    onnxruntime()
    try:
        from onnxruntime import quantization as package
    except (ImportError, RuntimeError, OSError) as error:
        raise _absent("onnxruntime", error) from error
    return package


def openvino() -> ModuleType:
    """Computes files of OpenVINO, and makes them of ONNX files."""
    try:
        import openvino as package
    except (ImportError, RuntimeError, OSError) as error:
        raise _absent("openvino", error) from error
    return package


def nncf() -> ModuleType:
    """Makes eight bits of OpenVINO's networks."""
    # It tells its makers over the network what it is used for, unless it believes to be tested.
    os.environ.setdefault("NNCF_CI", "1")
    try:
        import nncf as package
    except (ImportError, RuntimeError, OSError) as error:
        raise _absent("nncf", error) from error
    return package


def pyarrow() -> ModuleType:
    """Writes Parquet."""
    try:
        import pyarrow as package
        import pyarrow.parquet
    except (ImportError, RuntimeError, OSError) as error:
        raise _absent("pyarrow", error) from error
    return package


def ray() -> ModuleType:
    """Hands work to processes on one machine or on many."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # it would tell its makers what it is used for
    try:
        import ray as package  # pyright: ignore[reportMissingImports]  # too heavy for every setup
        import ray.data  # pyright: ignore[reportMissingImports]
    except (ImportError, RuntimeError, OSError) as error:
        raise _absent("ray", error) from error
    return package


def installed(name: str) -> bool:
    """Whether a library of `PURPOSES` can be had; one that does not import counts as missing."""
    known = {
        "onnx": onnx,
        "onnxruntime": onnxruntime,
        "openvino": openvino,
        "nncf": nncf,
        "pyarrow": pyarrow,
        "ray": ray,
    }
    try:
        known[name]()
    except UserError:
        return False
    return True


def _absent(package: str, error: Exception) -> UserError:
    """What to tell a person."""
    purpose, bundle = PURPOSES[package]
    if isinstance(error, ModuleNotFoundError):
        missing = (error.name or package).partition(".")[0]
        if missing != package:
            return UserError(f"{package} is installed, but lacks {missing}")
        return UserError(
            f'{package} is needed {purpose}; install it with: pip install "xception[{bundle}]"'
        )
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return UserError(f"{package} is installed, but does not import: {reason:.120}")
