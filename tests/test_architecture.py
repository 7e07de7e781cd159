"""Holds the code to docs/architecture.md: who may import whom, and what is never written.

Every rule is a function from a file to its complaints, and is shown to bite on a small bad source.
"""

import ast
import re
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parent.parent
MAX_LINES = 320

# The rooms, and what of ours each may import; `xception.errors` and the version are open to all.
MAY_IMPORT = {
    "layers": (),
    "data": (),
    "cost": (),
    "separation": ("layers", "cost"),
    "models": ("layers",),
    "weights": ("models", "data.preprocess"),
    "evaluation": ("data", "layers", "models"),
    "training": ("data", "models", "weights", "evaluation"),
    "deploy": ("layers", "models", "weights", "data", "evaluation"),
    "studies": ("data", "models", "weights.atomic", "training", "evaluation", "cost"),
    "cli": (
        *("data", "models", "weights", "evaluation", "training", "cost", "deploy", "separation"),
        "studies",
    ),
}
OPEN_TO_ALL = ("errors", "_version")
# The modules above the rooms.
DOORS = {
    "__init__": ("models", "weights", "deploy"),  # public names, loaded when asked for
    "__main__": ("cli",),
    "errors": (),
    "_version": (),
}

# Imports inside functions, (file, module) -> reason: only heavy extras that most never ask for.
INNER_IMPORTS: dict[tuple[str, str], str] = {
    ("xception/training/lock.py", "fcntl"): "not on Windows",
    ("xception/weights/foreign_files.py", "h5py"): "an extra: files that Keras loads",
    ("xception/weights/hub.py", "huggingface_hub"): "half a second, and only for published weights",
    ("xception/training/board.py", "torch.utils.tensorboard"): "an extra: TensorBoard",
    ("xception/models/timm_models.py", "timm"): "an extra: the networks called timm:NAME",
    ("xception/cli/serve.py", "xception.deploy.server"): "an extra: FastAPI and uvicorn",
    ("xception/deploy/extras.py", "onnx"): "an extra: writing ONNX files",
    ("xception/deploy/extras.py", "onnxruntime"): "an extra: computing ONNX files",
    ("xception/deploy/extras.py", "openvino"): "an extra: OpenVINO's files",
    ("xception/deploy/extras.py", "nncf"): "an extra: eight bits in OpenVINO's files",
    ("xception/deploy/extras.py", "pyarrow"): "an extra: tables in Parquet",
    ("xception/deploy/extras.py", "ray"): "an extra: prediction on several machines",
}

# torchvision does not import beside a CPU build of torch; the others run code from files they read.
FORBIDDEN_MODULES = ("torchvision", "timm", "pickle", "cloudpickle", "dill", "joblib", "shelve")
MAY_IMPORT_FORBIDDEN = {("xception/models/timm_models.py", "timm")}  # when a person asks for it


class File(NamedTuple):
    """One source file of the package."""

    path: str  # from the root, with slashes
    source: str

    @property
    def tree(self) -> ast.Module:
        return parsed(self)

    @property
    def room(self) -> str:
        """The folder below the package, or the name of a module above the rooms."""
        return self.path.split("/")[1].removesuffix(".py")


@cache
def parsed(file: File) -> ast.Module:
    return ast.parse(file.source, file.path)


@cache
def nodes(file: File) -> list[ast.AST]:
    """All of the tree, which every rule asks for."""
    return list(ast.walk(parsed(file)))


Rule = Callable[[File], list[str]]


@cache
def package() -> list[File]:
    paths = sorted((ROOT / "xception").rglob("*.py"))
    return [File(path.relative_to(ROOT).as_posix(), path.read_text("utf-8")) for path in paths]


