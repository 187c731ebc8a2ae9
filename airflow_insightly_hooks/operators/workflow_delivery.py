"""Deliver tasks that do not wait for a receiver if a task of another run waits for it already.

A deliver task that has messages left waits for its next try, and its run stays active for that time. With a
run for each change, a receiver that is down would soon use up all active runs of the DAG, and hold up other
receivers, too. So only one run waits. A later task leaves its messages to the workflow's retry DAG,
``{dag_id}__retry``: before its POSTs if the receiver is known to be down or has asked to wait, and else after
its POSTs if some were not acknowledged. There, ``CollectRetriesOperator`` keeps the messages. When they are
due, ``RetryWebhookOperator`` sends them all in one try, not in one try for each change. Each message has
``1 + retries`` attempts in all, counted over both tasks.

The state of the records' asset keeps the status of each receiver, and the queue of its waiting messages. One
``CollectRetriesOperator`` runs at a time, so the queue has one writer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, NoReturn

from airflow.sdk import Asset
from airflow.sdk.exceptions import AirflowNotFoundException

from airflow_insightly_hooks.core.dates import iso_time
from airflow_insightly_hooks.core.delivery.ledger import ACKNOWLEDGED, Ledger
from airflow_insightly_hooks.core.delivery.receiver_status import RECEIVER, ReceiverStatus, is_down
from airflow_insightly_hooks.core.delivery.report import make_report
from airflow_insightly_hooks.core.delivery.report_types import Report
from airflow_insightly_hooks.core.delivery.send_queue import SendQueue
from airflow_insightly_hooks.core.digest import digest_of
from airflow_insightly_hooks.core.errors import InvalidConnection, InvalidState, type_and_place
from airflow_insightly_hooks.core.payload import Payload, check_payloads
from airflow_insightly_hooks.core.plurals import counted
from airflow_insightly_hooks.core.state.retry_queue import MessageSource
from airflow_insightly_hooks.core.state.state_store import count_in
from airflow_insightly_hooks.core.state.versions import read_value
from airflow_insightly_hooks.hooks.assets import add_inlet
from airflow_insightly_hooks.operators.common.redacted_arguments import unredacted
from airflow_insightly_hooks.operators.common.triggered_runs import run_trigger
from airflow_insightly_hooks.operators.delivery import metrics
from airflow_insightly_hooks.operators.delivery.delivery import Delivery
from airflow_insightly_hooks.operators.delivery.ledger_writer import LedgerWriter
from airflow_insightly_hooks.operators.retry import longest_delay
from airflow_insightly_hooks.operators.webhook import WebhookOperator
from airflow_insightly_hooks.runs.airflow_runs import is_dry_run, is_test
from airflow_insightly_hooks.runs.task_state import TaskState

if TYPE_CHECKING:
    from airflow.sdk import Context

__all__ = ["LEFT_BY", "UNACKNOWLEDGED", "WorkflowDelivery", "WorkflowWebhookOperator"]

LEFT_BY = "left_by"
"""The key of a run's conf for the task that has left messages."""
UNACKNOWLEDGED = "unacknowledged"
"""The XCom key of the messages that a task has left: message id -> its line of the ledger."""
LEFT = "left"
"""The key of the task's state for the run that gets the messages that the task has left. Their ids are under
``left/0`` and so on."""
IDS_A_BLOCK = 750
"""Message ids under one key: at 64 characters each at most they stay below 60 kB."""


