"""Random histories of overlapping runs and a receiver that comes and goes: nothing is lost or sent too often.

The tasks are the real ones; a model of Airflow runs them, in any order, kills them at calls of the state
stores, and tries them again. The receiver is a function.
"""

from __future__ import annotations

import random
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk import DAG, XComArg
from airflow.sdk.exceptions import AirflowSkipException, DagRunTriggerException, DownstreamTasksSkipped
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_insightly_hooks.core.errors import UndeliveredError
from airflow_insightly_hooks.hooks.assets import records_asset
from airflow_insightly_hooks.hooks.post.post_result import PostResult
from airflow_insightly_hooks.hooks.webhook import WebhookHook
from airflow_insightly_hooks.operators import pending, retry_queue, workflow_delivery
from airflow_insightly_hooks.operators.pending import WakeUpOperator
from airflow_insightly_hooks.operators.retry_queue import (
    CollectRetriesOperator,
    LostPayloadsError,
    RetryWebhookOperator,
)
from airflow_insightly_hooks.operators.workflow_delivery import WorkflowWebhookOperator
from tests.conftest import AssetStateStores, Connect, TaskInstance
from tests.core.state.test_id_set import Crash, CrashingStore
from tests.deliveries import payloads

ASSET = records_asset("insightly_default", "Contacts")
WEBHOOK = "flow/out"
DELAY = timedelta(minutes=1)


class Clock(datetime):
    """A clock that only the model moves."""

    time = datetime(2026, 11, 1, 12, tzinfo=timezone.utc)

    @classmethod
    def now(cls, tz: Any = None) -> datetime:
        return cls.time


class Task:
    """A task instance: its state store outlasts its tries."""

    def __init__(self, airflow: Airflow, dag_id: str, run_id: str, task_id: str, operator: Any) -> None:
        self.airflow, self.operator = airflow, operator
        self.key = dag_id, run_id, task_id
        self.store = CrashingStore()
        self.tries = 0
        self.max_tries = operator.retries
        self.built: list[Any] = []
        self.due = Clock.time
        self.run: Any = SimpleNamespace(run_type="scheduled", run_after=Clock.time, conf={})

    def context(self) -> dict[str, Any]:
        ti: Any = TaskInstance(*(self.key[0], self.key[2], self.key[1]))
        ti.try_number = self.tries
        ti.max_tries = self.max_tries
        ti.xcom_push = lambda key, value: self.airflow.xcom.__setitem__((*self.key, key), value)
        ti.xcom_pull = self.airflow.pull(self.key[0], self.key[1])
        ti.get_dr_count = self.airflow.count_runs
        assets = AssetStateStores()
        assets[ASSET] = self.airflow.assets
        return {"ti": ti, "task_state_store": self.store, "asset_state_store": assets, "dag_run": self.run}


