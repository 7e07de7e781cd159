"""PyTorch and safetensors files as an enemy would write them."""

import io
import json
import pickle
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path

NAMES = (
    *("os system", "posix system", "nt system", "subprocess Popen", "builtins eval"),
    *("builtins exec", "__builtin__ eval", "builtins getattr", "builtins bytearray"),
    *("numpy.core.multiarray _reconstruct", "numpy.core.multiarray scalar", "numpy dtype"),
    *("torch.jit load", "torch load", "torch Tensor", "torch.hub load", "torch FloatTensor"),
    *("torch._utils _rebuild_qtensor", "torch._utils _rebuild_sparse_tensor"),
    *("torch._utils _rebuild_meta_tensor_no_storage", "torch.storage _load_from_bytes"),
    *("torch.nn.modules.linear Linear", "collections defaultdict", "argparse Namespace"),
    *("torch.FloatStorage x", "evil FloatStorage", "torch QInt8Storage", "torch empty"),
)
MAGIC = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."
PROTOCOL = b"\x80\x02M\xe9\x03."
SYSTEM = b"\x80\x02}X\x0d\0\0\0little_endian\x88s."


def text(value: str) -> bytes:
    raw = value.encode()
    return b"X" + struct.pack("<I", len(raw)) + raw


def whole(value: int) -> bytes:
    raw = value.to_bytes(9, "little", signed=True)
    return b"\x8a\x09" + raw


def storage(
    key: str = "0", length: int = 4, kind: str = "torch FloatStorage", more: bytes = b""
) -> bytes:
    name = b"c" + "\n".join(kind.split(" ", 1)).encode() + b"\n"
    return b"(" + text("storage") + name + text(key) + text("cpu") + whole(length) + more + b"tQ"


def tensor(
    sizes: tuple[int, ...] = (4,),
    strides: tuple[int, ...] = (1,),
    offset: int = 0,
    row: bytes | None = None,
) -> bytes:
    """The steps that make a tensor, of four float32 if not told otherwise."""
    tuples = [b"(" + b"".join(map(whole, numbers)) + b"t" for numbers in (sizes, strides)]
    arguments = (storage() if row is None else row) + whole(offset) + b"".join(tuples)
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + arguments + b"\x89NtR"


def state(*tensors: bytes) -> bytes:
    """A pickle of a dictionary of tensors a, b, …"""
    names = "abcdefghij"
    return (
        b"\x80\x02}(" + b"".join(text(n) + t for n, t in zip(names, tensors, strict=False)) + b"u."
    )


def zipped(
    pickled: bytes,
    members: Mapping[str, bytes | None] | None = None,
    method: int = zipfile.ZIP_STORED,
) -> bytes:
    """The zip file of torch.save; `members` are put beside, or if None taken away."""
    parts: dict[str, bytes | None] = {
        "archive/data.pkl": pickled,
        "archive/byteorder": b"little",
        "archive/data/0": struct.pack("<4f", 0, 1, 2, 3),
        "archive/version": b"3\n",
    }
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w", method) as file:
        for name, content in (parts | dict(members or {})).items():
            if content is not None:
                file.writestr(name, content)
    return memory.getvalue()


def legacy(
    pickled: bytes, keys: tuple[str, ...] = ("0",), length: int = 4, tail: bytes = b""
) -> bytes:
    """The old form of the same."""
    listed = b"\x80\x02](" + b"".join(map(text, keys)) + b"e."
    values = b"".join(struct.pack("<q", length) + struct.pack("<4f", 0, 1, 2, 3) for _ in keys)
    return MAGIC + PROTOCOL + SYSTEM + pickled + listed + values + tail


