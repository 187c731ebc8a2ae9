"""The types of the values in a workflow and its parts, and the base class of their models."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    WithJsonSchema,
)

from airflow_insightly_hooks.core.bounds import LONGEST_DURATION, check_seconds
from airflow_insightly_hooks.core.dates import parse_duration, time_zone
from airflow_insightly_hooks.core.errors import InvalidWorkflow
from airflow_insightly_hooks.core.workflow.problems import problems_of

__all__ = [
    "DURATION_SCHEMA",
    "LONGEST_ID",
    "LONGEST_TAG",
    "NO_EXTRA",
    "Duration",
    "GiveUpAfter",
    "Model",
    "Name",
    "OnUndelivered",
    "Retries",
    "RetryDelay",
    "Text",
    "Zone",
    "slug_of",
]

LONGEST_ID = 200
"""How many characters a DAG's id and a name may have. Airflow allows 250, and derived ids are longer."""
LONGEST_TAG = 100
MOST_RETRIES = 1_000
MOST_FAILURES = 1_000_000_000

DURATION_SCHEMA = {"type": "string", "pattern": "^[0-9]{1,6}[smhdw]$", "examples": ["30m", "2h", "3d"]}
NO_EXTRA = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, validate_default=True)


def _duration(value: object) -> timedelta:
    duration = value if isinstance(value, timedelta) else parse_duration(value, "it")
    if not timedelta(0) <= duration <= LONGEST_DURATION:
        raise ValueError(f"it must be between 0 and {LONGEST_DURATION.days:,} days")
    return duration


def _delay(value: object) -> timedelta:
    if isinstance(value, int | float) and not isinstance(value, bool):
        check_seconds("it", value)
        return timedelta(seconds=value)
    return _duration(value)


def _zone(name: str) -> str:
    try:
        time_zone(name)
    except KeyError:
        raise ValueError(
            f"there is no time zone {name!r}: give an IANA name such as 'America/Los_Angeles'"
        ) from None
    return name


def _not_blank(text: str) -> str:
    if not text.strip():
        raise ValueError("a text is needed")
    return text.strip()


Duration = Annotated[timedelta, BeforeValidator(_duration), WithJsonSchema(DURATION_SCHEMA)]
Text = Annotated[str, AfterValidator(_not_blank)]
Name = Annotated[str, Field(max_length=LONGEST_ID), AfterValidator(_not_blank)]
Zone = Annotated[str, AfterValidator(_zone)]
Retries = Annotated[int, Field(ge=0, le=MOST_RETRIES, strict=True)]
RetryDelay = Annotated[
    timedelta,
    BeforeValidator(_delay),
    WithJsonSchema({"anyOf": [{"type": "number", "minimum": 0}, DURATION_SCHEMA]}),
]
GiveUpAfter = Annotated[int, Field(ge=0, le=MOST_FAILURES, strict=True)]
OnUndelivered = Literal["fail", "report"]

if TYPE_CHECKING:
    Model = BaseModel
else:

    class _ModelType(type(BaseModel)):
        """Raises ``InvalidWorkflow`` instead of pydantic's error when Python code builds a model."""

        def __call__(cls, *args: Any, **kwargs: Any) -> Any:
            try:
                return super().__call__(*args, **kwargs)
            except ValidationError as error:
                problems, count = problems_of(error, cls)
                raise InvalidWorkflow(tuple(problems), count - len(problems)) from None

    class Model(BaseModel, metaclass=_ModelType):
        """The base class of workflows and their parts."""


def slug_of(name: str) -> str:
    """Return a name in the form of Airflow's ids: lower case, with underscores for other characters."""
    return re.sub(r"\W+", "_", name.lower()).strip("_")
