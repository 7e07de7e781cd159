"""HDF5 and Keras files as an enemy would write them: by h5py, then with single numbers changed."""

import json
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np

FAR = (1 << 64) - 1
NUMBERS = (FAR, 1 << 63, 1 << 40)


def good_h5(path: Path, **options: Any) -> bytes:
    """Two layers as Keras 2 stored them."""
    with h5py.File(path, "w", **options) as file:
        file.attrs["layer_names"] = [b"conv", b"dense"]
        for layer, count in (("conv", 100), ("dense", 7)):
            group = file.create_group(layer)
            group.attrs["weight_names"] = [f"{layer}/kernel:0".encode()]
            group[f"{layer}/kernel:0"] = np.arange(count, dtype="f4")
    return path.read_bytes()


def good_weights_h5(path: Path) -> bytes:
    """Two layers as Keras 3 stores them."""
    with h5py.File(path, "w") as file:
        file["layers/conv2d/vars/0"] = np.arange(100, dtype="f4").reshape(4, 25)
        file["layers/dense/vars/0"] = np.arange(7, dtype="f4")
    return path.read_bytes()


def good_keras(
    path: Path,
    method: int = zipfile.ZIP_STORED,
    beside: tuple[str, ...] = (),
    **members: bytes | str,
) -> bytes:
    """The zip file of Keras 3; `members` replace its parts: config, metadata, weights."""
    weights = path.with_suffix(".h5")
    parts: dict[str, bytes | str] = {
        "metadata": json.dumps({"keras_version": "3.15.0"}),
        "config": json.dumps({"class_name": "Functional", "config": {}}),
        "weights": good_weights_h5(weights),
    }
    weights.unlink()
    names = {"metadata": "metadata.json", "config": "config.json", "weights": "model.weights.h5"}
    with zipfile.ZipFile(path, "w", method) as file:
        for part, content in (parts | members).items():
            file.writestr(names[part], content)
        for name in beside:
            file.writestr(name, b"x")
    return path.read_bytes()


def put(content: bytes, anchor: bytes, offset: int, value: int, width: int, nth: int = 0) -> bytes:
    """The content with another number at so many bytes behind the nth place of `anchor`."""
    place = -1
    for _ in range(nth + 1):
        place = content.index(anchor, place + 1)
    changed = bytearray(content)
    changed[place + offset : place + offset + width] = (value % (1 << 8 * width)).to_bytes(
        width, "little"
    )
    return bytes(changed)


