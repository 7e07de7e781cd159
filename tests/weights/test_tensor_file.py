import io

import pytest
import safetensors.torch
import torch

from xception.weights.tensor_file import Lazy, lazy, write_tensors


def written(tensors: dict[str, torch.Tensor], metadata: dict[str, str]) -> bytes:
    file = io.BytesIO()
    write_tensors(file, {name: lazy(value) for name, value in tensors.items()}, metadata)
    return file.getvalue()


@pytest.mark.parametrize("metadata", [{}, {"card": '{"Größe": "∞\\n\\u0001"}'}])
def test_the_bytes_are_those_of_safetensors(metadata: dict[str, str]):
    torch.manual_seed(0)
    tensors = {
        "b": torch.randn(3, 4, 5),
        "a.count": torch.tensor(7),
        "a": torch.randn(2, 3).to(torch.bfloat16),
        "half": torch.randn(3).half(),
        "empty": torch.zeros(0, 4),
        "z": torch.arange(5),
    }
    assert written(tensors, metadata) == safetensors.torch.save(tensors, metadata or None)


def test_memory_in_another_order():
    images = torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last)
    plain = {"x": images.contiguous()}
    assert written({"x": images}, {}) == safetensors.torch.save(plain)


def test_what_is_not_as_announced():
    tensors = {"x": Lazy(torch.float32, (3,), lambda: torch.zeros(4))}
    with pytest.raises(ValueError, match=r"x is torch\.float32\(4,\), not as announced"):
        write_tensors(io.BytesIO(), tensors, {})


def test_an_unknown_type():
    with pytest.raises(ValueError, match=r"x is of the type torch\.float64, which is not written"):
        written({"x": torch.zeros(1, dtype=torch.float64)}, {})