class WorkflowDelivery(WebhookOperator):
    """A deliver task that keeps its receiver's status for other runs: whether it is down, and until when.

    :param asset: the asset of the workflow's records, whose state keeps the status.
    :param webhook: the workflow's ``dag_id``, a slash, and the webhook's slug.

    Other parameters and errors are those of ``WebhookOperator``.
    """

    def __init__(self, *, asset: Asset, webhook: str, **kwargs: Any) -> None:
        add_inlet(kwargs, asset)
        super().__init__(**kwargs)
        self.asset = asset
        self.webhook = webhook

    def execute(self, context: Context) -> Report:
        """Send the payloads that are not acknowledged yet; return the report."""
        try:
            return super().execute(context)
        except (InvalidConnection, AirflowNotFoundException) as error:
            if not is_dry_run(context, self.is_dry_run):  # a dry run keeps no status
                self._unusable(context, str(error))
            raise

    def _unusable(self, context: Context, error: str) -> None:
        """Keep that the receiver's connection can't be used."""
        self._note_failure(context, error, is_down=True)

    def _post(self, context: Context, delivery: Delivery, queue: SendQueue) -> None:
        super()._post(context, delivery, queue)
        if delivery.tally.acknowledged:
            self._note_acknowledgement(context)

    def _judge(
        self,
        context: Context,
        payloads: Sequence[Payload],
        delivery: Delivery,
        report: Report,
        *,
        may_go_on: bool,
    ) -> None:
        if failures := list(delivery.failures.values()):
            asked = delivery.retry_after
            down = is_down(delivery.tally.acknowledged, failures, was_asked_to_wait=asked is not None)
            self._note_failure(context, failures[-1].error, is_down=down, retry_after=asked)
        super()._judge(context, payloads, delivery, report, may_go_on=may_go_on)

    def _open_ledger(self, context: Context) -> LedgerWriter:
        writer = super()._open_ledger(context)
        writer.ledger.about["webhook"] = self.webhook  # the key of its receiver's status
        return writer

    # --- the receiver's status -----------------------------------------------------------------------------

    def _others_wait(self, context: Context) -> ReceiverStatus | None:
        """Return the receiver's status if a task of another run waits for the receiver."""
        status = self._read_status(context)
        is_so = status is not None and status.others_wait(_run_of(context), datetime.now(timezone.utc))
        return status if is_so else None

    def _note_failure(
        self, context: Context, error: str, *, is_down: bool, retry_after: float | None = None
    ) -> None:
        """Keep that the receiver fails, and that this task waits for it."""
        before = self._read_status(context)
        now = datetime.now(timezone.utc)
        status = ReceiverStatus(
            now, now + longest_delay(self.retry_delay, retry_after), _run_of(context), is_down, error
        )
        if before is not None:
            status = status.after(before, now)
        self._write_status(context, status)
        if is_down:
            since = iso_time(status.failing_since)
            self.log.warning("The receiver of webhook %r has been failing since %s", self.webhook, since)

    def _note_acknowledgement(self, context: Context) -> None:
        """Keep that the receiver is not down. A task that waits for it goes on waiting."""
        before = self._read_status(context)
        if before is not None and before.is_down:
            self._write_status(context, before._replace(is_down=False))
            since = iso_time(before.failing_since)
            self.log.info(
                "The receiver of webhook %r works again; it had been failing since %s", self.webhook, since
            )

    def _read_status(self, context: Context) -> ReceiverStatus | None:
        if is_test(context):  # a test shares no status with other runs
            return None
        try:
            state = context["asset_state_store"][self.asset]
            return ReceiverStatus.of(read_value(state, f"{RECEIVER}/{self.webhook}"))
        except Exception as error:  # no message depends on the status
            self.log.warning(
                "The receiver's status can't be read, and is not used: %s", type_and_place(error)
            )
            return None

    def _write_status(self, context: Context, status: ReceiverStatus) -> None:
        if is_test(context):
            return
        seconds = (datetime.now(timezone.utc) - status.failing_since).total_seconds()
        tags = metrics.tags_of(context.get("ti"))
        metrics.gauge_failing(seconds if status.is_down else 0.0, self.webhook, tags)
        try:
            state = context["asset_state_store"][self.asset]
            state.set(f"{RECEIVER}/{self.webhook}", status.as_dict())
        except Exception as error:  # the deliveries matter more
            self.log.warning("The receiver's status can't be kept for other runs: %s", type_and_place(error))


