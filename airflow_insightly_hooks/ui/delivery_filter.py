"""The filter of deliveries in a page's address: its fields, their mistakes, and the search."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from airflow_insightly_hooks.core.dates import iso_time
from airflow_insightly_hooks.core.delivery.stored_deliveries import (
    DELIVERED,
    DRY_RUN,
    LEFT,
    STATES,
    UNSENT,
)
from airflow_insightly_hooks.core.errors import UnknownRecordType
from airflow_insightly_hooks.core.records import record_reference
from airflow_insightly_hooks.core.workflow.dag_ids import workflow_dag_id
from airflow_insightly_hooks.database.deliveries import UNDELIVERED, DeliveryFilter, WantedTasks
from airflow_insightly_hooks.ui.delivery_keys import TABS, tab_fields
from airflow_insightly_hooks.ui.fields import time_in_zone, whole_number

__all__ = ["FIELDS", "PERIODS", "STATE_WORDS", "WantedDeliveries"]

STATE_WORDS = {
    DELIVERED: "the receiver has acknowledged it",
    "failed": "the last POST was not acknowledged",
    "gone": "the receiver has answered that it will never take it",
    "in doubt": "a POST was begun, and its outcome is not known",
    UNSENT: "no POST was made yet",
    LEFT: "the workflow's retry DAG sends it, and has its own line in the list",
    DRY_RUN: "it is not sent, because dry_run is set",
}
PERIODS: dict[str, tuple[str, timedelta | None]] = {
    "1h": ("the last hour", timedelta(hours=1)),
    "24h": ("the last 24 hours", timedelta(hours=24)),
    "7d": ("the last 7 days", timedelta(days=7)),
    "30d": ("the last 30 days", timedelta(days=30)),
    "all": ("any time", None),
}
USUAL_PERIOD = "7d"
RANGE = "range"
SCOPE = TABS["task_instance"]
FIELDS = ("tab", *SCOPE, "workflow", "receiver", "record", "message", "state", "period", "from", "to")
LONGEST = 500
"""How many characters a field may have."""
MOST_PAGES = 1_000
LARGEST_MAP_INDEX = 2**31 - 1


@dataclass
class WantedDeliveries:
    """The filter in an address.

    :param given: the values of its fields by name, without the empty ones.
    :param zone: the time zone of times without an offset.
    :param page: the number of the list's page, from 1 on.
    :param problems: what is wrong with a field, by the field's name.
    """

    given: dict[str, str]
    zone: str = "UTC"
    page: int = 1
    problems: dict[str, str] = field(default_factory=dict)
    since: datetime | None = None
    until: datetime | None = None
    records: tuple[tuple[str | None, int], ...] = ()

    @classmethod
    def read(cls, query: Mapping[str, str], now: datetime) -> WantedDeliveries:
        """Return the filter in the fields of an address or a form. Their mistakes are in ``problems``."""
        given = {name: text for name in FIELDS if (text := query.get(name, "").strip())}
        found = cls(given, query.get("zone", "").strip() or "UTC")
        for name, text in list(given.items()):
            if len(text) > LONGEST or "\0" in text:
                del given[name]
                found.problems[name] = f"Use at most {LONGEST} characters, and no NUL."
        found._read_scope()
        found._read_record()
        if found["state"] and found["state"] not in (UNDELIVERED, *STATES):
            found.problems["state"] = "There is no such state. Choose one from the list."
        found._read_period(now)
        if page := whole_number(query.get("page", "").strip() or "1", MOST_PAGES):
            found.page = page
        else:
            found.problems["page"] = (
                f"The page must be a number from 1 to {MOST_PAGES:,}. For older deliveries, choose a period."
            )
        return found

    def __getitem__(self, name: str) -> str:
        """Return a field's value; empty if the address does not have it."""
        return self.given.get(name, "")

    # --- reading -------------------------------------------------------------------------------------------

    def _read_scope(self) -> None:
        if self["tab"] and self["tab"] not in TABS:
            del self.given["tab"]
        map_index = self["map_index"]
        if not (map_index.isascii() and map_index.isdecimal()):  # Airflow's value if a task isn't mapped
            self.given.pop("map_index", None)
        elif whole_number(map_index, LARGEST_MAP_INDEX) is None:
            del self.given["map_index"]
            self.problems["map_index"] = "There is no such map index."
        if not self["dag_id"] and any(self[name] for name in SCOPE):
            self.problems["dag_id"] = "The address lacks the DAG of the run or the task. Add dag_id to it."

    def _read_record(self) -> None:
        if not (text := self["record"]):
            return
        try:
            self.records = (record_reference(text),)
        except (ValueError, UnknownRecordType) as error:
            reason = str(error)
            self.problems["record"] = f"{reason[:1].upper()}{reason[1:]}."

    def _read_period(self, now: datetime) -> None:
        # A run has few deliveries, and they may be old.
        usual = "all" if self["run_id"] or self["message"] else USUAL_PERIOD
        period = self["period"] or (RANGE if self["from"] or self["to"] else usual)
        self.given["period"] = period
        if period == RANGE:
            self.since, self.until = self._time("from"), self._time("to")
            if self.since is not None and self.until is not None and self.until <= self.since:
                self.problems["to"] = "This must be later than the time in “From”."
            return
        for name in ("from", "to"):
            self.given.pop(name, None)
        if period not in PERIODS:
            self.problems["period"] = "There is no such period. Choose one from the list."
            return
        ago = PERIODS[period][1]
        self.since = None if ago is None else now - ago

    def _time(self, name: str) -> datetime | None:
        if not (text := self[name]):
            return None
        try:
            time = time_in_zone(text, self.zone)
        except ValueError:
            self.problems[name] = "This must be a date and a time, such as 2026-01-31T08:00."
            return None
        self.given[name] = iso_time(time)  # a person who gets the address may have another time zone
        return time

    # --- address and search --------------------------------------------------------------------------------

    @property
    def scope(self) -> dict[str, str]:
        """The tab, and the DAG, run or task that it is about. Empty outside of tabs."""
        return tab_fields(self.__getitem__)

    @property
    def query(self) -> dict[str, str]:
        """The address's fields that differ from their defaults, without the page."""
        usual = "all" if self["run_id"] or self["message"] else USUAL_PERIOD
        return {n: v for n, v in self.given.items() if not (n == "period" and v in (usual, RANGE))}

    @property
    def chosen(self) -> dict[str, str]:
        """The fields that narrow down the list, without the fields of a tab."""
        return {name: value for name, value in self.query.items() if name not in self.scope}

    def filter(self, dag_ids: Collection[str], visible: Collection[str]) -> DeliveryFilter:
        """Return the search.

        :param dag_ids: the DAGs whose deliveries the person may see.
        :param visible: all DAGs that the person may see. They tell which DAG sends for which workflow.
        """
        tasks = None
        if self["run_id"] or self["task_id"]:
            map_index = int(self["map_index"]) if self["map_index"] else None
            if map_index is None and self["tab"] == "task_instance":
                map_index = -1
            tasks = WantedTasks(self["dag_id"], self["run_id"] or None, self["task_id"] or None, map_index)
        elif self["dag_id"]:
            dag_ids = [one for one in dag_ids if self["dag_id"] in (one, workflow_dag_id(one, visible))]
        if self["workflow"]:
            dag_ids = [one for one in dag_ids if workflow_dag_id(one, visible) == self["workflow"]]
        return DeliveryFilter(
            dag_ids=dag_ids,
            tasks=tasks,
            receiver=self["receiver"] or None,
            records=self.records or None,
            message_ids=[self["message"]] if self["message"] else None,
            state=self["state"] or None,
            since=self.since,
            until=self.until,
        )
