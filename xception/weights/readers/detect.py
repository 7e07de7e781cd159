"""Open a foreign weight file, whatever wrote it."""

import dataclasses
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import numpy as np

from xception.weights.header import ModelFileError, open_regular
from xception.weights.readers import torch_files, zip_files
from xception.weights.readers.hdf5 import SIGNATURE
from xception.weights.readers.keras_files import json_object, read_hdf5
from xception.weights.readers.safetensors_files import read_safetensors
from xception.weights.readers.source import Source, Unsound, text
from xception.weights.readers.stored import Foreign, ForeignFileError
from xception.weights.readers.table import is_table
from xception.weights.readers.tar_files import extract_checkpoints
from xception.weights.readers.tensorflow_files import read_checkpoint

KERAS_WEIGHTS = "model.weights.h5"
SHARD = re.compile(r"\.data-\d{5}-of-\d{5}$")
BACKSLASH = "\\"
MAX_FILES = 10_000  # in a folder that is said to hold a checkpoint
MAX_CHECKPOINT_BYTES = 1 << 20  # of the text file that names the latest one


@contextmanager
def open_foreign(path: Path) -> Iterator[Foreign]:
    """The tensors of a foreign weight file; none is read before it is asked for.

    What wrote a file is found by its content. A TensorFlow checkpoint may be given as its folder
    (the file `checkpoint` there says which if it names one that is there, else there must be one
    only), its prefix, any of its files, or a `.tar.gz`. Everything that a file says is judged
    first: it has what it announces, no way out of itself, nothing to execute, and its tensors need
    no more memory than twice its size.

    Raises:
        ForeignFileError: missing, of an unknown kind, damaged or hostile; one line says why.
    """
    with ExitStack() as stack:
        try:
            foreign = _open(path, stack)
        except Unsound as error:
            raise ForeignFileError(path, _one_line(error)) from error
        except ModelFileError as error:
            part = "" if error.path == path else f"{error.path.name}: "
            raise ForeignFileError(path, part + error.reason) from error
        except OSError as error:
            raise ForeignFileError(path, error.strerror or "cannot be read") from error
        yield dataclasses.replace(
            foreign,
            tensors={
                name: dataclasses.replace(tensor, load=partial(_load, tensor.load, path))
                for name, tensor in foreign.tensors.items()
            },
        )


def _load(load: Callable[[], np.ndarray], path: Path) -> np.ndarray:
    """Read one tensor; what is wrong with it is told like what is wrong with the file."""
    try:
        return load()
    except Unsound as error:
        raise ForeignFileError(path, _one_line(error)) from error
    except OSError as error:
        raise ForeignFileError(path, error.strerror or "cannot be read") from error


def _one_line(error: Unsound) -> str:
    return " ".join(str(error).split())


def _open(path: Path, stack: ExitStack) -> Foreign:
    if path.is_dir():
        return _open_checkpoint(_latest(path), stack)
    short = SHARD.sub("", path.name)
    prefix = path.with_name(short) if short else path
    if not path.exists() or prefix != path:
        index = prefix.with_name(prefix.name + ".index")
        if index.exists():
            return _open_checkpoint(index, stack)
    source = _open_source(path, stack)
    start = source.read(0, min(source.size, 32))
    if start.startswith(SIGNATURE):
        return read_hdf5(source)
    if start.startswith(b"PK\3\4"):
        return _open_zip(source, stack)
    if start.startswith(b"\x1f\x8b"):
        return _open_archive(source, stack)
    if torch_files.is_legacy(start):
        return torch_files.read_legacy(source)
    if is_table(source):
        return _open_checkpoint(path, stack)
    if start[8:9] == b"{":
        return read_safetensors(stack.enter_context(open_regular(path)), source.size, path)
    if start[:1] == b"\x80":
        raise Unsound("a Python pickle that torch.save did not write; pickles are never run")
    raise Unsound(
        "not a weight file of a known kind (HDF5 or .keras of Keras, TensorFlow checkpoint, "
        "PyTorch, safetensors)"
    )


def _open_source(path: Path, stack: ExitStack) -> Source:
    file = stack.enter_context(open_regular(path))
    return Source(file, 0, os.fstat(file.fileno()).st_size)


def _open_zip(source: Source, stack: ExitStack) -> Foreign:
    """A zip file: of Keras 3 or of PyTorch."""
    entries = zip_files.directory(source)
    if "config.json" not in entries:
        return torch_files.read_zip(source, entries)
    if KERAS_WEIGHTS not in entries:
        raise Unsound(f"a file of Keras without {KERAS_WEIGHTS}")
    foreign = read_hdf5(zip_files.unpacked(source, entries[KERAS_WEIGHTS], stack))
    meta = dict(foreign.meta)
    for name in ("config.json", "metadata.json"):
        if name in entries:
            content = text(zip_files.content(source, entries[name]), name)
            meta[name.removesuffix(".json")] = json_object(content, name)
    return Foreign("keras_zip", foreign.tensors, meta)


def _open_archive(source: Source, stack: ExitStack) -> Foreign:
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="xception-")))
    found = extract_checkpoints(source, folder)
    if len(found) > 1:
        raise Unsound(f"an archive with checkpoints in {len(found)} folders; unpack the one")
    return _open_checkpoint(_latest(found[0]), stack)


def _open_checkpoint(index: Path, stack: ExitStack) -> Foreign:
    def open_shard(number: int, count: int) -> Source:
        name = f"{index.name.removesuffix('.index')}.data-{number:05d}-of-{count:05d}"
        return _open_source(index.with_name(name), stack)

    return read_checkpoint(_open_source(index, stack), open_shard)


def _latest(folder: Path) -> Path:
    """The index of the checkpoint that the file `checkpoint` names, or of the only one."""
    named = folder / "checkpoint"
    if named.exists():
        with open_regular(named) as file:
            content = text(file.read(MAX_CHECKPOINT_BYTES), "the file 'checkpoint'")
        found = re.search(r'^model_checkpoint_path: "([^"\n]+)"$', content, re.MULTILINE)
        if found is None:
            raise Unsound("its file 'checkpoint' names no checkpoint")
        # Where the folder was when it was written is not where it is; nothing else is opened.
        index = folder / f"{found[1].replace(BACKSLASH, '/').split('/')[-1]}.index"
        if index.exists():
            return index
    with os.scandir(folder) as entries:
        names = [entry.name for entry, _ in zip(entries, range(MAX_FILES), strict=False)]
    found = sorted(name for name in names if name.endswith(".index"))
    if not found:
        raise Unsound("a folder without a TensorFlow checkpoint")
    if len(found) > 1:
        raise Unsound(
            f"a folder with several checkpoints; give one, for example {max(found)!r:.80}"
        )
    return folder / found[0]
