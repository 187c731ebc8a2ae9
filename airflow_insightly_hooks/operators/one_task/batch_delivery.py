"""Deliver the messages of one webhook, in a task that reads its workflow's changes batch by batch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from airflow_insightly_hooks.core.dates import api_time
from airflow_insightly_hooks.core.delivery.delivery_record import About, about_of, read_details
from airflow_insightly_hooks.core.delivery.ledger import ACKNOWLEDGED
from airflow_insightly_hooks.core.delivery.message_id import message_id_of
from airflow_insightly_hooks.core.delivery.report_types import Report
from airflow_insightly_hooks.core.delivery.resend_requests import ResendRequest
from airflow_insightly_hooks.core.delivery.send_queue import SendQueue
from airflow_insightly_hooks.core.detection.changes import RecordChange
from airflow_insightly_hooks.core.errors import InvalidState
from airflow_insightly_hooks.core.payload import Payload, build_payload, why_undeliverable
from airflow_insightly_hooks.core.plurals import counted
from airflow_insightly_hooks.core.records import CUSTOM_FIELDS
from airflow_insightly_hooks.core.workflow.parts import Webhook
from airflow_insightly_hooks.operators.delivery.concurrent_posts import HELD_BACK
from airflow_insightly_hooks.operators.delivery.delivery import Delivery, record_unsent
from airflow_insightly_hooks.operators.delivery.ledger_writer import LedgerWriter
from airflow_insightly_hooks.operators.delivery.outcome import FAIL, MissingPayloadsError
from airflow_insightly_hooks.operators.delivery.progress import DeliveryProgress
from airflow_insightly_hooks.operators.one_task.delivery_settings import DeliverySettings

if TYPE_CHECKING:
    from airflow_insightly_hooks.hooks.webhook import WebhookHook

__all__ = ["BatchDelivery", "check_resends"]

LEFT = "not sent again: its record has left the window (changed again, or deleted), or no longer triggers"
UNREAD = "not sent again yet: the window was not read to its end"


class BatchDelivery:
    """The messages of one webhook, in one try.

    A message is written to the ledger first, and stays there until it is acknowledged. So the ledger shows
    which messages a later try no longer finds in the window.

    :param webhook: the webhook, with its ``fields`` and ``envelope`` rendered.
    :param settings: how the webhook is delivered.
    :param scope: the scope of its message ids.
    :param record_type: the record type.
    :param hook: the hook of the receiver, already checked.
    :param writer: the writer of this try's ledger.
    :param custom_dates: returns the arguments of ``build_body`` for custom fields that hold dates; called
        only if records have custom fields.
    :param progress: logs the progress of all webhooks.
    :param is_stopped: returns whether the task must end.
    :param log: the logger for failures.
    :param ti: the task instance; ``None`` outside of Airflow.
    """

    def __init__(
        self,
        webhook: Webhook,
        settings: DeliverySettings,
        scope: str,
        record_type: str,
        hook: WebhookHook,
        writer: LedgerWriter,
        custom_dates: Callable[[], dict[str, frozenset[str]]],
        *,
        progress: DeliveryProgress,
        is_stopped: Callable[[], bool],
        log: Any,
        ti: Any,
    ) -> None:
        self._settings = settings
        self._webhook, self._scope, self._record_type = webhook, scope, record_type
        self._writer, self._ledger = writer, writer.ledger
        self._custom_dates = custom_dates
        self._log = log
        self._delivery = Delivery(
            hook,
            writer,
            headers=webhook.headers or None,
            concurrency=webhook.concurrency,
            give_up_after=settings.give_up_after,
            is_stopped=is_stopped,
            log=log,
            ti=ti,
            progress=progress,
        )
        self._undeliverable: dict[str, Payload] = {}  # by message id
        self._unseen = {message for message, _ in self._ledger.unacknowledged()}
        # With ``ordered``: the times of changes that aren't acknowledged, by record and message.
        self._waiting: dict[int, dict[str, datetime]] = {}
        for message in self._unseen if settings.ordered else ():
            about = self._about(message)
            self._wait(about.record_id, message, about.changed_at)
        self._delivery.log_payloads_in_doubt(self._unseen, f"{webhook.name}: ")
        if requested := self._ledger.requested:
            only = ". Nothing else is sent" if self._ledger.is_restricted else ""
            number = counted(len(requested), "message")
            log.info("%s: a user asked to send %s again%s", webhook.name, number, only)

    @property
    def retry_after(self) -> float | None:
        """The longest wait that the receiver asked for, in seconds; ``None`` if it asked for none."""
        return self._delivery.retry_after

    @property
    def begun_requests(self) -> list[str]:
        """The ids of the requests to send again that belong to this round."""
        return [request for request, of in self._ledger.resends.items() if of == self._ledger.generation]

    @property
    def is_lost(self) -> bool:
        """Whether a later try of the task has the ledger."""
        return self._writer.is_lost

    def expect(self, changes: Iterable[RecordChange]) -> None:
        """Add the changes' messages to the ledger, and store it."""
        for change in changes:
            message = message_id_of(change, self._scope)
            self._unseen.discard(message)
            about = (change["record_type"], change["record_id"], change["event"], change["changed_at"])
            self._ledger.expect(message, about_of(*about))
            if self._settings.ordered and self._ledger[message].state != ACKNOWLEDGED:
                self._wait(change["record_id"], message, change["changed_at"])
            if "undeliverable" in change:
                self._undeliverable[message] = self._payload(change)
        self._writer.write()

    def drop(self, changes: Iterable[RecordChange]) -> None:
        """Remove messages from the ledger that are not sent after all."""
        dropped = [(change["record_id"], message_id_of(change, self._scope)) for change in changes]
        self._ledger.forget(message for _, message in dropped)
        for record_id, message in dropped:
            self._waits_no_more(record_id, message)

    def deliver(self, changes: Iterable[RecordChange]) -> None:
        """POST each message that is not acknowledged once, and record the result."""
        if self._delivery.has_given_up:
            return
        payloads = self._payloads(
            c for c in changes if not self._ledger.is_settled(message_id_of(c, self._scope))
        )
        if self._settings.ordered:
            # The queue holds this batch only.
            here = {payload["message_id"] for payload in payloads}
            payloads = [p for p in payloads if not self._earlier(p["record_id"], p["message_id"]) - here]
        if payloads:
            self._delivery.post(SendQueue(payloads, self._ledger, ordered=self._settings.ordered))
        for payload in payloads:
            if self._ledger[payload["message_id"]].state == ACKNOWLEDGED:
                self._waits_no_more(payload["record_id"], payload["message_id"])
        moved = self._ledger.move_acknowledged()
        self._writer.write()  # the ids are stored before the entries are removed
        self._ledger.forget(moved)

    def has_settled(self, changes: Iterable[RecordChange]) -> bool:
        """Return whether later tries of this round have nothing to send for these changes."""
        return all(
            "undeliverable" in change or self._ledger.is_settled(message_id_of(change, self._scope))
            for change in changes
        )

    @property
    def basis(self) -> list[Any]:
        """The values, besides the changes, that decide which messages this round sends; a JSON value."""
        ledger = self._ledger
        return [self._scope, ledger.generation, ledger.max_attempts, sorted(ledger.resends)]

    def _payloads(self, changes: Iterable[RecordChange]) -> list[Payload]:
        """Return the payloads to send. Payloads that can't be delivered are kept for the report."""
        payloads = []
        for payload in map(self._payload, changes):
            if why_undeliverable(payload) is None:
                payloads.append(payload)
            else:
                self._undeliverable[payload["message_id"]] = payload
        return payloads

    def _payload(self, change: RecordChange) -> Payload:
        webhook = self._webhook
        return build_payload(
            change,
            self._scope,
            change["record"],
            envelope=webhook.envelope,
            date_format=webhook.date_format,
            timezone=webhook.timezone,
            fields=webhook.fields,
            **(self._custom_dates() if change["record"].get(CUSTOM_FIELDS) else {}),
        )

    # --- the order of a record's changes -------------------------------------------------------------------

    def _wait(self, record_id: int, message: str, changed_at: str) -> None:
        if changed_at:
            self._waiting.setdefault(record_id, {})[message] = api_time(changed_at, "changed_at")

    def _waits_no_more(self, record_id: int, message: str) -> None:
        waiting = self._waiting.get(record_id, {})
        waiting.pop(message, None)
        if not waiting:
            self._waiting.pop(record_id, None)

    def _earlier(self, record_id: int, message: str) -> set[str]:
        """Return the messages of earlier changes of the same record, for which this one waits if ordered."""
        waiting = self._waiting.get(record_id, {})
        if (own := waiting.get(message)) is None:
            return set()
        return {other for other, changed_at in waiting.items() if changed_at < own}

    # --- the result ----------------------------------------------------------------------------------------

    def may_go_on(self) -> bool:
        """Return whether a later try can POST something, after the window was read to its end."""
        return any(
            not self._ledger.is_settled(message)
            and message not in self._unseen
            and message not in self._undeliverable
            and not self._is_held_back(message)
            for message, _ in self._ledger.unacknowledged()
        )

    def _is_held_back(self, message: str) -> bool:
        return bool(self._waiting) and bool(self._earlier(self._about(message).record_id, message))

    @property
    def must_deliver(self) -> bool:
        """Whether the task fails if messages of this webhook stay undelivered.

        It also fails if a message that a user asked to send again can't be sent: the user waits for it.
        """
        left = self._ledger.requested & self._unseen
        return self._settings.on_undelivered == FAIL or not all(map(self._ledger.is_settled, left))

    def report(self, *, is_read: bool, report_count: int) -> Report:
        """Return the report of the try, log it, and count it in the metrics.

        :param is_read: whether the window was read to its end.
        :param report_count: the number of reports that share the size limit of one report.
        """

        def why_unsent(message: str) -> str:
            return self._why_unsent(message, is_read=is_read)

        tried = self._delivery.failures
        record_unsent(self._writer, (p for p in self._left() if p["message_id"] not in tried), why_unsent)
        self._ledger.forget(self._ledger.move_acknowledged())
        report = self._delivery.report(self._left(), why_unsent, report_count)
        # An acknowledged message that is sent again counts as undelivered until it is acknowledged again.
        again = sum(message in self._ledger.acknowledged for message, _ in self._ledger.unacknowledged())
        undelivered, delivered = report["total"], len(self._ledger.acknowledged) - again
        report["total"] += delivered
        report["delivered"] = delivered
        report["attempts"] += self._ledger.acknowledged_attempts
        self._log.info(
            "%s: %d of %s delivered, %s in this try",
            self._webhook.name,
            delivered,
            counted(report["total"], "payload"),
            counted(self._delivery.tally.posted, "POST"),
        )
        if self._delivery.has_given_up:
            self._log.warning(
                "%s: nothing could be sent many times in a row (give_up_after): the rest was not tried",
                self._webhook.name,
            )
        self._delivery.log_failures_and_count_try(undelivered)
        return report

    def _left(self) -> Iterator[Payload]:
        """Yield the payloads that are not delivered, without bodies."""
        for message, _ in self._ledger.unacknowledged():
            if message in self._undeliverable:
                yield self._undeliverable[message]
                continue
            about = self._about(message)
            yield {
                "message_id": message,
                "record_type": about.record_type or self._record_type,
                "record_id": about.record_id,
                "event": about.event,
                "changed_at": about.changed_at,
                "body": "",
            }

    def _about(self, message: str) -> About:
        about, _ = read_details(self._ledger.details_of(message), self._ledger.texts)
        if about is None:
            raise InvalidState(self._webhook.name, "the ledger doesn't name a message's record")
        return about

    def _why_unsent(self, message: str, *, is_read: bool) -> str:
        if message in self._unseen:
            return LEFT if is_read else UNREAD
        if self._is_held_back(message):
            return HELD_BACK
        return self._delivery.why_unsent(message)


def check_resends(requests: Sequence[ResendRequest], deliveries: Mapping[str, BatchDelivery]) -> None:
    """Refuse to send if a user has just asked to send messages again whose webhook no longer exists.

    :param deliveries: one for each webhook, by its slug.
    :raises MissingPayloadsError: with these messages.
    """
    known = {f"{slug}/" for slug in deliveries}
    begun = {request for delivery in deliveries.values() for request in delivery.begun_requests}
    lost = [
        message
        for request in requests
        if request.id in begun
        for prefix, messages in request.messages.items()
        if prefix not in known
        for message in messages
    ]
    if lost:
        raise MissingPayloadsError(lost)
