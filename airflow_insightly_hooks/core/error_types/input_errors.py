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
    """``name`` is no record type of Insightly's API; ``known`` are those there are."""

    def __init__(self, name: object, known: tuple[str, ...]) -> None:
        super().__init__(name, known)
        self.name = name
        self.known = known

    def __str__(self) -> str:
        return (
            f"{self.name!r} is not a record type of Insightly's API (there are {', '.join(self.known)}, and "
            f"custom objects, whose names end in '__c'){did_you_mean(self.name, self.known)}"
        )


class InvalidTime(InsightlyHooksError, ValueError):
    """A text that is no time as Insightly writes it. ``where`` names the field, not the value."""

    def __init__(self, where: str) -> None:
        super().__init__(where)
        self.where = where

    def __str__(self) -> str:
        return f"{self.where} is not a time such as '2017-03-10 08:00:00' or '2017-03-10T08:00:00Z'"


class InvalidDuration(InsightlyHooksError, ValueError):
    """A text that is no duration. ``where`` names the argument, not the value."""

    def __init__(self, where: str) -> None:
        super().__init__(where)
        self.where = where

    def __str__(self) -> str:
        return f"{self.where} is not a duration such as '45s', '30m', '2h', '3d' or '1w'"


class InvalidWindow(InsightlyHooksError, ValueError):
    """A window that cannot be read; ``reason`` says why."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

    def __str__(self) -> str:
        return f"window: {self.reason}"


class InvalidChange(InsightlyHooksError, ValueError):
    """The ``index``-th of what should be changes is none; ``reason`` says why."""

    def __init__(self, index: int, reason: str) -> None:
        super().__init__(index, reason)
        self.index = index
        self.reason = reason

    def __str__(self) -> str:
        return f"changes[{self.index}]: {self.reason}"


class InvalidPayload(InsightlyHooksError, ValueError):
    """A payload that cannot be built or sent: ``where`` says which, ``reason`` why."""

    def __init__(self, where: str, reason: str) -> None:
        super().__init__(where, reason)
        self.where = where
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.where}: {self.reason}"


class InvalidConnection(InsightlyHooksError, ValueError):
    """An Airflow connection that cannot be used: ``field`` of ``conn_id``, and ``reason``."""

    def __init__(self, conn_id: str, field: str, reason: str) -> None:
        super().__init__(conn_id, field, reason)
        self.conn_id = conn_id
        self.field = field
        self.reason = reason

    def __str__(self) -> str:
        return f"connection {self.conn_id!r}, {self.field}: {self.reason}"
