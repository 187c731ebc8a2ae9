"""The health of the workflows' receivers, from ledgers and from the state of assets.

A workflow's deliver tasks store whether their receiver is down (``operators.workflow_delivery``), and its
retry DAG stores the messages that wait (``core.state.retry_queue``). Both are stored by webhook, and a ledger
names the webhook's receiver. DAGs without a workflow have only ledgers.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow.models.asset_state_store import AssetStateStoreModel
from sqlalchemy import or_, select

from airflow_insightly_hooks.core.delivery.receiver_status import LONGEST_WAIT, RECEIVER, ReceiverStatus
from airflow_insightly_hooks.core.errors import InvalidState, InvalidTime
from airflow_insightly_hooks.core.state.retry_queue import RETRY, RetryQueue
from airflow_insightly_hooks.core.state.state_store import KEPT
from airflow_insightly_hooks.core.workflow.dag_ids import workflow_dag_id
from airflow_insightly_hooks.database.overview.ledgers import Ledgers, TaskLedger, first_moment
from airflow_insightly_hooks.database.state import StoredValues

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

__all__ = ["ReceiverHealth", "receivers"]


class ReceiverHealth(NamedTuple):
    """The health of a receiver, with regard to the given DAGs.

    :param conn_id: its connection; ``None`` if it has no connection, or no ledger names one.
    :param address: its URI, without user information; ``None`` if no ledger names it.
    :param dag_ids: the workflows that send to it, by id.
    :param webhooks: their webhooks, as ``{dag_id}/{slug}``; DAGs without a workflow have no names here.
    :param last_success: when it last acknowledged a message in the period, in UTC; ``None`` if it didn't.
    :param failed_at: when a ledger was written last of which it has acknowledged no message, in UTC; ``None``
        if it has acknowledged a message since then, or there is no such ledger.
    :param failing_since: since when it has failed, in UTC; ``None`` if it isn't failing, or no task has
        stored it.
    :param retry_at: when the next try may begin, in UTC: at the time that the receiver has asked for
        (``Retry-After``), or after the wait between two tries; ``None`` if that time is past.
    :param error: why the last try failed, without contents of messages; ``None`` if the receiver isn't
        failing and no try waits.
    :param waiting: how many messages wait for it in retry DAGs.
    :param delivered: how many messages it has acknowledged in the period.
    :param undelivered: how many messages of the period it has not acknowledged (yet).
    :param unreadable: how many webhooks have a status or waiting messages that can't be read.
    """

    conn_id: str | None
    address: str | None
    dag_ids: tuple[str, ...]
    webhooks: tuple[str, ...]
    last_success: datetime | None
    failed_at: datetime | None
    failing_since: datetime | None
    retry_at: datetime | None
    error: str | None
    waiting: int
    delivered: int
    undelivered: int
    unreadable: int


class _Webhook(NamedTuple):
    """What an asset's state holds about a webhook: its receiver's status, and the messages that wait.

    ``None`` means that the status is not stored or can't be read.
    """

    name: str
    status: ReceiverStatus | None
    noted_at: datetime | None
    waiting: int
    unreadable: int


def receivers(
    session: Session, dag_ids: Collection[str], now: datetime, ledgers: Ledgers
) -> list[ReceiverHealth]:
    """Return the receivers that these DAGs have sent to in the period, that fail, or that messages wait for.

    :param dag_ids: the DAGs that the user may read.
    :param now: the current time, aware.
    :param ledgers: the counts of their tasks since ``first_moment``.
    """
    of_receiver: defaultdict[str, list[TaskLedger]] = defaultdict(list)
    receiver_of: dict[str, str] = {}  # by webhook: its current receiver
    for ledger in sorted(ledgers.ledgers, key=lambda ledger: ledger.written_at):
        name = ledger.conn_id or ledger.receiver
        if name is None:
            continue
        of_receiver[name].append(ledger)
        for webhook in _webhooks_of(ledger, dag_ids):
            receiver_of[webhook] = name
    webhooks: defaultdict[str, list[_Webhook]] = defaultdict(list)
    for found in _webhooks(session, dag_ids):
        name = receiver_of.get(found.name, receiver_of.get(_only_webhook(found.name)))
        if name is not None:
            webhooks[name].append(found)
        elif _is_shown(found, now):
            webhooks[found.name].append(found)
    return [
        _health(of_receiver[name], webhooks[name], dag_ids, now) for name in sorted({*of_receiver, *webhooks})
    ]


def _health(
    ledgers: list[TaskLedger], webhooks: list[_Webhook], dag_ids: Collection[str], now: datetime
) -> ReceiverHealth:
    """Return the health of one receiver.

    :param ledgers: the ledgers of tasks that send to it, the last written one last.
    :param webhooks: the stored status of the webhooks that it gets.
    """
    last_success: datetime | None = None
    for ledger in reversed(ledgers):
        if last_success is not None and ledger.written_at < last_success:
            break  # no message of a ledger was acknowledged after its last write
        if (at := ledger.last_success) is not None and (last_success is None or last_success < at):
            last_success = at
    # A DAG without a workflow stores no status of its receiver. Only its ledgers show a failure.
    failed_at = max((ledger.written_at for ledger in ledgers if ledger.has_only_failed), default=None)
    if failed_at is not None and last_success is not None and failed_at <= last_success:
        failed_at = None
    # A webhook's status is outdated if the receiver has acknowledged a later message, of any webhook.
    failing = [
        webhook.status
        for webhook in webhooks
        if webhook.status is not None
        and webhook.status.is_down
        and (last_success is None or webhook.noted_at is None or last_success <= webhook.noted_at)
    ]
    waits = [
        webhook.status
        for webhook in webhooks
        if webhook.status is not None and now < webhook.status.retry_at <= now + LONGEST_WAIT
    ]
    statuses = failing or waits
    dags = {workflow_dag_id(dag_id, dag_ids) for dag_id in {ledger.dag_id for ledger in ledgers}}
    names = {ledger.webhook for ledger in ledgers if ledger.webhook is not None}
    return ReceiverHealth(
        ledgers[-1].conn_id if ledgers else None,
        next((ledger.receiver for ledger in reversed(ledgers) if ledger.receiver is not None), None),
        tuple(sorted(dags | {_dag_of(webhook.name) for webhook in webhooks})),
        tuple(sorted(names | {webhook.name for webhook in webhooks})),
        last_success,
        failed_at,
        min((status.failing_since for status in failing), default=None),
        max((status.retry_at for status in waits), default=None),
        max(statuses, key=lambda status: status.retry_at).error if statuses else None,
        sum(webhook.waiting for webhook in webhooks),
        sum(ledger.delivered or 0 for ledger in ledgers),
        sum(ledger.undelivered or 0 for ledger in ledgers),
        sum(webhook.unreadable for webhook in webhooks),
    )


def _webhooks_of(ledger: TaskLedger, dag_ids: Collection[str]) -> Iterator[str]:
    """Yield the name of the webhook whose messages a ledger holds, if it is known."""
    if ledger.webhook is not None:
        yield ledger.webhook
        return
    # Earlier versions have not stored it. But a workflow's tasks are named after their webhooks.
    task, dag_id = ledger.task_id.rpartition(".")[2], workflow_dag_id(ledger.dag_id, dag_ids)
    if task == "deliver":
        yield _only_webhook(f"{dag_id}/")
    elif task.startswith("deliver_"):
        yield f"{dag_id}/{task.removeprefix('deliver_')}"


def _only_webhook(webhook: str) -> str:
    """Return the placeholder for a workflow's only webhook: its task's name does not contain its name."""
    return f"{_dag_of(webhook)}/"


def _dag_of(webhook: str) -> str:
    return webhook.rpartition("/")[0]


def _is_shown(webhook: _Webhook, now: datetime) -> bool:
    """Return whether a webhook without a ledger in the period has waiting messages or fails."""
    is_new = webhook.noted_at is not None and webhook.noted_at >= first_moment(now)
    is_down = webhook.status is not None and webhook.status.is_down
    return bool(webhook.waiting or webhook.unreadable or (is_down and is_new))


def _webhooks(session: Session, dag_ids: Collection[str]) -> list[_Webhook]:
    """Return the stored status of the webhooks of these DAGs, from the state of assets."""
    key = AssetStateStoreModel.key
    # The head of a retry queue has the number of its messages. If there are parts without a head, it is lost.
    is_head = or_(key.not_like(f"{RETRY}/%/%/%"), key.like(f"%/{KEPT}"), key.like("%/0"))
    query = select(
        AssetStateStoreModel.asset_id, key, AssetStateStoreModel.value, AssetStateStoreModel.updated_at
    ).where(or_(key.like(f"{RECEIVER}/%"), key.like(f"{RETRY}/%") & is_head))
    wanted = frozenset(dag_ids)
    values: defaultdict[tuple[int, str], dict[str, tuple[Any, datetime]]] = defaultdict(dict)
    for asset_id, name, text, at in session.execute(query):
        parts = name.split("/")
        if len(parts) > 2 and parts[1] in wanted:
            values[asset_id, f"{parts[1]}/{parts[2]}"][name] = json.loads(text), at
    return [_webhook(webhook, of_webhook) for (_, webhook), of_webhook in sorted(values.items())]


def _webhook(name: str, values: Mapping[str, tuple[Any, datetime]]) -> _Webhook:
    waiting = unreadable = 0
    try:
        store = StoredValues({key: value for key, (value, _) in values.items()})
        waiting = RetryQueue(store, f"{RETRY}/{name}").waiting
        if not isinstance(waiting, int):
            waiting, unreadable = 0, 1
    except (InvalidState, InvalidTime, AttributeError, TypeError, ValueError):
        unreadable = 1
    value, at = values.get(f"{RECEIVER}/{name}", (None, None))
    status = ReceiverStatus.of(value)
    return _Webhook(name, status, at, waiting, unreadable + (value is not None and status is None))
