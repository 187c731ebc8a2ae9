"""``on_failure`` of a workflow -> the function that Airflow calls. It is imported, its arguments checked."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from importlib import import_module
from typing import Any

from airflow_insightly_hooks.core.errors import InvalidWorkflow, type_and_place
from airflow_insightly_hooks.core.suggestions import did_you_mean
from airflow_insightly_hooks.core.workflow.parts import FailureCallback

__all__ = ["failure_callback"]

PLACE = "on_failure"


def failure_callback(asked: FailureCallback) -> Callable[..., Any]:
    """Return the function that Airflow calls with the context of a failed run.

    A class, for example a notifier, is called with the arguments when the DAG is parsed. The object that it
    returns is called with the context. A function is called with the context and the arguments.

    :param asked: the callback's dotted path and its arguments.
    :raises InvalidWorkflow: if it can't be imported or called in this way. The error shows no argument's
        value.
    """
    found = _imported(asked.callback)
    if not callable(found):
        kind = _article(type(found).__name__)
        raise _wrong("callback", f"{asked.callback} is {kind}: name a function or a notifier class")
    if not isinstance(found, type):
        _check_arguments(found, asked, with_context=True)
        return partial(found, **asked.arguments) if asked.arguments else found
    _check_arguments(found, asked, with_context=False)
    try:
        made: Callable[..., Any] = found(**asked.arguments)
    except Exception as error:  # its text may hold an argument's value
        raise _wrong(
            "arguments", f"{asked.callback} refuses these arguments: {type_and_place(error)}"
        ) from None
    if not callable(made):
        raise _wrong("callback", f"{asked.callback} is neither a notifier class nor a function")
    return made


def _imported(path: str) -> object:
    module_name, _, name = path.rpartition(".")
    try:
        module = import_module(module_name)
    except ModuleNotFoundError as error:
        missing = error.name or module_name
        if f"{module_name}.".startswith(f"{missing}."):
            reason = (
                f"there is no module {missing!r}: put it into the DAG folder or the plugins folder, or add "
                "its folder to PYTHONPATH"
            )
        else:
            reason = f"{module_name} can't be imported: it needs the module {missing!r}; install it"
        raise _wrong("callback", reason) from None
    except Exception as error:  # its text may be anything
        raise _wrong("callback", f"{module_name} can't be imported: {type_and_place(error)}") from None
    try:
        return getattr(module, name)
    except AttributeError:
        public = [known for known in vars(module) if not known.startswith("_")]
        raise _wrong("callback", f"{module_name} has no {name!r}{did_you_mean(name, public)}") from None


def _check_arguments(called: Callable[..., Any], asked: FailureCallback, *, with_context: bool) -> None:
    try:
        signature = inspect.signature(called)
    except (TypeError, ValueError):  # code in C may have no signature: a mistake shows when it is called
        return
    context: Mapping[str, Any] = {}
    try:
        signature.bind(*([context] if with_context else []), **asked.arguments)
    except TypeError as error:  # its text has the arguments' names, not their values
        given = "the context and these arguments" if with_context else "these arguments"
        raise _wrong("arguments", f"{asked.callback} can't be called with {given}: {error}") from None


def _article(name: str) -> str:
    return f"an {name}" if name[:1].lower() in "aeiou" else f"a {name}"


def _wrong(key: str, reason: str) -> InvalidWorkflow:
    return InvalidWorkflow(((f"{PLACE}.{key}", reason),))
