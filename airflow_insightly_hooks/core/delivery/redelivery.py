"""Which messages a cleared deliver task sends again, although they may be acknowledged."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from airflow_insightly_hooks.core.delivery.ledger import ACKNOWLEDGED, Ledger
from airflow_insightly_hooks.core.digest import digest_of
from airflow_insightly_hooks.core.errors import InvalidPayload
from airflow_insightly_hooks.core.payload import Payload

__all__ = ["Redelivery"]

ALL = "all"
UNDELIVERED = "undelivered"


class Redelivery(NamedTuple):
    """What is to be sent again: ``all``, what is ``undelivered``, or some ``records``, by their ids."""

    what: str
    record_ids: frozenset[str] = frozenset()

    @classmethod
    def read(cls, value: object) -> Redelivery | None:
        """Return the redelivery that an argument, or what a template was rendered to, asks for.

        :param value: ``"all"``, ``"undelivered"``, record ids as a list or as a text (``"7, 8"`` or
            ``"[7, 8]"``); ``None``, ``""``, ``"None"`` and an empty list ask for none.
        :raises InvalidPayload: if it is something else.
        """
        if isinstance(value, str):
            text = value.strip()
            if text in ("", "None"):
                return None
            if text in (ALL, UNDELIVERED):
                return cls(text)
            value = text.strip("[]").split(",") if text.strip("[] ") else []
        if isinstance(value, int):
            value = [value]
        if not value and (value is None or isinstance(value, Sequence)):
            return None
        if isinstance(value, Sequence):
            ids = frozenset(str(one).strip().strip("'\"") for one in value)
            if all(one.isascii() and one.isdecimal() for one in ids):
                return cls("records", ids)
        raise InvalidPayload("redeliver", "'all', 'undelivered' or record ids are needed")

    def begin(self, payloads: Iterable[Payload], ledger: Ledger) -> None:
        """Have the ledger send again what is meant, once until it is cleared; retries go on from there."""
        digest = digest_of(json.dumps(sorted(self.record_ids)))
        messages = [payload["message_id"] for payload in payloads if self._means(payload, ledger)]
        ledger.redeliver(f"{self.what} {digest}", messages)

    def _means(self, payload: Payload, ledger: Ledger) -> bool:
        if self.what == UNDELIVERED:
            return ledger[payload["message_id"]].state != ACKNOWLEDGED
        return self.what == ALL or str(payload["record_id"]) in self.record_ids
