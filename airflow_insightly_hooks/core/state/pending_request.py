"""Which pending webhooks a run of a pending DAG cancels, and which it sends at once.

A request has one of two forms. Both may be written by hand:

- The run's parameters name records: ``{"cancel": [7], "send_now": [8], "webhooks": ["check"]}``. The request
  is for everything that is pending for these records when the run carries it out. Without ``webhooks``, it is
  for all webhooks.
- The run's conf names entries, under ``pending_request``, by webhook, record id and the time of the change:
  ``{"action": "cancel", "requested_by": "anna", "requested_at": "2024-06-01T09:30:00Z",
  "entries": {"check": {"7": "2024-06-01T09:00:00Z"}}}``. If a record's webhook was sent in the meantime and
  is scheduled again, the new entry is another one, and the request leaves it alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from airflow_insightly_hooks.core.errors import InvalidPayload
from airflow_insightly_hooks.core.records import is_record_id
from airflow_insightly_hooks.core.state.pending_webhooks import Decision, PendingWebhook

__all__ = [
    "ACTIONS",
    "CANCEL",
    "REQUEST",
    "SEND_NOW",
    "WEBHOOKS",
    "PendingRequest",
    "request_conf",
    "request_in",
]

CANCEL = "cancel"
"""The parameter with the records whose pending webhooks are not to be sent. It is also a request's action."""
SEND_NOW = "send_now"
"""The parameter with the records whose pending webhooks are to be sent at once. It is also an action."""
WEBHOOKS = "webhooks"
"""The parameter with the webhooks that the request is for. If it is empty, it is for all webhooks."""
ACTIONS = (CANCEL, SEND_NOW)
REQUEST = "pending_request"
"""The key of a run's conf for a request that names entries."""

Selection = Mapping[int, str | None]
"""By record id, the time of the change that triggered; ``None``: all that is pending for the record."""

NO_ENTRIES: Selection = MappingProxyType({})


class PendingRequest(NamedTuple):
    """The part of a request that is for one webhook's pending entries."""

    cancel: Selection = NO_ENTRIES
    send_now: Selection = NO_ENTRIES

    def cancels(self, entry: PendingWebhook) -> bool:
        """Return whether an entry is not to be sent."""
        return _is_meant(self.cancel, entry)

    def sends_now(self, entry: PendingWebhook) -> bool:
        """Return whether an entry is to be sent at once."""
        return _is_meant(self.send_now, entry)

    def outcome(self, decision: Decision) -> Iterator[str]:
        """Yield lines for the log about the result of the request, with the records' ids."""
        for selection, done, entries in (
            (self.cancel, "cancelled", decision.cancelled),
            (self.send_now, "sent before their time", decision.moved),
        ):
            ids = [entry.record_id for entry in entries]
            if selection:
                yield f"{len(ids)} {done}: {ids}"
            if missing := sorted(selection.keys() - set(ids)):
                yield f"{len(missing)} not {done}, because not pending any more: {missing}"


def request_conf(
    action: str, entries: Mapping[str, Mapping[int, str]], *, requested_by: str, requested_at: str
) -> dict[str, Any]:
    """Return the conf of a run that cancels entries, or sends them at once.

    :param action: one of ``ACTIONS``.
    :param entries: by webhook and record id, the time of the change that triggered, as in the entry.
    :param requested_at: ISO 8601.
    """
    return {
        REQUEST: {
            "action": action,
            "requested_by": requested_by,
            "requested_at": requested_at,
            "entries": {
                webhook: {str(record_id): changed_at for record_id, changed_at in some.items()}
                for webhook, some in entries.items()
            },
        }
    }


def request_in(params: object, conf: object, webhook: str) -> PendingRequest:
    """Return the part of a run's request that is for one webhook, from the run's parameters and conf.

    :raises InvalidPayload: if either can't be read.
    """
    params = params if isinstance(params, Mapping) else {}
    webhooks = _list(params, WEBHOOKS)
    is_meant = not webhooks or webhook in webhooks
    asked: dict[str, dict[int, str | None]] = {
        action: {_record_id(i): None for i in _list(params, action)} if is_meant else {} for action in ACTIONS
    }
    request = conf.get(REQUEST) if isinstance(conf, Mapping) else None
    if request is not None:
        action, entries = _request(request)
        asked[action] = {**asked[action], **_selection(entries.get(webhook) or {})}
    return PendingRequest(asked[CANCEL], asked[SEND_NOW])


def _is_meant(selection: Selection, entry: PendingWebhook) -> bool:
    return entry.record_id in selection and selection[entry.record_id] in (None, entry.changed_at)


def _list(params: Mapping[str, Any], name: str) -> list[Any]:
    value = params.get(name) or []
    if not isinstance(value, list):
        raise InvalidPayload(name, f"a list is needed, not {type(value).__name__}")
    return value


def _request(value: object) -> tuple[str, Mapping[str, Any]]:
    if not isinstance(value, Mapping):
        raise InvalidPayload(REQUEST, f"an object is needed, not {type(value).__name__}")
    action, entries = value.get("action"), value.get("entries")
    if action not in ACTIONS:
        raise InvalidPayload(REQUEST, f"its action must be one of {list(ACTIONS)}")
    if not isinstance(entries, Mapping):
        raise InvalidPayload(REQUEST, "its entries must be an object, by webhook")
    return action, entries


def _selection(entries: object) -> dict[int, str | None]:
    if not isinstance(entries, Mapping):
        raise InvalidPayload(REQUEST, "a webhook's entries must be an object, by record id")
    selection: dict[int, str | None] = {}
    for record_id, changed_at in entries.items():
        if not isinstance(changed_at, str):
            raise InvalidPayload(REQUEST, "an entry must be the time of the change, a text")
        selection[_record_id(record_id)] = changed_at
    return selection


def _record_id(value: object) -> int:
    """Return a record's id from a number, or from a text, because JSON's keys are texts."""
    record_id = int(value) if isinstance(value, str) and value.isascii() and value.isdecimal() else value
    if not is_record_id(record_id):
        raise InvalidPayload("record id", "it must be a positive whole number below 2^63")
    return record_id
