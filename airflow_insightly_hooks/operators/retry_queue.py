"""A workflow's retry DAG: it keeps the messages that deliver tasks have left to it, and sends them.

``operators.workflow_delivery`` says when deliver tasks leave messages. One ``CollectRetriesOperator`` runs at
a time, so the queue has one writer. A run that brings messages adds them to the queue, and ends. A run that
was queued for the time when they are due sends all of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from airflow.sdk import Asset, BaseOperator
from airflow.sdk.exceptions import AirflowFailException

from airflow_insightly_hooks.core.dates import api_time, iso_time
from airflow_insightly_hooks.core.delivery.report_types import Report
from airflow_insightly_hooks.core.errors import (
    InsightlyHooksError,
    InvalidPayload,
    InvalidState,
    LostPayloads,
)
from airflow_insightly_hooks.core.payload import Payload, check_payloads
from airflow_insightly_hooks.core.plurals import counted
from airflow_insightly_hooks.core.state.retry_queue import BLOCK_SIZE, RETRY, MessageSource, RetryQueue
from airflow_insightly_hooks.core.state.versions import read_value
from airflow_insightly_hooks.hooks.assets import add_inlet
from airflow_insightly_hooks.operators.common.skip_when_empty import EmptySkipMixin
from airflow_insightly_hooks.operators.common.triggered_runs import wake_up_run_id
from airflow_insightly_hooks.operators.delivery import metrics
from airflow_insightly_hooks.operators.delivery.outcome import push_report
from airflow_insightly_hooks.operators.pending import NEXT_DUE, NOTHING, RETRIES, WakeUpOperator
from airflow_insightly_hooks.operators.workflow_delivery import LEFT_BY, UNACKNOWLEDGED, WorkflowDelivery
from airflow_insightly_hooks.runs.task_state import memory_of

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_insightly_hooks.core.state.state_store import StateStore

__all__ = [
    "PAYLOADS",
    "CollectRetriesOperator",
    "LostPayloadsError",
    "OrphanedMessagesError",
    "RetryWebhookOperator",
    "UnreadableQueueError",
]

PAYLOADS = "payloads_"
"""The XCom key of a webhook's payloads is this prefix and the id of the task that sends them."""
LOST = "lost_"
UNREADABLE = "unreadable_"
WAITING = "waiting"
ENTERED = "entered"
TAKEN = "taken"
SHOWN = 20


