"""Makes the records of the seed: gives them ids, times, owners and custom fields, and links them."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any, TypeVar

from airflow_insightly_hooks.core.records import UPDATED
from airflow_insightly_hooks.sandbox.crm.clock import format_time
from airflow_insightly_hooks.sandbox.crm.custom_fields import CUSTOM_FIELDS, CustomField
from airflow_insightly_hooks.sandbox.crm.record_store import RecordStore
from airflow_insightly_hooks.sandbox.crm.record_table import Record
from airflow_insightly_hooks.sandbox.seed import sample_words

__all__ = ["FIRST_IDS", "YEAR", "RecordMaker", "address_fields"]

FIRST_IDS = {
    "Users": 999_308,
    "Contacts": 300_000_001,
    "Organisations": 150_000_001,
    "Leads": 80_000_001,
    "Opportunities": 40_000_001,
    "Projects": 9_000_001,
    "Tasks": 99_922_831,
    "Ticket": 5_000_001,
}
OTHER_FIRST_ID = 1_000_001
NEWEST = timedelta(minutes=3)
YEAR = timedelta(days=365)

_T = TypeVar("_T")


class RecordMaker:
    """Makes the same records each time. Only their times differ, which are in the year before ``started``.

    :param store: the store that gets the records.
    :param started: the start time of the sandbox.
    """

    def __init__(self, store: RecordStore, started: datetime) -> None:
        self.store = store
        self.started = started
        self.random = random.Random(20170310)
        self._last_numbers: dict[str, int] = {}

    def add(self, name: str, **fields: Any) -> Record:
        """Add a record of the type ``name``: these fields, an owner, times and custom fields. Return it."""
        record_type = self.store.record_types[name]
        if not self.records(name):
            fields[record_type.id_field] = FIRST_IDS.get(name, OTHER_FIRST_ID)
        age = NEWEST + self.random.random() ** 2 * (YEAR - NEWEST)
        since_update = age if self.random.random() < 0.3 else NEWEST + self.random.random() * (age - NEWEST)
        fields["DATE_CREATED_UTC"] = format_time(self.started - age)
        fields[UPDATED] = format_time(self.started - since_update)
        if "OWNER_USER_ID" in record_type.fields:
            fields["OWNER_USER_ID"] = self.random_user_id()
        if "CUSTOMFIELDS" in record_type.fields:
            fields["CUSTOMFIELDS"] = [
                {"FIELD_NAME": field.name, "FIELD_VALUE": self._custom_value(field)}
                for field in CUSTOM_FIELDS.get(name, ())
                if self.random.random() < 0.7
            ]
        return self.store.write_any_fields(record_type, fields)

    def _custom_value(self, field: CustomField) -> Any:
        values: dict[str, Callable[[], Any]] = {
            "TEXT": lambda: self.choice(sample_words.FIRST_NAMES),
            "MULTILINETEXT": lambda: (
                f"{self.choice(sample_words.COMPANIES)}\n{self.choice(sample_words.COMPANIES)}"
            ),
            "DROPDOWN": lambda: self.choice(field.options),
            "MULTISELECT": lambda: ";".join(self.random.sample(field.options, 2)),
            "BIT": lambda: self.random.random() < 0.5,
            "DATE": lambda: f"{self.random_day(-900, 30)[:10]} 00:00:00",
            "DATETIME": lambda: self.random_day(-300, 60),
            "NUMERIC": lambda: self.random.randint(1, 5000),
            "PERCENT": lambda: self.random.randint(0, 100),
            "AUTONUMBER": lambda: None,
        }
        return values[field.kind]()

    def records(self, name: str) -> list[Record]:
        """Return every record of the type."""
        return self.store.all(self.store.record_types[name])

    def random_record(self, name: str) -> Record:
        """Return a random record of the type."""
        return self.choice(self.records(name))

    def choice(self, choices: Sequence[_T]) -> _T:
        """Return one of ``choices`` at random."""
        return self.random.choice(choices)

    def random_user_id(self) -> int:
        """Return the id of a random user."""
        return FIRST_IDS["Users"] + self.random.randrange(5)

    def random_phone(self) -> str:
        """Return a random phone number with 555. These numbers belong to nobody."""
        return f"+1 202 555 {self.random.randint(0, 9999):04}"

    def random_tags(self) -> list[dict[str, str]]:
        """Return up to two random tags."""
        return [{"TAG_NAME": tag} for tag in self.random.sample(sample_words.TAGS, self.random.randrange(3))]

    def link(self, name: str, record: Record) -> dict[str, Any]:
        """Return a link to a record of the type ``name``."""
        record_type = self.store.record_types[name]
        return {"LINK_OBJECT_NAME": record_type.title, "LINK_OBJECT_ID": record[record_type.id_field]}

    def random_day(self, first: int, last: int) -> str:
        """Return a random time from ``first`` to ``last`` days after the start, as the API writes it."""
        moment = self.started + timedelta(days=self.random.randint(first, last))
        return format_time(moment.replace(hour=self.random.randrange(8, 18), minute=0, second=0))

    def next_number(self, name: str) -> int:
        """Return the next number for this name: 1, 2, 3, …"""
        self._last_numbers[name] = self._last_numbers.get(name, 0) + 1
        return self._last_numbers[name]


def address_fields(
    prefix: str, street: str, city: str, state: str | None, postcode: str, country: str
) -> dict[str, str | None]:
    """Return the fields of an address. Their names begin with ``prefix``, such as ``ADDRESS_MAIL``."""
    return {
        f"{prefix}_STREET": street,
        f"{prefix}_CITY": city,
        f"{prefix}_STATE": state,
        f"{prefix}_POSTCODE": postcode,
        f"{prefix}_COUNTRY": country,
    }
