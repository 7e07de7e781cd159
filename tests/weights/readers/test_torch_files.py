"""Files that `torch.save` wrote, in both forms, against what `torch.load` makes of them."""

import collections
import os
import pickle
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from foreign_files import read_all
from torch import nn

from xception.weights.readers import detect
from xception.weights.readers.detect import open_foreign
from xception.weights.readers.pickled import load
from xception.weights.readers.source import Cursor, Unsound
from xception.weights.readers.stored import ForeignFileError

FORMS = pytest.mark.parametrize("zipped", [True, False])


def save(value: object, path: Path, zipped: bool, protocol: int = 2) -> Path:
    torch.save(value, path, pickle_protocol=protocol, _use_new_zipfile_serialization=zipped)
    return path


def as_numpy(tensor: torch.Tensor) -> np.ndarray:
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).detach().numpy()


def check(path: Path, expected: dict[str, torch.Tensor]) -> dict[str, object]:
    with open_foreign(path) as foreign:
        assert foreign.kind == "torch"
        assert list(foreign.tensors) == list(expected)
        for name, tensor in foreign.tensors.items():
            found = tensor.read()
            np.testing.assert_array_equal(found, as_numpy(expected[name]), strict=True)
            assert found.flags.c_contiguous
            assert (tensor.shape, tensor.dtype) == (found.shape, found.dtype.name)
        return dict(foreign.meta)


def odd_tensors() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    base = torch.randn(6, 5)
    numbers = [torch.float64, torch.float16, torch.bfloat16, torch.int8, torch.uint8]
    numbers += [torch.int16, torch.int32, torch.int64, torch.complex64, torch.complex128]
    return {str(dtype): torch.arange(7).to(dtype) for dtype in numbers} | {
        "channels last": torch.randn(4, 3, 2, 2).to(memory_format=torch.channels_last),
        "transposed": base.T,
        "part": base[2:4, 1::2],
        "the same again": base,
        "scalar": torch.tensor(3.5),
        "nothing": torch.zeros(0, 3),
        "expanded": torch.randn(3, 1).expand(3, 4),
        "bool": base > 0,
        "parameter": nn.Parameter(torch.randn(2)),
        "größe": torch.ones(1),
    }


@FORMS
@pytest.mark.parametrize("protocol", [2, 4])
def test_any_tensor(zipped, protocol, tmp_path):
    tensors = odd_tensors()
    path = save(tensors, tmp_path / "a.pth", zipped, protocol)
    assert check(path, tensors) == {}
    if protocol == 2:
        loaded = torch.load(path, weights_only=True)
        assert all(torch.equal(loaded[name], value) for name, value in tensors.items())


def trained() -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.LazyLinear(2))
    model(torch.randn(2, 3, 5, 5)).sum().backward()
    optimizer = torch.optim.Adam(model.parameters())
    optimizer.step()
    return model, optimizer


@FORMS
@pytest.mark.parametrize("name", ["state_dict", "model", "model_state_dict", "model_ema"])
def test_what_stands_around_a_state_dict(name, zipped, tmp_path):
    model, optimizer = trained()
    checkpoint = {
        "epoch": 3,
        "best": 0.75,
        "big": 10**30,
        "args": None,
        "milestones": collections.Counter({30: 1}),
        "history": [{"loss": 1.5, "rates": (0.1, 0.2)}],
        "size": torch.Size([3, 4]),
        "dtype": torch.float16,
        "device": torch.device("cpu"),
        "names": {"a", "b"},
        "raw": b"bytes",
        "optimizer": optimizer.state_dict(),
        name: model.state_dict(),
    }
    path = save(checkpoint, tmp_path / "a.pth", zipped)
    assert check(path, model.state_dict()) == {"wrapper": name, "beside": ["optimizer"]}


def test_other_weights_beside_are_named(tmp_path):
    one, two = {"a": torch.ones(1)}, {"a": torch.zeros(1)}
    held = {"epoch": {"best": 1}, "model": {"state_dict": one, "teacher": two}, "ema": [[two]]}
    said = {"wrapper": "model.state_dict", "beside": ["ema", "model.teacher"]}
    assert check(save(held, tmp_path / "a.pth", True), one) == said


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod.", "module.module."])
def test_what_stands_before_every_name(prefix, tmp_path):
    state = trained()[0].state_dict()
    path = save({prefix + name: value for name, value in state.items()}, tmp_path / "a.pth", True)
    check(path, state)


def test_an_averaged_model(tmp_path):
    model = trained()[0]
    averaged = torch.optim.swa_utils.AveragedModel(model)
    path = save(averaged.state_dict(), tmp_path / "a.pth", True)
    check(path, {"n_averaged": averaged.n_averaged} | model.state_dict())


def test_a_prefix_that_some_names_lack_stays(tmp_path):
    tensors = {"module.a": torch.ones(1), "b": torch.ones(1)}
    check(save(tensors, tmp_path / "a.pth", True), tensors)


