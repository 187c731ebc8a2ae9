"""The settings of ``PUT /_sandbox``, except the settings of the clock, of searches and of webhooks."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, fields
from typing import Any

from airflow_insightly_hooks.sandbox.crm.error_answers import BadRequest
from airflow_insightly_hooks.sandbox.crm.value_checks import checked_integer, checked_keys, checked_text

__all__ = ["Cut", "Fault", "Settings", "Shorten", "path_template"]

_ID = re.compile(r"/[0-9]+(?=/|$)")
_HEADER_VALUE = re.compile(r"[!-~]([ -~]{0,98}[!-~])?")


def path_template(path: str) -> str:
    """Return a path with ``{id}`` in place of each id."""
    return _ID.sub("/{id}", path)


@dataclass(kw_only=True)
class _PathRule:
    """A rule for requests of a path. It can begin after some requests, and end after some more.

    :param path: the path, such as ``/v3.1/Contacts/Search``. ``{id}`` stands for any id.
    :param after: how many requests of this path come before the rule holds.
    :param times: for how many requests the rule then holds; ``None`` for all.
    """

    path: str
    after: int = 0
    times: int | None = None

    def check_and_count(self, path: str) -> bool:
        """Whether the rule holds for this request of ``path``. Counts the request."""
        if self.path not in (path, path_template(path)) or self.times == 0:
            return False
        if self.after:
            self.after -= 1
            return False
        if self.times is not None:
            self.times -= 1
        return True

    @classmethod
    def _checked(cls, name: str, given: Any, *required: str) -> dict[str, Any]:
        """Return the keys that are not null. Checks only the values of ``path``, ``after`` and ``times``.

        :raises BadRequest: if a key is unknown or missing, or a value is of the wrong kind.
        """
        given = checked_keys(name, given, [field.name for field in fields(cls)], ("path", *required))
        checked = {key: value for key, value in given.items() if value is not None}
        checked_text(f"{name}.path", checked.get("path"))
        for key in ("after", "times"):
            checked_integer(f"{name}.{key}", checked.get(key, 0))
        return checked


@dataclass(kw_only=True)
class Fault(_PathRule):
    """A response in place of the API's own.

    :param status: the HTTP status of the response.
    :param retry_after: the value of the header ``Retry-After``: seconds, or a text such as an HTTP date.
        ``None`` leaves the header out.
    """

    status: int
    retry_after: int | str | None = None

    @classmethod
    def parse(cls, given: Any) -> Fault:
        """Return the setting that a request's body describes.

        :raises BadRequest: if a key is unknown or missing, or a value is of the wrong kind.
        """
        given = cls._checked("fault", given, "status")
        checked_integer("fault.status", given.get("status"), 200, 599)
        retry_after = given.get("retry_after", 0)
        if not isinstance(retry_after, str):
            checked_integer("fault.retry_after", retry_after)
        elif _HEADER_VALUE.fullmatch(retry_after) is None:
            raise BadRequest("fault.retry_after is not a valid value of a header.")
        return cls(**given)


@dataclass(kw_only=True)
class Shorten(_PathRule):
    """A list has fewer records than the client requested, although there are more.

    :param to: the largest number of records in the list.
    """

    to: int

    @classmethod
    def parse(cls, given: Any) -> Shorten:
        """Return the setting that a request's body describes.

        :raises BadRequest: if a key is unknown or missing, or a value is of the wrong kind.
        """
        given = cls._checked("shorten", given, "to")
        checked_integer("shorten.to", given.get("to"))
        return cls(**given)


@dataclass(kw_only=True)
class Cut(_PathRule):
    """A response breaks off: half of the body is sent, then the connection is closed."""

    @classmethod
    def parse(cls, given: Any) -> Cut:
        """Return the setting that a request's body describes.

        :raises BadRequest: if a key is unknown or missing, or a value is of the wrong kind.
        """
        return cls(**cls._checked("cut", given))


@dataclass
class Settings:
    """How the sandbox answers.

    :param requests_per_second: further requests within a second are answered with 429.
    :param requests_per_day: further requests are answered with 429 until midnight UTC.
    :param fault: requests that get another response than the API's own.
    :param shorten: lists that have fewer records than the client requested.
    :param cut: responses that break off.
    :param no_access: record types that the API key has no access to. They are answered with 403.
    :param not_in_plan: record types that the account's plan lacks. They are answered with 404.
    """

    requests_per_second: int = 10
    requests_per_day: int = 100_000
    fault: Fault | None = None
    shorten: Shorten | None = None
    cut: Cut | None = None
    no_access: tuple[str, ...] = ()
    not_in_plan: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Return the settings as ``GET /_sandbox`` shows them."""
        return asdict(self)
