"""Deliver the messages of all webhooks, in a task that reads its workflow's changes batch by batch."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from datetime import datetime, timezone
from functools import partial
from typing import TYPE_CHECKING, Any

from airflow_insightly_hooks.core.delivery.ledger import Ledger
from airflow_insightly_hooks.core.delivery.report import combined, make_report
from airflow_insightly_hooks.core.delivery.resend_requests import ResendRequest, read_requests
from airflow_insightly_hooks.core.detection.changes import RecordChange
from airflow_insightly_hooks.core.state.trigger_once import TriggerOnce
from airflow_insightly_hooks.core.workflow.definition import WorkflowDefinition
from airflow_insightly_hooks.core.workflow.parts import Webhook
from airflow_insightly_hooks.operators.common.field_checks import custom_dates_of
from airflow_insightly_hooks.operators.common.redacted_arguments import RedactedUri
from airflow_insightly_hooks.operators.delivery.dry_run import dry_store
from airflow_insightly_hooks.operators.delivery.ledger_writer import LedgerWriter
from airflow_insightly_hooks.operators.delivery.outcome import FAIL, REPORT, judge, push_report
from airflow_insightly_hooks.operators.delivery.progress import DeliveryProgress
from airflow_insightly_hooks.operators.one_task.batch_delivery import BatchDelivery, check_resends
from airflow_insightly_hooks.operators.one_task.batch_scheduling import BatchScheduling
from airflow_insightly_hooks.operators.one_task.delivery_settings import DeliverySettings
from airflow_insightly_hooks.operators.one_task.dry_batch_delivery import DryBatchDelivery
from airflow_insightly_hooks.runs.task_state import TaskState

if TYPE_CHECKING:
    from airflow.sdk import Asset, Context

    from airflow_insightly_hooks.core.delivery.report_types import Report
    from airflow_insightly_hooks.hooks.webhook import WebhookHook

__all__ = ["WebhookDeliveries"]


class WebhookDeliveries:
    """The deliveries of a workflow's webhooks in one try. Each batch goes to one webhook after the other.

    All receivers are checked before anything is sent. Webhooks with a time trigger are handed to the DAG that
    sends them.

    :param workflow: the workflow.
    :param settings: by slug, the settings of each webhook that is sent at once.
    :param pending_dag_id: the DAG that sends the webhooks with a time trigger.
    :param context: the run's context.
    :param render: renders a template in the context (``BaseOperator.render_template``).
    :param metadata: returns Insightly's metadata of the record type's custom fields.
    :param memory: stores which records have triggered; ``None`` if records may trigger more than once.
    :param is_dry_run: whether this is a dry run, which sends nothing.
    :param is_stopped: returns whether the task must end.
    :param log: the logger for progress and failures.
    :ivar has_settled: whether later tries of this round have nothing to send for the last batch.
    :raises InvalidConnection: if the connection or URI of a receiver is not valid.
    :raises MissingPayloadsError: if a user asked to send messages again whose webhook no longer exists.
    """

    def __init__(
        self,
        workflow: WorkflowDefinition,
        settings: Mapping[str, DeliverySettings],
        pending_dag_id: str | None,
        context: Context,
        render: Callable[..., Any],
        metadata: Callable[[], list[dict[str, Any]]],
        memory: TriggerOnce | None,
        *,
        is_dry_run: bool,
        is_stopped: Callable[[], bool],
        log: Any,
    ) -> None:
        self._settings, self._memory = settings, memory
        self._is_dry_run, self._log = is_dry_run, log
        self._ti: Any = context.get("ti")
        self.has_settled = True
        state = TaskState(context["task_state_store"])
        requests = read_requests(state)
        make = partial(
            DryBatchDelivery if is_dry_run else BatchDelivery,
            record_type=workflow.record_type,
            custom_dates=lambda: custom_dates_of(metadata()),
            progress=DeliveryProgress(log, comes_in_batches=True),
            is_stopped=is_stopped,
            log=log,
            ti=self._ti,
        )
        self._deliveries = {
            webhook.slug: make(
                webhook,
                settings[webhook.slug],
                scope=render(workflow.message_scope(webhook), context),
                hook=hook,
                writer=self._ledger_writer(webhook, state, requests, workflow.dag_id),
            )
            for webhook, hook in _receivers(workflow, context, render)
        }
        check_resends(requests, self._deliveries)
        self._reports: dict[str, Report] = {}
        self._scheduling: BatchScheduling | None = None
        timed = [webhook for webhook in workflow.webhooks if webhook.is_timed]
        if timed and pending_dag_id is not None:
            self._scheduling = BatchScheduling(timed, pending_dag_id, context, is_dry_run=is_dry_run, log=log)
            self._scheduling.go_on(self._admit)

    def _ledger_writer(
        self, webhook: Webhook, state: TaskState, requests: list[ResendRequest], dag_id: str
    ) -> LedgerWriter:
        prefix = f"{webhook.slug}/"
        store = dry_store(state, prefix) if self._is_dry_run else state
        writer = LedgerWriter(store, self._ti, self._settings[webhook.slug].retries, prefix, requests)
        # The receiver's status is found by this key.
        writer.ledger.about["webhook"] = f"{dag_id}/{webhook.slug}"
        return writer

    def _admit(self, record_ids: Collection[int]) -> set[int]:
        """Return which of the records may trigger in this run."""
        return set(record_ids) if self._memory is None else self._memory.admit(record_ids)

    def deliver(self, batch: list[RecordChange]) -> int:
        """Deliver a batch; return how many of its changes trigger."""
        for delivery in self._deliveries.values():
            delivery.expect(batch)
        if self._scheduling is not None:
            self._scheduling.expect(batch)
        # A record is admitted only once. So note it first: a kill in between would lose its messages.
        deliverable = [change for change in batch if "undeliverable" not in change]
        admitted = self._admit([change["record_id"] for change in deliverable])
        if self._memory is not None:
            for delivery in self._deliveries.values():
                delivery.drop(change for change in deliverable if change["record_id"] not in admitted)
            batch = [c for c in batch if "undeliverable" in c or c["record_id"] in admitted]
        if self._scheduling is not None:
            self._scheduling.hand_over(admitted)
        for delivery in self._deliveries.values():
            delivery.deliver(batch)
        # Each try lists all records without a date, so it must read them again.
        has_left_out = self._scheduling is not None and self._scheduling.has_left_out
        self.has_settled = not has_left_out and all(
            delivery.has_settled(batch) for delivery in self._deliveries.values()
        )
        return sum("undeliverable" not in change for change in batch)

    @property
    def basis(self) -> dict[str, Any]:
        """The values, besides the changes, that decide which messages this round sends; a JSON value."""
        generation = self._ti.max_tries if self._ti is not None else 0
        timed = self._scheduling.webhooks if self._scheduling is not None else []
        at_once = {slug: delivery.basis for slug, delivery in self._deliveries.items()}
        return {"": [generation, timed], **at_once}

    def end(self) -> Report | dict[str, Report]:
        """Return the report of a task that has read its window to the end, if the task succeeds.

        With several webhooks, it is a mapping from each slug to the webhook's report.

        :raises UndeliveredError: as ``outcome.judge`` says.
        """
        total, result = self.tell(is_read=True)
        if self._is_whole(total, is_read=True):
            return result
        deliveries = self._deliveries.values()
        must_deliver = any(self._deliveries[slug].must_deliver for slug in self._undelivered())
        asked = [d.retry_after for d in deliveries if d.retry_after is not None]
        judge(
            total,
            self._ti,
            may_go_on=any(delivery.may_go_on() for delivery in deliveries),
            on_undelivered=FAIL if must_deliver else REPORT,
            retry_after=max(asked, default=None),
            log=self._log,
        )
        return result

    def tell(self, *, is_read: bool) -> tuple[Report, Report | dict[str, Report]]:
        """Log the result, and push the report if the task fails; return the total and the report."""
        deliveries = self._deliveries
        self._reports = {
            slug: delivery.report(is_read=is_read, report_count=len(deliveries))
            for slug, delivery in deliveries.items()
        }
        if self._scheduling is not None:
            self._scheduling.tell()
        reports = list(self._reports.values())
        result = reports[0] if len(reports) == 1 else dict(self._reports)
        now = datetime.now(timezone.utc)
        total = combined(reports) if reports else make_report([], Ledger(), {}, str, now, now)
        is_lost = any(delivery.is_lost for delivery in deliveries.values())
        if not self._is_whole(total, is_read=is_read) and self._ti is not None and not is_lost:
            push_report(self._ti, result, self._log)
        return total, result

    def events(self) -> list[tuple[Asset, dict[str, Any]]]:
        """Return the assets that get an event when the task succeeds, each with the event's ``extra``.

        The ``extra`` is the total of the reports of the asset's webhooks that have undelivered messages. Its
        key ``webhooks`` holds their slugs.
        """
        found: list[tuple[Asset, list[str]]] = []
        for slug in () if self._is_dry_run else self._undelivered():
            asset = self._settings[slug].undelivered_asset
            if asset is None:
                continue
            for other, slugs in found:
                if other == asset:
                    slugs.append(slug)
                    break
            else:
                found.append((asset, [slug]))
        return [
            (asset, {**combined([self._reports[slug] for slug in slugs]), "webhooks": slugs})
            for asset, slugs in found
        ]

    def _undelivered(self) -> list[str]:
        """Return the slugs of the webhooks that have undelivered messages."""
        return [slug for slug, report in self._reports.items() if report["delivered"] < report["total"]]

    def _is_whole(self, total: Report, *, is_read: bool) -> bool:
        return is_read and (self._is_dry_run or total["delivered"] == total["total"])


def _receivers(
    workflow: WorkflowDefinition, context: Context, render: Callable[..., Any]
) -> list[tuple[Webhook, WebhookHook]]:
    """Return the rendered webhooks, each with the hook of its receiver, which is checked.

    :raises InvalidConnection: if the connection or URI of a receiver is not valid.
    """
    from airflow_insightly_hooks.hooks.webhook import WebhookHook

    receivers: list[tuple[Webhook, WebhookHook]] = []
    for webhook in workflow.webhooks:
        if webhook.is_timed:
            continue
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
