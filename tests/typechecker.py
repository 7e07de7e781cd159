"""Types and shapes of the package are checked while its tests run.

`check_types_of` has every function decorated as its module is imported. What checks a function
takes a thousand times longer to build than to run, so it is built when the function is first
called; and only where a signature names shapes are these compared with each other (by jaxtyping,
which is slow itself). All else is plain beartype, with int allowed where float stands.
"""

import ast
import dataclasses
import functools
import sys
import typing
from collections.abc import Callable
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import FunctionType, SimpleNamespace
from typing import Any

import jaxtyping
from beartype import BeartypeConf, beartype
from jaxtyping import AbstractArray, jaxtyped

VERSION = 1  # of `_Decorate`; what was compiled by another is not used
DECORATOR = f"__import__({__name__!r}).checked"

beartyped = beartype(conf=BeartypeConf(is_pep484_tower=True))


def checked(thing: Any) -> Any:
    """The function, or the class of data with an initializer, whose annotations are checked."""
    if isinstance(thing, type):
        made = vars(thing).get("__init__")
        if dataclasses.is_dataclass(thing) and not hasattr(made, "__wrapped__"):
            thing.__init__ = checked(made)
        return thing
    if isinstance(thing, classmethod | staticmethod):
        return type(thing)(checked(thing.__func__))
    if isinstance(thing, property):
        return property(*(f and checked(f) for f in (thing.fget, thing.fset, thing.fdel)))
    if not isinstance(thing, FunctionType) or not thing.__annotations__:
        return thing
    return _when_called(thing)


def _when_called(function: FunctionType) -> Callable[..., Any]:
    check: Callable[..., Any] | None = None

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        nonlocal check
        if jaxtyping.config.jaxtyping_disable:
            return function(*args, **kwargs)
        if check is None:
            check = _build(function)
        return check(*args, **kwargs)

    return call


def _build(function: FunctionType) -> Callable[..., Any]:
    """What is named by text is looked up now; unknown at run time (for type checkers only): Any."""
    for name, hint in function.__annotations__.items():
        alone = SimpleNamespace(__annotations__={name: hint})
        try:
            found = typing.get_type_hints(alone, function.__globals__, include_extras=True)
        except NameError:
            found = {name: Any}
        function.__annotations__ |= found
    if any(map(_has_shape, function.__annotations__.values())):
        return jaxtyped(function, typechecker=beartyped)
    return beartyped(function)


def _has_shape(hint: Any) -> bool:
    if isinstance(hint, type) and not typing.get_args(hint):
        return issubclass(hint, AbstractArray)
    parts = typing.get_args(hint)
    return any(_has_shape(part) for part in parts if not isinstance(part, list)) or any(
        _has_shape(one) for part in parts if isinstance(part, list) for one in part
    )


class _Decorate(ast.NodeTransformer):
    """Puts the decorator on each class (outermost) and each function (innermost)."""

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        return self._decorate(node, 0)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        return self._decorate(node, len(node.decorator_list))

    def _decorate(self, node: ast.ClassDef | ast.FunctionDef, place: int) -> ast.AST:
        if any(ast.unparse(one).endswith("no_type_check") for one in node.decorator_list):
            return node
        self.generic_visit(node)
        decorator = ast.parse(DECORATOR, mode="eval").body
        for part in ast.walk(decorator):
            ast.copy_location(part, node)
        node.decorator_list.insert(place, decorator)
        return node


class _Loader(SourceFileLoader):
    """Compiles with the decorators, and keeps what it compiled apart from what Python compiles."""

    def source_to_code(self, data: Any, path: Any, *, _optimize: int = -1) -> Any:
        tree = _Decorate().visit(ast.parse(data, path))
        return compile(tree, path, "exec", dont_inherit=True, optimize=_optimize)

    def get_data(self, path: str) -> bytes:
        return super().get_data(_apart(path))

    def set_data(self, path: str, data: Any, **mode: Any) -> None:
        super().set_data(_apart(path), data, **mode)


def _apart(path: str) -> str:
    return path.replace(".pyc", f".checked-{VERSION}.pyc") if path.endswith(".pyc") else path


class _Finder(MetaPathFinder):
    def __init__(self, package: str):
        self.package = package

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> ModuleSpec | None:
        if fullname.split(".")[0] != self.package:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and type(spec.loader) is SourceFileLoader:
            spec.loader = _Loader(spec.loader.name, spec.loader.path)
        return spec


def check_types_of(package: str) -> None:
    """From now on; nothing of the package may be imported yet."""
    assert package not in sys.modules
    sys.meta_path.insert(0, _Finder(package))
