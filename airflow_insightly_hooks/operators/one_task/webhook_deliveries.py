"""What all webhooks of a workflow have to send in a task that reads its changes batch by batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from airflow_insightly_hooks.core.delivery.report import combined
from airflow_insightly_hooks.core.delivery.resend_requests import read_requests
from airflow_insightly_hooks.core.detection.changes import RecordChange
from airflow_insightly_hooks.core.state.trigger_once import TriggerOnce
from airflow_insightly_hooks.core.workflow.definition import WorkflowDefinition
from airflow_insightly_hooks.core.workflow.parts import Webhook
from airflow_insightly_hooks.operators.common.field_checks import custom_dates_of
from airflow_insightly_hooks.operators.common.redacted_arguments import RedactedUri
from airflow_insightly_hooks.operators.delivery.dry_run import dry_store
from airflow_insightly_hooks.operators.delivery.ledger_writer import LedgerWriter
from airflow_insightly_hooks.operators.delivery.outcome import judge, push_report
from airflow_insightly_hooks.operators.one_task.batch_delivery import BatchDelivery, check_resends
from airflow_insightly_hooks.operators.one_task.dry_batch_delivery import DryBatchDelivery
from airflow_insightly_hooks.runs.task_state import TaskState

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_insightly_hooks.core.delivery.report_types import Report
    from airflow_insightly_hooks.hooks.webhook import WebhookHook

__all__ = ["WebhookDeliveries"]


class WebhookDeliveries:
    """The deliveries of a workflow's webhooks in one try; the webhooks take turns at each batch.

    All receivers are checked before anything is sent.

    :param workflow: what is sent, and where.
    :param context: the run's context.
    :param render: renders a template in it (``BaseOperator.render_template``).
    :param metadata: returns what Insightly says of the record type's custom fields.
    :param memory: what remembers which records have triggered; ``None`` where nothing is to be remembered.
    :param retries: the task's.
    :param is_dry_run: whether nothing is to be sent.
    :param is_stopped: whether the task is to end.
    :param log: where progress and failures go.
    :raises InvalidConnection: if a receiver can't be sent to.
    :raises MissingPayloadsError: if messages were asked to be sent again whose webhook is gone.
    """

    def __init__(
        self,
        workflow: WorkflowDefinition,
        context: Context,
        render: Callable[..., Any],
        metadata: Callable[[], list[dict[str, Any]]],
        memory: TriggerOnce | None,
        *,
        retries: int | None,
        is_dry_run: bool,
        is_stopped: Callable[[], bool],
        log: Any,
    ) -> None:
        self._memory, self._is_dry_run, self._log = memory, is_dry_run, log
        self._ti: Any = context.get("ti")
        make = DryBatchDelivery if is_dry_run else BatchDelivery
        state = TaskState(context["task_state_store"])
        requests = read_requests(state)
        self._deliveries = {
            webhook.slug: make(
                webhook,
                render(workflow.message_scope(webhook), context),
                workflow.record_type,
                hook,
                LedgerWriter(
                    dry_store(state, f"{webhook.slug}/") if is_dry_run else state,
                    self._ti,
                    retries,
                    f"{webhook.slug}/",
                    requests,
                ),
                lambda: custom_dates_of(metadata()),
                is_stopped=is_stopped,
                log=log,
                ti=self._ti,
            )
            for webhook, hook in _receivers(workflow, context, render)
        }
        check_resends(requests, self._deliveries)

    def deliver(self, batch: list[RecordChange]) -> int:
        """Deliver a batch; return how many of its changes trigger."""
        for delivery in self._deliveries.values():
            delivery.expect(batch)
        # After they are noted: what is let through once isn't let through again.
        if self._memory is not None:
            deliverable = [change for change in batch if "undeliverable" not in change]
            admitted = self._memory.admit(change["record_id"] for change in deliverable)
            for delivery in self._deliveries.values():
                delivery.drop(change for change in deliverable if change["record_id"] not in admitted)
            batch = [c for c in batch if "undeliverable" in c or c["record_id"] in admitted]
        for delivery in self._deliveries.values():
            delivery.deliver(batch)
        return sum("undeliverable" not in change for change in batch)

    def end(self, *, on_undelivered: str) -> Report | dict[str, Report]:
        """Return the report, if a task that has read its window to the end is to succeed.

        With several webhooks it maps their slugs to a report each.

        :param on_undelivered: what happens when something stays undelivered after the last attempt.
        :raises UndeliveredError: as ``outcome.judge`` says.
        """
        total, result = self.tell(is_read=True)
        if self._is_whole(total, is_read=True):
            return result
        deliveries = self._deliveries.values()
        asked = [d.retry_after for d in deliveries if d.retry_after is not None]
        judge(
            total,
            self._ti,
            may_go_on=any(delivery.may_go_on() for delivery in deliveries),
            on_undelivered=on_undelivered,
            retry_after=max(asked, default=None),
            log=self._log,
        )
        return result

    def tell(self, *, is_read: bool) -> tuple[Report, Report | dict[str, Report]]:
        """Log what came of it, and push the report where the task fails; return the sum and the report."""
        deliveries = self._deliveries
        reports = [
            delivery.report(is_read=is_read, report_count=len(deliveries)) for delivery in deliveries.values()
        ]
        result = reports[0] if len(reports) == 1 else dict(zip(deliveries, reports, strict=True))
        total = combined(reports)
        is_lost = any(delivery.is_lost for delivery in deliveries.values())
        if not self._is_whole(total, is_read=is_read) and self._ti is not None and not is_lost:
            push_report(self._ti, result, self._log)
        return total, result

    def _is_whole(self, total: Report, *, is_read: bool) -> bool:
        return is_read and (self._is_dry_run or total["delivered"] == total["total"])


def _receivers(
    workflow: WorkflowDefinition, context: Context, render: Callable[..., Any]
) -> list[tuple[Webhook, WebhookHook]]:
    """Return the webhooks, rendered, each with its receiver, which is checked.

    :raises InvalidConnection: if one can't be sent to.
    """
    from airflow_insightly_hooks.hooks.webhook import WebhookHook

    receivers: list[tuple[Webhook, WebhookHook]] = []
    for webhook in workflow.webhooks:
        rendered = webhook.model_copy(
            update={
                name: render(getattr(webhook, name), context) for name in ("conn_id", "fields", "envelope")
            }
        )
        if webhook.uri is not None:
            uri = RedactedUri(webhook.uri, render).resolve(context)
            rendered = rendered.model_copy(update={"uri": uri})
        hook = WebhookHook(rendered.conn_id or "", uri=rendered.uri)
        hook.get_conn()
        hook.check_headers(webhook.headers)
        receivers.append((rendered, hook))
    return receivers
