"""A kept webhook, for tasks that need its body: the name of the object, and its contents.

A name such as ``20170310T080000.123456Z-99922875-0123456789abcdef.json`` has the time of receipt, the
record's id, and a digest of the message. So names sort by time, and if an object can't be read, its record is
known.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, timezone
from typing import Any

from airflow_insightly_hooks.core import exact_json
from airflow_insightly_hooks.core.dates import api_time, iso_time, utc_time
from airflow_insightly_hooks.core.digest import digest_of
from airflow_insightly_hooks.core.errors import InsightlyHooksError, InvalidPayload, InvalidTime
from airflow_insightly_hooks.core.records import is_record_id

__all__ = ["InvalidKeptEntity", "KeptEntity", "KeptName", "day_in", "day_name"]

_NAME = re.compile(
    r"(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)\.(\d{6})Z-(?P<id>\d{1,19})-(?P<digest>[0-9a-f]{16})\.json",
    re.ASCII,
)
_DAY = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
NOT_READABLE = "it is not complete, or was not written by the endpoint"


class InvalidKeptEntity(InsightlyHooksError, ValueError):
    """A kept object can't be read as a webhook.

    Cause: Raised when the object is not complete, was not written by the endpoint, or is of another record
    than its name says.

    Remedy: You need not do anything: the deliver task reports the webhook as undeliverable. Write nothing
    else into the folder where webhooks are kept.
    """


@dataclass(frozen=True, order=True)
class KeptName:
    """The name of a kept object.

    :param received_at: when the webhook came, by the endpoint's clock, in UTC.
    :param record_id: the record's id.
    :param digest: 16 hexadecimal digits that depend on the message.
    """

    received_at: datetime
    record_id: int
    digest: str

    @classmethod
    def of_message(cls, received_at: datetime, record_id: int, message: str | bytes) -> KeptName:
        """Return the name for a message.

        :param message: its id, else its body.
        """
        return cls(utc_time(received_at), record_id, digest_of(message))

    @classmethod
    def parse(cls, text: str) -> KeptName | None:
        """Return the name that a text holds; ``None`` if the text is not a name."""
        match = _NAME.fullmatch(text)
        if match is None:
            return None
        try:
            # A day's folder may have a hundred thousand names, for which strptime would take seconds.
            year, month, day, hour, minute, second, fraction = map(int, match.groups()[:7])
            received_at = datetime(year, month, day, hour, minute, second, fraction, timezone.utc)
        except ValueError:
            return None
        return cls(received_at, int(match["id"]), match["digest"])

    def __str__(self) -> str:
        moment = self.received_at
        # strftime doesn't pad years below 1000 with zeros.
        return f"{moment.year:04}{moment:%m%dT%H%M%S.%f}Z-{self.record_id}-{self.digest}.json"

    @property
    def day(self) -> str:
        """The name of the folder that holds the object."""
        return day_name(self.received_at.date())


def day_name(day: date) -> str:
    """Return the name of a day's folder."""
    return day.isoformat()


def day_in(text: str) -> date | None:
    """Return the day of a folder's name; ``None`` if the text is not the name of a day's folder."""
    try:
        return date.fromisoformat(text) if _DAY.fullmatch(text) else None
    except ValueError:
        return None


@dataclass(frozen=True)
class KeptEntity:
    """The contents of a kept object.

    :param received_at: when the webhook came, by the endpoint's clock, in UTC.
    :param record_type: the name of the record type in Insightly's API.
    :param record_id: the record's id.
    :param record: the record's fields as they came, with their numbers as they were written.
    """

    received_at: datetime
    record_type: str
    record_id: int
    record: Mapping[str, Any] = field(repr=False)  # personal data

    def as_bytes(self) -> bytes:
        """Return it as JSON. Its ``entity`` is a JSON text, so that every reader gets the exact numbers."""
        value = {
            "received_at": iso_time(self.received_at),
            "record_type": self.record_type,
            "record_id": self.record_id,
            "entity": exact_json.dumps(self.record),
        }
        return json.dumps(value).encode()

    @classmethod
    def of(cls, content: bytes) -> KeptEntity:
        """Return the contents of an object.

        :raises InvalidKeptEntity: if ``as_bytes`` hasn't written it, or it is not complete.
        """
        try:
            value = json.loads(content)
            record = exact_json.loads(value["entity"])
            exact_json.check_json(record, "entity", -1)
            received_at = api_time(value["received_at"], "received_at")
            record_type, record_id = value["record_type"], value["record_id"]
        except (ValueError, TypeError, KeyError, RecursionError, InvalidPayload, InvalidTime):
            raise InvalidKeptEntity(NOT_READABLE) from None
        if not isinstance(record, dict) or not isinstance(record_type, str) or not is_record_id(record_id):
            raise InvalidKeptEntity(NOT_READABLE)
        return cls(received_at, record_type, record_id, record)
