"""The block of all errors: the meaning, cause, remedy and attributes of each error."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from pathlib import Path

import airflow_insightly_hooks
from airflow_insightly_hooks.core.errors import InsightlyHooksError
from blocks.markdown import described, table

PACKAGE = "airflow_insightly_hooks"
ROOT = Path(airflow_insightly_hooks.__file__).parent
DERIVED = re.compile(r"^class \w+\(.*Error\b", re.MULTILINE)
"""Finds the modules that may declare an error. All other modules need not be imported."""


def all_errors() -> list[type[InsightlyHooksError]]:
    """Return all errors of the package. Each error comes after its base class."""
    for path in sorted(ROOT.rglob("*.py")):
        if "sandbox" not in path.parts and DERIVED.search(path.read_text(encoding="utf-8")):
            import_module(".".join(path.relative_to(ROOT.parent).with_suffix("").parts))
    return list(dict.fromkeys(_derived(InsightlyHooksError)))


def _derived(error: type[InsightlyHooksError]) -> Iterator[type[InsightlyHooksError]]:
    yield error
    for below in sorted(error.__subclasses__(), key=lambda found: found.__name__):
        if below.__module__.startswith("airflow_insightly_hooks.") and not below.__name__.startswith("_"):
            yield from _derived(below)


def block(_about: str) -> str:
    """Return a section for each error.

    :raises ValueError: if an error has no docstring, or doesn't describe an attribute.
    """
    return "\n\n".join(_section(error) for error in all_errors())


def _section(error: type[InsightlyHooksError]) -> str:
    says = described(vars(error).get("__doc__"))
    if not says.paragraphs:
        raise ValueError(f"{error.__name__} has no docstring")
    cause, remedy = says.labelled("Cause"), says.labelled("Remedy")
    public = _public().get(
        error.__name__, ["core.errors"] if error.__module__.endswith(".core.errors") else []
    )
    where = f"Import it from `{PACKAGE}.{public[0]}`." if public else "The class is private."
    bases = " and ".join(f"`{base.__name__}`" for base in error.__bases__)
    meanings = {**_inherited(error), **says.arguments}
    names = attribute_names(error)
    if lacking := [name for name in names if name not in meanings]:
        raise ValueError(f"{error.__name__}: its docstring does not describe {', '.join(lacking)}")
    attributes = table(("attribute", "meaning"), ((f"`{name}`", meanings[name]) for name in names))
    parts = [
        f"### {error.__name__}",
        " ".join(says.without("Cause", "Remedy")),
        cause and f"**Cause:** {cause}",
        remedy and f"**Remedy:** {remedy}",
        f"{where} Base: {bases}.",
        attributes,
    ]
    return "\n\n".join(part for part in parts if part)


@cache
def _public() -> dict[str, list[str]]:
    """Return the modules that compatibility.md lists, by the names in them."""
    page = (ROOT.parent / "docs" / "reference" / "compatibility.md").read_text(encoding="utf-8")
    found: dict[str, list[str]] = {}
    for module, names in re.findall(rf"^\| `{PACKAGE}\.([\w.]+)` \| (.*) \|$", page, re.MULTILINE):
        for name in re.findall(r"`(\w+)`", names):
            found.setdefault(name, []).append(module)
    return found


def _inherited(error: type[InsightlyHooksError]) -> dict[str, str]:
    """Return what the base classes' docstrings say about the attributes."""
    found: dict[str, str] = {}
    for base in reversed(error.__mro__[1:]):
        if issubclass(base, InsightlyHooksError):
            found.update(described(vars(base).get("__doc__")).arguments)
    return found


def attribute_names(error: type[InsightlyHooksError]) -> list[str]:
    """Return the names of an error's attributes, which are its arguments."""
    makers = [vars(base).get("__init__") for base in error.__mro__ if issubclass(base, InsightlyHooksError)]
    maker = next(filter(None, makers), None)
    if maker is None:
        return []
    found = inspect.signature(maker).parameters.values()
    return [one.name for one in found if one.name != "self" and one.kind is one.POSITIONAL_OR_KEYWORD]
