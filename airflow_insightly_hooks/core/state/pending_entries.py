"""Reads which entries a run of a pending DAG is to add, from its conf and another task's XCom.

Both may have been written by hand, so both are checked.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airflow_insightly_hooks.core.errors import InvalidPayload
from airflow_insightly_hooks.core.state.pending_webhooks import PendingWebhook

__all__ = ["entries_in", "source_of"]


def source_of(conf: object, key: str) -> Mapping[str, Any] | None:
    """Return the task that has scheduled webhooks, as a run's conf names it.

    :returns: ``{"dag_id", "run_id", "task_id", "map_index"}``; ``None`` if the conf has no such key.
    :raises InvalidPayload: if the value doesn't name a task.
    """
    source = conf.get(key) if isinstance(conf, Mapping) else None
    if source is None:
        return None
    if not isinstance(source, Mapping):
        raise InvalidPayload(key, f"an object is needed, not {type(source).__name__}")
    for name in ("dag_id", "run_id", "task_id"):
        value = source.get(name)
        if not isinstance(value, str) or not value or not value.isprintable():
            raise InvalidPayload(key, f"{name} must be a text, from the task that has scheduled webhooks")
    index = source.get("map_index", -1)
    if isinstance(index, bool) or not isinstance(index, int) or not -1 <= index < 2**31:
        raise InvalidPayload(key, "map_index must be a whole number from -1 on")
    return {**source, "map_index": index}


def entries_in(found: object, webhook: str, source: Mapping[str, Any]) -> list[PendingWebhook]:
    """Return the entries that a task has scheduled for a webhook.

    :param found: the task's XCom.
    :param source: the task, as ``source_of`` returns it.
    :raises InvalidPayload: if the XCom doesn't hold, by webhook, lists of what ``PendingWebhook.as_dict``
        returned.
    """
    if not isinstance(found, Mapping):
        raise InvalidPayload(
            "pending",
            f"task {source['task_id']!r} of run {source['run_id']!r} of DAG {source['dag_id']!r} has no "
            f"XCom: it was cleared or deleted. Clear it, and then this run",
        )
    entries = found.get(webhook) or []
    if not isinstance(entries, list):
        raise InvalidPayload("pending webhooks", f"a list is needed, not {type(entries).__name__}")
    return [PendingWebhook.of(entry) for entry in entries]
