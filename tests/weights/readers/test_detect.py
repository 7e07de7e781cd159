"""What is said where no weights are, and what is not touched."""

import os
import pickle
import tempfile
from pathlib import Path

import h5py
import numpy as np
import pytest
from foreign_files import read_all

from xception.errors import UserError
from xception.weights.readers.detect import open_foreign
from xception.weights.readers.stored import ForeignFileError, StoredTensor


@pytest.fixture
def path(tmp_path) -> Path:
    """A small file of Keras 3, under a name that says nothing."""
    with h5py.File(tmp_path / "weights é of mine", "w") as file:
        file["layers/conv2d/vars/0"] = np.arange(3, dtype="f4")
    return tmp_path / "weights é of mine"


def test_the_content_says_what_it_is(path):
    with open_foreign(path) as foreign:
        assert foreign.kind == "keras_weights_h5"
        assert foreign.tensors["layers/conv2d/vars/0"].nbytes == 12


def test_what_others_raise_stays_as_it_is(path):
    """Only what is wrong with the file is told of the file."""
    for error in (UserError("not this file"), ValueError("a bug"), OSError("another file")):
        with pytest.raises(type(error)) as caught, open_foreign(path):
            raise error
        assert caught.value is error


def test_files_are_closed_and_nothing_stays_behind(path, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    before = len(os.listdir("/proc/self/fd")), sorted(os.listdir(tmp_path))
    for _ in range(3):
        read_all(path)
        with pytest.raises(ForeignFileError):
            read_all(tmp_path)
    assert (len(os.listdir("/proc/self/fd")), sorted(os.listdir(tmp_path))) == before


def test_an_error_travels_between_processes():
    error = ForeignFileError(Path("a/b"), "it is empty")
    again = pickle.loads(pickle.dumps(error))
    assert (again.path, again.reason, str(again)) == (Path("a/b"), "it is empty", str(error))
    assert isinstance(again, UserError)


def test_a_reader_that_gives_something_else_is_a_fault_of_ours():
    for values in (np.zeros(2, "f4"), np.zeros(3, "f8")):
        with pytest.raises(ValueError, match="not as announced"):
            StoredTensor("a", (3,), "float32", lambda values=values: values).read()
