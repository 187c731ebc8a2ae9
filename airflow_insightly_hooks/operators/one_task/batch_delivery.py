"""What one webhook of a workflow has to send in a task that reads its changes batch by batch."""

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

    A message is noted in the ledger before anything else is done about it, and stays there until it is
    acknowledged; so what a later try doesn't come across any more is missed.

    :param webhook: what is sent; its ``fields`` and ``envelope`` rendered.
    :param settings: how it is delivered.
    :param scope: what its messages belong to.
    :param record_type: the records' type.
    :param hook: the receiver, checked.
    :param writer: the ledger of this try.
    :param custom_dates: returns what ``build_body`` is to know of custom fields that hold dates; asked only
        if records have custom fields.
    :param progress: what tells how far all webhooks are.
    :param is_stopped: whether the task is to end.
    :param log: where failures go.
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
        # With ``ordered``, by record and message, the times of changes that aren't acknowledged.
        self._waiting: dict[int, dict[str, datetime]] = {}
        for message in self._unseen if settings.ordered else ():
            about = self._about(message)
            self._wait(about.record_id, message, about.changed_at)
        self._delivery.log_payloads_in_doubt(self._unseen, f"{webhook.name}: ")
        if requested := self._ledger.requested:
            only = ", and nothing else is sent" if self._ledger.is_restricted else ""
            log.info("%s: %d messages were asked to be sent again%s", webhook.name, len(requested), only)

    @property
    def retry_after(self) -> float | None:
        """The longest that the receiver asked to wait, in seconds; ``None`` where it didn't."""
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
        """Note the changes' messages, and store that."""
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
        """Forget messages that are not to be sent after all."""
        dropped = [(change["record_id"], message_id_of(change, self._scope)) for change in changes]
        self._ledger.forget(message for _, message in dropped)
        for record_id, message in dropped:
            self._waits_no_more(record_id, message)

    def deliver(self, changes: Iterable[RecordChange]) -> None:
        """POST what is not acknowledged, once each, and record what came of it."""
        if self._delivery.has_given_up:
            return
        payloads = self._payloads(
            c for c in changes if not self._ledger.is_settled(message_id_of(c, self._scope))
        )
        if self._settings.ordered:
            # The queue knows of this batch only.
            here = {payload["message_id"] for payload in payloads}
            payloads = [p for p in payloads if not self._earlier(p["record_id"], p["message_id"]) - here]
        if payloads:
            self._delivery.post(SendQueue(payloads, self._ledger, ordered=self._settings.ordered))
        for payload in payloads:
            if self._ledger[payload["message_id"]].state == ACKNOWLEDGED:
                self._waits_no_more(payload["record_id"], payload["message_id"])
        moved = self._ledger.move_acknowledged()
        self._writer.write()  # the ids are stored before the entries go
        self._ledger.forget(moved)

    def has_settled(self, changes: Iterable[RecordChange]) -> bool:
        """Return whether no later try of this round has anything to send of these."""
        return all(
            "undeliverable" in change or self._ledger.is_settled(message_id_of(change, self._scope))
            for change in changes
        )

    @property
    def basis(self) -> list[Any]:
        """What decides which messages are to be sent in this round, besides the changes; a JSON value."""
        ledger = self._ledger
        return [self._scope, ledger.generation, ledger.max_attempts, sorted(ledger.resends)]

    def _payloads(self, changes: Iterable[RecordChange]) -> list[Payload]:
        """Return what is to be sent; what can't be is kept for the report."""
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
        """Return the earlier changes of a message's record that it waits for, if order is kept."""
        waiting = self._waiting.get(record_id, {})
        if (own := waiting.get(message)) is None:
            return set()
        return {other for other, changed_at in waiting.items() if changed_at < own}

    # --- what came of it -----------------------------------------------------------------------------------

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
        """Whether the task fails where something of this webhook stays undelivered.

        It does so, too, where what was asked to be sent again can't be: somebody waits for that.
        """
        left = self._ledger.requested & self._unseen
        return self._settings.on_undelivered == FAIL or not all(map(self._ledger.is_settled, left))

    def report(self, *, is_read: bool, report_count: int) -> Report:
        """Return the report of the try, and log and count what it says.

        :param is_read: whether the window was read to its end.
        :param report_count: how many reports share the room that there is for one.
        """

        def why_unsent(message: str) -> str:
            return self._why_unsent(message, is_read=is_read)

        tried = self._delivery.failures
        record_unsent(self._writer, (p for p in self._left() if p["message_id"] not in tried), why_unsent)
        self._ledger.forget(self._ledger.move_acknowledged())
        report = self._delivery.report(self._left(), why_unsent, report_count)
        # What was acknowledged, and is to be sent again, counts as undelivered until it is acknowledged anew.
        again = sum(message in self._ledger.acknowledged for message, _ in self._ledger.unacknowledged())
        undelivered, delivered = report["total"], len(self._ledger.acknowledged) - again
        report["total"] += delivered
        report["delivered"] = delivered
        report["attempts"] += self._ledger.acknowledged_attempts
        self._log.info(
            "%s: %d of %d payloads delivered, %d POSTs in this try",
            self._webhook.name,
            delivered,
            report["total"],
            self._delivery.tally.posted,
        )
        if self._delivery.has_given_up:
            self._log.warning(
                "%s: nothing could be sent many times in a row (give_up_after): the rest waits",
                self._webhook.name,
            )
        self._delivery.log_failures_and_count_try(undelivered)
        return report

    def _left(self) -> Iterator[Payload]:
        """Yield what is undelivered, without bodies."""
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
            raise InvalidState(self._webhook.name, "the ledger doesn't say what a message is about")
        return about

    def _why_unsent(self, message: str, *, is_read: bool) -> str:
        if message in self._unseen:
            return LEFT if is_read else UNREAD
        if self._is_held_back(message):
            return HELD_BACK
        return self._delivery.why_unsent(message)


def check_resends(requests: Sequence[ResendRequest], deliveries: Mapping[str, BatchDelivery]) -> None:
    """Refuse to send where messages were just asked to be sent again whose webhook is gone.

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
