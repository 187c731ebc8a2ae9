"""The changes that Insightly's webhooks have announced, for a watch, and the changes that they have missed.

For a webhook, the endpoint itself stores an event. It also stores the announced seconds in the state of the
records' asset. A watch reads this state every few seconds. An event alone doesn't show that a DAG has read
the changes: Airflow can delay an event, and a run can fail. Reading the state sends no request to Insightly.
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
    ". No webhook has announced a change yet. DAGs with push=True (on_change: push) need a webhook: in "
    "Insightly, give a workflow a webhook to /insightly/hooks/{connection} of Airflow's API server"
)
MISSED = (
    ". Insightly's webhooks should have announced them. Check in Insightly that the webhook's workflow is "
    "active, has no criteria, and is for new and edited records. Check that Insightly can reach Airflow's "
    "API server, and that it accepts the user name and the password: its log says what it has refused"
)
LOOK_INTERVAL = 5.0
"""Seconds between two readings of the announced changes."""
ONE_SECOND = timedelta(seconds=1)
UNREAD = object()


class Announcement(NamedTuple):
    """Changes that webhooks have announced.

    :param since: the time from which there are changes, for a DAG that has not read any yet.
    :param until: the time up to which there are changes. A run whose window ends then, or later, has read
        them.
    """

    since: datetime
    until: datetime


class Announcements:
    """The changes that webhooks have announced, read from the state of the records' asset.

    :param state: the state of this asset.
    :param insightly_conn_id: the id of the account's connection.
    :param record_type: a record type's name in Insightly's API.
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
        """The latest announcement; ``None`` if none was found yet."""
        return self._latest

    def set_clock(self, server_time: datetime) -> None:
        """Set Insightly's time, by an answer that has just come. The first call is the start of watching."""
        self._clock = server_time, time.monotonic()
        self._since = self._since or server_time

    async def look(self, polled_until: datetime, settle: timedelta) -> None:
        """Read the announced changes from the state.

        :param polled_until: the time up to which earlier polls have looked for changes.
        :param settle: the time after a change before a run may read it.
        """
        try:
            value = await self._state.aget(ANNOUNCED)
            spans = AnnouncedSpans.of(value)
            until = spans.until if spans is not None else None
            if spans is None and value is not None:
                raise ValueError("the announced changes can't be read")
        except Exception as error:
            if self._is_readable:
                log.warning(
                    "The changes of %s that webhooks have announced (connection %r) can't be read: %s",
                    *(self._record_type, self._conn_id, type(error).__name__),
                )
            self._is_readable, self._spans = False, None
            return
        before, self._value = self._value, value
        self._is_readable, self._spans = True, spans
        if value == before or until is None:
            return
        known = max(polled_until, self._latest.until) if self._latest is not None else polled_until
        if until > known:
            self._latest = Announcement(known, until)
        elif before is UNREAD:
            self._latest = Announcement(polled_until, until)
        else:
            # A webhook has come late, so a run may have missed its change. A run that begins now can't.
            settled = (self._server_time() or known) - settle
            self._latest = Announcement(polled_until, max(known, settled.replace(microsecond=0) + ONE_SECOND))

    def unannounced(self, changes: Sequence[datetime]) -> list[datetime]:
        """Return the changes of a poll that no webhook has announced. After a minute they count as missed.

        The other changes are treated as if they had just been announced. This is needed because times are
        compared with a tolerance of a second, so a change next to an announced one may not be announced.

        :param changes: the times of the changes.
        """
        found = [at for at in changes if not is_announced(at, self._spans)]
        if self._is_readable:
            self._unannounced.add(found)
        announced = set(changes).difference(found)
        if announced and (self._latest is None or max(announced) >= self._latest.until):
            self._latest = Announcement(min(announced), max(announced) + ONE_SECOND)
        return found

    def warn_of_missed(self) -> None:
        """Log and count the changes that a webhook should have announced by now."""
        now, spans = self._server_time(), self._spans
        if now is None or self._since is None or not self._is_readable:
            return
        # As long as no webhook has come at all, changes from before this watch don't count.
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
        """Return Insightly's time by its last answer; ``None`` without an answer."""
        if self._clock is None:
            return None
        server_time, at = self._clock
        return server_time + timedelta(seconds=time.monotonic() - at)