def _lies(good: bytes) -> dict[str, bytes]:
    """Numbers of the format that cannot be (II, III.A.1, III.B, III.D, IV.A.1.a)."""
    files = {}
    for nth in range(2):
        tree = good.index(b"TREE", good.index(b"TREE") + 1 if nth else 0)
        for value in NUMBERS:
            files[f"tree {nth} child {value}"] = put(good, b"TREE", 32, value, 8, nth)
            files[f"heap {nth} address {value}"] = put(good, b"HEAP", 24, value, 8, nth)
            files[f"heap {nth} size {value}"] = put(good, b"HEAP", 8, value, 8, nth)
            files[f"member {nth} address {value}"] = put(good, b"SNOD", 16, value, 8, nth)
            files[f"name {nth} offset {value}"] = put(good, b"SNOD", 8, value, 8, nth)
        files[f"tree {nth} of itself"] = put(
            put(good, b"TREE", 32, tree, 8, nth), b"TREE", 5, 1, 1, nth
        )
        files[f"tree {nth} level"] = put(good, b"TREE", 5, 3, 1, nth)
        files[f"tree {nth} kind"] = put(good, b"TREE", 4, 1, 1, nth)
        files[f"tree {nth} entries"] = put(good, b"TREE", 6, 0xFFFF, 2, nth)
        files[f"symbols {nth}"] = put(good, b"SNOD", 6, 0xFFFF, 2, nth)
        files[f"symbols {nth} version"] = put(good, b"SNOD", 4, 9, 1, nth)
        files[f"heap {nth} version"] = put(good, b"HEAP", 4, 9, 1, nth)
        files[f"link {nth} soft"] = put(good, b"SNOD", 24, 2, 4, nth)
    for offset, width, values in (
        (8, 1, (1, 4, 255)),
        (13, 2, (0, 0x0404, 0xFFFF)),
        (24, 8, (8, FAR)),
        (40, 8, NUMBERS),
        (48, 8, (0, 96, 1 << 40)),
        (64, 8, (0, 7, *NUMBERS)),
    ):
        for value in values:
            files[f"superblock {offset} {value}"] = put(good, b"\x89HDF", offset, value, width)
    root = int.from_bytes(good[64:72], "little")
    for offset, width, values in ((0, 1, (0, 2, 9)), (8, 4, (0, 8, (1 << 32) - 1, 1 << 31))):
        for value in values:
            content = bytearray(good)
            content[root + offset : root + offset + width] = value.to_bytes(width, "little")
            files[f"root header {offset} {value}"] = bytes(content)
    for what, kind, address in (("of itself", 16, root + 16), ("far", 16, 1 << 40)):
        content = bytearray(good)
        content[root + 16 : root + 40] = struct.pack("<HHB3sQQ", kind, 16, 0, b"", address, 24)
        files[f"root header {what}"] = bytes(content)
    # The layout of the first data set: version 3, class 1 (contiguous), address, size.
    values_at = good.index(np.arange(100, dtype="<f4").tobytes())
    layout = struct.pack("<BBQQ", 3, 1, values_at, 400)
    for what, lie in {
        "far": struct.pack("<BBQQ", 3, 1, 1 << 40, 400),
        "last": struct.pack("<BBQQ", 3, 1, len(good) - 399, 400),
        "never written": struct.pack("<BBQQ", 3, 1, FAR, 400),
        "longer": struct.pack("<BBQQ", 3, 1, values_at, 404),
        "wraps": struct.pack("<BBQQ", 3, 1, FAR - 100, 400),
        "virtual": struct.pack("<BBQQ", 3, 3, values_at, 400),
        "in pieces": struct.pack("<BBQQ", 3, 2, values_at, 400),
        "class 9": struct.pack("<BBQQ", 3, 9, values_at, 400),
        "version 9": struct.pack("<BBQQ", 9, 1, values_at, 400),
        "in the header": struct.pack("<BBHHI", 3, 0, 400, 0, 0) + bytes(8),
    }.items():
        files[f"layout {what}"] = good.replace(layout, lie)
    # The shape of the first data set: version 1, one dimension, its size and largest size.
    shape = struct.pack("<BBBB4sQQ", 1, 1, 1, 0, bytes(4), 100, 100)
    for value in (0, 99, 101, 1 << 20, 1 << 33, 1 << 62, FAR):
        files[f"shape {value}"] = good.replace(shape, shape[:8] + struct.pack("<QQ", value, value))
    for dimensions in (2, 3, 9, 255):
        files[f"dimensions {dimensions}"] = good.replace(shape, bytes([1, dimensions]) + shape[2:])
    # Its type: IEEE 754 of four bytes, little-endian.
    kind = bytes.fromhex("11201f0004000000") + bytes.fromhex("00002000170800177f000000")
    for place, value in ((0, 0x15), (0, 0x16), (0, 0x17), (0, 0x1A), (1, 0x60), (4, 8), (4, 3)):
        files[f"type {place} {value}"] = good.replace(
            kind, kind[:place] + bytes([value]) + kind[place + 1 :]
        )
    files["type exponent"] = good.replace(kind, kind[:12] + b"\x10" + kind[13:])
    return {f"h5 {what}": content for what, content in files.items() if content != good}


def _made(make: Callable[[h5py.File], object], path: Path, **options: Any) -> Path:
    with h5py.File(path, "w", **options) as file:
        make(file)
    return path


def _virtual(file: h5py.File) -> None:
    layout = h5py.VirtualLayout((4,), "f4")
    layout[:] = h5py.VirtualSource("other.h5", "a", (4,))
    file.create_virtual_dataset("layers/a/vars/0", layout)


def _deep(file: h5py.File) -> None:
    file["/".join(["layers"] * 40) + "/vars/0"] = np.ones(1)


def _circle(file: h5py.File) -> None:
    file["layers/a/vars/0"] = np.ones(1)
    file["layers/a/vars/again"] = file["/"]


def _attribute(name: str, value: Any) -> Callable[[h5py.File], object]:
    def make(file: h5py.File) -> None:
        file.attrs["layer_names"] = [b"a"]
        file.create_group("a").attrs["weight_names"] = [b"a/kernel:0"]
        file["a/a/kernel:0"] = np.ones(1)
        owner, _, short = name.rpartition(":")
        file[owner or "/"].attrs[short] = value

    return make


