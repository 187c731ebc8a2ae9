"""Read a window's changes page by page, and pass on those that meet a workflow's criteria."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow_insightly_hooks.core.criteria import Criteria, Predicate
from airflow_insightly_hooks.core.detection.changes import ChangeWindow, RecordChange
from airflow_insightly_hooks.core.detection.late_changes import LateChanges, SameChanges
from airflow_insightly_hooks.core.detection.page_log import page_entry
from airflow_insightly_hooks.core.detection.record_times import has_time
from airflow_insightly_hooks.core.detection.scan import Scan
from airflow_insightly_hooks.core.errors import IncompleteScan, InsightlyHooksError, type_and_place
from airflow_insightly_hooks.core.plurals import counted
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
from airflow_insightly_hooks.operators.one_task.checkpoint import Checkpoint, SettledPages
from airflow_insightly_hooks.operators.one_task.read_ahead import ReadAhead
from airflow_insightly_hooks.runs.undeliverable import log_undeliverable
from airflow_insightly_hooks.runs.windows import warn_of_timeless

if TYPE_CHECKING:
    from airflow_insightly_hooks.hooks.insightly import InsightlyHook

__all__ = ["Reading"]

PAGE = 500
MOST_PAGES = 20
"""The most pages that are settled together if few of their changes meet the criteria."""


class _MatchingPage(NamedTuple):
    """The changes of a page.

    :param changes: the changes that meet the criteria, or can't be delivered.
    :param entry: the entry to keep of the page once these are settled; ``None`` keeps nothing.
    :param unknown: names of fields that no record has had so far.
    """

    changes: list[RecordChange]
    entry: dict[str, Any] | None
    unknown: list[str]


class Reading:
    """The changes of a window that meet a workflow's criteria, read a little ahead of their delivery.

    Changes that can't be delivered are included, whatever the criteria are. Pages that an earlier try has
    read and settled are not read again.

    :param hook: the hook of the account; it is closed if the reading ends early.
    :param window: the window to read; relative dates are measured from its end.
    :param detect: returns the object that finds changes among the records, and the time from which to
        search; called before ``checkpoint`` is read.
    :param workflow: the workflow.
    :param criteria: the workflow's criteria, rendered.
    :param metadata: returns Insightly's metadata of the record type's custom fields; called only if
        ``contains`` or ``not_contains`` names a custom field that isn't empty. Several threads may call it.
    :param checkpoint: the pages that were read and settled so far; ``None`` keeps no pages.
    :param is_stopped: returns whether the task must end.
    :param log: the logger for progress and warnings.
    :ivar detection: the object that finds the changes.
    :ivar detected: the number of changes read so far, by earlier tries too, whatever the criteria are.
    :ivar met: the number of changes that have triggered, as given to ``note``.
    """

    def __init__(
        self,
        hook: InsightlyHook,
        window: ChangeWindow,
        detect: Callable[[], tuple[LateChanges | SameChanges, datetime]],
        workflow: WorkflowDefinition,
        criteria: Criteria,
        metadata: Callable[[], list[dict[str, Any]]],
        checkpoint: Checkpoint | None,
        *,
        is_stopped: Callable[[], bool],
        log: Any,
    ) -> None:
        self._hook, self._window, self._detect = hook, window, detect
        self._kind = RECORD_TYPES[workflow.record_type]
        self._criteria, self._metadata, self._log = criteria, metadata, log
        self._is_stopped = is_stopped
        self._now = window.end if criteria.has_relative_dates else None
        self._options = criteria.option_fields
        self._meets: Predicate | None = None
        self._named = {*criteria.fields, *(name for w in workflow.webhooks for name in w.fields or ())}
        self._progress = ProgressTimer()
        self._checkpoint = checkpoint
        self._is_kept = checkpoint is not None  # up to the first page that is not settled
        self._ahead: ReadAhead[_MatchingPage] | None = None
        self._begin()
        self._go_on()

    def _begin(self) -> None:
        self.detection, self._search_from = self._detect()
        self._scan = Scan(self._kind, PAGE)
        self._unknown = unknown_fields(self._kind, (), self._named)
        self._read = self.detected = self._matching = self.met = 0
        self._timeless: list[int] = []
        self._undeliverable: list[RecordChange] = []  # of pages that earlier tries settled
        self._is_settled = True

    def _go_on(self) -> None:
        """Move scan and detection past the pages that earlier tries have read and settled."""
        if self._checkpoint is None:
            return
        try:
            for settled, pages in self._checkpoint.read():
                for page in pages:
                    fresh = self._scan.feed(*page)
                    self._note_read(fresh)
                    self.detected += sum(1 for _ in self.detection.changes(fresh))
                self.met += settled.met
                log_undeliverable(self._log, settled.undeliverable)
                self._undeliverable += settled.undeliverable
                self._unknown = list(settled.unknown)
        except (ValueError, KeyError, TypeError, AttributeError, InsightlyHooksError) as error:
            self._log.warning(
                "The checkpoint of an earlier try can't be read (%s): reading from the beginning",
                type_and_place(error),
            )
            self._checkpoint.forget()
            self._begin()
        self._matching = self.met
        if self._read:
            self._log.info(
                "%s in %s: continuing after %s that an earlier try has read and settled",
                *(self._kind.name, self._window, counted(self._read, "record")),
            )

    def batches(self, size: int) -> Iterator[list[RecordChange]]:
        """Yield the changes, up to ``size`` at a time, with at most one change of a record.

        The caller calls ``note`` after each batch. If Insightly fails, the changes read before come first.

        :raises InsightlyAPIError: if Insightly can't be read.
        """
        started = time.monotonic()
        yield from self._pieces(self._undeliverable, size)
        if not self.detection.is_empty:
            self._ahead = ReadAhead(
                self._pages(), lambda page: len(page.changes), max(size, PAGE), self._hook.close
            )
            try:
                for group in _groups(self._ahead.take(self._is_stopped), size):
                    self._is_settled, met_before = True, self.met
                    yield from self._pieces([change for page in group for change in page.changes], size)
                    self._keep(group, self.met - met_before)
            except IncompleteScan:  # it would be incomplete for the next try, too
                if self._checkpoint is not None:
                    self._checkpoint.forget()
                raise
        if self._is_stopped():
            return
        self._log.info("%s; %.1f s in all", self._so_far(), time.monotonic() - started)
        if self.detected:
            warn_of_unknown(self._log, self._kind.name, self._unknown)
        warn_of_timeless(self._log, self._kind.name, self._timeless)

    def note(self, met: int, *, is_settled: bool) -> None:
        """Note the result of a batch.

        :param met: the number of its changes that have triggered.
        :param is_settled: whether later tries have nothing to send for it.
        """
        self.met += met
        self._is_settled = self._is_settled and is_settled

    def close(self) -> None:
        """End the reading that is in progress."""
        if self._ahead is not None:
            self._ahead.close()

    def forget(self) -> None:
        """Delete the checkpoint, since no later try reads it."""
        if self._checkpoint is not None:
            self._checkpoint.clear()

    def _pieces(self, changes: list[RecordChange], size: int) -> Iterator[list[RecordChange]]:
        """Yield up to ``size`` changes at a time, until the task must end."""
        for start in range(0, len(changes), size):
            if self._is_stopped():
                return
            yield changes[start : start + size]

    def _keep(self, group: list[_MatchingPage], met: int) -> None:
        """Keep the pages if they and all pages before them are settled."""
        if self._checkpoint is None or not self._is_kept or self._is_stopped():
            return
        pages = [page.entry for page in group if page.entry is not None]
        undeliverable = [c for page in group for c in page.changes if "undeliverable" in c]
        settled = SettledPages(pages, met, undeliverable, group[-1].unknown)
        try:
            self._is_kept = self._is_settled and self._checkpoint.add(settled)
        except Exception as error:  # the next try reads again from here
            self._log.warning(
                "The checkpoint can't be kept: %s. A retry reads again from there", type_and_place(error)
            )
            self._is_kept = False

    def _pages(self) -> Iterator[_MatchingPage]:
        """Yield the matching changes, page by page."""
        for page in self._hook.read_pages(self._kind.name, self._scan, self._search_from):
            entry = page_entry(self._kind, page.answered, page.total, page.date) if self._is_kept else None
            self._note_read(page.records)
            changes = list(self.detection.changes(page.records))
            log_undeliverable(self._log, changes)
            self.detected += len(changes)
            if self._unknown:
                self._unknown = unknown_fields(self._kind, (c["record"] for c in changes), self._unknown)
            meets = self._predicate(changes)
            matching = [change for change in changes if "undeliverable" in change or meets(change["record"])]
            self._matching += sum("undeliverable" not in change for change in matching)
            if self._progress.is_due():
                self._log.info("%s", self._so_far())
            yield _MatchingPage(matching, entry, sorted(self._unknown))

    def _note_read(self, records: list[dict[str, Any]]) -> None:
        self._read += len(records)
        for record in records:
            if not has_time(record) and is_record_id(record_id := record.get(self._kind.id_field)):
                self._timeless.append(record_id)

    def _predicate(self, changes: list[RecordChange]) -> Predicate:
        """Return the criteria's predicate; compile it again once multi-select fields matter."""
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
            f"{self._kind.name} in {self._window}: {counted(self._read, 'record')} read in "
            f"{counted(self._hook.requests_made, 'request')}; {counted(self.detected, 'change')}, of which "
            f"{self._matching:,} meet the criteria"
        )


def _has_custom_field(record: Mapping[str, Any], names: frozenset[str]) -> bool:
    return any(name in names for name, _ in custom_fields_in(record))


def _groups(pages: Iterator[_MatchingPage], size: int) -> Iterator[list[_MatchingPage]]:
    """Yield pages in groups of up to ``size`` changes. Pages read before an error come first."""
    group: list[_MatchingPage] = []
    count = 0
    failure = None
    try:
        for page in pages:
            if group and (count + len(page.changes) > size or len(group) == MOST_PAGES):
                yield group
                group, count = [], 0
            group.append(page)
            count += len(page.changes)
    except Exception as error:
        failure = error
    if group:
        yield group
    if failure is not None:
        raise failure
