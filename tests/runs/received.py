"""Webhooks in the store, as the endpoint writes them, and runs of a task that reads them at chosen times."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from itertools import count
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.execution_time.context import set_current_context

from airflow_insightly_hooks.core.dates import format_ms_date, iso_time
from airflow_insightly_hooks.core.detection.changes import RecordChange
from airflow_insightly_hooks.core.incoming.kept_entity import KeptEntity, KeptName
from airflow_insightly_hooks.hooks.entity_store import EntityStore
from airflow_insightly_hooks.runs import received_changes as module
from airflow_insightly_hooks.runs import windows
from tests.conftest import AssetStateStores, StateStore, TaskInstance, run_context

EIGHT = datetime(2017, 3, 10, 8, tzinfo=timezone.utc)


class Clock:
    """The workers' clock.

    :ivar now: the time that it shows.
    """

    def __init__(self) -> None:
        self.now = EIGHT

    def forward(self, **by: float) -> None:
        self.now += timedelta(**by)

    @contextmanager
    def instead(self) -> Iterator[None]:
        """Make tasks use this clock."""
        clock = self

        class Datetime(datetime):
            @classmethod
            def now(cls, tz: Any = None) -> datetime:
                return clock.now

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module, "datetime", Datetime)
            patch.setattr(windows, "datetime", Datetime)
            yield


class StoppedHereError(Exception):
    """The worker was killed."""


class StoppingStore(StateStore):
    """A state store of a worker that may be killed before a write.

    :ivar left: after how many more writes the worker is killed; ``None`` for never. Stores of one worker
    share it.
    """

    def __init__(self, left: list[int | None]) -> None:
        super().__init__()
        self.left = left

    def set(self, key: str, value: Any, *, retention: Any = None) -> None:
        if self.left[0] is not None:
            if not self.left[0]:
                raise StoppedHereError
            self.left[0] -= 1
        super().set(key, value, retention=retention)


class Reader:
    """A task that reads contacts: its runs share the asset's state.

    :param clock: the workers' clock.
    """

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.left: list[int | None] = [None]
        self._numbers = count(1)
        self.assets = AssetStateStores()
        self.asset = module.received_changes_asset("Contacts")
        self.assets[self.asset] = StoppingStore(self.left)

    def new_run(self, **entries: Any) -> dict[str, Any]:
        """Return the context of a new run."""
        run = {"task_state_store": StoppingStore(self.left), "asset_state_store": self.assets}
        run["dag_run"] = SimpleNamespace(run_type="asset_triggered", start_date=self.clock.now)
        return run_context(ti=TaskInstance("dag", "read", f"run_{next(self._numbers)}"), **run | entries)

    def read(self, context: dict[str, Any], record_type: str = "Contacts") -> list[RecordChange]:
        """Return what the task reads in a run."""
        with set_current_context(context), self.clock.instead():  # type: ignore[arg-type]
            return module.received_changes(record_type, incoming_conn_id="crm")

    def ids(self, context: dict[str, Any] | None = None) -> list[int]:
        """Return the ids of the records whose changes a run reads, by default a new one."""
        return [change["record_id"] for change in self.read(context or self.new_run())]

    @property
    def cursor(self) -> str | None:
        value: str | None = self.assets[self.asset].get("cursor/dag/read")
        return value


def keep(
    store: EntityStore,
    record_id: int,
    received_at: datetime,
    changed_at: datetime | None = None,
    **fields: Any,
) -> KeptName:
    """Store a webhook of a contact's update."""
    updated = format_ms_date(changed_at or received_at)
    record = {"CONTACT_ID": record_id, "FIRST_NAME": "Zoé", "DATE_UPDATED_UTC": updated, **fields}
    entity = KeptEntity(received_at, "Contacts", record_id, record)
    name = KeptName.of_message(received_at, record_id, f"{record}")
    store.keep(name, entity)
    return name


def woken(*since: datetime) -> dict[Any, list[SimpleNamespace]]:
    """Return the events of the webhooks that have triggered a run."""
    extras = [
        {"from_webhook": True, "payload": {"since": iso_time(at), "until": iso_time(at)}} for at in since
    ]
    return {"asset": [SimpleNamespace(extra=extra) for extra in extras]}
