"""A sound model file, and more than 200 that are not."""

import json
import os
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from model_files import card_of, join, small_model, split

from xception.weights.model_file import save_model


@pytest.fixture(scope="session")
def good(tmp_path_factory) -> bytes:
    """The bytes of a sound model file."""
    path = tmp_path_factory.mktemp("good") / "model.safetensors"
    model = small_model()
    save_model(path, model, card_of(model))
    return path.read_bytes()


@pytest.fixture(scope="session")
def unsound(good) -> Callable[..., bytes]:
    """Builds a file in which one place of the card or of the header has another value."""

    def build(part: str, *place_and_value: Any) -> bytes:
        header, card, values = split(good)
        target: Any = {"card": card, "header": header}[part]
        *places, last, value = place_and_value
        for place in places:
            target = target[place]
        target[last] = value
        return join(header, card, values)

    return build


class Runs:
    """Unpickling this makes a folder."""

    def __init__(self, folder: Path):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


OPTION_VALUES: list[tuple[str, list[Any]]] = [
    ("num_classes", [0, -1, 2, 10**9, 10**40, 1.5, "3", None, True, [], {}]),
    ("in_channels", [0, -1, 1, 4, 1e9, 1024, 10**18, "3", None]),
    ("dropout", [-0.1, 1, 2, "0", None, [0.5], False]),
    ("fully_connected", [[10**9], [10**9] * 8, [0], [1] * 100, 4096, "ab", {}, [[1]], [None]]),
    ("residual", [False, 0, 1, "yes", None]),
    ("activation", ["", "gelu", "os.system", 3, None, ["relu"], "relu" * 10_000]),
    ("width", [0, -1, 0.5, 16, 17, 1e9, 1e300, "1", None, [1]]),
    ("stem_stride", [0, 3, -2, 1.0, True, "2", None, 10**9]),
    ("middle", [-1, 0, 2, 128, 129, 10**9, "8", None, 1.0]),
    ("__class__", ["os"]),
    ("self", [1]),
    ("widht", [1.0]),
    ("x" * 100_000, [1]),
]

CARD_VALUES: list[tuple[str, list[Any]]] = [
    ("format", [None, "onnx", 1, ["xception"]]),
    ("version", ["2.0", "0.9", "1", "1.0.0", "", "one", "-1.0", "1.99999", 1.0, None, "1.0\n"]),
    ("architecture", [None, [], "xception", {}, {"name": "xception"}]),
    ("task", [None, "regression", 1]),
    ("classes", [None, [], "abc", ["a", "b"], ["a", "a", "b"], [1, 2, 3], [["a"], "b", "c"]]),
    ("classes", [[str(i) for i in range(5000)]]),
    ("preprocess", [None, {}, [], {"size": 0}, {"size": 10**9}, {"size": 32, "std": [0, 0, 0]}]),
    ("preprocess", [{"size": 32, "channels": 1}, {"size": "a"}, {"size": 32, "run": "rm"}]),
    ("training", [None, [], "x"]),
    ("metrics", [3, []]),
    ("license", [3, ["MIT"]]),
    ("package_version", [None, 1]),
    ("code", ["import os"]),
    ("surgery", [None, "x", [1], [{}], [{"layer": "stem.0", "order": "x", "ranks": 1, "bias": 1}]]),
]

TENSOR_VALUES: list[tuple[str, list[Any]]] = [
    ("dtype", ["F64", "F8_E4M3", "BOOL", "I32", "", None, 7, ["F32"], "F16", "I64"]),
    ("shape", [[], [10**12], [10**5] * 9, [1 << 47, 1 << 47], [-8], [8.0], None, "8", [True] * 8]),
    ("shape", [[2, 4], [[8]], {}, [10**4000], [0], [8, 0]]),
    (
        "data_offsets",
        [[0, 0], [0, 10**15], [-32, 0], [32, 0], [0], [0, 1, 2], None, "ab", [0, 0.5]],
    ),
    ("data_offsets", [[4, 36], [10**30, 10**30 + 32], [True, True]]),
    ("extra", [1]),
]