def test_what_is_no_tensor_is_named(tmp_path):
    path = save({"a": torch.ones(1), "step": 4, "note": "x"}, tmp_path / "a.pth", True)
    assert check(path, {"a": torch.ones(1)}) == {"left_out": ["step", "note"]}


def test_the_form_of_python_2(tmp_path):
    """By hand, as Python 2 and PyTorch 0.3 wrote it: short byte strings, ordered pairs."""

    def pickled(body: bytes) -> bytes:
        return b"\x80\x02" + body + b"."

    storage = b"(U\x07storagectorch\nFloatStorage\nU\x0294U\x03cpuK\x04NtQ"
    tensor = b"ctorch._utils\n_rebuild_tensor\n(" + storage + b"K\x01K\x03\x85K\x01\x85tR"
    pairs = b"](](U\x06weight" + tensor + b"ee"
    content = b"ccollections\nOrderedDict\n" + pairs + b"\x85R"
    system = b"}(X\x0d\0\0\0little_endian\x88u"
    values = struct.pack("<q4f", 4, 0.5, 1, 2, 3)
    path = tmp_path / "old.pth"
    path.write_bytes(
        pickled(b"\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19")
        + pickled(b"M\xe9\x03")
        + pickled(system)
        + pickled(content)
        + pickled(b"]U\x0294a")
        + values
    )
    check(path, {"weight": torch.tensor([1.0, 2.0, 3.0])})


class Runs:
    """Unpickling this makes a folder."""

    def __init__(self, folder: Path):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


@FORMS
def test_nothing_is_called(zipped, tmp_path):
    folder = tmp_path / "was called"
    path = save({"a": torch.ones(1), "b": Runs(folder)}, tmp_path / "a.pth", zipped)
    with pytest.raises(ForeignFileError, match=r"its pickle asks for '(posix|nt).mkdir'"):
        read_all(path)
    assert not folder.exists()


def test_names_of_globals_are_compared_letter_by_letter():
    """An escape in a name is no escape for a pickle; neither may it be one here."""
    for name in (b"collections\nOrdered\\x44ict", b"collections\nOrderedDict ", b"c\nollections"):
        with pytest.raises(Unsound, match="its pickle asks for"):
            load(Cursor(b"\x80\x02c" + name + b"\n)R."))
    assert load(Cursor(b"\x80\x02ccollections\nOrderedDict\n)R.")).value == {}


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_plain_values_equal_those_of_python(protocol):
    value: dict = {
        "numbers": [0, 1, 255, 256, 65536, -1, -(2**31), 2**31, 2**200, 1.5, -0.0],
        "texts": ["", "a", "é" * 300, b"", b"x" * 300],
        "others": (None, True, False, (), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4), {}, [], [[]]),
        7: {"shared": ["x"]},
    }
    if protocol == 2:  # where bytes are made by a call
        del value["texts"][3:]
    found = load(Cursor(pickle.dumps(value, protocol)))
    assert found.value == value
    assert found.storages == {}


def test_the_zip_file_is_read_where_it_lies(tmp_path, monkeypatch):
    """No storage is unpacked or copied before it is asked for."""
    path = save({"a": torch.ones(1 << 20)}, tmp_path / "a.pth", True)
    read: list[int] = []
    original = detect.Source.read

    def counted(self, offset, count):
        read.append(count)
        return original(self, offset, count)

    monkeypatch.setattr(detect.Source, "read", counted)
    with open_foreign(path) as foreign:
        assert sum(read) < 1 << 17
        assert foreign.tensors["a"].read().sum() == 1 << 20


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ([1, 2], "no state dict"),
        ({"epoch": 1}, "no state dict"),
        ({"state_dict": {"model": {"net": {"weights": {"a": torch.ones(1)}}}}}, "no state dict"),
        (torch.ones(2), "no state dict"),
        (nn.Linear(2, 2), "Linear"),
        ({"a": torch.ones(2).to_sparse()}, "sparse"),
        ({"a": torch.empty(2, device="meta")}, "meta"),
        ({"a": torch.ones(2).to(torch.float8_e4m3fn)}, "v3|Float8|float8"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*(quantize|TypedStorage|Sparse|deprecated).*")
@FORMS
def test_what_is_not_read_is_said(content, line, zipped, tmp_path):
    path = save(content, tmp_path / "a.pth", zipped)
    with pytest.raises(ForeignFileError, match=line):
        read_all(path)


@pytest.mark.filterwarnings("ignore:.*torch.jit.* is deprecated")
def test_other_zip_files(tmp_path):
    path = tmp_path / "script.pt"
    torch.jit.script(nn.Linear(2, 2)).save(str(path))
    with pytest.raises(ForeignFileError, match="TorchScript"):
        read_all(path)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        file.writestr("photo.jpg", b"...")
    with pytest.raises(ForeignFileError, match="PyTorch did not write"):
        read_all(tmp_path / "a.zip")
