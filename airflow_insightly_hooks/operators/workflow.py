"""A workflow in one task, which reads, evaluates, builds and delivers changes batch by batch."""

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
from airflow_insightly_hooks.core.state.versions import read_value
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
"""The key of the task's state for the window that a run has begun to read by rule 3."""
LARGEST_BATCH = 10_000
LONGEST_WAIT = 60.0
"""Seconds: the task waits so long itself for its window to settle. For longer waits it is deferred."""


class InsightlyWorkflowOperator(BaseOperator):
    """Runs a whole workflow in one task, for large windows and backfills.

    The task reads the changes in the run's window page by page, and delivers those that meet the criteria
    batch by batch. While it sends a batch, it reads the next one. Only the report passes through XCom. The
    memory holds two batches, and the ids of the records that were read and of what is undelivered.

    Message ids, bodies and receivers are those of ``workflow.to_dag()``. ``until_triggered`` remembers in the
    same place, so the two must not run at once. The cursor is this task's own, unless it
    is given a name. Templates in the workflow (criteria, ``uri``, ``conn_id``, ``fields``, ``envelope``) are
    rendered, and not shown. The webhooks take turns at each batch, so a slow receiver slows down the others.

    Each webhook is delivered by its own keys, or else the workflow's: ``ordered``, ``give_up_after``,
    ``on_undelivered``, ``undelivered_asset``, ``retries`` and ``retry_delay``. An argument of the same name
    takes precedence, for all webhooks. The task has the largest ``retries`` of the webhooks, and the longest
    ``retry_delay``. A message is POSTed at most ``1 + retries`` times, by its own webhook's ``retries``. A
    failed task emits no events: if a webhook with ``fail`` has something undelivered, the assets of the other
    webhooks get no event either.

    Webhooks with a time trigger go to the DAG ``pending_dag_id``, batch by batch, in runs whose conf has ids
    and times. A task schedules a record once, even if it is retried or cleared.

    A retry continues in the same window, at the first batch that has something left to send, and POSTs only
    what is not acknowledged. The task reads the window from its beginning if it was cleared, or if its
    messages were asked to be sent again. A record that has left the window since, because it was edited or
    deleted, or that no longer meets the criteria, can't be built again. Unless its message is acknowledged,
    it is reported as undelivered, and not retried. The cursor moves once the window is read to its end and
    each batch was attempted.

    :param workflow: which records to watch, when to trigger, and what to send.
    :param window: ``{"start": …, "end": …}``, or a pair. A time without an offset is in UTC. Templates are
        rendered. By default the run's data interval, or else the time from the cursor on.
    :param cursor: the name of the cursor; by default the workflow's ``cursor``, else ``{dag_id}/{task_id}``.
        Templates are rendered. In a mapped task group, each map index needs a name of its own.
    :param batch_size: the number of changes in a batch, 1 to 10,000 (1,000 by default).
    :param pending_dag_id: the DAG that sends webhooks with a time trigger, ``{dag_id}__pending`` of the
        ``Workflow``'s ``to_dag()``. ``None`` if the workflow has no such webhooks.
    :param ordered: whether the changes of one record are sent one after another, in the order of their
        times. If one fails, later changes of the same record wait. By default no order is promised. Here and
        in the next three arguments, ``None`` takes the webhook's key, or else the workflow's.
    :param give_up_after: how many failures in a row, in which nothing could be sent, end the try for the
        webhook (20 by default); 0: never.
    :param on_undelivered: what to do if a message is undelivered after the last attempt: ``"fail"``
        (default) fails the task, ``"report"`` lets it succeed.
    :param undelivered_asset: an asset that then gets an event, with the report of its webhook as its
        ``extra``, and the webhook's slug in the list ``webhooks``; only with ``"report"``. If webhooks share
        an asset, it gets one event, with the sum of the reports that have something undelivered. The asset is
        added to ``outlets``. If everything is delivered it gets no event.
    :param is_dry_run: ``True``, the workflow's ``dry_run``, or a run's param ``dry_run``, does everything
        except the POST, and does not remember which records triggered. The cursor moves as usual. The report
        has ``dry_run`` and ``would_send``.
    :param retries: the webhook's key, or else the workflow's; by default 2, which means three attempts.
    :param retry_delay: seconds or a ``timedelta``: the webhook's key, or else the workflow's; by default
        60 s. A receiver's ``Retry-After`` makes it longer, up to an hour.
    :param retry_policy: the policy that makes it longer; ``None`` waits ``retry_delay`` only.
    :raises InvalidWorkflow: if a webhook has no usable receiver, or a time trigger without
        ``pending_dag_id``, when the DAG is parsed.
    :raises ValueError: if another argument is not as described here, when the DAG is parsed.
    :raises UndeliveredError: if a message is undelivered. The error has the report and names the records.
    :raises UndeliverableError: if none of the undelivered messages may be sent again before the task is
        cleared; it fails the task without a retry.
    :raises MissingPayloadsError: if messages were asked to be sent again whose webhook is gone.
    :raises StoppedError: if the task was told to end before the window was read to its end.
    :raises SupersededError: if a later try of this task has begun while this one was still alive.
    :raises InvalidConnection: if a receiver can't be sent to; nothing was sent to any receiver.
    :raises InvalidWindow: if ``window`` is not a window.
    :raises LostCursor: if the cursor is gone although the task has run before.
    :raises UntrustedClock: if the cursor is a minute ahead of the server's clock.
    :raises InsightlyAPIError: if Insightly can't be read; an ``InsightlyAccessError`` fails without a retry.
    :raises InvalidState: if what is remembered can't be read.

    If its window has yet to settle, the task waits: up to a minute in the worker, longer in the triggerer.

    XCom, whether the task succeeds or fails: ``WebhookOperator``'s report. With several webhooks it is a
    mapping of reports, by the webhooks' names in lower case with underscores, without those that have a time
    trigger. It stays below 48 KB. ``total`` counts the payloads that the tries of this run have met. The key
    ``window`` has the window, and ``not_sent`` the records whose date for a time trigger is empty.

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
            kwargs.setdefault("max_active_tis_per_dag", 1)  # one task at a time writes the remembered ids
        # A task has one number of tries, and one delay: the largest of its webhooks.
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

        Mapped tasks have one number of retries for all webhooks: the largest, or the one given here.
        """
        return super().partial(**mapped_arguments(kwargs))

    def execute(self, context: Context) -> Report | dict[str, Report]:
        """Deliver the window's changes that are not acknowledged yet; return the report."""
        # requests is loaded in the worker only, so that DAGs parse fast.
        from airflow_insightly_hooks.hooks.insightly import InsightlyHook

        hook = InsightlyHook(self.workflow.insightly_conn_id, exact_numbers=True)
        ti: Any = context.get("ti")
        state = TaskState(context["task_state_store"])
        windows = RunWindows(context, ti or self, self.asset, self.window, self.cursor)
        window = windows.fixed()
        if window is None and (kept := read_value(state, READING)) is not None:
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
                self.log.info("The changes in %s are ignored: the workflow is not active", window)
            windows.take(window)
            detected, met = (reading.detected, reading.met) if reading is not None else (None, 0)
            keep_run_counts(context, self.log, detected=detected, met=met, hook=hook, dry_run=self.is_dry_run)
        except BaseException:  # after the task's time-out, too, the report lists the undelivered messages
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
        event: Any = None,  # noqa: ARG002 — Airflow passes it; the task looks for itself
    ) -> Report | dict[str, Report]:
        """Continue after the window has settled."""
        return self.execute(context)

    def on_kill(self) -> None:
        """Begin no more POSTs. Those that have begun may end, and are recorded."""
        self._stopped = True

    def _emit_events(self, context: Context, events: list[tuple[Asset, dict[str, Any]]]) -> None:
        """Set events for these assets only: a webhook that has delivered everything emits no event."""
        for asset in undelivered_assets(self.settings):
            if asset not in [one for one, _ in events]:
                drop_event(self, asset)
        for asset, extra in events:
            set_event(context, asset, extra)

    # --- the window ----------------------------------------------------------------------------------------

    def _lookback(self, context: Context, windows: RunWindows, hook: InsightlyHook) -> RunLookback:
        kind, events = RECORD_TYPES[self.workflow.record_type], self.workflow.events
        searched = (None, None)  # like a sensor without field_name
        return RunLookback(
            context, windows, self.asset, hook, searched, kind, events, self.workflow.lookback, self.log
        )

    def _settled_window(
        self, hook: InsightlyHook, windows: RunWindows, state: TaskState, window: ChangeWindow | None
    ) -> tuple[ChangeWindow, datetime]:
        """Wait until the run's window has settled; return it, the same in each try, and the settled time."""
        settle = timedelta(seconds=self.workflow.settle)
        is_told = False
        while (
            unsettled := windows.unsettled(until := hook.server_time() - settle, window, settle)
        ) is not None:
            seconds = unsettled.total_seconds()
            if not is_told:
                what = "The change that woke this run" if window is None else f"Window {window}"
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
        """Return the reader of the changes.

        :param basis: the deliveries' basis: a checkpoint of another basis is not used.
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
        """Return the memory of ``until_triggered``; ``None`` if the workflow evaluates otherwise."""
        if self.workflow.evaluate != "until_triggered":
            return None
        task = context.get("ti") or self
        memory = memory_of(context, self.asset, is_dry_run=is_dry_run(context, self.is_dry_run))
        return TriggerOnce.of_task(task, *memory, self.workflow.dag_id, datetime.now(timezone.utc))
