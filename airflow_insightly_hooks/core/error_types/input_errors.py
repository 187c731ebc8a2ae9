"""Errors of values that a caller gives: names, times, changes, payloads, connections."""

from __future__ import annotations

from airflow_insightly_hooks.core.error_types.root import InsightlyHooksError
from airflow_insightly_hooks.core.suggestions import did_you_mean

__all__ = [
    "InvalidChange",
    "InvalidConnection",
    "InvalidDuration",
    "InvalidPayload",
    "InvalidTime",
    "InvalidWindow",
    "UnknownRecordType",
]


class UnknownRecordType(InsightlyHooksError, KeyError):
    """A name is not a record type of Insightly's API.

    Cause: Raised when a record type is misspelled, or doesn't exist. Most names are plurals (``Contacts``),
    but some are not (``Ticket``).

    Remedy: Use one of the names that the message lists, or a custom object's name, such as ``Invoice__c``.

    :param name: the name that was given.
    :param known: the names of the record types.
    """

    def __init__(self, name: object, known: tuple[str, ...]) -> None:
        super().__init__(name, known)
        self.name = name
        self.known = known

    def __str__(self) -> str:
        return (
            f"{self.name!r} is not a record type of Insightly's API: use {', '.join(self.known)}, or the "
            f"name of a custom object, which ends in '__c'{did_you_mean(self.name, self.known)}"
        )


class InvalidTime(InsightlyHooksError, ValueError):
    """A value is not a time.

    Cause: Raised when a time is missing, or is written in a form that this package does not read.

    Remedy: Write it as Insightly's API does (``2017-03-10 08:00:00``, which is UTC) or in ISO 8601
    (``2017-03-10T08:00:00Z``).

    :param where: the name of the field or argument. It is not the value.
    """

    def __init__(self, where: str) -> None:
        super().__init__(where)
        self.where = where

    def __str__(self) -> str:
        return f"{self.where} is not a time such as '2017-03-10 08:00:00' or '2017-03-10T08:00:00Z'"


class InvalidDuration(InsightlyHooksError, ValueError):
    """A value is not a duration.

    Cause: Raised when a duration is not a whole number with a unit.

    Remedy: Write it as ``45s``, ``30m``, ``2h``, ``3d`` or ``1w``.

    :param where: the name of the argument. It is not the value.
    """

    def __init__(self, where: str) -> None:
        super().__init__(where)
        self.where = where

    def __str__(self) -> str:
        return f"{self.where} is not a duration such as '45s', '30m', '2h', '3d' or '1w'"


class InvalidWindow(InsightlyHooksError, ValueError):
    """A window of time is not valid.

    Cause: Raised when a window lacks an end, an end has no time zone, or the window ends before it starts.
    Also raised when a run's or a task's window can't be determined.

    Remedy: Give both ends as times with a time zone, the earlier one first, or do what the message says.

    :param reason: what is wrong.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

    def __str__(self) -> str:
        return f"window: {self.reason}"


class InvalidChange(InsightlyHooksError, ValueError):
    """An object in a list of changes is not a change.

    Cause: Raised when the argument ``changes`` of a task is not a sensor's XCom, or was modified on the way.

    Remedy: Pass on the sensor's output (``sensor.output``). If a task of your own modifies the changes, keep
    the keys that the message names.

    :param index: the object's place in the list, from 0.
    :param reason: what is wrong.
    """

    def __init__(self, index: int, reason: str) -> None:
        super().__init__(index, reason)
        self.index = index
        self.reason = reason

    def __str__(self) -> str:
        return f"changes[{self.index}]: {self.reason}"


class InvalidPayload(InsightlyHooksError, ValueError):
    """A payload or another input of a task can't be used.

    Cause: Raised when a record can't be written as a body, or when a task's input, a run's parameters or its
    conf don't have the documented form.

    Remedy: Correct the input that the message names.

    :param where: which input, or which part of it.
    :param reason: what is wrong.
    """

    def __init__(self, where: str, reason: str) -> None:
        super().__init__(where, reason)
        self.where = where
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.where}: {self.reason}"


class InvalidConnection(InsightlyHooksError, ValueError):
    """An Airflow connection can't be used.

    Cause: Raised when a field of the connection is missing, is not valid, or contradicts another field.

    Remedy: Correct the field that the message names, for example in Airflow's UI under Admin > Connections.

    :param conn_id: the connection's id.
    :param field: the name of the field.
    :param reason: what is wrong.
    """

    def __init__(self, conn_id: str, field: str, reason: str) -> None:
        super().__init__(conn_id, field, reason)
        self.conn_id = conn_id
        self.field = field
        self.reason = reason

    def __str__(self) -> str:
        return f"connection {self.conn_id!r}, {self.field}: {self.reason}"