class Airflow:
    """What Airflow does with the tasks of two DAGs, and the receiver."""

    def __init__(self, rng: random.Random, retries: int) -> None:
        self.rng = rng
        self.retries = retries  # of the deliver tasks
        self.assets = CrashingStore()
        self.xcom: dict[tuple[str, str, str, str], Any] = {}
        self.waiting: list[Task] = []
        self.ended: list[Task] = []
        self.known_runs: set[str] = set()
        self.answers = 200
        self.posts: dict[str, int] = {}
        self.acknowledged: dict[str, int] = {}
        self.reported: set[str] = set()
        self.most_waiting_deliveries = 0
        self.count = 0
        self.clears = 0
        self.kills = 0

    def count_runs(self, dag_id: str, run_ids: list[str], states: list[str] | None = None) -> int:
        queued = {task.key[1] for task in self.waiting if task.key[2] == "collect" and not task.tries}
        return len((self.known_runs if states is None else queued).intersection(run_ids))

    def pull(self, own_dag: str, own_run: str) -> Any:
        def xcom_pull(
            task_ids: str, key: str = "return_value", dag_id: str = "", run_id: str = "", **_asked: Any
        ) -> Any:
            return self.xcom.get((dag_id or own_dag, run_id or own_run, task_ids, key))

        return xcom_pull

    def send(self, hook: Any, body: str, *, message_id: str, **_asked: Any) -> PostResult:
        self.posts[message_id] = self.posts.get(message_id, 0) + 1
        status = self.answers
        if status == 422 and int(message_id.removeprefix("msg_")) % 2:
            status = 200
        if status == 200:
            self.acknowledged[message_id] = self.acknowledged.get(message_id, 0) + 1
        return PostResult(
            acknowledged=status == 200,
            status=status,
            error=None if status == 200 else f"answered {status}",
            retry_after=None,
            elapsed=0.0,
        )

    # --- what a step does ---------------------------------------------------------------------------------

    def new_run(self) -> None:
        """A run of the workflow has built payloads; its deliver task runs at once."""
        run_id, number = f"run_{self.count}", self.rng.randint(1, 3)
        built = payloads(number, first=10 * self.count)
        self.count += 1
        self.xcom["flow", run_id, "build", "return_value"] = built
        operator = WorkflowWebhookOperator(
            task_id="deliver",
            payloads=built,
            payloads_task_id="build",
            retry_dag_id="flow__retry",
            asset=ASSET,
            webhook=WEBHOOK,
            retries=self.retries,
            retry_delay=DELAY,
        )
        task = Task(self, "flow", run_id, "deliver", operator)
        task.built = built
        self.waiting.append(task)
        self.step_of(self.waiting[-1])

    def trigger(self, ended: DagRunTriggerException) -> None:
        """Queue a run of the retry DAG, once for each id."""
        run_id = str(ended.dag_run_id)
        if run_id in self.known_runs:
            return
        self.known_runs.add(run_id)
        with DAG("flow__retry", schedule=None):
            collect = CollectRetriesOperator(
                task_id="collect", asset=ASSET, deliver_task_ids={WEBHOOK: "deliver"}
            )
            deliver = RetryWebhookOperator(
                task_id="deliver",
                payloads=XComArg(collect, key="payloads_deliver"),
                collect_task_id="collect",
                asset=ASSET,
                webhook=WEBHOOK,
                retries=self.retries,
                retry_delay=DELAY,
            )
            collect >> [deliver, WakeUpOperator(task_id="wake_up")]
        task = Task(self, "flow__retry", run_id, "collect", collect)
        task.run.conf = ended.conf or {}
        task.due = task.run.run_after = ended.run_after or Clock.time
        self.waiting.append(task)

    def step_of(self, task: Task) -> None:
        """Run a task once; it may be killed."""
        task.tries += 1
        operator = task.operator
        for key in [key for key in self.xcom if key[:3] == task.key]:
            del self.xcom[key]  # as Airflow does when a try begins
        if task.key[2] == "deliver" and task.key[0] == "flow__retry":
            operator.payloads = self.xcom[(*task.key[:2], "collect", "payloads_deliver")]
        try:
            with self.kill(task):
                operator.execute(task.context())
        except Crash:
            task.due = Clock.time  # retried once it is noticed
            return
        except UndeliveredError as error:
            if task.tries <= task.max_tries and type(error).__name__ != "UndeliverableError":
                task.due = Clock.time + DELAY
                return
            self.reported |= {item["message_id"] for item in error.report["undelivered"]}
            skipped: set[str] = set()
        except LostPayloadsError as error:
            # A try that was killed after a clear has lost its XComs. No other try loses any.
            assert self.kills
            for _, run_id, _ in error.sources:
                built = self.xcom["flow", run_id, "build", "return_value"]
                self.reported |= {payload["message_id"] for payload in built}
            skipped = set()
        except DagRunTriggerException as ended:
            self.trigger(ended)
            skipped = set()
        except DownstreamTasksSkipped as ended:
            skipped = set(ended.tasks)
        except AirflowSkipException:
            skipped = set()
        else:
            skipped = set()
        self.waiting.remove(task)
        self.ended.append(task)
        for follower in operator.downstream_list if task.key[2] == "collect" else ():
            if follower.task_id not in skipped:
                following = Task(self, *task.key[:2], follower.task_id, follower)
                following.run = task.run
                self.waiting.append(following)

    @contextmanager
    def kill(self, task: Task) -> Any:
        """Sometimes kill the task at a call of a state store, in its first run."""
        stores = (self.assets, task.store)
        for store in stores:
            store.calls.clear()
            store.crash_at = None
        if task.tries == 1 and self.rng.random() < 0.3:
            victim = self.rng.choice(stores)
            victim.crash_at, victim.done = self.rng.randint(0, 6), self.rng.random() < 0.5
        try:
            yield
        finally:
            self.kills += any(s.crash_at is not None and len(s.calls) > s.crash_at for s in stores)
            for store in stores:
                store.crash_at = None

    def clear(self, *, reads_more: bool) -> None:
        """Clear a deliver task, which may then get more payloads."""
        ended = [task for task in self.ended if task.key[2] == "deliver"]
        if not ended:
            return
        have_left = [task for task in ended if task.store.get("left") is not None]
        task = self.rng.choice(have_left if reads_more and have_left else ended)
        self.ended.remove(task)
        task.max_tries, task.due = task.tries + self.retries, Clock.time
        if task.key[0] == "flow" and reads_more:
            more = payloads(1, first=10 * self.count)
            self.count += 1
            task.built = task.operator.payloads = [*task.built, *more]
            self.xcom["flow", task.key[1], "build", "return_value"] = task.built
        self.waiting.append(task)
        self.clears += 1

    def drain(self) -> None:
        """Let all tasks end."""
        for _ in range(2_000):
            if not self.waiting:
                break
            if due := self.due():
                self.step_of(self.rng.choice(due))
            else:
                Clock.time += timedelta(seconds=30)
        assert not self.waiting

    def due(self) -> list[Task]:
        return [task for task in self.waiting if task.due <= Clock.time]

    def look(self) -> None:
        delivers = [t for t in self.waiting if t.key[2] == "deliver" and t.key[0] == "flow" and t.tries]
        self.most_waiting_deliveries = max(self.most_waiting_deliveries, len(delivers))


