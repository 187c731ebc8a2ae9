"""What is wrong with a model, and where: pydantic's errors -> paths and reasons."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from pydantic import BaseModel, ValidationError

from airflow_insightly_hooks.core.errors import InvalidCriteria, did_you_mean

__all__ = ["Misplaced", "joined", "problems_of"]


class Misplaced(ValueError):
    """A problem that stands elsewhere than where it was found: at ``path`` below that."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(reason)
        self.path = path


def problems_of(
    error: ValidationError, model: type[BaseModel], parts: Mapping[str, type[BaseModel]], path: str = ""
) -> Iterator[tuple[str, str]]:
    """Yield the path and the reason of each problem, such as ``webhooks[0].name``.

    No reason holds what was typed: it may be a secret.

    :param model: the model that was to be built.
    :param parts: the models of its fields that are models themselves, by name.
    :param path: where it stands.
    """
    for problem in error.errors(include_url=False, include_input=False):
        loc = problem["loc"]
        where = joined(path, *loc)
        cause = problem.get("ctx", {}).get("error")
        if problem["type"] == "default_factory_not_called":  # its input is invalid, and the error says so
            continue
        if isinstance(cause, Misplaced):
            yield joined(where, cause.path), str(cause)
        elif isinstance(cause, InvalidCriteria):
            yield joined(path, cause.path), cause.reason
        elif problem["type"] == "extra_forbidden":
            known = (parts.get(str(loc[0]), model) if len(loc) > 1 else model).model_fields
            yield where, f"not a key that is known here{did_you_mean(loc[-1], known)}"
        elif problem["type"] == "missing":
            yield where, "it is missing"
        else:
            yield where, str(cause) if cause is not None else problem["msg"]


def joined(path: str, *steps: int | str) -> str:
    """Return a path with steps added: a number is an index."""
    for step in steps:
        if isinstance(step, int):
            path += f"[{step}]"
        elif step:
            path += f".{step}" if path else step
    return path
