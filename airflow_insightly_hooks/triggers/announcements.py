"""What Insightly's webhooks have told of, for a watch; and which changes they have missed.

The endpoint stores an event for a webhook by itself, and notes in the state of the records' asset which
seconds it has told of. A watch looks at that every few seconds: Airflow can hold an event back, and a run can
fail, so an event alone doesn't show that a DAG has read what it told of. No look asks Insightly anything.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple

from airflow_insightly_hooks.core.dates import iso_time
from airflow_insightly_hooks.core.incoming.announced import AnnouncedSpans
from airflow_insightly_hooks.core.incoming.unannounced_changes import UnannouncedChanges, is_announced
from airflow_insightly_hooks.core.plurals import counted
from airflow_insightly_hooks.hooks.assets import ANNOUNCED
from airflow_insightly_hooks.triggers.metrics import count_unannounced

if TYPE_CHECKING:
    from airflow.sdk.execution_time.context import AssetStateStoreAccessors

__all__ = ["LOOK_INTERVAL", "Announcement", "Announcements"]

log = logging.getLogger(__name__)

NONE_YET = (
    ", and no webhook has told Airflow of any change yet. DAGs with push=True (on_change: push) need one: in "
    "Insightly, give a workflow a webhook to /insightly/hooks/{connection} of Airflow's API server"
)
MISSED = (
    ", although Insightly's webhooks should have told Airflow. Check in Insightly that the workflow with the "
    "webhook is active, has no criteria, and is for new and edited records; and whether Airflow's API server "
    "could be reached from there, and took the user name and the password (its log says what it has refused)"
)
LOOK_INTERVAL = 5.0
"""Seconds between two looks at what was announced."""
ONE_SECOND = timedelta(seconds=1)
UNREAD = object()


class Announcement(NamedTuple):
    """That webhooks have told of changes.

    :param since: from when on there are changes, for a DAG that has read none yet.
    :param until: up to when; a run whose window ends there, or later, has read them.
    """

    since: datetime
    until: datetime


class Announcements:
    """What webhooks have told of, as the state of the records' asset says it.

    :param state: of that asset.
    :param insightly_conn_id: the account's connection.
    :param record_type: a name of Insightly's API.
    """

    def __init__(self, state: AssetStateStoreAccessors, insightly_conn_id: str, record_type: str) -> None:
        self._state = state
        self._conn_id, self._record_type = insightly_conn_id, record_type
        self._value: object = UNREAD
        self._spans: AnnouncedSpans | None = None
        self._is_readable = True
        self._latest: Announcement | None = None
        self._unannounced = UnannouncedChanges()
        self._clock: tuple[datetime, float] | None = None
        self._since: datetime | None = None

    @property
    def latest(self) -> Announcement | None:
        """What was announced last; ``None`` before the first look that has found something."""
        return self._latest

    def set_clock(self, server_time: datetime) -> None:
        """Take over Insightly's time, as an answer has just told it; the first time, watching begins."""
        self._clock = server_time, time.monotonic()
        self._since = self._since or server_time

    async def look(self, place: datetime, settle: timedelta) -> None:
        """Look at the state, and take over what is announced there.

        :param place: up to when polls had looked for changes before.
        :param settle: how long after a change a run may read it.
        """
        try:
            value = await self._state.aget(ANNOUNCED)
            spans = AnnouncedSpans.of(value)
            until = spans.until if spans is not None else None
            if spans is None and value is not None:
                raise ValueError("what is announced can't be read")
        except Exception as error:
            if self._is_readable:
                log.warning(
                    "What webhooks have told of %s (connection %r) can't be seen: %s",
                    *(self._record_type, self._conn_id, type(error).__name__),
                )
            self._is_readable, self._spans = False, None
            return
        before, self._value = self._value, value
        self._is_readable, self._spans = True, spans
        if value == before or until is None:
            return
        known = max(place, self._latest.until) if self._latest is not None else place
        if until > known:
            self._latest = Announcement(known, until)
        elif before is UNREAD:
            self._latest = Announcement(place, until)
        else:
            # A webhook has come late: a run may have passed its change by. One that reads from now on can't.
            settled = (self._server_time() or known) - settle
            self._latest = Announcement(place, max(known, settled.replace(microsecond=0) + ONE_SECOND))

    def unannounced(self, changes: Sequence[datetime]) -> list[datetime]:
        """Return those of a poll's changes that no webhook has told of; they count as missed a minute later.

        The others are to be read as if they had just been announced: a change within a second's tolerance may
        not have been.

        :param changes: when each was.
        """
        found = [at for at in changes if not is_announced(at, self._spans)]
        if self._is_readable:
            self._unannounced.add(found)
        told = set(changes).difference(found)
        if told and (self._latest is None or max(told) >= self._latest.until):
            self._latest = Announcement(min(told), max(told) + ONE_SECOND)
        return found

    def warn_of_missed(self) -> None:
        """Log, and count, the changes that a webhook should have told of by now."""
        now, spans = self._server_time(), self._spans
        if now is None or self._since is None or not self._is_readable:
            return
        # Before the first webhook of all, none is expected of changes from before this watch.
        missed = self._unannounced.take_overdue(spans, now, spans.since if spans is not None else self._since)
        if not missed:
            return
        count_unannounced(len(missed), self._conn_id, self._record_type)
        log.warning(
            "%s of %s (connection %r) between %s and %s %s seen by polling only%s",
            *(counted(len(missed), "change"), self._record_type, self._conn_id),
            *(iso_time(missed[0]), iso_time(missed[-1]), "was" if len(missed) == 1 else "were"),
            MISSED if spans is not None else NONE_YET,
        )

    def _server_time(self) -> datetime | None:
        """Return Insightly's time, by its last answer."""
        if self._clock is None:
            return None
        told, at = self._clock
        return told + timedelta(seconds=time.monotonic() - at)
