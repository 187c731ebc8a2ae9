"""How searches behave: their order, delays, and what changes between pages."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass, fields
from random import Random
from typing import Any

from airflow_insightly_hooks.sandbox.crm.error_answers import BadRequest
from airflow_insightly_hooks.sandbox.crm.value_checks import (
    checked_choice,
    checked_integer,
    checked_keys,
    checked_number,
    checked_text,
)

__all__ = ["BetweenPages", "SearchBehaviour"]

ORDER_CHOICES = ("id", "updated", "stable", "none")
UPDATED_AFTER_CHOICES = ("exclusive", "inclusive")
WHERE_CHOICES = ("any", "first")
MAX_DELAY = 86_400
MAX_CHANGES = 10_000


@dataclass
class BetweenPages:
    """The changes that a user of the CRM makes after each list, and so between any two pages.

    :param record_type: makes changes only after lists of this type. ``None`` makes them after every list, to
        records of the listed type.
    :param delete: how many records are deleted each time.
    :param update: how many records are updated each time.
    :param create: how many records are created each time.
    :param where: which records are deleted and updated. ``any`` chooses them at random. ``first`` takes the
        first records that were read already, which moves all later records.
    :param seed: the seed of the random choice for ``any``.
    :param times: how many lists are followed by changes; ``None`` for all.
    """

    record_type: str | None = None
    delete: int = 0
    update: int = 0
    create: int = 0
    where: str = "any"
    seed: int = 0
    times: int | None = None

    def __post_init__(self) -> None:
        self.random = Random(self.seed)

    @classmethod
    def parse(cls, given: Any, record_types: Collection[str]) -> BetweenPages:
        """Return the setting ``between_pages`` of a request's body.

        :raises BadRequest: if a key is unknown, or a value is of the wrong kind.
        """
        given = checked_keys("between_pages", given, [field.name for field in fields(cls)])
        name = given.get("record_type")
        if name is not None and checked_text("between_pages.record_type", name) not in record_types:
            raise BadRequest("between_pages.record_type is not a record type.")
        times = given.get("times")
        return cls(
            record_type=name,
            where=checked_choice("between_pages.where", given.get("where", "any"), WHERE_CHOICES),
            seed=checked_integer("between_pages.seed", given.get("seed", 0)),
            times=None if times is None else checked_integer("between_pages.times", times),
            **{
                key: checked_integer(f"between_pages.{key}", given.get(key, 0), 0, MAX_CHANGES)
                for key in ("delete", "update", "create")
            },
        )

    def check_and_count(self, record_type: str) -> bool:
        """Whether changes follow this list of ``record_type``. Counts the list if so."""
        if self.record_type not in (None, record_type) or self.times == 0:
            return False
        if self.times is not None:
            self.times -= 1
        return True


@dataclass
class SearchBehaviour:
    """How searches and lists behave.

    :param order: ``id``; ``updated`` (by update time, then by id); ``stable`` (arbitrary, but the same each
        time); or ``none`` (shuffled for each request).
    :param updated_after: ``inclusive`` if a search finds records that were updated at exactly
        ``updated_after_utc``, ``exclusive`` if it doesn't.
    :param visibility_delay: the longest time in seconds until a change is visible. Each change has a random
        delay. Until then, lists show the record before the change.
    :param between_pages: the changes that a user of the CRM makes between pages; ``None`` for no changes.
    :param seed: the seed of the orders ``stable`` and ``none``, and of the delays.
    """

    order: str = "id"
    updated_after: str = "exclusive"
    visibility_delay: float = 0.0
    between_pages: BetweenPages | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        self.random = Random(self.seed)

    @staticmethod
    def parsers(record_types: Collection[str]) -> dict[str, Callable[[Any], Any]]:
        """Return, by setting, a function that checks its value in a request's body.

        Each function returns the value, or raises ``BadRequest``.
        """
        return {
            "order": lambda value: checked_choice("order", value, ORDER_CHOICES),
            "updated_after": lambda value: checked_choice("updated_after", value, UPDATED_AFTER_CHOICES),
            "visibility_delay": lambda value: checked_number("visibility_delay", value, 0, MAX_DELAY),
            "between_pages": lambda value: None if value is None else BetweenPages.parse(value, record_types),
            "seed": lambda value: checked_integer("seed", value),
        }

    def update(self, settings: dict[str, Any]) -> None:
        """Change settings. Their values must be checked already. A ``seed`` restarts the random numbers."""
        for name, value in settings.items():
            setattr(self, name, value)
        if "seed" in settings:
            self.random = Random(self.seed)

    def random_delay(self) -> float:
        """Return a random visibility delay for the next change, in seconds."""
        return self.random.uniform(0, self.visibility_delay) if self.visibility_delay else 0.0

    def as_json(self) -> dict[str, Any]:
        """Return the settings as ``GET /_sandbox`` shows them."""
        return asdict(self)