def imports(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and full name of everything imported; `from a import b` is `a.b`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            origin = "." * node.level + (node.module or "")
            yield from ((node.lineno, f"{origin}.{alias.name}") for alias in node.names)


@cache
def imports_of(file: File) -> list[tuple[int, str]]:
    return list(imports(file.tree))


def within(name: str, module: str) -> bool:
    return name == module or name.startswith(module + ".")


def keeps_to_the_table(file: File) -> list[str]:
    allowed = {**MAY_IMPORT, **DOORS}.get(file.room)
    if allowed is None:
        return [f"the room {file.room} is not in the table"]
    complaints = []
    for line, name in imports_of(file):
        if name.startswith("."):
            complaints.append(f"{line}: relative import {name}")
        elif within(name, "xception"):
            inner = name.removeprefix("xception.")
            if not any(within(inner, room) for room in (*allowed, *OPEN_TO_ALL, file.room)):
                complaints.append(f"{line}: {file.room} may not import {name}")
    return complaints


def imports_at_the_top(file: File) -> list[str]:
    functions = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
    found = {
        hit
        for node in nodes(file)
        if isinstance(node, functions)
        for hit in imports(node)
        if not any(file.path == path and within(hit[1], name) for path, name in INNER_IMPORTS)
    }
    return [f"{line}: {name} is imported inside a function" for line, name in sorted(found)]


def imports_nothing_forbidden(file: File) -> list[str]:
    return [
        f"{line}: {name} is never imported"
        for line, name in imports_of(file)
        if any(
            within(name, module) and (file.path, module) not in MAY_IMPORT_FORBIDDEN
            for module in FORBIDDEN_MODULES
        )
    ]


def reads_no_pickles(file: File) -> list[str]:
    """`torch.load` with a literal `weights_only=True`; never `allow_pickle` in numpy."""
    complaints = []
    for node in nodes(file):
        if not isinstance(node, ast.Call):
            continue
        true = {k.arg for k in node.keywords if ast.unparse(k.value) == "True"}
        if ast.unparse(node.func) == "torch.load" and "weights_only" not in true:
            complaints.append(f"{node.lineno}: torch.load without weights_only=True")
        if any(k.arg == "allow_pickle" and ast.unparse(k.value) != "False" for k in node.keywords):
            complaints.append(f"{node.lineno}: allow_pickle")
    for line, name in imports_of(file):
        if name == "torch.load":
            complaints.append(f"{line}: torch.load under another name")
    return complaints


def runs_no_text(file: File) -> list[str]:
    forbidden = ("eval", "exec", "yaml.load", "yaml.unsafe_load", "yaml.full_load")
    return [
        f"{node.lineno}: {ast.unparse(node.func)}"
        for node in nodes(file)
        if isinstance(node, ast.Call) and ast.unparse(node.func) in forbidden
    ]


def has_real_annotations(file: File) -> list[str]:
    """Shapes in the types are checked in tests; as mere text they would not be."""
    return [
        f"{line}: from __future__ import annotations"
        for line, name in imports_of(file)
        if name == "__future__.annotations"
    ]


def is_short(file: File) -> list[str]:
    lines = len(file.source.splitlines())
    return [f"{lines} lines, at most {MAX_LINES}"] if lines > MAX_LINES else []


def has_a_subject(file: File) -> list[str]:
    vague = ("utils.py", "util.py", "helpers.py", "misc.py", "common.py")
    return ["the name says nothing"] if file.path.split("/")[-1] in vague else []


def defines_no_second_separable_convolution(file: File) -> list[str]:
    home = "xception/layers/separable.py"
    return [
        f"{node.lineno}: a second class SeparableConv2d; the one is in {home}"
        for node in nodes(file)
        if isinstance(node, ast.ClassDef) and node.name == "SeparableConv2d" and file.path != home
    ]


RULES: tuple[Rule, ...] = (
    keeps_to_the_table,
    imports_at_the_top,
    imports_nothing_forbidden,
    reads_no_pickles,
    runs_no_text,
    has_real_annotations,
    is_short,
    has_a_subject,
    defines_no_second_separable_convolution,
)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_package(rule: Rule):
    complaints = [f"{file.path}: {text}" for file in package() for text in rule(file)]
    assert not complaints, "\n".join(complaints)


def test_the_one_separable_convolution_is_there():
    text = (ROOT / "xception/layers/separable.py").read_text("utf-8")
    assert text.count("class SeparableConv2d(") == 1


BAD = [
    (keeps_to_the_table, "layers/a.py", "from xception.models.zoo import ZOO"),
    (keeps_to_the_table, "cost/a.py", "import xception.layers.conv"),
    (keeps_to_the_table, "evaluation/a.py", "from xception import training"),
    (keeps_to_the_table, "weights/a.py", "from xception.data.images import decode"),
    (keeps_to_the_table, "weights/a.py", "from xception.data import images"),
    (keeps_to_the_table, "cli/a.py", "from xception.layers import conv"),
    (keeps_to_the_table, "data/a.py", "import xception"),
    (keeps_to_the_table, "data/a.py", "from .images import decode"),
    (keeps_to_the_table, "errors.py", "from xception.data import images"),
    (keeps_to_the_table, "models/a.py", "def f():\n    from xception.data import images"),
    (keeps_to_the_table, "attic/a.py", ""),
    (imports_at_the_top, "data/a.py", "def f():\n    import os"),
    (imports_at_the_top, "data/a.py", "class A:\n    async def f(self):\n        from a import b"),
    (imports_at_the_top, "data/a.py", "def f():\n    import torch.utils.tensorboard"),
    (imports_nothing_forbidden, "data/a.py", "import torchvision.transforms as T"),
    (imports_nothing_forbidden, "data/a.py", "from pickle import loads"),
    (imports_nothing_forbidden, "models/a.py", "import timm"),
    (imports_nothing_forbidden, "models/timm_models.py", "import torchvision"),
    (imports_at_the_top, "models/xception.py", "def f():\n    import timm"),
    (reads_no_pickles, "weights/a.py", "torch.load(path)"),
    (reads_no_pickles, "weights/a.py", "torch.load(path, weights_only=False)"),
    (reads_no_pickles, "weights/a.py", "torch.load(path, weights_only=safe)"),
    (reads_no_pickles, "weights/a.py", "from torch import load"),
    (reads_no_pickles, "weights/a.py", "np.load(path, allow_pickle=True)"),
    (runs_no_text, "data/a.py", "eval('1')"),
    (runs_no_text, "data/a.py", "yaml.load(text)"),
    (has_real_annotations, "data/a.py", "from __future__ import annotations"),
    (is_short, "data/a.py", "x = 1\n" * (MAX_LINES + 1)),
    (has_a_subject, "data/utils.py", ""),
    (defines_no_second_separable_convolution, "models/a.py", "class SeparableConv2d: ..."),
]


@pytest.mark.parametrize(("rule", "path", "source"), BAD)
def test_a_rule_bites(rule: Rule, path: str, source: str):
    assert rule(File(f"xception/{path}", source))


GOOD = [
    (keeps_to_the_table, "weights/a.py", "from xception.data.preprocess import Preprocess"),
    (keeps_to_the_table, "data/a.py", "from xception.errors import UserError"),
    (keeps_to_the_table, "data/a.py", "from xception.data.images import decode\nimport xceptional"),
    (reads_no_pickles, "weights/a.py", "torch.load(path, weights_only=True)"),
    (is_short, "data/a.py", "x = 1\n" * MAX_LINES),
]


@pytest.mark.parametrize(("rule", "path", "source"), GOOD)
def test_a_rule_lets_the_good_pass(rule: Rule, path: str, source: str):
    assert rule(File(f"xception/{path}", source)) == []


def test_every_rule_is_shown_to_bite():
    assert {rule for rule, _, _ in BAD} == set(RULES)


def test_exceptions_are_still_needed():
    found = {(file.path, name) for file in package() for _, name in imports_of(file)}
    for path, module in INNER_IMPORTS:
        assert any(path == p and within(name, module) for p, name in found), (path, module)


def test_the_rooms_are_those_of_the_table():
    rooms = {file.room for file in package()} - set(DOORS)
    assert rooms == set(MAY_IMPORT)


def test_the_table_is_free_of_circles():
    done: set[str] = set()
    while rest := set(MAY_IMPORT) - done:
        free = {room for room in rest if {r.split(".")[0] for r in MAY_IMPORT[room]} <= done}
        assert free, f"these import one another: {sorted(rest)}"
        done |= free


def test_the_page_shows_the_same_table():
    page = (ROOT / "docs/architecture.md").read_text("utf-8")
    shown = {}
    for rooms, allowed in re.findall(r"^\| `([a-z`, ]+)` \| (.+) \|$", page, re.MULTILINE):
        for room in rooms.split("`, `"):
            shown[room] = set(re.findall(r"`([a-z._]+)`", allowed))
    assert shown == {room: set(allowed) for room, allowed in MAY_IMPORT.items()}
