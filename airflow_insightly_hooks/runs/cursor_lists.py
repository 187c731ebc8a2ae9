"""The list of the cursors in an asset's state.

Watchers use it, the log of a first run shows it, and old cursors are deleted by it.

Private.
"""

from __future__ import annotations

import json
import logging
import random
from collections.abc import Mapping
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

from airflow.sdk.exceptions import AirflowRuntimeError

from airflow_insightly_hooks.core.dates import api_time
from airflow_insightly_hooks.core.detection.seen_store import seen_keys
from airflow_insightly_hooks.core.errors import InvalidTime
from airflow_insightly_hooks.core.state.versions import read_value
from airflow_insightly_hooks.hooks.assets import CURSOR_LISTS, cursor_key, cursor_list
from airflow_insightly_hooks.runs.shared_reading import shared_keys

if TYPE_CHECKING:
    from airflow.sdk.types import RuntimeTaskInstanceProtocol as RuntimeTaskInstance

    from airflow_insightly_hooks.core.state.state_store import StateStore

__all__ = ["CursorLists"]

log = logging.getLogger(__name__)

SHOWN = 50
"""How many cursors a first run's log shows."""
LARGEST_PART = 60_000
"""Bytes. Airflow's stores take 65,535 bytes under one key."""
FORGOTTEN_AFTER = timedelta(days=90)
"""A cursor is deleted if it hasn't moved for this long, and its DAG is gone from Airflow."""
LOOKED_AT = 32
"""The most entries of a part that are examined when an entry is added to the part."""


class CursorLists:
    """The list of the cursors in one asset's state. The state keeps it in several parts.

    :param state: the asset's state.
    :param ti: the task instance, through which Airflow is asked whether a DAG exists.
    """

    def __init__(self, state: StateStore, ti: RuntimeTaskInstance) -> None:
        self._state = state
        self._ti: Any = ti

    def add(self, key: str, entry: Mapping[str, Any], *, keeps_woken: bool) -> None:
        """Add a cursor to the list, with the task that has moved it.

        :param key: the cursor's key.
        :param entry: its entry, as ``hooks.assets.CURSOR_LISTS`` describes it.
        :param keeps_woken: whether a true ``woken`` in the list stays. A run that was started by hand doesn't
            show whether events start its DAG.
        """
        name = cursor_list(key)
        part: dict[str, Any] = read_value(self._state, name) or {}
        before = part.get(key)
        is_new = before is None
        if is_new:
            before = self._taken_from_old_list(key)
        if before is not None:
            if not entry["woken"] and keeps_woken:
                entry = {**entry, "woken": before["woken"]}
            if (before["dag"], before["task"]) != (entry["dag"], entry["task"]):
                log.warning(
                    "Task %s.%s has moved cursor %r before. This is expected after a task was renamed, or "
                    "after a workflow's mode was changed. If that task still runs, each of the two tasks "
                    "misses the changes that the other one reads: give them cursors with different names",
                    *(before["dag"], before["task"], _name(key)),
                )
        if is_new:
            self._forget_old(part)
        elif before == entry:
            return
        part = {**part, key: dict(entry)}
        if is_new and len(json.dumps(part)) > LARGEST_PART:
            log.warning(
                "Cursor %r is kept but not listed: this account and record type have too many cursors. If "
                "this DAG misses an event, a watcher doesn't repeat it, and the log of a first run doesn't "
                "show this cursor. Use fewer cursor names for this account and record type",
                _name(key),
            )
            return
        self._state.set(name, part)

    def log_others(self, key: str) -> None:
        """Log the other cursors of this asset: if the task was renamed, one is its old cursor."""
        entries: dict[str, Any] = {}
        for name in CURSOR_LISTS:
            entries |= read_value(self._state, name) or {}
        keys = sorted(set(entries) - {key})
        if not keys:
            return
        shown = keys[:SHOWN]
        exists = {dag_id: self._exists(dag_id) for dag_id in {entries[k]["dag"] for k in shown}}
        unclaimed = [self._described(k) for k in shown if not exists[entries[k]["dag"]]]
        others = [self._described(k) for k in shown if exists[entries[k]["dag"]]]
        if len(keys) > len(shown):
            others.append(f"and {len(keys) - len(shown)} more")
        advice = (
            "If this task had another id before, set its argument cursor to the old name to continue there"
        )
        if unclaimed:
            log.warning(
                "This account and record type have cursors whose DAGs are gone: %s. %s",
                ", ".join(unclaimed),
                advice,
            )
        if others:
            log.info("Other cursors for this account and record type: %s. %s", ", ".join(others), advice)

    def _described(self, key: str) -> str:
        return f"{_name(key)} (read to {self._state.get(key)})"

    def _taken_from_old_list(self, key: str) -> Any:
        """Remove and return the entry that an earlier version wrote into its list, which had one part."""
        old = CURSOR_LISTS[0]
        part = read_value(self._state, old) or {}
        if (entry := part.pop(key, None)) is not None:
            if part:
                self._state.set(old, part)
            else:
                self._state.delete(old)
        return entry

    def _forget_old(self, part: dict[str, Any]) -> None:
        """Delete cursors that haven't moved for long and whose DAGs are gone, and their entries."""
        last = datetime.now(timezone.utc) - FORGOTTEN_AFTER
        for key in random.sample(sorted(part), min(LOOKED_AT, len(part))):
            text = self._state.get(key)
            try:
                if text is not None and api_time(text, key) > last:
                    continue
            except InvalidTime:
                continue  # somebody has set it by hand; its own task refuses it
            entry = part[key]
            if text is not None and self._exists(entry["dag"]):
                continue
            log.info("Cursor %r is deleted: its DAG is gone, and it was at %s", _name(key), text)
            # The other keys that belong to the cursor.
            for old in (*shared_keys(entry["dag"], entry["task"]), *seen_keys(key), key):
                self._state.delete(old)
            del part[key]

    def _exists(self, dag_id: str) -> bool:
        """Return whether Airflow knows the DAG; ``True`` if Airflow doesn't say."""
        try:
            self._ti.get_dag(dag_id)
        except AirflowRuntimeError as error:
            return (error.error.detail or {}).get("status_code") != 404
        return True


def _name(key: str) -> str:
    return key.removeprefix(cursor_key(""))
