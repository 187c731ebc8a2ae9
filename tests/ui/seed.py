"""The data of the tests' pages: a month of runs, written by the same code as in real use.

``python -m tests.ui.seed`` fills the metadata database that the environment names, and prints the data.
Fast tests call ``seed`` with a session of ``tests.metadata_database``.
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta, timezone
from typing import Any

from airflow.dag_processing.collection import update_dag_parsing_results_in_db
from airflow.models import Connection, DagModel
from airflow.models.dagbag import DBDagBag
from airflow.models.dagbundle import DagBundleModel
from airflow.models.task_state_store import TaskStateStoreModel
from airflow.models.taskinstance import TaskInstance
from airflow.models.xcom import XComModel
from airflow.serialization.serialized_objects import LazyDeserializedDAG
from airflow.utils.state import DagRunState, TaskInstanceState
from airflow.utils.types import DagRunTriggeredByType, DagRunType
from sqlalchemy import update
from sqlalchemy.orm import Session

from airflow_insightly_hooks.core.dates import iso_time
from airflow_insightly_hooks.core.delivery.delivery_record import PostOutcome, about_of
from airflow_insightly_hooks.core.delivery.ledger import ACKNOWLEDGED, FAILED, GONE, IN_DOUBT
from airflow_insightly_hooks.core.delivery.ledger_store import LedgerStore
from airflow_insightly_hooks.core.delivery.receiver_status import ReceiverStatus
from airflow_insightly_hooks.core.payload import Payload, build_payload
from airflow_insightly_hooks.core.records import RECORD_TYPES
from airflow_insightly_hooks.core.state.pending_webhooks import PendingWebhook, PendingWebhooks, pending_key
from airflow_insightly_hooks.core.state.retry_queue import MessageSource, RetryQueue
from airflow_insightly_hooks.core.state.run_counts import RUN_COUNTS, RunCounts
from airflow_insightly_hooks.database.deliveries import DeliveryFilter, TaskKey, search_deliveries
from airflow_insightly_hooks.database.pending import cancel, pending_webhooks
from airflow_insightly_hooks.database.pending_requests import request_name
from airflow_insightly_hooks.database.resend import CLEARED, resend
from airflow_insightly_hooks.database.state import DatabaseStateStore
from airflow_insightly_hooks.hooks.assets import records_asset
from airflow_insightly_hooks.operators.retry_queue import PAYLOADS
from airflow_insightly_hooks.sandbox.crm.clock import Clock
from airflow_insightly_hooks.sandbox.seed.seeded_records import seeded_store
from tests.metadata_database import BUNDLE, AssetState, asset_of
from tests.ui.workflows import CONNECTIONS, PAUSED, WORKFLOWS, dags

__all__ = ["RESEND_REQUEST", "SCRIPT", "Seed", "seed"]

SCRIPT = "<script>alert(1)</script>"
"""The name of one opportunity; a page that runs it is broken."""
RESEND_REQUEST = "5eed0000a1b2"
"""The id of the one request to send a message again."""
UNSENT, LEFT, DRY_RUN = "unsent", "left", "dry run"
KEPT_RESPONSE = '{"error": "EMAIL is missing", "field": "<b>EMAIL</b>"}'
RETRY_AFTER = timedelta(minutes=25)

_RECORDS = {
    "Opportunities": ("OPPORTUNITY_ID", "OPPORTUNITY_NAME"),
    "Contacts": ("CONTACT_ID", "LAST_NAME"),
    "Organisations": ("ORGANISATION_ID", "ORGANISATION_NAME"),
    "Projects": ("PROJECT_ID", "PROJECT_NAME"),
    "Leads": ("LEAD_ID", "LAST_NAME"),
}
"""Record type -> the fields of its id and its name."""


@dataclass
class Seed:
    """The data that was made, for tests to look for.

    :ivar now: the time that all others are measured from, in ISO 8601.
    :ivar deliveries: the number of deliveries by the workflow's DAG id, including its retry and pending DAGs.
    :ivar undelivered: the number of failed, gone, doubtful and unsent deliveries, in the same way.
    :ivar pending: the number of pending webhooks, in the same way.
    :ivar request: the name of a request to cancel pending webhooks. Its run is queued.
    :ivar messages: message ids by what they show: ``script``, ``response``, ``resent``, ``in_doubt``, …
    :ivar tasks: the tasks of these messages, by the same keys: DAG id, run id, task id.
    :ivar records: the records of these messages, by the same keys: type, id.
    """

    now: str
    deliveries: dict[str, int] = field(default_factory=dict)
    undelivered: dict[str, int] = field(default_factory=dict)
    pending: dict[str, int] = field(default_factory=dict)
    request: str = ""
    messages: dict[str, str] = field(default_factory=dict)
    tasks: dict[str, list[str]] = field(default_factory=dict)
    records: dict[str, list[Any]] = field(default_factory=dict)


def seed(session: Session, now: datetime | None = None) -> Seed:
    """Fill a metadata database that has empty tables.

    :param now: an aware time, one minute after the newest delivery; ``None`` means the present time.
    """
    return _Seeding(session, now or datetime.now(timezone.utc)).run()


@dataclass
class _Message:
    """A message of a run, with the outcome of each of its POSTs in order."""

    record: dict[str, Any]
    event: str = "updated"
    statuses: Sequence[int | None] = (200,)
    error: str | None = None
    response: str | None = None
    state: str = ACKNOWLEDGED
    name: str | None = None  # under which a test finds it


class _Seeding:
    """One database that is being filled."""

    def __init__(self, session: Session, now: datetime) -> None:
        self._session = session
        self._now = now.replace(microsecond=0)
        self._random = random.Random(7)
        self._seed = Seed(iso_time(self._now))
        store = seeded_store(Clock(self._now.timestamp), self._now.timestamp())
        self._records = {name: store.all(RECORD_TYPES[name]) for name in _RECORDS}
        self._workflows = {workflow.dag_id: workflow for workflow in WORKFLOWS}
        self._tokens = 0

    def run(self) -> Seed:
        self._add_connections()
        self._add_dags()
        self._won_deals()
        self._newsletter()
        self._billing()
        self._surveys()
        self._dry_runs()
        self._payroll()
        self._add_pending()
        self._session.commit()
        return self._seed

    # --- what a DAG processor and an administrator would have written --------------------------------------

    def _add_connections(self) -> None:
        for conn_id, fields in CONNECTIONS.items():
            fields = {**fields, "extra": json.dumps(fields["extra"]) if "extra" in fields else None}
            self._session.add(Connection(conn_id, **fields))

    def _add_dags(self) -> None:
        if self._session.get(DagBundleModel, BUNDLE) is None:
            self._session.add(DagBundleModel(name=BUNDLE))
            self._session.flush()
        found = [LazyDeserializedDAG.from_dag(dag) for dag in dags()]
        errors: dict[tuple[str, str], str] = {}
        update_dag_parsing_results_in_db(BUNDLE, None, found, errors, None, set(), self._session)
        assert not errors, errors
        self._session.execute(
            update(DagModel).values(
                is_paused=DagModel.dag_id == PAUSED, bundle_name=BUNDLE, fileloc="/dags/workflows.py"
            )
        )
        self._session.commit()
        self._dags = DBDagBag()

    # --- the workflows' deliveries -------------------------------------------------------------------------

    def _won_deals(self) -> None:
        dag_id = "won_deals_to_the_erp"
        for number, at in enumerate(self._times(44)):
            messages = [_Message(self._record("Opportunities")) for _ in range(1 + number % 2)]
            if number % 11 == 5:
                messages[0].statuses, messages[0].error = (503, None, 200), "the connection was reset"
            self._deliver(dag_id, at, messages)
        script = _Message(
            {**self._record("Opportunities"), "OPPORTUNITY_NAME": SCRIPT}, event="added", name="script"
        )
        self._deliver(dag_id, self._ago(minutes=40), [script])
        doubtful = _Message(self._record("Opportunities"), statuses=(), state=IN_DOUBT, name="in_doubt")
        self._deliver(dag_id, self._ago(minutes=21), [doubtful], state=TaskInstanceState.UP_FOR_RETRY)
        again = _Message(self._record("Opportunities"), name="resent")
        self._deliver(dag_id, self._ago(minutes=35), [again, _Message(self._record("Opportunities"))])
        self._ask_again("resent")

    def _newsletter(self) -> None:
        dag_id = "new_contacts_to_the_newsletter"
        for number, at in enumerate(self._times(22)):
            messages = [_Message(self._record("Contacts"), event="added") for _ in range(1 + number % 5)]
            if number % 7 == 3:
                refused = messages[0]
                refused.statuses, refused.state = (422, 422, 422), FAILED
                refused.error, refused.response = "answered 422", KEPT_RESPONSE
                refused.name = "response"
            self._deliver(dag_id, at, messages)

    def _billing(self) -> None:
        """Send organisations to a receiver that has been down for three hours, and to one that works."""
        dag_id = "organisations_to_billing"
        for at in self._times(18):
            record = self._record("Organisations")
            self._deliver(dag_id, at, [_Message(record)], webhook="Billing")
            self._deliver(dag_id, at, [_Message(record)], webhook="ERP", is_same_run=True)
        down_for = timedelta(hours=3)
        error = "answered 503; it asks to wait (Retry-After)"
        key = self._deliver(
            dag_id,
            self._now - down_for,
            [
                _Message(
                    self._record("Organisations"), "updated", (503, 503, 503), error, None, FAILED, "down"
                ),
                _Message(
                    self._record("Organisations"), "updated", (503, 503, None), "timed out", None, FAILED
                ),
            ],
            webhook="Billing",
            state=TaskInstanceState.UP_FOR_RETRY,
        )
        asset = self._asset_state("Organisations", dag_id)
        status = ReceiverStatus(
            self._now - down_for, self._now + RETRY_AFTER, f"{dag_id}/{key.run_id}", True, error
        )
        asset.set(f"receiver/{dag_id}/billing", status.as_dict())
        queue = RetryQueue(asset, f"retry/{dag_id}/billing")
        for minutes in (100, 60, 15):
            messages = [
                _Message(self._record("Organisations"), statuses=(), state=LEFT, name="left")
                for _ in range(1 + minutes // 50)
            ]
            left = self._deliver(
                dag_id, self._ago(minutes=minutes), messages, webhook="Billing", left_to=f"{dag_id}__retry"
            )
            source = MessageSource(dag_id, left.run_id, left.task_id, -1, "build_billing", len(messages))
            queue.enter(source, left.run_id, self._now + RETRY_AFTER)
        self._deliver(
            f"{dag_id}__retry",
            self._ago(minutes=70),
            [_Message(self._record("Organisations"), "updated", (503,), error, None, FAILED)],
            webhook="Billing",
            state=TaskInstanceState.FAILED,
        )

    def _surveys(self) -> None:
        dag_id = "survey_after_a_project__pending"
        for number, at in enumerate(self._times(12)):
            messages = [_Message(self._record("Projects")) for _ in range(1 + number % 2)]
            if number % 5 == 4:
                messages[0].statuses, messages[0].state = (410,), GONE
                messages[0].error, messages[0].name = "answered 410: it will never take it", "gone"
            self._deliver(dag_id, at, messages)

    def _dry_runs(self) -> None:
        for at in self._times(5):
            messages = [
                _Message(self._record("Leads"), event="added", statuses=(), state=DRY_RUN, name="dry_run")
                for _ in range(2)
            ]
            self._deliver("new_leads_a_trial", at, messages, is_dry_run=True)

    def _payroll(self) -> None:
        for number, at in enumerate(self._times(6)):
            record = {**self._record("Contacts"), "LAST_NAME": "Confidential"}
            messages = [_Message(record, name="hidden"), _Message(self._record("Contacts"))]
            if number == 5:
                messages[1].statuses, messages[1].state = (500, 500, 500), FAILED
                messages[1].error = "answered 500"
            self._deliver("payroll_contacts", at, messages)

    # --- one run -------------------------------------------------------------------------------------------

    def _deliver(
        self,
        dag_id: str,
        at: datetime,
        messages: list[_Message],
        *,
        webhook: str | None = None,
        state: TaskInstanceState | None = None,
        left_to: str | None = None,
        is_dry_run: bool = False,
        is_same_run: bool = False,
    ) -> TaskKey:
        """Have a run deliver messages: make the run, its XCom and its ledger, as its tasks do."""
        workflow = self._workflows[dag_id.partition("__")[0]]
        sent = next(w for w in workflow.webhooks if webhook in (None, w.name))
        suffix = f"_{sent.slug}" if len(workflow.webhooks) > 1 else ""
        failed = any(m.state not in (ACKNOWLEDGED, LEFT, DRY_RUN) for m in messages)
        state = state or (TaskInstanceState.FAILED if failed else TaskInstanceState.SUCCESS)
        run_id, dag_run_id = self._last_run if is_same_run else self._add_run(dag_id, at, state)
        self._last_run = run_id, dag_run_id
        key = TaskKey(dag_run_id, dag_id, run_id, f"deliver{suffix}", -1, "")
        self._session.execute(
            update(TaskInstance)
            .where(TaskInstance.run_id == run_id, TaskInstance.dag_id == dag_id)
            .where(TaskInstance.task_id == key.task_id)
            .values(state=state, try_number=max([1, *(len(m.statuses) for m in messages)]))
        )
        payloads = [self._payload(workflow, sent, message, at) for message in messages]
        is_retry = dag_id.endswith("__retry")
        self._push(key, "collect" if is_retry else f"build{suffix}", payloads, PAYLOADS if is_retry else "")
        about = {
            "conn_id": sent.conn_id,
            "receiver": CONNECTIONS[str(sent.conn_id)]["host"],
            "webhook": f"{workflow.dag_id}/{sent.slug}",
        }
        if left_to is not None:
            about["left_to"] = left_to
        if is_dry_run:
            about["dry_run"] = True  # type: ignore[assignment]
        ended = self._write_ledger(key, zip(messages, payloads, strict=True), at, about)
        self._note(workflow.dag_id, key, messages, payloads)
        if "__" not in dag_id and not is_same_run and not is_dry_run:
            self._count(key, len(messages))
        self._session.execute(
            update(TaskStateStoreModel)
            .where(
                TaskStateStoreModel.dag_run_id == dag_run_id,
                TaskStateStoreModel.task_id.in_([key.task_id, "detect", "evaluate"]),
            )
            .values(updated_at=ended)
        )
        self._session.commit()
        return key

    def _count(self, key: TaskKey, met: int) -> None:
        """Have the earlier tasks store the number of changes, and the requests left of the account's day."""
        left = 38_000 - 7 * key.dag_run_id
        account = {"requests_left": left, "requests_a_day": 40_000, "insightly_conn_id": "insightly_default"}
        for task_id, counts in {
            "detect": RunCounts(detected=met + key.dag_run_id % 4, **account),
            "evaluate": RunCounts(met=met),
        }.items():
            task = key._replace(task_id=task_id)
            DatabaseStateStore(self._session, task).set(RUN_COUNTS, counts.as_dict())

    def _add_run(self, dag_id: str, at: datetime, state: TaskInstanceState) -> tuple[str, int]:
        dag = self._dags.get_latest_version_of_dag(dag_id, session=self._session)
        assert dag is not None
        states = {
            TaskInstanceState.SUCCESS: DagRunState.SUCCESS,
            TaskInstanceState.UP_FOR_RETRY: DagRunState.RUNNING,
        }
        is_beside = "__" in dag_id
        run = dag.create_dagrun(
            run_id=f"{'manual' if is_beside else 'scheduled'}__{at:%Y-%m-%dT%H:%M:%S+00:00}",
            logical_date=None if is_beside else at,
            run_after=at,
            start_date=at,
            run_type=DagRunType.MANUAL if is_beside else DagRunType.SCHEDULED,
            triggered_by=DagRunTriggeredByType.TIMETABLE,
            state=states.get(state, DagRunState.FAILED),
            session=self._session,
        )
        self._session.flush()
        self._session.execute(
            update(TaskInstance)
            .where(TaskInstance.run_id == run.run_id, TaskInstance.dag_id == dag_id)
            .values(
                state=TaskInstanceState.SUCCESS,
                start_date=at,
                end_date=at + timedelta(seconds=20),
                try_number=1,
            )
        )
        return run.run_id, run.id

    def _payload(self, workflow: Any, webhook: Any, message: _Message, at: datetime) -> Payload:
        id_field, _ = _RECORDS[workflow.record_type]
        change: Any = {
            "record_type": workflow.record_type,
            "record_id": message.record[id_field],
            "event": message.event,
            "changed_at": iso_time(at - timedelta(seconds=self._random.randrange(5, 290))),
            "record": message.record,
        }
        options = {"date_format": webhook.date_format, "fields": webhook.fields}
        return build_payload(change, workflow.message_scope(webhook), message.record, **options)

    def _push(self, key: TaskKey, task_id: str, payloads: list[Payload], prefix: str) -> None:
        XComModel.set(
            key=f"{prefix}{key.task_id}" if prefix else "return_value",
            value=payloads,
            dag_id=key.dag_id,
            task_id=task_id,
            run_id=key.run_id,
            session=self._session,
        )

    def _write_ledger(
        self,
        key: TaskKey,
        messages: Iterable[tuple[_Message, Payload]],
        at: datetime,
        about: dict[str, Any],
    ) -> datetime:
        """Write a run's ledger. Return when its last POST ended."""
        self._tokens += 1
        store = LedgerStore(DatabaseStateStore(self._session, key), f"1-{self._tokens:08x}")
        ledger = store.open(2, 3)
        ledger.about = about
        ended = at + timedelta(seconds=15)
        for message, payload in messages:
            change = payload["record_type"], payload["record_id"], payload["event"], payload["changed_at"]
            ledger.expect(payload["message_id"], about_of(*change))
            if message.state == IN_DOUBT:
                ledger.posting(payload["message_id"])
            for number, status in enumerate(message.statuses):
                is_last = number + 1 == len(message.statuses)
                ended = at + timedelta(seconds=15 + 60 * number)
                is_good = is_last and message.state == ACKNOWLEDGED
                error = None if is_good else (message.error or f"answered {status}")
                outcome = PostOutcome(
                    ended,
                    round(self._random.uniform(0.04, 0.4), 3) if status is not None else 30.0,
                    status,
                    error,
                    None if is_good else message.response,
                )
                ledger.posting(payload["message_id"])
                ledger.answered(payload["message_id"], message.state if is_last else FAILED, outcome)
        store.write(ledger)
        return ended

    def _note(self, workflow: str, key: TaskKey, messages: list[_Message], payloads: list[Payload]) -> None:
        made = self._seed
        made.deliveries[workflow] = made.deliveries.get(workflow, 0) + len(messages)
        bad = sum(m.state not in (ACKNOWLEDGED, LEFT, DRY_RUN) for m in messages)
        made.undelivered[workflow] = made.undelivered.get(workflow, 0) + bad
        for message, payload in zip(messages, payloads, strict=True):
            if message.name is not None:
                made.messages[message.name] = payload["message_id"]
                made.tasks[message.name] = [key.dag_id, key.run_id, key.task_id]
                made.records[message.name] = [payload["record_type"], payload["record_id"]]

    def _ask_again(self, name: str) -> None:
        """Ask for a message to be sent again: its task is cleared, and waits to be run."""
        wanted = DeliveryFilter(message_ids=[self._seed.messages[name]])
        found = search_deliveries(self._session, wanted).rows
        asked = resend(self._session, found, by="op", what="1 message", request_id=RESEND_REQUEST)
        assert [one.outcome for one in asked] == [CLEARED]

    # --- what is pending -----------------------------------------------------------------------------------

    def _add_pending(self) -> None:
        for workflow, webhook, count in (
            ("survey_after_a_project", "survey", 9),
            ("renewal_reminder", "remind_sales", 17),
            ("renewal_reminder", "tell_billing", 8),
        ):
            record_type = self._workflows[workflow].record_type
            asset = self._asset_state(record_type, f"{workflow}__pending")
            id_field, _ = _RECORDS[record_type]
            ids = [record[id_field] for record in self._records[record_type][:count]]
            entries = [
                PendingWebhook(
                    record_id,
                    self._now + timedelta(hours=7 * number - 3),
                    "added" if number % 3 else "updated",
                    iso_time(self._ago(days=14, hours=number)),
                )
                for number, record_id in enumerate(ids)
            ]
            PendingWebhooks(asset, pending_key(workflow, webhook)).add(entries)
            self._seed.pending[workflow] = self._seed.pending.get(workflow, 0) + len(entries)
        rows = pending_webhooks(self._session, dag_ids=["renewal_reminder"]).rows[-2:]
        (run,) = cancel(self._session, rows, who="op", triggered_by=DagRunTriggeredByType.UI)
        self._seed.request = request_name(run.run_id)

    # --- times and records ---------------------------------------------------------------------------------

    def _asset_state(self, record_type: str, dag_id: str) -> AssetState:
        asset = records_asset("insightly_default", record_type)
        return AssetState(self._session, asset_of(self._session, asset), dag_id)

    def _record(self, record_type: str) -> dict[str, Any]:
        return dict(self._random.choice(self._records[record_type]))

    def _ago(self, **parts: float) -> datetime:
        return self._now - timedelta(**parts)

    def _times(self, count: int) -> Iterator[datetime]:
        """Yield times of the last 29 days without the last four hours, from old to new.

        The overview counts the last 30 days by date, so it includes all these times at any hour of the day.
        """
        first, step = self._ago(days=29), timedelta(days=29, hours=-4) / count
        for number in range(count):
            yield first + step * number + timedelta(minutes=self._random.randrange(50))


def main() -> None:
    from airflow.utils.session import create_session

    with create_session() as session:
        json.dump(asdict(seed(session)), sys.stdout)


if __name__ == "__main__":
    main()
