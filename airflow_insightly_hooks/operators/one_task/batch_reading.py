"""Reading a window's changes a page at a time, and keeping those that meet a workflow's criteria."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from typing import TYPE_CHECKING, Any

from airflow_insightly_hooks.core.criteria import Criteria, Predicate
from airflow_insightly_hooks.core.detection.changes import ChangeWindow, RecordChange
from airflow_insightly_hooks.core.detection.late_changes import LateChanges, SameChanges
from airflow_insightly_hooks.core.detection.record_times import has_time
from airflow_insightly_hooks.core.records import (
    RECORD_TYPES,
    custom_fields_in,
    is_record_id,
    unknown_fields,
)
from airflow_insightly_hooks.core.workflow.definition import WorkflowDefinition
from airflow_insightly_hooks.operators.common.field_checks import (
    MULTI_SELECTS,
    custom_fields_of,
    predicate_of,
    warn_of_unknown,
)
from airflow_insightly_hooks.operators.common.progress_timer import ProgressTimer
from airflow_insightly_hooks.runs.undeliverable import log_undeliverable
from airflow_insightly_hooks.runs.windows import warn_of_timeless

if TYPE_CHECKING:
    from airflow_insightly_hooks.hooks.insightly import InsightlyHook

__all__ = ["Reading"]

PAGE = 500


class Reading:
    """The changes of a window that meet a workflow's criteria; one page of records is in memory at a time.

    Those that can't be delivered are among them, whatever the criteria are.

    :param hook: the account.
    :param window: what is read; relative dates are measured from its end.
    :param detection: finds the changes among the records that are read.
    :param workflow: what to look for.
    :param criteria: the workflow's, rendered.
    :param metadata: returns what Insightly says of the record type's custom fields; asked only where
        ``contains`` or ``not_contains`` meets a custom field that isn't empty.
    :param log: where progress and warnings go.
    :ivar detected: changes that were read so far, whatever the criteria are.
    """

    def __init__(
        self,
        hook: InsightlyHook,
        window: ChangeWindow,
        detection: LateChanges | SameChanges,
        workflow: WorkflowDefinition,
        criteria: Criteria,
        metadata: Callable[[], list[dict[str, Any]]],
        log: Any,
    ) -> None:
        self._hook, self._window = hook, window
        self._detection = detection
        self._kind = RECORD_TYPES[workflow.record_type]
        self._criteria, self._metadata, self._log = criteria, metadata, log
        self._now = window.end if criteria.has_relative_dates else None
        self._options = criteria.option_fields
        self._meets: Predicate | None = None
        named = {*criteria.fields, *(name for w in workflow.webhooks for name in w.fields or ())}
        self._unknown = unknown_fields(self._kind, (), named)
        self._read = self.detected = self._matching = 0
        self._timeless: list[int] = []
        self._progress = ProgressTimer()

    def batches(self, size: int) -> Iterator[list[RecordChange]]:
        """Yield the changes, up to ``size`` at a time; a record has one at most.

        :raises InsightlyAPIError: if Insightly can't be read.
        """
        started = time.monotonic()
        matching = (change for page in self._pages() for change in page)
        while batch := list(islice(matching, size)):
            yield batch
        self._log.info("%s; %.1f s in all", self._so_far(), time.monotonic() - started)
        if self.detected:
            warn_of_unknown(self._log, self._kind.name, self._unknown)
        warn_of_timeless(self._log, self._kind.name, self._timeless)

    def _pages(self) -> Iterator[list[RecordChange]]:
        """Yield what matches, page by page."""
        if self._detection.is_empty:
            return
        records = self._hook.iter_records(self._kind.name, updated_after=self._detection.search_from)
        while page := list(islice(records, PAGE)):
            self._read += len(page)
            for record in page:
                if not has_time(record) and is_record_id(record_id := record.get(self._kind.id_field)):
                    self._timeless.append(record_id)
            changes = list(self._detection.changes(page))
            log_undeliverable(self._log, changes)
            self.detected += len(changes)
            if self._unknown:
                self._unknown = unknown_fields(self._kind, (c["record"] for c in changes), self._unknown)
            meets = self._predicate(changes)
            matching = [change for change in changes if "undeliverable" in change or meets(change["record"])]
            self._matching += sum("undeliverable" not in change for change in matching)
            if self._progress.is_due():
                self._log.info("%s", self._so_far())
            yield matching

    def _predicate(self, changes: list[RecordChange]) -> Predicate:
        """Return what decides on these; compiled anew once it matters which fields hold several options."""
        if self._options and any(_has_custom_field(change["record"], self._options) for change in changes):
            multi_selects = custom_fields_of(self._metadata(), MULTI_SELECTS)
            self._meets, self._options = self._compiled(multi_selects), frozenset()
        elif self._meets is None:
            self._meets = self._compiled(None)
        return self._meets

    def _compiled(self, multi_select: frozenset[str] | None) -> Predicate:
        return predicate_of(self._log, self._criteria, now=self._now, multi_select=multi_select)

    def _so_far(self) -> str:
        return (
            f"{self._kind.name} in {self._window}: {self._read} records read in {self._hook.requests_made} "
            f"requests, {self.detected} changes, {self._matching} meet the criteria"
        )


def _has_custom_field(record: Mapping[str, Any], names: frozenset[str]) -> bool:
    return any(name in names for name, _ in custom_fields_in(record))