MADE: dict[str, Callable[[h5py.File], object]] = {
    "soft link": lambda f: f.update({"layers/a/vars/0": h5py.SoftLink("/etc/passwd")}),
    "soft link inside": lambda f: f.update({"x": 1.0, "layers/vars/0": h5py.SoftLink("/x")}),
    "external link": lambda f: f.update({"layers/a/vars/0": h5py.ExternalLink("o.h5", "/a")}),
    "circle": _circle,
    "one data set twice": lambda f: f.update({"vars/0": 1.0}) or f.update({"vars/1": f["vars/0"]}),
    "external storage": lambda f: f.create_dataset(
        "layers/a/vars/0", (4,), "f4", external=[("/etc/passwd", 0, 16)]
    ),
    "virtual": _virtual,
    "deep": _deep,
    "chunks": lambda f: f.create_dataset("layers/vars/0", data=np.ones(100), chunks=(10,)),
    "checksums": lambda f: f.create_dataset("vars/0", data=np.ones(9), fletcher32=True),
    "bomb": lambda f: f.create_dataset(
        "layers/a/vars/0", data=np.zeros(1 << 22, "f4"), compression="gzip", compression_opts=9
    ),
    "huge and empty": lambda f: f.create_dataset("layers/vars/0", (1 << 36,), "f4"),
    "huge in many dimensions": lambda f: f.create_dataset("vars/0", (1 << 20,) * 3, "i1"),
    "ten dimensions": lambda f: f.create_dataset("layers/vars/0", (1,) * 10, "i1"),
    "no values at all": lambda f: f.create_dataset("layers/vars/0", data=h5py.Empty("f4")),
    "text": lambda f: f.create_dataset("layers/vars/0", data="words"),
    "text elsewhere": lambda f: f.create_dataset("vars/0", (3,), h5py.string_dtype()),
    "rows of any length": lambda f: f.create_dataset("vars/0", (3,), h5py.vlen_dtype("f4")),
    "records": lambda f: f.create_dataset("layers/vars/0", (3,), [("a", "f4"), ("b", "i4")]),
    "references": lambda f: f.create_dataset("layers/vars/0", (3,), h5py.ref_dtype),
    "arrays of arrays": lambda f: f.create_dataset("vars/0", (3,), np.dtype(("f4", (2,)))),
    "opaque": lambda f: f.create_dataset("layers/vars/0", data=np.zeros(3, "V2")),
    "a type of its own": lambda f: (
        f.update({"t": np.dtype("f4")}) or f.create_dataset("vars/0", (3,), f["t"])
    ),
    "not of Keras": lambda f: f.update({"photos": np.zeros((2, 3, 3))}),
    "empty": lambda f: None,
    "line break in a name": lambda f: f.update({"layers/a\nb/vars/0": 1.0}),
    "endless name": lambda f: f.update({"layers/" + "a" * 2000 + "/vars/0": 1.0}),
    "layer missing": _attribute("layer_names", [b"a", b"b"]),
    "layer twice": _attribute("layer_names", [b"a", b"a"]),
    "layer of nowhere": _attribute("layer_names", [b"../../etc"]),
    "layers are numbers": _attribute("layer_names", [1.0, 2.0]),
    "layers are records": _attribute("layer_names", np.zeros(2, [("a", "f4")])),
    "too many layers": _attribute("layer_names", np.zeros(25_000, "S1")),
    "layers elsewhere": _attribute("layer_names", h5py.Empty("S1")),
    "weight missing": _attribute("a:weight_names", [b"a/kernel:0", b"a/bias:0"]),
    "weight twice": _attribute("a:weight_names", [b"a/kernel:0", b"a/kernel:0"]),
    "weight of nowhere": _attribute("a:weight_names", [b"../a/a/kernel:0"]),
    "weights of bytes": _attribute("a:weight_names", [b"\xff\xfe"]),
    "config is no JSON": _attribute("model_config", "os.system('true')"),
    "config is a list": _attribute("model_config", "[]"),
    "config is NaN": _attribute("model_config", '{"a": NaN}'),
    "config is deep": _attribute("model_config", '{"a":' + "[" * 50_000),
    "config is wide": _attribute("model_config", '{"a":[' + "[]," * 300_000 + "[]]}"),
    "config is long": _attribute("model_config", '{"a":"' + "x" * (5 << 20) + '"}'),
    "config is two": _attribute("model_config", ["{}", "{}"]),
}
DENSE: dict[str, Callable[[h5py.File], object]] = {
    "dense group": lambda f: f.update({f"layers/vars/{i}": float(i) for i in range(20)}),
    "dense attributes": lambda f: (
        f.attrs.update({str(i): "x" for i in range(20)}) or f.update({"vars/0": 1.0})
    ),
}