def _programs() -> dict[str, bytes]:
    """Pickles that neither form may hold."""
    programs = {}
    for name in NAMES:
        call = b"c" + "\n".join(name.split(" ", 1)).encode() + b"\n(" + text("x") + b"tR"
        programs[f"asks for {name}"] = b"\x80\x02}" + text("a") + call + b"s."
        new = call[:-1] + b"\x81"
        programs[f"makes a {name}"] = b"\x80\x02}" + text("a") + new + b"s."
    module, _, short = NAMES[0].partition(" ")
    programs |= {
        "asks on the stack": b"\x80\x04}" + text("a") + text(module) + text(short) + b"\x93)Rs.",
        "asks by protocol 0": b"cos\nsystem\n(S'true'\ntR.",
        "asks by INST": b"\x80\x02(S'true'\nios\nsystem\n.",
        "asks by OBJ": b"\x80\x02(cos\nsystem\n" + text("true") + b"o.",
        "asks for an extension": b"\x80\x02\x82\x01.",
        "asks for a number": b"\x80\x04K\x01K\x02\x93.",
        "asks for an endless name": b"\x80\x02c" + b"a" * 100_000 + b"\nb\n.",
        "asks for an unended name": b"\x80\x02cos",
        "nothing": b"",
        "a stop": b"\x80\x02.",
        "no stop": b"\x80\x02}",
        "takes too much": b"\x80\x020000.",
        "tuple of nothing": b"\x80\x02\x87.",
        "mark of nothing": b"\x80\x02t.",
        "sets in nothing": b"\x80\x02K\1K\2s.",
        "sets in a number": b"\x80\x02K\1K\1K\2s.",
        "sets an odd number": b"\x80\x02}(K\1u.",
        "appends to a number": b"\x80\x02K\1K\2a.",
        "builds a number": b"\x80\x02K\1}b.",
        "calls a number": b"\x80\x02K\1)R.",
        "calls with a number": b"\x80\x02ccollections\nOrderedDict\nK\1R.",
        "a dictionary of a number": b"\x80\x02ccollections\nOrderedDict\nK\1\x85R.",
        "a storage type called": b"\x80\x02ctorch\nFloatStorage\n)R.",
        "remembers nothing": b"\x80\x02h\x05.",
        "remembers far": b"\x80\x02j\xff\xff\xff\xff.",
        "a key that is a tuple": b"\x80\x02})K\1s.",
        "a key that is a fraction": b"\x80\x02}G" + bytes(8) + b"K\1s.",
        "a key that is long": b"\x80\x02}" + whole(1 << 61) + b"K\1s.",
        "a text of 4 GB": b"\x80\x02X\xff\xff\xff\xffabc.",
        "bytes of 2^63": b"\x80\x04\x8e" + b"\xff" * 8 + b".",
        "a text of no letters": b"\x80\x02X\x02\0\0\0\xff\xfe.",
        "a long number of 2 GB": b"\x80\x02\x8b\xff\xff\xff\x7f.",
        "a list": b"\x80\x02](K\1K\2e.",
        "a number": b"\x80\x02K\1.",
        "a storage": b"\x80\x02" + storage() + b".",
        "many lists": b"\x80\x02" + b"]" * 400_001 + b".",
        "many dictionaries": b"\x80\x02(" + b"}" * 390_000 + b"tK\1.",
        "many marks": b"\x80\x02" + b"(" * 390_000 + b".",
        "many memories": b"\x80\x04N" + b"\x94" * 390_000 + b".",
        "a list of lists of lists": b"\x80\x02" + b"]" * 190_000 + b"a" * 189_999 + b".",
        "many laughs": b"\x80\x04]\x94"
        + b"("
        + b"h\0" * 9
        + b"e"
        + b"\x85\x94h\1\x86\x94" * 9000
        + b".",
        "a program of 5 MB": b"\x80\x02" + text("x" * (5 << 20)) + b".",
        "no tensors": b"\x80\x02}" + text("a") + b"K\1s.",
    }
    rows = {
        "a persistent number": b"\x80\x02K\1Q.",
        "a persistent text": b"\x80\x02" + text("storage") + b"Q.",
        "a persistent module": b"\x80\x02(" + text("module") + b"NNNtQ.",
        "too few words": b"\x80\x02(" + text("storage") + b"tQ.",
    }
    programs |= rows
    tensors = {
        "longer than its storage": tensor((5,)),
        "beyond its storage": tensor(offset=1),
        "far beyond its storage": tensor(offset=1 << 60),
        "before its storage": tensor(offset=-1),
        "negative size": tensor((-4,)),
        "negative step": tensor(strides=(-1,), offset=3),
        "huge": tensor((1 << 40,)),
        "huge steps": tensor((2, 2), (1 << 62, 1)),
        "expanded from one value": tensor((1 << 33,), (0,)),
        "expanded in two dimensions": tensor((1 << 20, 1 << 20), (0, 0)),
        "somewhat expanded": tensor((1 << 20,), (0,)),
        "nine dimensions": tensor((1,) * 9, (1,) * 9),
        "sizes without steps": tensor((2, 2), (1,)),
        "sizes of truth": tensor().replace(whole(4) + b"t(", b"\x88t("),
        "size of a text": tensor().replace(b"(" + whole(4) + b"t(", b"(" + text("4") + b"t("),
        "of a number": tensor(row=b"K\1"),
        "of nothing": b"ctorch._utils\n_rebuild_tensor_v2\n)R",
        "a parameter of nothing": b"ctorch._utils\n_rebuild_parameter\n)R",
        "storage of 2^60 values": tensor(row=storage(length=1 << 60)),
        "storage of fewer values": tensor((3,), row=storage(length=3)),
        "storage of more values": tensor(row=storage(length=5)),
        "storage of negative length": tensor(row=storage(length=-4)),
        "storage of another type": tensor(row=storage(kind="torch DoubleStorage")),
        "storage that is not there": tensor(row=storage("7")),
        "storage of another folder": tensor(row=storage("../../../etc/passwd")),
        "storage without a type": tensor(row=storage(kind="collections OrderedDict")),
        "view before its storage": tensor(
            row=storage(more=text("v") + whole(-1) + whole(4) + b"\x87")
        ),
        "view beyond its storage": tensor(
            row=storage(more=text("v") + whole(1) + whole(4) + b"\x87")
        ),
        "view of words": tensor(row=storage(more=text("v") + text("1") + whole(4) + b"\x87")),
    }
    programs |= {what: state(steps) for what, steps in tensors.items()}
    programs["one storage in two ways"] = state(tensor(), tensor((2,), row=storage(length=2)))
    programs["five over one storage"] = state(*[tensor()] * 5 + [tensor((1 << 10,), (0,))] * 4)
    programs["a name of control characters"] = state(tensor()).replace(text("a"), text("\n"))
    programs["no name"] = state(tensor()).replace(text("a"), text(""))
    programs["a number for a name"] = state(tensor()).replace(text("a"), b"K\1")
    return programs