class WorkflowWebhookOperator(WorkflowDelivery):
    """The deliver task of a workflow: it does not wait for a receiver that another run waits for.

    :param retry_dag_id: the DAG that sends the messages that this task leaves.
    :param payloads_task_id: the task whose XCom has the payloads.

    Other parameters and errors are those of ``WebhookOperator``. A task that leaves messages to the retry DAG
    succeeds. Its report counts them under ``left``, and the retry DAG's deliver task reports what becomes of
    them. If the task is cleared, it does not send these messages, unless it was asked to send them
    again: if the retry DAG's run is gone it leaves them once more, else it is skipped. It sends payloads that
    were added since.
    """

    def __init__(self, *, retry_dag_id: str, payloads_task_id: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.retry_dag_id = retry_dag_id
        self.payloads_task_id = payloads_task_id

    def _post(self, context: Context, delivery: Delivery, queue: SendQueue) -> None:
        if (ids := self._left_before(context)) is not None:
            self.log.info("Left to DAG %r before: %s", self.retry_dag_id, counted(len(ids), "message"))
            if own := self._own(ids, delivery.ledger):
                super()._post(context, delivery, SendQueue(own, delivery.ledger, ordered=self.ordered))
            return
        status = self._others_wait(context)
        if status is not None and status.is_down and not delivery.ledger.requested:
            self.log.warning(
                "Nothing is sent: the receiver has been failing since %s (%s), and run %s waits until %s",
                *(iso_time(status.failing_since), status.error, status.waiting),
                iso_time(status.retry_at),
            )
            return
        super()._post(context, delivery, queue)

    def _judge(
        self,
        context: Context,
        payloads: Sequence[Payload],
        delivery: Delivery,
        report: Report,
        *,
        may_go_on: bool,
    ) -> None:
        ids = self._left_before(context)
        status = self._others_wait(context) if ids is None else None
        if ids is not None and not self._stopped:
            ledger = delivery.ledger
            own = [p for p in self._own(ids, ledger) if ledger[p["message_id"]].state != ACKNOWLEDGED]
            if not own:
                self._leave(context, payloads, delivery.writer, report, status)
            self._push_left(context, {message: ledger.text_of(message) for message in ids})
            may_go_on = len(SendQueue(own, ledger, ordered=self.ordered)) > 0
        elif may_go_on and status is not None and not self._stopped and not delivery.ledger.requested:
            self._leave(context, payloads, delivery.writer, report, status)
        super()._judge(context, payloads, delivery, report, may_go_on=may_go_on)

    def _unusable(self, context: Context, error: str) -> None:
        ids = self._left_before(context)
        if (status := self._others_wait(context)) is not None:
            payloads = check_payloads(unredacted(self.payloads))
            writer = self._open_ledger(context)
            has_own = self._own(ids, writer.ledger) if ids is not None else writer.ledger.requested
            if not has_own:
                now = datetime.now(timezone.utc)
                report = make_report(payloads, writer.ledger, {}, lambda _message: error, now, now)
                self._leave(context, payloads, writer, report, status)
        super()._unusable(context, error)

    def _left_before(self, context: Context) -> set[str] | None:
        """Return the ids of messages that an earlier try has left; ``None`` if none has left any."""
        state: Any = context["task_state_store"]
        left = read_value(state, LEFT)
        if left is None:
            return None
        if not isinstance(left, Mapping):
            raise InvalidState(LEFT, "it is not an object")
        ids: set[str] = set()
        for number in range(count_in(LEFT, left, "blocks")):
            block = state.get(f"{LEFT}/{number}")
            if not isinstance(block, list):  # its messages would be sent here, and by the retry DAG
                raise InvalidState(f"{LEFT}/{number}", "it is missing, so it is not known what was left")
            ids.update(block)
        return ids

    def _own(self, ids: set[str], ledger: Ledger) -> list[Payload]:
        """Return the payloads that the task sends itself, although it has left messages before.

        They were added since, or were asked to be sent again.
        """
        payloads = check_payloads(unredacted(self.payloads))
        return [p for p in payloads if (m := p["message_id"]) not in ids or m in ledger.requested]

    def _push_left(self, context: Context, messages: dict[str, str]) -> None:
        """Push the messages for the retry DAG: Airflow deletes a task's XComs when its next try begins."""
        context["ti"].xcom_push(key=UNACKNOWLEDGED, value=messages)

    def _leave(
        self,
        context: Context,
        payloads: Sequence[Payload],
        writer: LedgerWriter,
        report: Report,
        status: ReceiverStatus | None,
    ) -> NoReturn:
        """End the task by leaving the messages that are not acknowledged to the retry DAG."""
        ledger = writer.ledger
        ti: Any = context["ti"]
        state = TaskState(context["task_state_store"])
        ids = self._left_before(context)
        messages = {
            message: ledger.text_of(message)
            for message in (ids if ids is not None else [payload["message_id"] for payload in payloads])
            if ledger[message].state != ACKNOWLEDGED
        }
        if ids is not None:
            left = state.get(LEFT)
        else:
            soonest = datetime.now(timezone.utc)
            if any(ledger[message].attempts for message in messages):
                soonest += self.retry_delay
            source = MessageSource(
                ti.dag_id, ti.run_id, ti.task_id, ti.map_index, self.payloads_task_id, len(messages)
            )
            not_before = iso_time(max(soonest, status.retry_at) if status is not None else soonest)
            left = {
                "run_id": f"from__{digest_of(repr((*source, sorted(messages))))}",
                "conf": {LEFT_BY: {**source._asdict(), "webhook": self.webhook, "not_before": not_before}},
                "blocks": -(-len(messages) // IDS_A_BLOCK),
            }
            listed = list(messages)
            for number in range(left["blocks"]):
                state.set(f"{LEFT}/{number}", listed[number * IDS_A_BLOCK :][:IDS_A_BLOCK])
            state.set(LEFT, left)
        ledger.about["left_to"] = self.retry_dag_id
        with suppress(Exception):  # no message depends on it
            writer.write()
        self.log.warning("Left to DAG %r: %s", self.retry_dag_id, counted(len(messages), "message"))
        report["undelivered"] = []
        report.pop("undelivered_count", None)
        report["left"] = len(messages)
        # The retry DAG expects all messages that were ever left. It does not send acknowledged ones.
        self._push_left(context, messages if ids is None else {m: ledger.text_of(m) for m in ids})
        ti.xcom_push(key="return_value", value=report)
        self._drop_event()  # the messages may still be delivered
        raise run_trigger(self.retry_dag_id, left["run_id"], left["conf"])


def _run_of(context: Context) -> str:
    ti: Any = context["ti"]
    return f"{ti.dag_id}/{ti.run_id}"