def hostile_hdf5(folder: Path) -> dict[str, Path]:
    """By what is wrong with them."""
    good = good_h5(folder / "good.h5")
    contents = _lies(good)
    for length in range(0, len(good), len(good) // 40):
        contents[f"h5 cut at {length}"] = good[:length]
    contents["h5 behind a user's block"] = bytes(512) + good
    contents["h5 a signature alone"] = good[:8]
    contents["h5 all ones"] = good[:8] + b"\xff" * 4000
    paths = {}
    for i, (what, content) in enumerate(contents.items()):
        paths[what] = folder / f"a{i}.h5"
        paths[what].write_bytes(content)
    for i, (what, make) in enumerate(MADE.items()):
        paths[f"h5 {what}"] = _made(make, folder / f"b{i}.h5")
    for i, (what, make) in enumerate(DENSE.items()):
        paths[f"h5 {what}"] = _made(make, folder / f"c{i}.h5", libver="latest")
    _made(lambda f: f.update({"vars/0": 1.0}), folder / "d.h5", libver="latest")
    latest = (folder / "d.h5").read_bytes()
    for length in range(60, len(latest), len(latest) // 10):
        path = paths[f"latest h5 cut at {length}"] = folder / f"d{length}.h5"
        path.write_bytes(latest[:length])
    return paths


def hostile_keras(folder: Path) -> dict[str, Path]:
    """Zip files of Keras, by what is wrong with them."""
    path = folder / "good.keras"
    good = good_keras(path)
    end = b"PK\5\6"
    files = {f"keras cut at {n}": good[:n] for n in range(4, len(good), len(good) // 30)}
    files |= {
        "keras bomb": good_keras(path, zipfile.ZIP_DEFLATED, weights=bytes(100 << 20)),
        "keras bomb of HDF5": good_keras(
            path, zipfile.ZIP_DEFLATED, weights=good_weights_h5(folder / "w.h5") + bytes(60 << 20)
        ),
        "keras long config": good_keras(path, zipfile.ZIP_DEFLATED, config=b" " * (6 << 20)),
        "keras huge config": good_keras(path, zipfile.ZIP_DEFLATED, config=b" " * (90 << 20)),
        "keras deep config": good_keras(path, config='{"a":' + "[" * 100_000),
        "keras wide config": good_keras(path, config='{"a":[' + "[]," * 600_000 + "[]]}"),
        "keras config is no text": good_keras(path, config=b"\xff\xfe{}"),
        "keras config is a list": good_keras(path, config="[]"),
        "keras metadata is NaN": good_keras(path, metadata='{"a": NaN}'),
        "keras weights are text": good_keras(path, weights="weights"),
        "keras weights are nothing": good_keras(path, weights=b""),
        "keras in keras": good_keras(path, weights=good),
        "keras LZMA": good_keras(path, zipfile.ZIP_LZMA),
        "keras BZIP2": good_keras(path, zipfile.ZIP_BZIP2),
        "keras bytes between": good.replace(end, b"junk" + end),
        "keras number of members": put(good, end, 10, 2, 2),
        "keras too many members": put(good, end, 10, 0xFFFF, 2),
        "keras directory elsewhere": put(good, end, 16, 0, 4),
        "keras directory too long": put(good, end, 12, 0xFFFFFFF0, 4),
        "keras second disk": put(good, end, 4, 1, 2),
        "keras of 64 bits without them": put(good, end, 16, 0xFFFFFFFF, 4),
        "keras encrypted": put(good, b"PK\1\2", 8, 1, 2, 2),
        "keras method 99": put(good, b"PK\1\2", 10, 99, 2, 2),
        "keras deflated, it says": put(good, b"PK\1\2", 10, 8, 2, 2),
        "keras weights elsewhere": put(good, b"PK\1\2", 42, 7, 4, 2),
        "keras weights beyond": put(good, b"PK\1\2", 42, 1 << 31, 4, 2),
        "keras weights larger": put(
            put(good, b"PK\1\2", 20, 1 << 30, 4, 2), b"PK\1\2", 24, 1 << 30, 4, 2
        ),
        "keras weights larger unpacked": put(good, b"PK\1\2", 24, 1 << 30, 4, 2),
        "keras config of another checksum": put(good, b"PK\1\2", 16, 1, 4, 1),
        "keras config huge, it says": put(good, b"PK\1\2", 24, 1 << 31, 4, 1),
        "keras local name": put(good, b"PK\3\4", 30, ord("x"), 1, 2),
    }
    for name in ("../x", "/x", "a/../../x", "a\\x", "C:x", "a//x", "./x", "a\nb", "x" * 2000):
        files[f"keras member {name!r:.20}"] = good_keras(path, beside=(name,))
    twice = good_keras(path, beside=("model.weightz.h5",))
    files["keras weights twice"] = twice.replace(b"model.weightz.h5", b"model.weights.h5")
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("config.json", "{}")
        file.writestr("model.weights.npz", b"")
    files["keras without weights"] = path.read_bytes()
    paths = {}
    for i, (what, content) in enumerate(files.items()):
        paths[what] = folder / f"{i}.keras"
        paths[what].write_bytes(content)
    return paths
