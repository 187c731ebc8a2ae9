"""Reads workflows from a YAML file, or raises an error that names the file, the line and the path.

A file holds one workflow, or a list of workflows. Plain values are read as in JSON: only ``true`` and
``false`` are booleans (so the operator ``on`` needs no quotes), numbers are decimal, and dates are text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from math import isfinite
from operator import itemgetter
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError

from airflow_insightly_hooks.core.errors import InvalidWorkflow, InvalidWorkflowFile
from airflow_insightly_hooks.core.workflow.definition import WorkflowDefinition
from airflow_insightly_hooks.core.workflow.problems import joined, problems_of
from airflow_insightly_hooks.core.workflow.values import slug_of

__all__ = ["RESOLVERS", "located", "read_workflows"]

W = TypeVar("W", bound=WorkflowDefinition)

DEEPEST = 250
"""How many levels may nest. Groups of criteria may nest 100 levels deep, each a mapping and a list."""
MOST_NODES = 100_000
"""How many values a file may hold, with aliases resolved. A few lines of YAML can make billions."""

_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
_STEP = re.compile(r"([^.\[\]]+)|\[(\d+)\]")

# If PyYAML has its parser in C, use it: it is about ten times as fast as the parser in Python.
_Base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Loader(_Base):  # type: ignore[misc]  # its base is chosen at run time
    """Resolves plain scalars as JSON does."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 — PyYAML's name


for _tag, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?[0-9]+", "-+0123456789"),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", "-+.0123456789"),
    ("null", r"~|null|Null|NULL|", "~nN"),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"(?:{_pattern})$"), list(_first))
_Loader.yaml_implicit_resolvers.setdefault("", []).append(("tag:yaml.org,2002:null", re.compile("$")))
RESOLVERS: Mapping[str, Sequence[tuple[str, re.Pattern[str]]]] = _Loader.yaml_implicit_resolvers
"""By the first letter of a plain value, the types other than text as which it may be read."""


def read_workflows(text: str, file: str, model: type[W], *, only: str | None = None) -> list[W]:
    """Return the workflows that a file holds.

    :param text: the file's contents.
    :param file: its name, for errors.
    :param model: the class of the workflows.
    :param only: the id of the only DAG that is needed; other workflows are not checked. ``None``: all are
        needed.
    :raises InvalidWorkflowFile: if the file can't be read, or a workflow is not valid. It holds all problems.
    """
    try:
        _check_depth(text, file)
        root = yaml.compose(text, Loader=_Loader)
    except yaml.YAMLError as error:
        raise _unreadable(file, error) from None
    if root is None:
        raise InvalidWorkflowFile(file, (("", "the file is empty"),), (1,))
    value = _Values(file).of(root)
    is_list = isinstance(value, list)
    entries = [(f"[{i}]", entry) for i, entry in enumerate(value)] if is_list else [("", value)]
    if not entries:
        raise InvalidWorkflowFile(file, (("", "the list holds no workflow"),), (_line(root),))
    workflows: list[W] = []
    ids: set[str] = set()
    problems = _Problems()
    for path, entry in entries:
        if not isinstance(entry, Mapping):
            problems.add(path, "a workflow is needed: a mapping with name, record_type and webhooks")
            continue
        if only is not None and only != _dag_id(entry):
            continue
        try:
            workflow = model.model_validate(entry)
        except ValidationError as error:
            problems.extend(*problems_of(error, model, path, most=problems.room))
            continue
        if workflow.dag_id in ids:
            reason = f"{workflow.dag_id!r} is the dag_id of an earlier workflow in this file: give another"
            problems.add(joined(path, "dag_id"), reason)
        ids.add(workflow.dag_id)
        workflows.append(workflow)
    if problems.count:
        raise _with_lines(file, root, problems.first, problems.count)
    return workflows


class _Problems:
    """The first problems of a file, and how many there are."""

    def __init__(self) -> None:
        self.first: list[tuple[str, str]] = []
        self.count = 0

    @property
    def room(self) -> int:
        """How many more problems can be shown."""
        return InvalidWorkflowFile.SHOWN - len(self.first)

    def add(self, path: str, reason: str) -> None:
        self.extend([(path, reason)][: self.room], 1)

    def extend(self, problems: list[tuple[str, str]], count: int) -> None:
        self.first += problems
        self.count += count