@pytest.fixture
def _wired(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    connect("webhook_default", host="https://receiver.example.com")
    for module in (workflow_delivery, retry_queue, pending):
        monkeypatch.setattr(module, "datetime", Clock)


steps = st.lists(
    st.sampled_from(
        [
            "run",
            "run",
            "run",
            "task",
            "task",
            "task",
            "minute",
            "down",
            "well",
            "refuses",
            "clear",
            "read more",
        ]
    ),
    min_size=5,
    max_size=60,
)


@pytest.mark.usefixtures("_wired")
@settings(max_examples=60, deadline=None)
@given(steps, st.randoms(use_true_random=False), st.sampled_from([0, 1, 2, 2, 5]))
def test_overlapping_runs(steps: list[str], rng: random.Random, retries: int) -> None:
    """Each message is acknowledged, or had ``1 + retries`` attempts and is in a failed task's report."""
    Clock.time = datetime(2026, 11, 1, 12, tzinfo=timezone.utc)
    airflow = Airflow(rng, retries)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(WebhookHook, "send", lambda hook, *given, **named: airflow.send(hook, *given, **named))
        for step in steps:
            if step == "run":
                airflow.new_run()
            elif step == "task" and (due := airflow.due()):
                airflow.step_of(rng.choice(due))
            elif step == "minute":
                Clock.time += timedelta(seconds=rng.randint(1, 90))
            elif step in ("clear", "read more"):
                airflow.clear(reads_more=step == "read more")
            elif step in ("down", "well", "refuses"):
                airflow.answers = {"down": 503, "well": 200, "refuses": 422}[step]
            airflow.look()
        airflow.drain()
        if airflow.clears:  # by now, all left messages are sent
            airflow.clear(reads_more=True)
            airflow.drain()
    sent = {
        p["message_id"] for (_, _, task, _), found in airflow.xcom.items() if task == "build" for p in found
    }
    assert sent == airflow.acknowledged.keys() | airflow.reported
    for message in sent:
        most = (1 + retries) * (1 + airflow.clears) + airflow.kills
        assert airflow.posts.get(message, 0) <= most, message
    if not airflow.kills and not airflow.clears:
        assert all(airflow.posts[message] == 1 + retries for message in sent - airflow.acknowledged.keys())
        assert all(count == 1 for count in airflow.acknowledged.values())
        assert not airflow.reported & airflow.acknowledged.keys()