def hostile_pickles(folder: Path) -> dict[str, Path]:
    """Files of PyTorch in both forms, by what is wrong with them."""
    files = {}
    for what, program in _programs().items():
        files[f"pth {what}"] = zipped(program)
        if len(program) < 100_000:  # they would only take as long once more
            files[f"old pth {what}"] = legacy(program)
    good = state(tensor())
    new, old = zipped(good), legacy(good)
    files |= {f"pth cut at {n}": new[:n] for n in range(5, len(new), len(new) // 15)}
    files |= {f"old pth cut at {n}": old[:n] for n in range(5, len(old), len(old) // 25)}
    files |= {
        "pth big-endian": zipped(good, {"archive/byteorder": b"big"}),
        "pth without its pickle": zipped(good, {"archive/data.pkl": None}),
        "pth without its values": zipped(good, {"archive/data/0": None}),
        "pth with two pickles": zipped(good, {"other/data.pkl": good}),
        "pth with code": zipped(good, {"archive/code/__torch__.py": b"import os"}),
        "pth fewer values": zipped(good, {"archive/data/0": bytes(12)}),
        "pth more values": zipped(good, {"archive/data/0": bytes(20)}),
        "pth compressed": zipped(good, method=zipfile.ZIP_DEFLATED),
        "pth bomb": zipped(good, {"archive/data.pkl": bytes(90 << 20)}, zipfile.ZIP_DEFLATED),
        "pth out of its folder": zipped(good, {"archive/../data/0": b""}),
        "old pth of no protocol": MAGIC + b"\x80\x02M\xea\x03." + SYSTEM + good,
        "old pth big-endian": old.replace(b"little_endian\x88", b"little_endian\x89"),
        "old pth of no machine": MAGIC + PROTOCOL + good,
        "old pth negative length": legacy(good, length=-4),
        "old pth 2^62 values": legacy(good, length=1 << 62),
        "old pth fewer values": legacy(good, length=3),
        "old pth more values": legacy(good, length=5),
        "old pth other keys": legacy(good, ("7",)),
        "old pth keys twice": legacy(good, ("0", "0")),
        "old pth no keys": legacy(good, ()),
        "old pth keys are numbers": legacy(good).replace(text("0") + b"e.", b"K\0e."),
        "old pth bytes behind": legacy(good, tail=b"x"),
        "old pth magic alone": MAGIC,
        "tar of torch": b"pickle".ljust(257, b"\0") + b"ustar\0" + bytes(900),
    }
    for protocol in range(6):
        files[f"a plain pickle {protocol}"] = pickle.dumps({"a": [1.0] * 9}, protocol)
    paths = {}
    for i, (what, content) in enumerate(files.items()):
        paths[what] = folder / f"{i}.pth"
        paths[what].write_bytes(content)
    return paths


def hostile_safetensors(folder: Path) -> dict[str, Path]:
    """Safetensors files; those of our own form are in tests/weights/conftest.py."""
    one = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}

    def made(header: object, values: bytes = bytes(8)) -> bytes:
        raw = json.dumps(header).encode()
        return struct.pack("<Q", len(raw)) + raw + values

    files = {
        f"{key} {value}": made({"a": one | {key: value}})
        for key, values in {
            "dtype": ("F8_E4M3", "F128", "C64", None, 4),
            "shape": ([3], [-2], [1 << 40, 1 << 40], "2", [2.0], [1] * 9 + [2]),
            "data_offsets": ([0, 9], [0, 1 << 50], [-8, 0], [8, 0], [0], None),
        }.items()
        for value in values
    }
    files |= {
        "values too short": made({"a": one}, bytes(7)),
        "values too long": made({"a": one}, bytes(9)),
        "overlap": made({"a": one, "b": one}),
        "no name": made({"": one}),
        "a name of control characters": made({"a\n": one}),
        "an endless name": made({"a" * 1001: one}),
        "no object": made([one]),
        "metadata is a list": made({"__metadata__": [], "a": one}),
        "cut": made({"a": one})[:-9],
        "long header": struct.pack("<Q", 1 << 40) + b"{" + bytes(20),
        "many": made(
            {str(i): {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]} for i in range(20_001)},
            b"",
        ),
    }
    paths = {}
    for i, (what, content) in enumerate(files.items()):
        paths[f"safetensors {what}"] = path = folder / f"{i}.safetensors"
        path.write_bytes(content)
    return paths
