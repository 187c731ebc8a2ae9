"""Makes paths and reasons from pydantic's errors: what is wrong with a model, and where."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, get_args

from pydantic import BaseModel, ValidationError

from airflow_insightly_hooks.core.errors import InvalidCriteria, InvalidWorkflow
from airflow_insightly_hooks.core.suggestions import did_you_mean

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

__all__ = ["Misplaced", "joined", "problems_of"]


SENTENCES: Mapping[str, str] = {
    "missing": "it is missing",
    "string_type": "a text is needed: put it in quotes if YAML reads it as another type",
    "string_unicode": "it holds half of a surrogate pair, which can't be stored",
    "string_too_long": "it has more than {max_length} characters",
    "int_type": "a whole number is needed",
    "int_from_float": "a whole number is needed",
    "int_parsing_size": "it is too large",
    "float_type": "a number is needed",
    "finite_number": "a finite number is needed",
    "bool_type": "true or false is needed",
    "list_type": "a list is needed",
    "dict_type": "a mapping of names to values is needed",
    "model_type": "a mapping of names to values is needed",
    "model_attributes_type": "a mapping of names to values is needed",
    "greater_than_equal": "it must be at least {ge:.12g}",
    "less_than_equal": "it must be at most {le:.12g}",
    "too_short": "the list needs at least {min_length} of them",
}
"""By pydantic's type of a mistake: the sentence for it."""


class Misplaced(ValueError):
    """A problem of a model's part.

    Cause: Raised when a check of a model finds a problem in one of its parts.

    Remedy: None for users: it becomes a problem of ``InvalidWorkflow``.

    :param path: the part's place below the model, such as ``webhooks[0].name``.
    :param reason: what is wrong.
    """

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(reason)
        self.path = path


def problems_of(
    error: ValidationError,
    model: type[BaseModel],
    path: str = "",
    *,
    most: int = InvalidWorkflow.SHOWN,
) -> tuple[list[tuple[str, str]], int]:
    """Return the path (such as ``webhooks[0].name``) and the reason of each problem, and their number.

    No reason holds the value that was given, because it may be a secret.

    :param model: the model that was to be built.
    :param path: the model's place.
    :param most: how many problems are returned; the others are only counted.
    """
    found = [
        problem
        for problem in error.errors(include_url=False)
        if problem["type"] != "default_factory_not_called"  # its input is invalid, and the error says so
    ]
    shown: list[tuple[str, str]] = []
    count = 0
    for problem in found:
        cause = _cause(problem)
        if isinstance(cause, InvalidCriteria):
            count += len(cause.problems)
            shown += [(joined(path, place), reason) for place, reason in cause.problems[: most - len(shown)]]
        else:
            count += 1
            shown += [_problem(problem, model, path)] if len(shown) < most else []
    return shown, count


def _cause(problem: ErrorDetails) -> Any:
    return problem.get("ctx", {}).get("error")


def _problem(problem: ErrorDetails, model: type[BaseModel], path: str) -> tuple[str, str]:
    loc = problem["loc"]
    where = joined(path, *loc)
    cause = _cause(problem)
    if isinstance(cause, Misplaced):
        return joined(where, cause.path), str(cause)
    if problem["type"] == "extra_forbidden":
        known = _model_at(model, loc[:-1]).model_fields
        return where, f"not a key that is known here{did_you_mean(loc[-1], known)}"
    return where, str(cause) if cause is not None else _sentence(problem)


def _sentence(problem: ErrorDetails) -> str:
    """Return a sentence about what is wrong. It doesn't hold the value that was given."""
    about = problem.get("ctx", {})
    if problem["type"] == "literal_error":
        known = re.findall(r"'([^']*)'", about["expected"])
        return f"{about['expected']} is needed{did_you_mean(problem['input'], known)}"
    sentence = SENTENCES.get(problem["type"])
    return sentence.format_map(about) if sentence is not None else problem["msg"]


def _model_at(model: type[BaseModel], loc: tuple[int | str, ...]) -> type[BaseModel]:
    """Return the model at a place in another model, or the nearest model around the place."""
    for step in loc:
        field = model.model_fields.get(str(step))
        if field is not None:
            model = next(_models_in(field.annotation), model)
    return model


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _models_in(part)


def joined(path: str, *steps: int | str) -> str:
    """Return a path with further steps; a number is an index."""
    for step in steps:
        if isinstance(step, int):
            path += f"[{step}]"
        elif step:
            path += f".{step}" if path else step
    return path