def _broken_json(good: bytes) -> dict[str, bytes]:
    header, card, values = split(good)
    whole = good[8 : len(good) - len(values)].decode()
    text = json.dumps(card)
    deep = "[" * 100_000
    files = {
        "empty": b"",
        "one byte": b"\0",
        "seven bytes": b"\1" * 7,
        "length only": struct.pack("<Q", 8),
        "zeros": bytes(4096),
        "ones": b"\xff" * 4096,
        "text": b"Dear reader, this is not a model file. " * 40,
        "png": b"\x89PNG\r\n\x1a\n" + bytes(400),
        "hdf5": b"\x89HDF\r\n\x1a\n" + bytes(400),
        "zip": b"PK\x03\x04" + bytes(400),
        "json only": whole.encode(),
        "not UTF-8": good[:8] + b"\xff\xfe" + good[10:],
        "header is a list": join("[]", None, values),
        "header is null": join("null", None, values),
        "header is a number": join("12", None, values),
        "header is NaN": join("NaN", None, values),
        "header is empty": join("{}", None, b""),
        "header of spaces": join(" " * 1000, None, values),
        "no card": join(json.dumps(header), None, values),
        "metadata is a list": join('{"__metadata__": []}', None, b""),
        "card is a number": join('{"__metadata__": {"xception.card": 1}}', None, b""),
        "card is an object": join('{"__metadata__": {"xception.card": {}}}', None, b""),
        "two metadata": join(whole[:-1].rstrip() + ', "__metadata__": {}}', None, values),
        "one tensor twice": join(whole.rstrip()[:-1] + "," + json.dumps(header)[1:], None, values),
        "trailing comma": join(whole.rstrip()[:-1] + ",}", None, values),
        "deep header": join('{"a":' + deep, None, values),
        "deep objects": join('{"a":' * 50_000, None, values),
        "deep closed header": join('{"a":' + "[" * 5000 + "]" * 5000 + "}", None, values),
        "many lists": join('{"a":[' + "[]," * 600_000 + "[]]}", None, values),
        "many objects": join('{"a":[' + "{}," * 600_000 + "{}]}", None, values),
        "many numbers": join('{"a":[' + "0," * 1_000_000 + "0]}", None, values),
        "just few enough lists": join('{"a":[' + "[]," * 120_000 + "[]]}", None, values),
        "a long number": join('{"a":' + "9" * 1_000_000 + "}", None, values),
        "a long wide text": join('{"a":"' + "\U0001f600" * 500_000 + '"}', None, values),
        "no tensors": join({}, card, b""),
        "no values": join(header, card, b""),
        "a byte too many": good + b"\0",
        "a byte too few": good[:-1],
        "much too many": good + bytes(1 << 20),
    }
    for what, card_text in {
        "nothing": "",
        "no JSON": "{'a': 1}",
        "a list": "[]",
        "null": "null",
        "deep": '{"a":' + deep,
        "deep training": text[:-1] + ', "training": ' + '{"a":' * 900 + "1" + "}" * 901,
        "twice": text[:-1] + ', "format": "xception"}',
        "NaN": text.replace('"dropout": 0.0', '"dropout": NaN'),
        "infinity": text.replace('"width": 0.01', '"width": Infinity'),
        "overflow": text.replace('"width": 0.01', '"width": 1e999'),
        "minus zero": text.replace('"width": 0.01', '"width": -0.0'),
        "cut": text[: len(text) // 2],
        "long": text + " " * (3 << 20),
        "surrogate": text.replace("Gr", "\\ud800"),
        "many": text[:-1] + ', "metrics": [' + "[]," * 240_000 + "[]]}",
    }.items():
        files[f"card: {what}"] = join(header, card_text, values)
    for length in (0, 1, 2, 7, 100, len(good) - 8, len(good) - 7, len(good), 1 << 21, 1 << 31):
        files[f"length {length}"] = struct.pack("<Q", length) + good[8:]
    for bits in (32, 40, 48, 63):
        files[f"length 2^{bits}"] = struct.pack("<Q", (1 << bits) + len(whole)) + good[8:]
    for length in range(0, len(good), len(good) // 60):
        files[f"cut at {length}"] = good[:length]
    return files


@pytest.fixture(scope="session")
def hostile(good, unsound, tmp_path_factory) -> dict[str, Path]:
    """Files, and things that are none, each of which must be refused; by what is wrong with it."""
    tmp_path = tmp_path_factory.mktemp("hostile")
    harm = Runs(tmp_path / "code was run")
    files = _broken_json(good)
    for key, values in OPTION_VALUES:
        for value in values:
            content = unsound("card", "architecture", "options", key, value)
            files[f"option {key:.20} {value!r:.20}"] = content
    for key, values in CARD_VALUES:
        for value in values:
            files[f"card {key} {value!r:.60}"] = unsound("card", key, value)
    first = min(split(good)[0])
    for key, values in TENSOR_VALUES:
        for value in values:
            files[f"tensor {key} {value!r:.40}"] = unsound("header", first, key, value)
    for name in ("resnet50", "", "../../etc/passwd", "os.system", "x" * 100, "x" * 10**6, 3, None):
        files[f"name {name!r:.20}"] = unsound("card", "architecture", "name", name)
    for value in (None, [], "F32", {}, 5):
        files[f"tensor is {value}"] = unsound("header", first, value)
    files["empty tensor beside"] = unsound(
        "header", "more", {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
    )
    for protocol in range(6):
        files[f"pickle {protocol}"] = pickle.dumps({"model": harm}, protocol)
    paths = {}
    for i, (what, content) in enumerate(files.items()):
        paths[what] = tmp_path / f"{i}.safetensors"
        paths[what].write_bytes(content)
    for legacy in (True, False):
        path = tmp_path / f"torch{legacy}.safetensors"
        torch.save({"w": harm}, path, _use_new_zipfile_serialization=not legacy)
        paths[f"torch.save, legacy {legacy}"] = path
    paths |= {
        "missing": tmp_path / "missing.safetensors",
        "folder": tmp_path,
        "in a file": tmp_path / "0.safetensors" / "x",
        "name too long": tmp_path / ("x" * 5000),
        "NUL in the name": tmp_path / "a\0b",
        "pipe": tmp_path / "pipe",
        "link to itself": tmp_path / "loop",
        "dead link": tmp_path / "dead",
        "device": Path("/dev/zero"),
        "sparse": tmp_path / "sparse",
        "sparse with a header": tmp_path / "sparse2",
    }
    os.mkfifo(paths["pipe"])
    paths["link to itself"].symlink_to(paths["link to itself"])
    paths["dead link"].symlink_to(tmp_path / "nothing")
    for what, start in (("sparse", b""), ("sparse with a header", good)):
        with paths[what].open("wb") as file:
            file.write(start)
            file.truncate(1 << 40)
    return paths