def located(
    text: str, file: str, workflow: WorkflowDefinition, error: InvalidWorkflow
) -> InvalidWorkflowFile:
    """Return an error of a workflow from a file, with the lines of its problems.

    :param text: the file's contents.
    """
    root: yaml.Node = yaml.compose(text, Loader=_Loader)  # type: ignore[assignment]  # it was read before
    value = _Values(file).of(root)
    path = ""
    if isinstance(value, list):
        path = f"[{[_dag_id(entry) for entry in value].index(workflow.dag_id)}]"
    problems = [(joined(path, place), reason) for place, reason in error.problems]
    return _with_lines(file, root, problems, len(problems) + error.more)


def _with_lines(
    file: str, root: yaml.Node, problems: Sequence[tuple[str, str]], count: int
) -> InvalidWorkflowFile:
    placed = sorted(
        ((_line(_node_at(root, path)), (path, reason)) for path, reason in problems), key=itemgetter(0)
    )
    lines, problems = tuple(line for line, _ in placed), [problem for _, problem in placed]
    return InvalidWorkflowFile(file, tuple(problems), lines, count - len(problems))


def _check_depth(text: str, file: str) -> None:
    """Refuse a file that nests too deeply. Making its nodes would recurse, in C without a limit."""
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > DEEPEST:
            line = event.start_mark.line + 1  # type: ignore[union-attr]  # events of a text have marks
            reason = f"it nests more than {DEEPEST} levels deep: use fewer levels"
            raise InvalidWorkflowFile(file, (("", reason),), (line,))


def _dag_id(entry: Mapping[str, Any]) -> str:
    return str(entry.get("dag_id") or slug_of(str(entry.get("name", ""))))


def _unreadable(file: str, error: yaml.YAMLError) -> InvalidWorkflowFile:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    reason = getattr(error, "problem", None) or getattr(error, "reason", None) or "it can't be read"
    # PyYAML's texts can quote the file, which may hold a secret. So quoted text is left out.
    reason = re.sub(r"'[^']{3,}'", "'…'", str(reason))
    return InvalidWorkflowFile(file, (("", f"not YAML: {reason}"),), (mark.line + 1 if mark else 1,))


class _Values:
    """Makes Python values from YAML nodes."""

    def __init__(self, file: str) -> None:
        self._file = file
        self._count = 0
        self._open: set[int] = set()

    def of(self, node: yaml.Node) -> Any:
        self._count += 1
        if self._count > MOST_NODES:
            raise self._error(node, f"the file holds more than {MOST_NODES:,} values: use fewer")
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node)
        if id(node) in self._open:
            raise self._error(node, "it contains itself through an alias")
        self._open.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            value: Any = [self.of(item) for item in node.value]
        else:
            assert isinstance(node, yaml.MappingNode)  # noqa: S101 — the third of three kinds
            value = dict(self._items(node))
        self._open.discard(id(node))
        return value

    def _items(self, node: yaml.MappingNode) -> Iterator[tuple[str, Any]]:
        seen = set()
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise self._error(key, "a key must be text")
            if key.value in seen:
                raise self._error(key, f"the key {key.value!r} is here twice: remove one")
            seen.add(key.value)
            yield self._text(key), self.of(value)

    def _scalar(self, node: yaml.ScalarNode) -> Any:
        kind = node.tag.removeprefix("tag:yaml.org,2002:")
        text: str = node.value
        if kind == "str":
            return self._text(node)
        if kind == "null":
            return None
        if kind == "bool":
            return text.lower() == "true"
        if kind in ("int", "float"):
            return self._number(node, int if kind == "int" else float)
        raise self._error(node, "tags such as !!python or !include are not supported")

    def _number(self, node: yaml.ScalarNode, read: Callable[[str], float]) -> float:
        try:
            number = read(node.value)
        except ValueError:
            raise self._error(node, f"it is not a number, but has the tag !!{read.__name__}") from None
        if isinstance(number, float) and not isfinite(number):
            raise self._error(node, "the number is too large: write it in quotes")
        return number

    def _text(self, node: yaml.ScalarNode) -> str:
        text: str = node.value
        if _UNSTORABLE.search(text):
            raise self._error(node, "it holds U+0000 or half of a surrogate pair, which can't be stored")
        return text

    def _error(self, node: yaml.Node, reason: str) -> InvalidWorkflowFile:
        return InvalidWorkflowFile(self._file, (("", reason),), (_line(node),))


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1


def _node_at(root: yaml.Node, path: str) -> yaml.Node:
    """Return the node at a path, or the last node on the way to it. For a mapping's value, return the key."""
    node = shown = root
    for name, index in _STEP.findall(path):
        if index and isinstance(node, yaml.SequenceNode) and int(index) < len(node.value):
            node = shown = node.value[int(index)]
        elif name and isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                if key.value == name:
                    node, shown = value, key
                    break
            else:
                break
        else:
            break
    return shown
