"""Checkpoints that TensorFlow itself wrote, by tests/fixtures/tensorflow/write_checkpoints.py."""

import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
from foreign_files import read_all

from xception.weights.readers.detect import open_foreign
from xception.weights.readers.stored import ForeignFileError
from xception.weights.readers.tensorflow_files import slice_key

FIXTURES = Path(__file__).parents[2] / "fixtures" / "tensorflow"
FOLDERS = ("dtypes", "slices", "shards", "many", "objects")


@pytest.mark.parametrize("folder", FOLDERS)
def test_equals_what_tensorflow_reads(folder):
    with (
        open_foreign(FIXTURES / folder) as foreign,
        np.load(FIXTURES / folder / "expected.npz") as expected,
    ):
        assert foreign.kind == "tensorflow"
        assert foreign.tensors.keys() == set(expected.files)
        for name, tensor in foreign.tensors.items():
            found = tensor.read()
            assert (tensor.shape, tensor.dtype) == (expected[name].shape, expected[name].dtype.name)
            np.testing.assert_array_equal(found, expected[name], strict=True)
            assert found.flags.c_contiguous


def test_what_holds_no_numbers_is_named():
    with open_foreign(FIXTURES / "dtypes") as foreign:
        assert foreign.meta == {"left_out": ["text"]}
    with open_foreign(FIXTURES / "objects") as foreign:
        assert foreign.meta == {"left_out": ["_CHECKPOINTABLE_OBJECT_GRAPH"]}


@pytest.mark.parametrize("form", ["prefix", "index", "data", "folder", "tar.gz", "tar.gz inside"])
def test_every_way_to_name_a_checkpoint(form, tmp_path):
    folder = tmp_path / "my checkpoint é"
    shutil.copytree(FIXTURES / "shards", folder)
    paths = {
        "prefix": folder / "model.ckpt-7",
        "index": folder / "model.ckpt-7.index",
        "data": folder / "model.ckpt-7.data-00001-of-00002",
        "folder": folder,
        "tar.gz": tmp_path / "flat.tar.gz",
        "tar.gz inside": tmp_path / "zoo.tar.gz",
    }
    for path, inside in ((paths["tar.gz"], "."), (paths["tar.gz inside"], "zoo/xception_65")):
        with tarfile.open(path, "w:gz") as archive:
            archive.add(folder, inside)
            archive.add(__file__, "zoo/frozen_inference_graph.pb")
    with open_foreign(paths[form]) as foreign:
        assert foreign.tensors["part_1"].read().shape == (7, 2)


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_long_names_in_an_archive(form, tmp_path):
    path, inside = tmp_path / "a.tar.gz", f"{'modell-' * 20}ü/{'x' * 120}"
    with tarfile.open(path, "w:gz", format=form) as archive:
        for ending in (".index", ".data-00000-of-00001"):
            archive.add(FIXTURES / f"many/model.ckpt-7{ending}", inside + ending)
    assert read_all(path).keys() == read_all(FIXTURES / "many").keys()


def test_a_table_is_known_by_its_content(tmp_path):
    shutil.copytree(FIXTURES / "many", tmp_path / "a")
    (tmp_path / "a/model.ckpt-7.index").rename(tmp_path / "a/other")
    (tmp_path / "a/model.ckpt-7.data-00000-of-00001").rename(
        tmp_path / "a/other.data-00000-of-00001"
    )
    with open_foreign(tmp_path / "a/other") as foreign:
        assert len(foreign.tensors) == 150


def two(folder: Path) -> Path:
    """A folder with two checkpoints."""
    shutil.copytree(FIXTURES / "shards", folder)
    for path in list(folder.glob("model.ckpt-7.*")):
        shutil.copy(path, folder / path.name.replace("-7", "-8", 1))
    return folder


def test_the_latest_is_the_one_that_the_folder_names(tmp_path):
    folder = two(tmp_path / "run")
    for written in ("model.ckpt-8", "/home/someone/run/model.ckpt-8", "C:\\runs\\model.ckpt-8"):
        (folder / "checkpoint").write_text(f'model_checkpoint_path: "{written}"\nmore: "x"\n')
        (folder / "model.ckpt-7.index").write_bytes(b"unreadable")
        with open_foreign(folder) as foreign:
            assert len(foreign.tensors) == 2


@pytest.mark.parametrize("named", ["../outside/model.ckpt-7", "/nowhere/model.ckpt-99", "..", "."])
def test_nothing_outside_the_folder_is_opened(named, tmp_path):
    two(tmp_path / "outside")
    folder = two(tmp_path / "run")
    for name in ("model.ckpt-7.index", "model.ckpt-8.index"):
        (folder / name).write_bytes(b"of this folder")
    (folder / "checkpoint").write_text(f'model_checkpoint_path: "{named}"\n')
    with pytest.raises(ForeignFileError, match=r"several checkpoints|not the index"):
        read_all(folder)


def test_damaged_values_are_found_when_they_are_read(tmp_path):
    shutil.copytree(FIXTURES / "dtypes", tmp_path / "a")
    data = tmp_path / "a" / "model.ckpt-7.data-00000-of-00001"
    content = bytearray(data.read_bytes())
    content[len(content) // 2] ^= 1
    data.write_bytes(content)
    lines = []
    with open_foreign(tmp_path / "a") as foreign:
        for tensor in foreign.tensors.values():
            try:
                tensor.read()
            except ForeignFileError as error:
                lines.append(str(error))
    (line,) = lines
    assert line.startswith(f"{tmp_path / 'a'}: damaged")
    assert line.endswith("another checksum")


@pytest.mark.parametrize(
    ("extents", "expected"),
    [
        # By hand from ordered_code.h: 0; the name and its end; the number of dimensions; for each
        # a start and a length, in one byte below 64 and in two below 8192.
        (((0, 5),), b"\0a\0\1\1\1\x80\x85"),
        (((0, 63),), b"\0a\0\1\1\1\x80\xbf"),
        (((64, 100),), b"\0a\0\1\1\1\xc0\x40\xc0\x64"),
        (((8192, 1),), b"\0a\0\1\1\1\xe0\x20\x00\x81"),
        (((0, -1),), b"\0a\0\1\1\1\x80\x7f"),
    ],
)
def test_keys_of_slices_by_hand(extents, expected):
    assert slice_key("a", extents) == expected
