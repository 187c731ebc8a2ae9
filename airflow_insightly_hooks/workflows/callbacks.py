"""``on_failure`` of a workflow -> what Airflow calls: its dotted path is imported, its arguments checked."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from importlib import import_module
from typing import Any

from airflow_insightly_hooks.core.errors import InvalidWorkflow, told
from airflow_insightly_hooks.core.suggestions import did_you_mean
from airflow_insightly_hooks.core.workflow.parts import FailureCallback

__all__ = ["failure_callback"]

PLACE = "on_failure"


def failure_callback(asked: FailureCallback) -> Callable[..., Any]:
    """Return what Airflow is to call with the context of a run that has failed.

    A class, such as a notifier's, is called with the arguments when the DAG is parsed, and what that returns
    with the context; a function is called with the context and the arguments.

    :raises InvalidWorkflow: if it can't be called like that; no argument's value is shown.
    """
    found = _imported(asked.callback)
    if not callable(found):
        raise _wrong("callback", f"{asked.callback} is {_article(type(found).__name__)}, and can't be called")
    if not isinstance(found, type):
        _check_arguments(found, asked, with_context=True)
        return partial(found, **asked.arguments) if asked.arguments else found
    _check_arguments(found, asked, with_context=False)
    try:
        made: Callable[..., Any] = found(**asked.arguments)
    except Exception as error:  # its text may hold an argument's value
        raise _wrong("arguments", f"{asked.callback} can't be made of them: {told(error)}") from None
    if not callable(made):
        raise _wrong("callback", f"{asked.callback} is neither a notifier nor a function")
    return made


def _imported(path: str) -> object:
    module_name, _, name = path.rpartition(".")
    try:
        module = import_module(module_name)
    except ModuleNotFoundError as error:
        missing = error.name or module_name
        if f"{module_name}.".startswith(f"{missing}."):
            reason = (
                f"no module {missing!r} can be imported here: it must be in the DAG folder or the plugins "
                "folder, or on PYTHONPATH"
            )
        else:
            reason = f"{module_name} can't be imported: it needs the module {missing!r}"
        raise _wrong("callback", reason) from None
    except Exception as error:  # its text may be anything
        raise _wrong("callback", f"{module_name} can't be imported: {told(error)}") from None
    try:
        return getattr(module, name)
    except AttributeError:
        public = [known for known in vars(module) if not known.startswith("_")]
        raise _wrong("callback", f"{module_name} has no {name!r}{did_you_mean(name, public)}") from None


def _check_arguments(called: Callable[..., Any], asked: FailureCallback, *, with_context: bool) -> None:
    try:
        signature = inspect.signature(called)
    except (TypeError, ValueError):  # of something in C: it shows when it is called
        return
    context: Mapping[str, Any] = {}
    try:
        signature.bind(*([context] if with_context else []), **asked.arguments)
    except TypeError as error:  # names arguments, and holds no values
        given = "the context and these arguments" if with_context else "these arguments"
        raise _wrong("arguments", f"{asked.callback} can't be called with {given}: {error}") from None


def _article(name: str) -> str:
    return f"an {name}" if name[:1].lower() in "aeiou" else f"a {name}"


def _wrong(key: str, reason: str) -> InvalidWorkflow:
    return InvalidWorkflow(((f"{PLACE}.{key}", reason),))
