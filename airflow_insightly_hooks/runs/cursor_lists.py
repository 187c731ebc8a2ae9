"""Whose cursors there are in an asset's state: for watchers, for a first run's log, and to forget old ones.

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

if TYPE_CHECKING:
    from airflow.sdk.types import RuntimeTaskInstanceProtocol as RuntimeTaskInstance

    from airflow_insightly_hooks.core.state.state_store import StateStore

__all__ = ["CursorLists"]

log = logging.getLogger(__name__)

SHOWN = 50
"""Cursors that a first run's log lists."""
LARGEST_PART = 60_000
"""Bytes; Airflow's stores take 65,535 under one key."""
FORGOTTEN_AFTER = timedelta(days=90)
"""How long ago a cursor must have moved last, and its DAG be gone from Airflow, to be deleted."""
LOOKED_AT = 32
"""How many entries of a part are looked at, at most, when an entry is added to it."""


class CursorLists:
    """The list of the cursors that one asset's state keeps, in several parts.

    :param state: the asset's state.
    :param ti: what is asked which DAGs there are.
    """

    def __init__(self, state: StateStore, ti: RuntimeTaskInstance) -> None:
        self._state = state
        self._ti: Any = ti

    def enlist(self, key: str, entry: Mapping[str, Any], *, keeps_woken: bool) -> None:
        """Note whose cursor it is.

        :param entry: as ``hooks.assets.CURSOR_LISTS`` describes it.
        :param keeps_woken: whether the run says nothing of what wakes its DAG, since it was started by hand.
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
                    "Cursor %r was moved by %s.%s before. After a rename, or after a workflow was given "
                    "another mode, that is as it should be. If that task still runs, each of the two misses "
                    "what the other one reads: give them two names",
                    *(_name(key), before["dag"], before["task"]),
                )
        if is_new:
            self._forget_old(part)
        elif before == entry:
            return
        part = {**part, key: dict(entry)}
        if is_new and len(json.dumps(part)) > LARGEST_PART:
            log.warning(
                "Cursor %r is kept, but not listed: there are too many for this account and record type. A "
                "watcher doesn't repeat an event that this DAG has missed, and no first run's log names it",
                _name(key),
            )
            return
        self._state.set(name, part)

    def tell_of_others(self, key: str) -> None:
        """Log what other cursors there are: one may be this task's old one."""
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
        advice = "If this task had another id before, give it cursor=… with that name to go on from there"
        if unclaimed:
            log.warning(
                "Cursors for this account and record type whose DAGs are gone: %s. %s",
                ", ".join(unclaimed),
                advice,
            )
        if others:
            log.info("Other cursors for this account and record type: %s. %s", ", ".join(others), advice)

    def _described(self, key: str) -> str:
        return f"{_name(key)} (read to {self._state.get(key)})"

    def _taken_from_old_list(self, key: str) -> Any:
        """Return the entry that an earlier version wrote, out of its list, which had one part."""
        old = CURSOR_LISTS[0]
        part = read_value(self._state, old) or {}
        if (entry := part.pop(key, None)) is not None:
            if part:
                self._state.set(old, part)
            else:
                self._state.delete(old)
        return entry

    def _forget_old(self, part: dict[str, Any]) -> None:
        """Delete cursors that have not moved for long, and whose DAGs are gone; take them from the part."""
        last = datetime.now(timezone.utc) - FORGOTTEN_AFTER
        for key in random.sample(sorted(part), min(LOOKED_AT, len(part))):
            text = self._state.get(key)
            try:
                if text is not None and api_time(text, key) > last:
                    continue
            except InvalidTime:
                continue  # set by hand, and for its own task to refuse
            entry = part[key]
            if text is not None and self._exists(entry["dag"]):
                continue
            log.info("Cursor %r is deleted: its DAG is gone, and it was at %s", _name(key), text)
            # What else stands under keys that are the cursor's.
            task = f"{entry['dag']}/{entry['task']}"
            for old in (f"chunks/{task}", f"claim/{task}", *seen_keys(key), key):
                self._state.delete(old)
            del part[key]

    def _exists(self, dag_id: str) -> bool:
        """Return whether Airflow knows the DAG; where that can't be seen, it does."""
        try:
            self._ti.get_dag(dag_id)
        except AirflowRuntimeError as error:
            return (error.error.detail or {}).get("status_code") != 404
        return True


def _name(key: str) -> str:
    return key.removeprefix(cursor_key(""))
