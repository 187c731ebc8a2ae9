"""Kills of the process of a workflow's one task, on a real Airflow: what is read and sent again."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import pytest
import recording_receiver
from kill_rounds import SETTINGS, WAIT, KillRounds
from postgresql import NoServerError, temporary_database

from airflow_insightly_hooks.demo.airflow_stack import AirflowStack, wait_for
from airflow_insightly_hooks.sandbox.server import RunningSandbox, running_sandbox

pytestmark = [pytest.mark.e2e, pytest.mark.scale, pytest.mark.timeout(900)]

DAG_ID = "one_task_kills"
CHANGES = 20_000
CONCURRENCY = 32
MOMENTS = (1_500, 6_000, 13_000)
"""After how many POSTs the task is killed."""
WINDOW = 2.0
"""Seconds of POSTs that a kill may repeat: as docs/explanation/delivery.md says, on a busy machine."""
NEW_RECORDS = 495
"""Of a page; five overlap."""
READ_AHEAD = 9
"""Pages that a kill may have read again: of a batch that is being sent, two; as many that wait for the next
one; one that the thread holds, one that it is asking for, and their overlap with what was settled."""
START = datetime(2024, 5, 1, tzinfo=timezone.utc)

DAG_FILE = f'''\
from datetime import timedelta

from airflow.sdk import DAG

from airflow_insightly_hooks import Webhook, Workflow
from airflow_insightly_hooks.operators.workflow import InsightlyWorkflowOperator

WORKFLOW = Workflow(
    name="Kills",
    record_type="Contacts",
    settle=0,
    webhooks=[Webhook(name="Out", conn_id="receiver", concurrency={CONCURRENCY})],
)

with DAG("{DAG_ID}", schedule=None):
    InsightlyWorkflowOperator(
        task_id="flow",
        workflow=WORKFLOW,
        window=("2024-05-01", "2024-05-02"),
        retries=20,
        retry_delay=timedelta(seconds=1),
    )
'''


class Machines(NamedTuple):
    """Airflow, the account and the receiver."""

    rounds: KillRounds
    crm: RunningSandbox


@pytest.fixture(scope="module", params=["postgresql"])
def machines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machines]:
    """Start a separate Airflow, since the processes of its tasks are killed."""
    home: Path = tmp_path_factory.mktemp("one_task_kills")
    with ExitStack() as cleanup:
        try:
            database = cleanup.enter_context(temporary_database())
        except NoServerError as error:
            pytest.skip(str(error))
        patch = cleanup.enter_context(pytest.MonkeyPatch.context())
        patch.setattr(recording_receiver, "FAILING", 0.0)
        receiver = cleanup.enter_context(recording_receiver.recording_receiver())
        crm = cleanup.enter_context(running_sandbox())
        crm.configure(requests_per_second=100)
        for first in range(0, CHANGES, 5_000):
            times = [
                f"{START + timedelta(seconds=4 * i):%Y-%m-%d %H:%M:%S}" for i in range(first, first + 5_000)
            ]
            crm.create_many("Contacts", [{"DATE_CREATED_UTC": at, "DATE_UPDATED_UTC": at} for at in times])
        (home / "dags").mkdir()
        (home / "dags" / "one_task_kills.py").write_text(DAG_FILE)
        connections: dict[str, dict[str, Any]] = {
            "receiver": {"conn_type": "insightly_webhook", "host": receiver.url},
            "insightly_default": {"conn_type": "insightly", "host": crm.api_url, "password": "sandbox-key"},
        }
        airflow = AirflowStack(home / "airflow", home / "dags", connections, database, SETTINGS)
        cleanup.callback(airflow.stop)
        airflow.migrate()
        airflow.start("api-server", "scheduler", "dag-processor")
        airflow.wait_until_healthy()
        airflow.wait_for_dag(DAG_ID)
        airflow.unpause(DAG_ID)
        yield Machines(KillRounds(airflow, receiver), crm)


def test_kills_cost_what_was_under_way(machines: Machines) -> None:
    """Nothing is lost. Finished batches are not read again, and acknowledged messages are not sent again."""
    rounds, crm = machines
    posts = rounds.receiver.posts
    run_id = rounds.airflow.api(f"/dags/{DAG_ID}/dagRuns", "POST", {"logical_date": None})["dag_run_id"]
    run = f"/dags/{DAG_ID}/dagRuns/{quote(run_id)}"
    allowed = 0
    for moment in MOMENTS:
        wait_for(f"POST {moment}", lambda m=moment: len(posts) >= m, WAIT, interval=0.002)  # type: ignore[misc]
        rounds.running()[1].kill()
        killed_at = time.monotonic()
        time.sleep(0.5)
        allowed += sum(post.at > killed_at - WINDOW for post in posts) + CONCURRENCY
    state = wait_for("the end", lambda: ended(rounds.airflow, run), WAIT)

    assert state == "success"
    report = rounds.airflow.api(f"{run}/taskInstances/flow/xcomEntries/return_value?deserialize=true")[
        "value"
    ]
    assert (report["total"], report["delivered"]) == (CHANGES, CHANGES)
    sent = Counter(post.message_id for post in posts)
    assert len(sent) == CHANGES
    assert sent.total() - CHANGES <= allowed
    pages = crm.configure()["requests"]["GET /v3.1/Contacts/Search"]
    assert pages <= CHANGES / NEW_RECORDS + 3 + len(MOMENTS) * READ_AHEAD


def ended(airflow: AirflowStack, run: str) -> str | None:
    state: str = airflow.api(run)["state"]
    return state if state in ("success", "failed") else None
