"""Keep the contents of webhooks, for connections that ask for it, and delete them after some days.

An object is written before the event that covers it is stored. If a sender gets no 2xx, it tries again. Then
the record's last message comes again, and it is not kept twice. If two processes get the same message, both
keep it. The reader treats the two objects as one change (``core.incoming.received_change``).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone

from airflow_insightly_hooks.core.incoming.kept_entity import KeptEntity, KeptName
from airflow_insightly_hooks.core.incoming.received_entity import ReceivedEntity
from airflow_insightly_hooks.core.plurals import counted
from airflow_insightly_hooks.hooks.entity_store import EntityStore
from airflow_insightly_hooks.hooks.incoming import IncomingSettings
from airflow_insightly_hooks.incoming.answers import Refusal, unavailable
from airflow_insightly_hooks.incoming.threads import Threads

__all__ = ["EntityKeeper", "Kept"]

log = logging.getLogger(__name__)

STORE = "The store of webhooks' contents"
WRITERS = 8
"""How many objects are written at once."""
DELETION_LASTS = 3600.0
"""The most seconds that the deletion of old days may take."""
RETRY_AFTER = 3600.0
"""Seconds after which a failed deletion is tried again."""
SAME_LASTS = 600.0
"""Seconds for which a record's last message is remembered."""
MOST_RECORDS = 10_000
"""How many records' last messages are remembered."""


@dataclass(frozen=True)
class Kept:
    """An object that this request has written, or an earlier request with the same message.

    :ivar is_new: whether this request has written it.
    """

    store: EntityStore
    name: KeptName
    record_type: str
    is_new: bool


@dataclass
class _Deletion:
    """The deletion of an account's old days.

    :ivar days: the number of days for which contents are kept, from the last webhook's connection.
    :ivar task: deletes old days once a day, as long as the process lives.
    """

    days: int
    task: asyncio.Task[None] | None = None


class EntityKeeper:
    """Keeps contents of webhooks, in one process of the API server."""

    def __init__(self) -> None:
        self._writers = Threads(WRITERS, STORE)
        self._deleter = Threads(1, STORE, DELETION_LASTS)
        self._last: OrderedDict[tuple[str, str, str, int], tuple[KeptName, float]] = OrderedDict()
        self._deletions: dict[tuple[str, str], _Deletion] = {}

    async def keep(
        self, settings: IncomingSettings, entity: ReceivedEntity, message: str | bytes
    ) -> Kept | None:
        """Write a webhook's contents, and return the object; ``None`` if the connection keeps no contents.

        :param message: the message's id; the body if it has no id.
        :raises Refusal: 503, if the object can't be written in time.
        """
        if settings.entity_path is None:
            return None
        store = EntityStore(settings.entity_path, settings.insightly_conn_id)
        now = datetime.now(timezone.utc)
        name = KeptName.of_message(now, entity.record_id, message)
        key = (settings.entity_path, settings.insightly_conn_id, entity.record_type, entity.record_id)
        if (known := self._same(key, name)) is not None:
            return Kept(store, known, entity.record_type, is_new=False)
        kept = KeptEntity(name.received_at, entity.record_type, entity.record_id, entity.record)
        try:
            await self._writers.run(store.keep, name, kept)
        except Refusal:
            raise
        except Exception as error:  # from the store; its text may hold anything
            log.warning(
                "A webhook's contents can't be kept: %s; the sender is asked to try again; check the store "
                "(entity_path)",
                type(error).__name__,
            )
            raise unavailable() from None
        self._last[key] = name, time.monotonic()
        self._last.move_to_end(key)
        if len(self._last) > MOST_RECORDS:
            self._last.popitem(last=False)
        self._delete_old(settings, store)
        return Kept(store, name, entity.record_type, is_new=True)

    async def discard(self, kept: Kept) -> None:
        """Delete the object of a request that is refused. An earlier request's object stays."""
        if not kept.is_new:
            return
        self._last.clear()  # simpler than to look for the one message; at worst, a webhook is kept twice
        try:
            await self._writers.run(kept.store.discard, kept.name, kept.record_type)
        except Exception as error:
            log.warning(
                "A refused webhook's contents can't be deleted now: %s; they are deleted with their day",
                type(error).__name__,
            )

    def _same(self, key: tuple[str, str, str, int], name: KeptName) -> KeptName | None:
        """Return the name of the record's last message, if this is the same one."""
        known, kept_at = self._last.get(key, (None, 0.0))
        is_same = known is not None and known.digest == name.digest
        return known if is_same and time.monotonic() - kept_at < SAME_LASTS else None

    def _delete_old(self, settings: IncomingSettings, store: EntityStore) -> None:
        """Start the daily deletion of old days. The request doesn't wait for it."""
        assert settings.entity_path is not None  # noqa: S101 — a kept object has a path
        key = (settings.entity_path, settings.insightly_conn_id)
        deletion = self._deletions.setdefault(key, _Deletion(settings.entity_days))
        deletion.days = settings.entity_days
        if deletion.task is None or deletion.task.done():
            deletion.task = asyncio.create_task(self._delete_daily(deletion, store))

    async def _delete_daily(self, deletion: _Deletion, store: EntityStore) -> None:
        while True:
            today = datetime.now(timezone.utc)
            try:
                deleted = await self._deleter.run(
                    store.delete_before, today.date() - timedelta(days=deletion.days)
                )
            except Exception as error:
                log.warning(
                    "Old contents of webhooks can't be deleted: %s; the next try is in an hour; check the "
                    "store (entity_path)",
                    type(error).__name__,
                )
                await asyncio.sleep(RETRY_AFTER)
                continue
            if deleted:
                log.info("Contents of webhooks older than %s are deleted", counted(deletion.days, "day"))
            tomorrow = today.replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1)
            await asyncio.sleep((tomorrow - datetime.now(timezone.utc)).total_seconds() + 1)
