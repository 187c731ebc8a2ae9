"""Blocks of classes and functions: their docstrings, arguments and errors."""

from __future__ import annotations

import ast
import inspect
import sys
import textwrap
import typing
from collections.abc import Callable, Iterator
from importlib import import_module
from itertools import pairwise
from typing import Any, NamedTuple

from pydantic import BaseModel

from blocks.markdown import Described, code, described, table

PACKAGE = "airflow_insightly_hooks"
FIRST_AFTER = ("XCom", "Metrics")
"""The first words of paragraphs that come after the arguments."""


class _Argument(NamedTuple):
    name: str
    type: str
    default: Any


def class_block(about: str) -> str:
    """Return a class: how it is imported, what it does, its arguments or attributes, and its errors.

    :param about: its dotted path. If ``with methods`` follows, the block also has its public methods.
    :raises ValueError: if an argument or an attribute is not described.
    """
    path, _, extent = about.partition(" ")
    found = _import(path)
    says = described(found.__doc__)
    rows: list[tuple[str, ...]] = []
    if _is_made_by_users(found, says):
        meanings = {**says.arguments, **_field_texts(found)}
        init = found.__new__ if issubclass(found, tuple) else found.__init__
        rows = _rows(_arguments(init, found.__module__), meanings, path)
    elif not issubclass(found, BaseModel):
        fields = [name for name in vars(found).get("__annotations__", {}) if not name.startswith("_")]
        if lacking := [name for name in fields if name not in says.attributes]:
            raise ValueError(f"{path}: its docstring does not describe {', '.join(lacking)}")
    parts = [_import_line(path), _text(says, table(("argument", "type", "default", "meaning"), rows), path)]
    if extent == "with methods":
        parts += _methods(found)
    return "\n\n".join(parts)


def function_block(path: str) -> str:
    """Return a function: how it is imported, what it does, its arguments, what it returns and its errors.

    :raises ValueError: if an argument is not described.
    """
    function = _import(path)
    says = described(function.__doc__)
    rows = _rows(_arguments(function, function.__module__), says.arguments, path)
    arguments = table(("argument", "type", "default", "meaning"), rows)
    return f"{_import_line(path)}\n\n{_text(says, arguments, path)}"


def fixture_block(path: str) -> str:
    """Return what a fixture of the pytest plugin gives to a test."""
    return "\n\n".join(described(_import(path).__doc__).paragraphs)


def _import(path: str) -> Any:
    module, _, name = path.rpartition(".")
    return getattr(import_module(f"{PACKAGE}.{module}" if module else PACKAGE), name)


def _import_line(path: str) -> str:
    module, _, name = path.rpartition(".")
    return f"```python\nfrom {PACKAGE}{'.' if module else ''}{module} import {name}\n```"


def _is_made_by_users(of: type, says: Described) -> bool:
    """Whether users make objects of a class. Otherwise they only read the attributes of its objects."""
    if issubclass(of, BaseModel):
        return False  # the keys of a workflow and its parts have their own tables
    return bool(says.arguments) or not says.attributes


def _methods(of: type) -> Iterator[str]:
    for name, member in vars(of).items():
        value = member.fget if isinstance(member, property) else getattr(of, name)
        if name.startswith("_") or not callable(value) or not value.__doc__:
            continue
        says, path = described(value.__doc__), f"{of.__name__}.{name}"
        rows = [(f"`{argument}`", text) for argument, text in says.arguments.items()]
        signature = "" if isinstance(member, property) else f"```python\n{_signature(name, value)}\n```\n\n"
        yield f"#### `{path}`\n\n{signature}{_text(says, table(('argument', 'meaning'), rows), path)}"


class _QuotedText(str):
    """A default value that a signature shows in double quotes. Annotations lose their single quotes."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f'"{self}"'


def _signature(name: str, function: Callable[..., Any]) -> str:
    """Return a method's signature, in the form of a call."""
    signature = inspect.signature(function)
    parameters = [
        p.replace(default=_QuotedText(p.default)) if isinstance(p.default, str) else p
        for p in signature.parameters.values()
        if p.name not in ("self", "cls")
    ]
    text = f"{name}{signature.replace(parameters=parameters)}"
    return text.replace("'", "") if isinstance(signature.return_annotation, str) else text


def _arguments(of: Callable[..., Any], module: str) -> list[_Argument]:
    names = vars(sys.modules[module])
    return [
        _Argument(
            ("**" if parameter.kind is parameter.VAR_KEYWORD else "") + parameter.name,
            _type(parameter.annotation, names),
            parameter.default,
        )
        for parameter in inspect.signature(of).parameters.values()
        if parameter.name not in ("self", "cls", "_cls") and parameter.kind is not parameter.VAR_POSITIONAL
    ]


def _type(annotation: Any, names: dict[str, Any]) -> str:
    """Return a type as it is written in the code. A name of literals is replaced by the literals."""
    if not isinstance(annotation, str):
        annotation = getattr(annotation, "__forward_arg__", None) or inspect.formatannotation(annotation)
    if typing.get_origin(alias := names.get(annotation)) is typing.Literal:
        annotation = " | ".join(f'"{value}"' for value in typing.get_args(alias))
    return f"`{annotation}`"


def _rows(arguments: list[_Argument], meanings: dict[str, str], path: str) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    others = dict(meanings)
    for argument in arguments:
        meaning = others.pop(argument.name.lstrip("*"), None)
        is_rest = argument.name.startswith("**")
        if meaning is None and is_rest:
            continue  # Airflow's own arguments
        if meaning in (None, "likewise."):  # in a table, a reader can't know which argument that refers to
            raise ValueError(f"{path}: its docstring does not describe the argument {argument.name}")
        is_needed = argument.default is inspect.Parameter.empty
        default = "" if is_rest else "required" if is_needed else code(argument.default)
        rows.append((f"`{argument.name}`", argument.type, default, meaning))
    for name in others:
        raise ValueError(f"{path}: its docstring describes {name}, which is not an argument")
    return rows


def _field_texts(of: type) -> dict[str, str]:
    """Return the texts below the fields of a named tuple."""
    if not issubclass(of, tuple):
        return {}
    (tree,) = ast.parse(textwrap.dedent(inspect.getsource(of))).body
    assert isinstance(tree, ast.ClassDef)  # noqa: S101 — it is a class's source
    return {
        field.target.id: " ".join(described(text.value.value).paragraphs)
        for field, text in pairwise(tree.body)
        if isinstance(field, ast.AnnAssign)
        and isinstance(field.target, ast.Name)
        and isinstance(text, ast.Expr)
        and isinstance(text.value, ast.Constant)
        and isinstance(text.value.value, str)
    }


def _text(says: Described, arguments: str, path: str) -> str:
    if not says.paragraphs:
        raise ValueError(f"{path}: it has no docstring")
    first, *others = says.paragraphs
    place = next((n for n, text in enumerate(others) if text.startswith(FIRST_AFTER)), len(others))
    attributes = ((f"`{name}`", text) for name, text in says.attributes.items())
    raises = ((f"`{name}`", text.removeprefix("if ").removesuffix(".")) for name, text in says.raises)
    parts = [
        first,
        *others[:place],
        arguments,
        table(("attribute", "meaning"), attributes),
        says.returns and f"Returns {says.returns}",
        table(("raises", "when"), raises),
        *others[place:],
    ]
    return "\n\n".join(part for part in parts if part)