class CollectRetriesOperator(BaseOperator, EmptySkipMixin):
    """Keeps the messages that deliver tasks have left, and passes them on when they are due.

    :param asset: the records' asset.
    :param deliver_task_ids: the deliver tasks right after this one: webhook -> task id. A webhook has the
        name that ``WorkflowWebhookOperator`` uses.
    :param retries: 5 by default.
    :raises InvalidPayload: if a run's conf names messages, but not the task that has left them, or if it
        names a webhook of another DAG.
    :raises InvalidTime: if the conf's ``not_before`` is not a time.
    :raises OrphanedMessagesError: if due messages are for a webhook that the workflow no longer has.

    XCom, for each task that has something to send: ``payloads_{task_id}`` with a list of payloads, and
    ``lost_{task_id}`` with the runs whose payloads are gone. If a webhook's queue can't be read, its task
    gets the reason under ``unreadable_{task_id}``, and fails; the other tasks go on. ``waiting`` has, by
    webhook, how many messages wait and until when; ``next_due`` has the first of these times.
    """

    ui_color = "#f3e0d8"
    inherits_from_skipmixin = True

    def __init__(
        self,
        *,
        asset: Asset,
        deliver_task_ids: Mapping[str, str],
        retries: int | None = RETRIES,
        **kwargs: Any,
    ) -> None:
        add_inlet(kwargs, asset)
        kwargs.setdefault("max_active_tis_per_dag", 1)  # the queue has one writer
        super().__init__(retries=retries, **kwargs)
        self.asset = asset
        self.deliver_task_ids = dict(deliver_task_ids)

    def execute(self, context: Context) -> None:
        """Add the messages that this run brings to the queue, and push those that are due."""
        ti: Any = context["ti"]
        run: Any = context["dag_run"]
        asset_state, state = memory_of(context, self.asset)  # a test changes nothing
        # The scheduler started the run at its time, and its clock may be ahead of this worker's.
        now = max(datetime.now(timezone.utc), run.run_after)
        known = _KnownWebhooks(asset_state, f"{RETRY}/{ti.dag_id}")
        waiting: dict[str, dict[str, Any]] = {}
        idle: list[str] = []
        is_sending = False
        due: list[datetime] = []
        for webhook, task_id in self.deliver_task_ids.items():
            try:
                queue = RetryQueue(asset_state, f"{RETRY}/{webhook}")
                self._enter(webhook, queue, ti, run.conf, state, known)
                sources = _taken(state, webhook, queue, ti.run_id, now)
            except InvalidState as error:  # the queues of other receivers can be read
                self.log.error("%s: %s", webhook, error)
                ti.xcom_push(key=f"{PAYLOADS}{task_id}", value=[])
                ti.xcom_push(key=f"{UNREADABLE}{task_id}", value=str(error))
                continue
            if sources:
                is_sending = True
                self._push_payloads(ti, task_id, sources)
            else:
                idle.append(task_id)
            metrics.gauge_waiting(queue.waiting, webhook, metrics.tags_of(ti))
            if queue.due is not None:
                due.append(queue.due)
                waiting[webhook] = {"messages": queue.waiting, "until": iso_time(queue.due)}
                self.log.info("%s: %s until %s", webhook, _waiting(queue.waiting), iso_time(queue.due))
            elif not sources:
                self.log.info("%s: no messages wait here", webhook)
        orphaned: dict[str, list[MessageSource]] = {}
        for webhook in sorted(known.webhooks - self.deliver_task_ids.keys()):
            try:
                queue = RetryQueue(asset_state, f"{RETRY}/{webhook}")
                # A failure would hold up messages to other receivers.
                sources = [] if is_sending else _taken(state, webhook, queue, ti.run_id, now)
            except InvalidState as error:
                self.log.error("%s: %s", webhook, error)
                continue
            if sources:
                orphaned[webhook] = sources
            if queue.due is not None:
                due.append(queue.due)
        ti.xcom_push(key=WAITING, value=waiting)
        ti.xcom_push(key=NEXT_DUE, value=iso_time(min(due)) if due else NOTHING)
        if orphaned:
            raise OrphanedMessagesError(orphaned)
        followers = {task.task_id: task for task in self.downstream_list}
        needless = [followers[task_id] for task_id in idle]
        if not due or _is_queued(ti, min(due), now):
            needless += [task for task in followers.values() if isinstance(task, WakeUpOperator)]
        if needless:
            self.skip(ti=ti, tasks=needless)

    def _enter(
        self, webhook: str, queue: RetryQueue, ti: Any, conf: Any, state: StateStore, known: _KnownWebhooks
    ) -> None:
        """Add the messages of the task that triggered this run, unless an earlier try has added them."""
        left = (conf or {}).get(LEFT_BY)
        if left is None or read_value(state, ENTERED):
            return
        source = MessageSource.of(left)
        if left.get("webhook") not in self.deliver_task_ids:
            raise InvalidPayload(LEFT_BY, "its webhook does not belong to this DAG")
        if left["webhook"] == webhook:
            not_before = api_time(left.get("not_before"), LEFT_BY)
            known.add(webhook)
            queue.enter(source, ti.run_id, not_before)
            state.set(ENTERED, True)

    def _push_payloads(self, ti: Any, task_id: str, sources: Sequence[MessageSource]) -> None:
        payloads: dict[str, Payload] = {}
        lost: list[dict[str, Any]] = []
        for source in sources:
            found = self._payloads(ti, source)
            for payload in found:
                payloads.setdefault(payload["message_id"], payload)
            if len(found) < source.messages:
                lost.append({**source._asdict(), "messages": source.messages - len(found)})
        self.log.info(
            "%s: sending %s of %s again, from %s",
            task_id,
            counted(len(payloads), "message"),
            counted(len(sources), "run"),
            ", ".join(source.run_id for source in sources[:SHOWN]),
        )
        ti.xcom_push(key=f"{PAYLOADS}{task_id}", value=list(payloads.values()))
        ti.xcom_push(key=f"{LOST}{task_id}", value=lost)

    def _payloads(self, ti: Any, source: MessageSource) -> list[Payload]:
        """Return the payloads that a task has left; those that are gone or not valid are missing."""

        def pull(task_id: str, key: str) -> Any:
            return ti.xcom_pull(
                dag_id=source.dag_id,
                run_id=source.run_id,
                task_ids=task_id,
                map_indexes=source.map_index,
                key=key,
            )

        left = pull(source.task_id, UNACKNOWLEDGED)
        try:
            if not isinstance(left, Mapping):
                raise InvalidPayload(
                    UNACKNOWLEDGED, "the list of the messages that the task has left is missing"
                )
            payloads = check_payloads(pull(source.payloads_task_id, "return_value"))
            found = [p for p in payloads if p["message_id"] in left]
            return check_payloads([{**p, "earlier": left[p["message_id"]]} for p in found])
        except InvalidPayload as error:  # of one run: the payloads of other runs are sent
            self.log.error("Run %r of %r: %s", source.run_id, source.dag_id, error)
            return []


