"""Files that the safetensors library wrote."""

import numpy as np
import pytest
import safetensors.torch
import torch
from foreign_files import read_all

from xception.weights.readers.detect import open_foreign

DTYPES = (
    *(torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.bool),
    *(torch.int64, torch.int32, torch.int16, torch.int8),
    *(torch.uint64, torch.uint32, torch.uint16, torch.uint8),
)


def test_equals_what_was_written(tmp_path):
    tensors = {str(dtype): torch.arange(6).reshape(2, 3).to(dtype) for dtype in DTYPES}
    tensors |= {"scalar": torch.tensor(1.5), "nothing": torch.zeros(0, 3), "größe 1": torch.ones(1)}
    path = tmp_path / "a.safetensors"
    safetensors.torch.save_file(tensors, path, {"format": "pt", "note": "é"})
    found = read_all(path)
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        expected = (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()
        np.testing.assert_array_equal(found[name], expected, strict=True)
    with open_foreign(path) as foreign:
        assert foreign.kind == "safetensors"
        assert foreign.meta == {"format": "pt", "note": "é"}


def test_the_end_of_a_name_says_nothing(tmp_path):
    path = tmp_path / "weights.h5"
    safetensors.torch.save_file({"a": torch.ones(2)}, path)
    assert read_all(path)["a"].tolist() == [1, 1]


@pytest.mark.parametrize("values", [[1.0, -2.5, 3e38, 1e-38, float("inf")]])
def test_bfloat16_equals_torch(values, tmp_path):
    tensor = torch.tensor(values).bfloat16()
    safetensors.torch.save_file({"a": tensor}, tmp_path / "a.safetensors")
    assert read_all(tmp_path / "a.safetensors")["a"].tolist() == tensor.float().tolist()
