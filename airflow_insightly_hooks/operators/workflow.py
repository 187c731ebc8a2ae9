"""A workflow in one task: its changes are read, evaluated, built and delivered batch by batch."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

from airflow.sdk import Asset, BaseOperator

from airflow_insightly_hooks.core.bounds import check_seconds, check_whole
from airflow_insightly_hooks.core.criteria import Criteria
from airflow_insightly_hooks.core.dates import iso_time
from airflow_insightly_hooks.core.detection.changes import ChangeWindow
from airflow_insightly_hooks.core.detection.late_changes import LateChanges, SameChanges
from airflow_insightly_hooks.core.errors import StoppedError
from airflow_insightly_hooks.core.records import RECORD_TYPES
from airflow_insightly_hooks.core.state.trigger_once import TriggerOnce
from airflow_insightly_hooks.core.workflow.definition import WorkflowDefinition
from airflow_insightly_hooks.core.workflow.yaml_text import stored_yaml
from airflow_insightly_hooks.hooks.assets import add_inlet, records_asset, with_asset
from airflow_insightly_hooks.operators.common.mode_change import OtherModeError
from airflow_insightly_hooks.operators.delivery.outcome import check_on_undelivered, drop_event, set_event
from airflow_insightly_hooks.operators.links import DeliveriesLink, ReceiverLink, WorkflowRecordsLink
from airflow_insightly_hooks.operators.one_task.batch_reading import Reading
from airflow_insightly_hooks.operators.one_task.checkpoint import Checkpoint
from airflow_insightly_hooks.operators.one_task.delivery_settings import (
    RETRIES,
    RETRY_DELAY,
    check_workflow,
    mapped_arguments,
    settings_of,
    undelivered_assets,
    with_arguments,
)
from airflow_insightly_hooks.operators.one_task.read_ahead import once
from airflow_insightly_hooks.operators.one_task.webhook_deliveries import WebhookDeliveries
from airflow_insightly_hooks.operators.retry import RETRY_AFTER
from airflow_insightly_hooks.runs.airflow_runs import is_dry_run, is_test
from airflow_insightly_hooks.runs.cursor_argument import check_cursor_argument
from airflow_insightly_hooks.runs.lookback import RunLookback
from airflow_insightly_hooks.runs.run_counts import keep_run_counts
from airflow_insightly_hooks.runs.task_state import TaskState, memory_of
from airflow_insightly_hooks.runs.windows import RunWindows
from airflow_insightly_hooks.triggers.record_change import InsightlyRecordChangeTrigger

if TYPE_CHECKING:
    from airflow.sdk import Context, RetryPolicy
    from airflow.sdk.definitions.mappedoperator import OperatorPartial

    from airflow_insightly_hooks.core.delivery.report_types import Report
    from airflow_insightly_hooks.hooks.insightly import InsightlyHook

__all__ = ["InsightlyWorkflowOperator", "OtherModeError"]

READING = "reading"
"""The key of the task's state that keeps the window which a run has begun to read by rule 3."""
LARGEST_BATCH = 10_000
LONGEST_WAIT = 60.0
"""Seconds that the task itself waits for its window to settle; longer, it is deferred."""


