"""What makes reading changes from the API hard: how searches behave while records change."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass, fields
from random import Random
from typing import Any

from airflow_insightly_hooks.sandbox.crm.api_errors import BadRequest
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
    """What a user of the CRM does after each answer that lists records, so between any two pages.

    :param record_type: only after lists of this type; ``None`` for any, the type that was listed.
    :param delete: how many records are deleted each time.
    :param update: how many are updated.
    :param create: how many are created.
    :param where: which are deleted and updated: ``any``; or ``first``, of those that were read already the
        ones at the beginning, which moves all that follow.
    :param seed: what the choice among ``any`` depends on.
    :param times: after how many answers; ``None`` for all.
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
        """Read it from a request's body.

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
        """Whether it is done now, after a list of this type; counts one time if so."""
        if self.record_type not in (None, record_type) or self.times == 0:
            return False
        if self.times is not None:
            self.times -= 1
        return True


@dataclass
class SearchBehaviour:
    """How answers that list records behave.

    :param order: ``id``; ``updated``, by update time, then id; ``stable``, arbitrary, but the same each
        time; ``none``, shuffled anew for each request.
    :param updated_after: whether ``updated_after_utc`` itself is found: ``exclusive`` or ``inclusive``.
    :param visibility_delay: a change becomes visible up to so many seconds after it was made, each after a
        random time; until then the record is listed as it was before.
    :param between_pages: what a user of the CRM does between pages; ``None`` for nothing.
    :param seed: what the orders ``stable`` and ``none``, and the delays, depend on.
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
        """Return what reads each setting from a request's body, or raises ``BadRequest``."""
        return {
            "order": lambda value: checked_choice("order", value, ORDER_CHOICES),
            "updated_after": lambda value: checked_choice("updated_after", value, UPDATED_AFTER_CHOICES),
            "visibility_delay": lambda value: checked_number("visibility_delay", value, 0, MAX_DELAY),
            "between_pages": lambda value: None if value is None else BetweenPages.parse(value, record_types),
            "seed": lambda value: checked_integer("seed", value),
        }

    def update(self, settings: dict[str, Any]) -> None:
        """Take settings that were read; a ``seed`` begins its random numbers again."""
        for name, value in settings.items():
            setattr(self, name, value)
        if "seed" in settings:
            self.random = Random(self.seed)

    def random_delay(self) -> float:
        """Return after how many seconds the next change becomes visible."""
        return self.random.uniform(0, self.visibility_delay) if self.visibility_delay else 0.0

    def as_json(self) -> dict[str, Any]:
        """Return it as ``GET /_sandbox`` shows it."""
        return asdict(self)
