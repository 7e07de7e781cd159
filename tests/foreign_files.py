"""Foreign weight files read to their end, for several tests."""

from pathlib import Path

import numpy as np

from xception.weights.readers.detect import open_foreign


def read_all(path: Path) -> dict[str, np.ndarray]:
    """Every tensor, and each as it was announced."""
    with open_foreign(path) as foreign:
        found = {name: tensor.read() for name, tensor in foreign.tensors.items()}
        for name, tensor in foreign.tensors.items():
            assert (tensor.shape, tensor.dtype) == (found[name].shape, found[name].dtype.name)
            assert found[name].flags.c_contiguous
    return found
