"""A webhook: its address, its record type, and its attempts."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import asdict, dataclass, field, fields
from typing import Any
from urllib.parse import urlsplit

from airflow_insightly_hooks.sandbox.crm.error_answers import BadRequest
from airflow_insightly_hooks.sandbox.crm.value_checks import checked_keys, checked_number, checked_text

__all__ = ["Webhook", "parse_webhooks"]

_URI = re.compile(r"[!-~]+")
"""Other characters are percent-encoded in a URI."""
MAX_SECONDS = 3600
SHORTEST_TIMEOUT = 0.01


@dataclass(frozen=True, kw_only=True)
class Webhook:
    """A webhook. It POSTs each creation and each update of records of one type.

    :param uri: the address of its POSTs.
    :param record_type: the type of its records.
    :param username: the user name of Basic authentication. If both this and ``password`` are ``None``,
        requests have no credentials.
    :param password: the password.
    :param delay: the seconds between two attempts. Insightly does not document this time.
    :param timeout: how many seconds the receiver has to answer. Insightly does not document this time.
    """

    uri: str
    record_type: str
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    delay: float = 1.0
    timeout: float = 10.0

    @classmethod
    def parse(cls, name: str, given: Any, record_types: Collection[str]) -> Webhook:
        """Return the webhook that a request's body describes.

        :param name: its name in an error.
        :raises BadRequest: if a key is unknown or missing, or a value is of the wrong kind. The error names
            the key.
        """
        given = checked_keys(name, given, [field.name for field in fields(cls)], ("uri", "record_type"))
        given = {key: value for key, value in given.items() if value is not None}
        _check_uri(f"{name}.uri", given.get("uri"))
        if checked_text(f"{name}.record_type", given.get("record_type")) not in record_types:
            raise BadRequest(f"{name}.record_type is not a record type.")
        for key in ("username", "password"):
            checked_text(f"{name}.{key}", given.get(key, ""))
        if ":" in given.get("username", ""):
            raise BadRequest(f"{name}.username must not have a colon. Basic authentication can't send it.")
        for key, shortest in (("delay", 0.0), ("timeout", SHORTEST_TIMEOUT)):
            if key in given:
                given[key] = checked_number(f"{name}.{key}", given[key], shortest, MAX_SECONDS)
        return cls(**given)

    def as_json(self) -> dict[str, Any]:
        """Return the webhook as ``GET /_sandbox`` shows it, without the password."""
        return asdict(self) | {"password": None if self.password is None else "***"}


def parse_webhooks(given: Any, record_types: Collection[str]) -> Webhook | tuple[Webhook, ...] | None:
    """Return the setting ``webhook`` of a request's body: one webhook, a list of them, or ``None``.

    :raises BadRequest: if a key is unknown or missing, or a value is of the wrong kind. The error names the
        key.
    """
    if given is None:
        return None
    if isinstance(given, list):
        return tuple(Webhook.parse(f"webhook[{index}]", one, record_types) for index, one in enumerate(given))
    return Webhook.parse("webhook", given, record_types)


def _check_uri(name: str, value: Any) -> None:
    uri = checked_text(name, value)
    try:
        parts = urlsplit(uri)
        _ = parts.port  # raises ValueError if it is not a port
    except ValueError:
        raise BadRequest(f"{name} is not a URI.") from None
    if parts.scheme not in ("http", "https") or not parts.hostname or _URI.fullmatch(uri) is None:
        raise BadRequest(f"{name} is not an http or https URI with a host, in ASCII characters.")
    if parts.username is not None:
        raise BadRequest(f"{name} must not hold credentials. Put them into username and password.")
