"""Whether the DAGs that share a watcher have read what was said; if not, when it is said again, to all."""

from __future__ import annotations

import logging
import math
import time
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow_insightly_hooks.core.dates import api_time
from airflow_insightly_hooks.hooks.assets import CURSOR_LISTS
from airflow_insightly_hooks.triggers.own_cursor import LONGEST_REPEAT

if TYPE_CHECKING:
    from airflow.sdk.execution_time.context import AssetStateStoreAccessors

__all__ = ["SharedCursors"]

log = logging.getLogger(__name__)

GIVEN_UP = timedelta(days=7)
"""How old a cursor is that no longer counts as behind: its DAG is gone."""


class _Behind(NamedTuple):
    read_to: str
    delay: float
    due: float


class SharedCursors:
    """What was said to the DAGs that share a watcher, until their cursors show that they have read it.

    Each that is behind has it said again, after longer and longer as long as it stays where it is: a DAG that
    is paused for long, or gone, wakes the others ever more rarely.

    :param state: of the asset that keeps the cursors.
    """

    def __init__(self, state: AssetStateStoreAccessors) -> None:
        self._state = state
        self._look_at = math.inf
        self._delay = 0.0
        self._behind: dict[str, _Behind] = {}
        self._said: tuple[datetime, datetime] | None = None

    def said(self, since: datetime, until: datetime, delay: float) -> None:
        """Note what was said, and after how many seconds to look whether it was read."""
        self._said = (self._said[0] if self._said else since), until
        self._delay = delay
        self._look_at = min(self._look_at, time.monotonic() + delay)

    async def to_repeat(self) -> tuple[datetime, datetime] | None:
        """Return what to say again now, if anything: from when to when there are changes."""
        now = time.monotonic()
        if self._said is None or now < self._look_at:
            return None
        said, self._look_at = self._said, math.inf
        try:
            read_to = await self._cursors()
        except Exception as error:
            log.info("How far DAGs have read can't be seen: %s", type(error).__name__)
            read_to = {}
        if not read_to:  # who listens keeps no cursor that is known here: once more, then, and no more
            self._said = None
            return said
        last, before, is_due = datetime.now(timezone.utc) - GIVEN_UP, self._behind, False
        self._behind = {}
        for key, text in read_to.items():
            if not last < api_time(text, key) < said[1]:
                continue
            known = before.get(key)
            if known is None or known.read_to != text:
                known, is_due = _Behind(text, self._delay, now + self._delay), True
            elif now >= known.due:
                delay = min(2 * known.delay, LONGEST_REPEAT)
                known, is_due = _Behind(text, delay, now + delay), True
            self._behind[key] = known
        if not self._behind:
            self._said = None
            return None
        self._look_at = min(known.due for known in self._behind.values())
        return said if is_due else None

    async def _cursors(self) -> dict[str, str]:
        """Return how far the DAGs have read that watchers wake."""
        known: dict[str, Any] = {}
        for part in CURSOR_LISTS:
            of_part: Any = await self._state.aget(part)
            known |= of_part or {}
        woken = [key for key, entry in known.items() if entry.get("woken")]
        read_to = {key: await self._state.aget(key) for key in woken}
        return {key: text for key, text in read_to.items() if isinstance(text, str)}