class RetryWebhookOperator(WorkflowDelivery):
    """The deliver task of a workflow's retry DAG: it sends messages that other runs have left.

    :param collect_task_id: the ``CollectRetriesOperator`` right before it.
    :raises UnreadableQueueError: if the webhook's queue can't be read.
    :raises LostPayloadsError: if payloads are gone from the XCom of the runs that left them; the others were
        delivered.

    Other parameters and errors are those of ``WebhookOperator``. A message has at most ``1 + retries``
    attempts, by the ``retries`` of this task; attempts of earlier tasks count.
    """

    def __init__(self, *, collect_task_id: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.collect_task_id = collect_task_id

    def execute(self, context: Context) -> Report:
        """Send the payloads that are not acknowledged yet; return the report."""
        ti: Any = context["ti"]
        reason = ti.xcom_pull(task_ids=self.collect_task_id, key=f"{UNREADABLE}{ti.task_id}")
        if reason:
            raise UnreadableQueueError(f"{reason}. Then clear task {self.collect_task_id!r} of this run")
        lost = ti.xcom_pull(task_ids=self.collect_task_id, key=f"{LOST}{ti.task_id}") or []
        error = LostPayloadsError([(item["dag_id"], item["run_id"], item["messages"]) for item in lost])
        if lost:
            self.log.error("%s", error)
        report = super().execute(context)
        if lost:
            push_report(ti, report, self.log)
            raise error
        return report


class UnreadableQueueError(InsightlyHooksError, AirflowFailException):
    """Fails a task without a retry: the queue of waiting messages can't be read.

    Cause: Raised when ``collect`` could not read the webhook's queue from the asset's state: another version
    of this package wrote a value, or a value was changed or deleted.

    Remedy: Correct the value as ``InvalidState`` or ``NewerState`` says. Then clear the task ``collect`` of
    this run.
    """


class OrphanedMessagesError(InsightlyHooksError, AirflowFailException):
    """Messages wait for a webhook that its workflow no longer has, or has under another name.

    Cause: Raised when a webhook was renamed or removed while its messages waited for the receiver.

    Remedy: To send the messages, give a webhook the old name again, and clear the task. Otherwise do nothing:
    the error is raised once, and the messages stay undelivered.

    :param left: the places of the messages, by the webhook's name.
    """

    def __init__(self, left: Mapping[str, Sequence[MessageSource]]) -> None:
        super().__init__(left)
        self.left = left

    def __str__(self) -> str:
        found = []
        for webhook, sources in self.left.items():
            count, runs = sum(source.messages for source in sources), [s.run_id for s in sources[:SHOWN]]
            where = f"for {webhook!r}, of {counted(len(sources), 'run')} ({', '.join(runs)})"
            found.append(f"{_waiting(count)} {where}")
        return (
            f"{'; '.join(found)}. The workflow has no such webhook any more, so they are undelivered. To "
            f"send them, give a webhook that name again, and clear this task"
        )


class LostPayloadsError(LostPayloads, AirflowFailException):
    """Fails a task without a retry: payloads that are gone do not come back.

    Cause: Raised by a retry DAG when a run of the workflow, or its XComs, were deleted while its messages
    waited for their receiver. The other messages were sent.

    Remedy: Send the changes again with a backfill, or with a run over the same window.
    """


def _waiting(count: int) -> str:
    return "1 message waits" if count == 1 else f"{count:,} messages wait"


class _KnownWebhooks:
    """The webhooks whose queues were ever used: one that was renamed or removed may have messages left.

    :ivar webhooks: their names, as the deliver tasks have them.
    """

    def __init__(self, store: StateStore, key: str) -> None:
        self._store, self._key = store, key
        found = read_value(store, key)
        self.webhooks = {str(webhook) for webhook in found} if isinstance(found, list) else set()

    def add(self, webhook: str) -> None:
        if webhook not in self.webhooks:
            self.webhooks.add(webhook)
            self._store.set(self._key, sorted(self.webhooks))


def _taken(
    state: StateStore, webhook: str, queue: RetryQueue, run_id: str, now: datetime
) -> list[MessageSource]:
    """Return the messages that this run takes, the same in each of its tries."""
    key = f"{TAKEN}/{webhook}"
    count = read_value(state, key)
    if count is None:
        sources = queue.take(run_id, now)
        blocks = [sources[i : i + BLOCK_SIZE] for i in range(0, len(sources), BLOCK_SIZE)]
        for number, block in enumerate(blocks):
            state.set(f"{key}/{number}", [source._asdict() for source in block])
        state.set(key, len(blocks))
    else:
        if not isinstance(count, int):
            raise InvalidState(key, "it is not a number")
        sources = [source for number in range(count) for source in _taken_block(state, f"{key}/{number}")]
    queue.forget(run_id)
    return sources


def _taken_block(state: StateStore, key: str) -> list[MessageSource]:
    block = state.get(key)
    if not isinstance(block, list):
        raise InvalidState(key, "it is missing, so it is not known what this run has taken")
    try:
        return [MessageSource.of(item) for item in block]
    except InvalidPayload as error:
        raise InvalidState(key, str(error)) from None


def _is_queued(ti: Any, due: datetime, now: datetime) -> bool:
    """Return whether a run is queued for the messages that are due then."""
    name = wake_up_run_id(due)
    return due > now and ti.get_dr_count(dag_id=ti.dag_id, run_ids=[name], states=["queued"]) > 0
