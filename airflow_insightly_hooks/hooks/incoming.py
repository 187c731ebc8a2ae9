"""Read connections of type ``insightly_incoming``: who may send webhooks to Airflow, and which webhooks."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from airflow.sdk import BaseHook

from airflow_insightly_hooks.core.delivery.signing import Signer
from airflow_insightly_hooks.core.errors import InsightlyHooksError, InvalidConnection
from airflow_insightly_hooks.core.records import RECORD_TYPES
from airflow_insightly_hooks.hooks.connection_extras import ConnectionExtras, connection_text
from airflow_insightly_hooks.hooks.connection_fields import INCOMING_FIELDS
from airflow_insightly_hooks.hooks.hints import for_a_test
from airflow_insightly_hooks.hooks.masking import mask

if TYPE_CHECKING:
    from airflow.sdk import Connection

__all__ = ["IncomingSettings", "InsightlyIncomingHook"]

NOTICE = "notice"
"""A webhook only says that something has changed."""
ACCEPTED = (NOTICE, "entity")
"""The values of ``accept``. With ``entity``, the record in a webhook is kept, too."""
# The user name in the URL is the id of a connection. Passwords are refused, because logs would show them.
_STORE_URL = re.compile(
    r"(file:///|(?!file:)[a-z][a-z0-9+]*://([\w.-]+@)?)(?!(.*/)?\.\.(/|$))[^@?#\x00-\x1f]+", re.IGNORECASE
)


@dataclass(frozen=True)
class IncomingSettings:
    """The settings of a connection, checked.

    :param login: the user name that Insightly's webhook sends.
    :param password: the password that it sends.
    :param insightly_conn_id: the id of the connection of the account that sends.
    :param record_types: the accepted record types; ``None`` for all.
    :param signer: verifies the signatures of webhooks; ``None`` if they need no signature.
    :param max_body_bytes: the most bytes of a webhook's body.
    :param requests_per_minute: the most requests per minute in each process; 0 for no limit.
    :param entity_path: where the contents of webhooks are kept; ``None`` if they are not kept.
    :param entity_days: the number of days after which the contents are deleted.
    """

    login: str = field(repr=False)
    password: str = field(repr=False)
    insightly_conn_id: str
    record_types: frozenset[str] | None
    signer: Signer | None
    max_body_bytes: int
    requests_per_minute: int
    entity_path: str | None = None
    entity_days: int = 7

    @classmethod
    def from_connection(cls, connection: Connection) -> IncomingSettings:
        """Return the settings of an Airflow connection.

        :raises InvalidConnection: if it can't be used.
        """
        extras = ConnectionExtras(connection, INCOMING_FIELDS)
        login, password = connection_text(connection, "login"), connection_text(connection, "password")
        for name, value in (("login", login), ("password", password)):
            if not value:
                raise InvalidConnection(
                    connection.conn_id, name, "it is empty: give the same value as in Insightly's webhook"
                )
        if ":" in login:
            raise InvalidConnection(connection.conn_id, "login", "Basic authentication allows no colon here")
        if extras.is_blank("signing_secret"):  # somebody meant to require signatures
            raise extras.invalid("signing_secret", "it is only white space: give a secret, or leave it empty")
        secrets = extras.text("signing_secret").split()
        try:
            signer = Signer(" ".join(secrets)) if secrets else None
        except ValueError as error:
            raise extras.invalid("signing_secret", str(error)) from None
        mask(password, *secrets)
        return cls(
            login=login,
            password=password,
            insightly_conn_id=extras.text("insightly_conn_id"),
            record_types=_record_types(extras),
            signer=signer,
            max_body_bytes=extras.whole_number("max_body_bytes"),
            requests_per_minute=extras.whole_number("requests_per_minute"),
            entity_path=_entity_path(extras),
            entity_days=extras.whole_number("entity_days"),
        )

    def accepts(self, record_type: str) -> bool:
        """Return whether webhooks of this record type are accepted."""
        return self.record_types is None or record_type in self.record_types


def _record_types(extras: ConnectionExtras) -> frozenset[str] | None:
    names = re.split(r"[,\s]+", extras.text("record_types").strip(", "))
    if names == [""]:
        return None
    try:
        return frozenset(RECORD_TYPES[name].name for name in names)
    except InsightlyHooksError as error:
        raise extras.invalid("record_types", str(error)) from None


def _entity_path(extras: ConnectionExtras) -> str | None:
    """Return where the contents of webhooks are kept; ``None`` if the connection doesn't keep them."""
    accept, path = extras.text("accept").lower(), extras.text("entity_path")
    if accept not in ACCEPTED:
        raise extras.invalid("accept", "it must be notice or entity")
    if path and not _STORE_URL.fullmatch(path):
        raise extras.invalid(
            "entity_path",
            "a URL is needed, such as s3://conn_id@bucket/path or file:///path: no password, query or '..'",
        )
    if accept == NOTICE:
        return None
    if not path:
        raise extras.invalid(
            "entity_path", "it is empty: with accept=entity, give the place to keep contents"
        )
    return path


class InsightlyIncomingHook(BaseHook):
    """Reads the connection that Insightly's webhooks use to come to Airflow (``incoming``).

    :param incoming_conn_id: the id of an Airflow connection of type ``insightly_incoming``.
    """

    conn_name_attr = "incoming_conn_id"
    default_conn_name = "insightly_incoming_default"
    conn_type = "insightly_incoming"
    hook_name = "Insightly webhooks to Airflow"

    def __init__(self, incoming_conn_id: str = default_conn_name) -> None:
        super().__init__()
        self.incoming_conn_id = incoming_conn_id

    def get_conn(self) -> IncomingSettings:
        """Return the settings of the connection, checked.

        :raises InvalidConnection: if it can't be used, or is of another type.
        """
        connection = self.get_connection(self.incoming_conn_id)
        if connection.conn_type != self.conn_type:
            raise InvalidConnection(
                connection.conn_id,
                "type",
                f"it is {connection.conn_type!r}, and {self.conn_type!r} is needed",
            )
        return IncomingSettings.from_connection(connection)

    def test_connection(self) -> tuple[bool, str]:
        """Return whether the connection can be used, for the button "Test" of its form. It sends nothing."""
        try:
            settings = self.get_conn()
        except Exception as error:  # Airflow shows the text; nothing may be raised here
            return False, for_a_test(error, self.incoming_conn_id)
        names = settings.record_types
        which = "all record types" if names is None else ", ".join(sorted(names))
        return True, (
            f"It is complete: Insightly's webhooks of {which} can be sent to /insightly/hooks/{{this "
            f"connection's id}}. This test can't tell whether Insightly can reach this Airflow."
        )