class InsightlyWorkflowOperator(BaseOperator):
    """Does in one task what a workflow's DAG does in several; for large windows and backfills.

    What changed in the run's window is read page by page, and what meets the criteria is delivered batch by
    batch; while one is sent, the next is read. Nothing passes through XCom but the report, and no more is in
    memory than these two batches, besides ids: those of the records that were read, and of what is
    undelivered.

    Message ids, bodies and receivers are those of ``workflow.to_dag()``, and so is what ``until_triggered``
    remembers (the two must not run at once then); the cursor (``runs.windows``) is this task's own, unless
    it has a name.
    Templates in the workflow (criteria, ``uri``, ``conn_id``, ``fields``, ``envelope``) are rendered, and not
    shown. Webhooks take turns at each batch, so a slow receiver slows down the others.

    Each webhook is delivered as its own keys say, or else the workflow's: ``ordered``, ``give_up_after``,
    ``on_undelivered``, ``undelivered_asset``, ``retries`` and ``retry_delay``. What the arguments of these
    names say goes over that, for all webhooks. The task has the webhooks' largest ``retries``, and their
    longest ``retry_delay``; a message of a webhook is POSTed ``1 +`` the webhook's own ``retries`` times at
    most. A task that fails emits no event: where a webhook with ``fail`` has something undelivered, the
    others' assets get none.

    Webhooks with a time trigger are handed to the DAG ``pending_dag_id``, batch by batch, by runs that hold
    ids and times in their conf. A record is scheduled once by a task, also if it is retried or cleared.

    A retry goes on in the same window, from the first batch on of which something is still to be sent, and
    POSTs only what is not acknowledged. A task that was cleared, or whose messages were asked to be sent
    again, reads the window from its beginning. A message whose record has left the window since (it was
    edited, or deleted), or no longer meets the criteria, can't be built again: unless acknowledged, it is
    reported as undelivered, and not retried. The cursor moves once the window was read to its end and each
    batch was attempted.

    :param workflow: what to watch, when to trigger, what to send.
    :param window: an explicit window: ``{"start": …, "end": …}``, times with an offset, else in UTC (a pair
        will do, too); templates are rendered. By default the run's data interval, else from the cursor on.
    :param cursor: the name of the cursor; by default the workflow's ``cursor``, else ``{dag_id}/{task_id}``.
        Templates are rendered: in a mapped task group, each map index needs a name of its own.
    :param batch_size: how many changes are delivered at a time, 1 to 10,000 (1,000 by default).
    :param pending_dag_id: the DAG that sends webhooks with a time trigger: that of the ``Workflow``'s
        ``to_dag()``, ``{dag_id}__pending``. ``None``: the workflow has no such webhooks.
    :param ordered: whether the changes of one record are sent one after another, in the order of their
        times; one that isn't delivered holds back the later ones. ``None``, here and in the next three, takes
        what each webhook says, or else the workflow; by default no order is promised.
    :param give_up_after: so many failures in a row in which nothing could be sent (20 by default) end the
        try for the webhook; 0: never.
    :param on_undelivered: what happens when something stays undelivered after the last attempt: ``"fail"``
        (default) fails the task, ``"report"`` has it succeed.
    :param undelivered_asset: an asset that gets an event then, with the report of its webhook as its
        ``extra``, and the webhook's slug in the list ``webhooks``; only with ``"report"``. Webhooks that have
        one asset in common make one event, with the sum of the reports of those that have something
        undelivered. It is added to ``outlets``. When all is delivered, it gets none.
    :param is_dry_run: ``True``, the workflow's ``dry_run``, or a run's param ``dry_run``, does everything but
        the POST, and remembers nothing of what has triggered; the cursor moves all the same. The report has
        ``dry_run`` and ``would_send``.
    :param retries: what each webhook says, or else the workflow; by default 2, hence three attempts.
    :param retry_delay: likewise; by default 60 s. A receiver's ``Retry-After`` makes it longer, up to
        an hour.
    :param retry_policy: what makes it longer; ``None`` leaves the delay to the task's own.
    :raises InvalidWorkflow: if a webhook has no usable receiver, or a time trigger without
        ``pending_dag_id``, when the DAG is parsed.
    :raises ValueError: if another argument is not as described here, when the DAG is parsed.
    :raises UndeliveredError: while something is undelivered; it holds the report and names the records.
    :raises UndeliverableError: if nothing of that may be sent again before the task is cleared: no retry.
    :raises MissingPayloadsError: if messages were asked to be sent again whose webhook is gone.
    :raises StoppedError: if the task was told to end before the window was read to its end.
    :raises SupersededError: if a later try of this task has begun while this one was still alive.
    :raises InvalidConnection: if a receiver can't be sent to; nothing was sent to any.
    :raises InvalidWindow: if ``window`` is not a window.
    :raises LostCursor: if the cursor is gone although the task has run before.
    :raises UntrustedClock: if the cursor is a minute ahead of the server's clock.
    :raises InsightlyAPIError: if Insightly can't be read; an ``InsightlyAccessError`` fails without a retry.
    :raises InvalidState: if what is remembered can't be read.

    A window that has yet to settle is waited for: up to a minute in the worker, beyond that deferred.

    XCom, whether the task succeeds or fails: ``WebhookOperator``'s report; with several webhooks (those with
    a time trigger aside) a mapping of reports, by the webhooks' names in lower case with underscores; below
    48 KB. ``total`` counts what the tries of this run have come across. Under the key ``window`` the window;
    under ``not_sent`` records whose date for a time trigger is empty.

    Metrics are those of ``WebhookOperator``, for all webhooks together.
    """

    template_fields = ("window", "cursor")
    operator_extra_links = (WorkflowRecordsLink(), ReceiverLink(), DeliveriesLink())
    ui_color = "#d8e8f3"

    def __init__(
        self,
        *,
        workflow: WorkflowDefinition,
        window: Any = None,
        cursor: str | None = None,
        batch_size: int = 1_000,
        pending_dag_id: str | None = None,
        ordered: bool | None = None,
        give_up_after: int | None = None,
        on_undelivered: str | None = None,
        undelivered_asset: Asset | None = None,
        is_dry_run: bool = False,
        retries: int | None = RETRIES,
        retry_delay: timedelta | float = RETRY_DELAY,
        retry_policy: RetryPolicy | None = RETRY_AFTER,
        **kwargs: Any,
    ) -> None:
        check_workflow(workflow, pending_dag_id)
        check_whole("batch_size", batch_size, at_least=1, at_most=LARGEST_BATCH)
        check_seconds("retry_delay", retry_delay, or_timedelta=True)
        if give_up_after is not None:
            check_whole("give_up_after", give_up_after, at_least=0)
        if on_undelivered is not None:
            check_on_undelivered(on_undelivered)
        workflow = with_arguments(
            workflow,
            ordered=ordered,
            give_up_after=give_up_after,
            on_undelivered=on_undelivered,
            undelivered_asset=undelivered_asset,
            retries=retries,
            retry_delay=retry_delay,
        )
        settings = settings_of(workflow)
        asset = records_asset(workflow.insightly_conn_id, workflow.record_type)
        add_inlet(kwargs, asset)
        kwargs.setdefault("doc_yaml", stored_yaml(workflow))
        if workflow.evaluate == "until_triggered":
            kwargs.setdefault("max_active_tis_per_dag", 1)  # the memory has one writer at a time
        # A task has one number of tries, and one delay: the webhooks' largest.
        if settings:
            retries = max(one.retries for one in settings.values())
            retry_delay = max(one.retry_delay for one in settings.values())
        retries = None if retries is None else int(retries)
        super().__init__(retries=retries, retry_delay=retry_delay, retry_policy=retry_policy, **kwargs)
        for undelivered in undelivered_assets(settings):
            self.outlets = with_asset(self.outlets, undelivered)
        self.settings = settings
        self.pending_dag_id = pending_dag_id
        self.asset = asset
        self.workflow = workflow
        self.window = window
        self.cursor = check_cursor_argument(self, workflow.cursor if cursor is None else cursor, window)
        self.batch_size = batch_size
        self.is_dry_run = is_dry_run or workflow.dry_run
        self._stopped = False  # no threading.Event: Airflow copies operators, locks included

    @classmethod
    def partial(cls, **kwargs: Any) -> OperatorPartial:
        """Take the arguments that all mapped tasks share.

        Mapped tasks have one number of retries for all webhooks: the largest, unless it is given here.
        """
        return super().partial(**mapped_arguments(kwargs))

    def execute(self, context: Context) -> Report | dict[str, Report]:
        """Deliver what the window holds and is not acknowledged yet; return the report."""
        # requests is loaded in the worker only, so that DAGs parse fast.
        from airflow_insightly_hooks.hooks.insightly import InsightlyHook

        hook = InsightlyHook(self.workflow.insightly_conn_id, exact_numbers=True)
        ti: Any = context.get("ti")
        state = TaskState(context["task_state_store"])
        windows = RunWindows(context, ti or self, self.asset, self.window, self.cursor)
        window = windows.fixed()
        if window is None and (kept := state.get(READING)) is not None:
            window = ChangeWindow.of(kept)
        if window is None:
            windows.begin()  # before anything can fail
        elif windows.is_open_ended:
            windows.tell(window)
        lookback = self._lookback(context, windows, hook)
        window, settled_until = self._settled_window(hook, windows, state, window)
        windows.tell(window)
        metadata = once(lambda: hook.custom_fields(self.workflow.record_type))
        deliveries = WebhookDeliveries(
            self.workflow,
            self.settings,
            self.pending_dag_id,
            context,
            self.render_template,
            metadata,
            self._memory(context),
            is_dry_run=is_dry_run(context, self.is_dry_run),
            is_stopped=lambda: self._stopped,
            log=self.log,
        )
        reading = None
        try:
            if self.workflow.active:
                reading = self._reading(
                    hook, window, settled_until, lookback, metadata, context, deliveries.basis
                )
                for batch in reading.batches(self.batch_size):
                    reading.note(deliveries.deliver(batch), is_settled=deliveries.has_settled)
                if self._stopped:
                    raise StoppedError
                lookback.keep(reading.detection)
            else:
                self.log.info("The changes in %s pass by: the workflow is not active", window)
            windows.take(window)
            detected, met = (reading.detected, reading.met) if reading is not None else (None, 0)
            keep_run_counts(context, self.log, detected=detected, met=met, hook=hook, dry_run=self.is_dry_run)
        except BaseException:  # after the task's time-out, too, the report tells what is undelivered
            if reading is not None:
                reading.close()
            deliveries.tell(is_read=False)
            raise
        result = deliveries.end()
        if reading is not None:
            reading.forget()
        self._emit_events(context, deliveries.events())
        return result

    def execute_complete(
        self,
        context: Context,
        event: Any = None,  # noqa: ARG002 — Airflow hands it over; the task looks for itself
    ) -> Report | dict[str, Report]:
        """Go on after the window has settled."""
        return self.execute(context)

    def on_kill(self) -> None:
        """Send nothing more; what is under way may end, and is recorded."""
        self._stopped = True

    def _emit_events(self, context: Context, events: list[tuple[Asset, dict[str, Any]]]) -> None:
        """Have these assets get an event; those of webhooks of which all is delivered get none."""
        for asset in undelivered_assets(self.settings):
            if asset not in [one for one, _ in events]:
                drop_event(self, asset)
        for asset, extra in events:
            set_event(context, asset, extra)

    # --- the window ----------------------------------------------------------------------------------------

    def _lookback(self, context: Context, windows: RunWindows, hook: InsightlyHook) -> RunLookback:
        kind, events = RECORD_TYPES[self.workflow.record_type], self.workflow.events
        searched = (None, None)  # as a sensor that searches for no field
        return RunLookback(
            context, windows, self.asset, hook, searched, kind, events, self.workflow.lookback, self.log
        )

    def _settled_window(
        self, hook: InsightlyHook, windows: RunWindows, state: TaskState, window: ChangeWindow | None
    ) -> tuple[ChangeWindow, datetime]:
        """Return the run's window, the same in all of its tries, once it has settled; and up to when."""
        settle = timedelta(seconds=self.workflow.settle)
        is_told = False
        while (
            unsettled := windows.unsettled(until := hook.server_time() - settle, window, settle)
        ) is not None:
            seconds = unsettled.total_seconds()
            if not is_told:
                what = "What woke this run" if window is None else f"Window {window}"
                self.log.info("%s settles in %.0f s", what, seconds)
                is_told = True
            if self._stopped:
                raise StoppedError
            if seconds > LONGEST_WAIT:
                self._defer(seconds)
            time.sleep(min(seconds, 1.0))
        if window is None:
            window = windows.open(until)
            if not windows.is_test:
                state.set(READING, window.as_dict())
        else:
            windows.warn_of_unread(self.log, window)
        return window, until

    def _defer(self, seconds: float) -> None:
        look_at = iso_time(datetime.now(timezone.utc) + timedelta(seconds=seconds))
        self.defer(
            trigger=InsightlyRecordChangeTrigger(
                insightly_conn_id=self.workflow.insightly_conn_id,
                record_type=self.workflow.record_type,
                events=list(self.workflow.events),
                settle=self.workflow.settle,
                look_at=look_at,
                until=look_at,
                open_since=None,
                poll_interval=LONGEST_WAIT,
            ),
            method_name="execute_complete",
        )

    # --- its changes ---------------------------------------------------------------------------------------

    def _reading(
        self,
        hook: InsightlyHook,
        window: ChangeWindow,
        settled_until: datetime,
        lookback: RunLookback,
        metadata: Callable[[], list[dict[str, Any]]],
        context: Context,
        basis: object,
    ) -> Reading:
        """Return what reads the changes.

        :param basis: of the deliveries.
        """
        spec = self.render_template(self.workflow.criteria, context)
        checkpoint = None
        if not is_test(context) and not is_dry_run(context, self.is_dry_run):
            workflow = self.workflow
            of = [hook.base_url, window.as_dict(), workflow.record_type, workflow.evaluate, repr(spec), basis]
            state = TaskState(context["task_state_store"])
            checkpoint = Checkpoint(state, RECORD_TYPES[workflow.record_type], of, self.log)

        def detect() -> tuple[LateChanges | SameChanges, datetime]:
            until = checkpoint.settled_until if checkpoint is not None else None
            detection = lookback.changes(window, until or settled_until)
            if checkpoint is None:
                return detection, detection.search_from
            return detection, checkpoint.begin(detection, until or settled_until)

        return Reading(
            hook,
            window,
            detect,
            self.workflow,
            Criteria(spec),
            metadata,
            checkpoint,
            is_stopped=lambda: self._stopped,
            log=self.log,
        )

    def _memory(self, context: Context) -> TriggerOnce | None:
        """Return what remembers which records have triggered, where the workflow asks for that."""
        if self.workflow.evaluate != "until_triggered":
            return None
        task = context.get("ti") or self
        memory = memory_of(context, self.asset, is_dry_run=is_dry_run(context, self.is_dry_run))
        return TriggerOnce.of_task(task, *memory, self.workflow.dag_id, datetime.now(timezone.utc))
