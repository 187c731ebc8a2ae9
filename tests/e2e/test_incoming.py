"""Insightly's own webhooks on a real Airflow. They wake DAGs, and a poll finds changes that they miss."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import requests

from airflow_insightly_hooks.core.payload import build_body
from airflow_insightly_hooks.demo.airflow_stack import wait_for
from tests.e2e.conftest import CANARY, PASSWORD, ROOT, USERNAME, Stack
from tests.e2e.test_events import SOON, runs, searches

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

HELP_PAGE_BODY = (ROOT / "tests" / "vectors" / "help_page_task_body.json").read_bytes()
BY_WEBHOOKS = ("pushed_task", "pushed_often", "pushed_or_polled", "chain_second")
ENDPOINT = "incoming"
CALM = 6.0
"""Seconds without a run and without a request to Insightly, after which nothing more comes by itself.

A change that a webhook has announced is looked for every 5 seconds until a run has read it.
"""
APART = 4.0
"""Seconds between two changes, so that a webhook of the first one doesn't announce the second, too."""
MISSED = re.compile(r"(\d+) changes? of Pricebook .* seen by polling only")
UNASKED = 15.0
THREADS, CHANGES = 16, 320


@dataclass
class Pushed:
    """DAGs that wait for webhooks.

    :param pricebooks: one that a webhook has announced, and one whose webhook was refused three times.
    :param calm_since: a time of the monotonic clock, and the number of searches of Insightly until then.
    """

    pricebooks: list[int]
    calm_since: tuple[float, int]


def post(stack: Stack, body: str | bytes, connection: str = ENDPOINT) -> requests.Response:
    """POST a webhook to Airflow, as Insightly does."""
    return requests.post(
        f"{stack.airflow.url}/insightly/hooks/{connection}",
        data=body,
        headers={"Content-Type": "application/json"},
        auth=(USERNAME.encode(), PASSWORD.encode()),
        timeout=60,
    )


def add(stack: Stack, record_type: str, **fields: Any) -> dict[str, Any]:
    return stack.put_record(record_type, fields)


def woken(stack: Stack, dag_id: str) -> list[dict[str, Any]]:
    """Return the runs of a DAG that events have triggered."""
    return [run for run in runs(stack, dag_id) if run["run_type"] == "asset_triggered"]


def wait_for_delivery(stack: Stack, name: str, expected: Counter[int], id_field: str) -> None:
    """Wait until a bin has all records. Check that it has no record more often than expected."""
    wait_for(f"{len(expected)} records in {name}", lambda: expected <= delivered(stack, name, id_field), SOON)
    assert delivered(stack, name, id_field) == expected


def delivered(stack: Stack, name: str, id_field: str) -> Counter[int]:
    return Counter(stack.received_ids(name, id_field))


def insightly_posts(stack: Stack, **webhook: Any) -> None:
    """Have the sandbox send webhooks about pricebooks to Airflow, as Insightly does."""
    setting = {
        "uri": f"{stack.airflow.url}/insightly/hooks/{ENDPOINT}",
        "record_type": "Pricebook",
        "username": USERNAME,
        "password": PASSWORD,
        "delay": 0.1,
        **webhook,
    }
    requests.put(f"{stack.sandbox}/_sandbox", json={"webhook": setting}, timeout=10).raise_for_status()


def webhook_counts(stack: Stack) -> dict[str, int]:
    """Return how many of the sandbox's webhooks were acknowledged and how many were given up."""
    (counts,) = requests.get(f"{stack.sandbox}/_sandbox", timeout=10).json()["webhooks"]
    return {name: counts[name] for name in ("acknowledged", "given_up")}


@pytest.fixture(scope="module")
def pushed(stack: Stack) -> Iterator[Pushed]:
    """DAGs that webhooks wake, after their first runs. On SQLite it is the first DAG only."""
    on_postgresql = stack.database.startswith("postgresql")
    dag_ids = BY_WEBHOOKS if on_postgresql else BY_WEBHOOKS[:1]
    for dag_id in dag_ids:
        stack.airflow.wait_for_dag(dag_id)
        stack.unpause(dag_id)
    wait_until_begun(stack, *dag_ids)
    begun = time.monotonic(), searches(stack, "KnowledgeArticle")
    pricebooks = _tell_of_one_and_lose_one(stack) if on_postgresql else []
    yield Pushed(pricebooks, begun)
    requests.put(f"{stack.sandbox}/_sandbox", json={"webhook": None}, timeout=10).raise_for_status()
    stack.pause(*dag_ids)


def _tell_of_one_and_lose_one(stack: Stack) -> list[int]:
    insightly_posts(stack)
    first = add(stack, "Pricebook", DESCRIPTION=CANARY)["PRICEBOOK_ID"]
    wait_for("its webhook", lambda: webhook_counts(stack)["acknowledged"] == 1, 60)
    time.sleep(APART)
    insightly_posts(stack, password="another password")
    lost = add(stack, "Pricebook", DESCRIPTION=CANARY)["PRICEBOOK_ID"]
    wait_for("three refusals", lambda: webhook_counts(stack)["given_up"] == 1, 60)
    return [first, lost]


def wait_until_begun(stack: Stack, *dag_ids: str) -> None:
    """Wait until DAGs have had their first runs, and their watchers send no more events by themselves."""
    seen, since = None, time.monotonic()

    def has_begun() -> bool:
        nonlocal seen, since
        found = {dag_id: runs(stack, dag_id) for dag_id in dag_ids}
        if (state := [(run["dag_run_id"], run["state"]) for each in found.values() for run in each]) != seen:
            seen, since = state, time.monotonic()
        # The first one comes with the schedule, the next one with the watcher's first event.
        have_begun = all(any(run["run_type"] == "asset_triggered" for run in each) for each in found.values())
        have_ended = all(run["end_date"] for each in found.values() for run in each)
        are_watched = all(is_watched(stack, dag_id) for dag_id in dag_ids)
        return have_begun and have_ended and are_watched and time.monotonic() - since >= CALM

    wait_for(f"the beginning of {', '.join(dag_ids)}", has_begun, SOON)


def is_watched(stack: Stack, dag_id: str) -> bool:
    """Return whether Airflow has a watcher of the asset that wakes a DAG."""
    (asset,) = stack.airflow.api(f"/assets?dag_ids={dag_id}&name_pattern=/changes/")["assets"]
    return bool(asset["watchers"])


@pytest.mark.on_sqlite
def test_the_help_pages_webhook_wakes_a_dag_once(stack: Stack, pushed: Pushed) -> None:
    """The help page's body, though years old, makes one run, which reads the changes."""
    before = len(runs(stack, "pushed_task"))
    task = stack.add_task("pushed")
    answer = post(stack, HELP_PAGE_BODY)
    assert (answer.status_code, answer.json()) == (200, {"detail": "Airflow knows that Tasks have changed."})
    wait_for_delivery(stack, "pushed_task", Counter([task["TASK_ID"]]), "TASK_ID")
    time.sleep(CALM)
    assert len(runs(stack, "pushed_task")) == before + 1
    (run,) = woken(stack, "pushed_task")[-1:]
    (change,) = stack.xcom("pushed_task", run["dag_run_id"], "detect")
    assert (change["record_id"], change["event"]) == (task["TASK_ID"], "added")


def test_a_chain_of_two(stack: Stack, pushed: Pushed, started: datetime) -> None:
    """One Airflow's deliver task sends a signed webhook to an Airflow's endpoint, which wakes a DAG there."""
    before = delivered(stack, "chain_second", "POST_ID")
    post_id = add(stack, "CommunityPosts", MESSAGE=CANARY)["POST_ID"]
    run_id = stack.start_run_since(started, "", "chain_first")
    assert stack.wait_for_run("chain_first", run_id) == "success"
    report = stack.xcom("chain_first", run_id, "deliver")
    assert (report["delivered"], report["attempts"]) == (1, 1)
    wait_for_delivery(stack, "chain_second", before + Counter([post_id]), "POST_ID")
    unsigned = post(stack, HELP_PAGE_BODY, "incoming_signed")
    assert unsigned.status_code == 401


def test_insightly_is_not_asked_between_webhooks(stack: Stack, pushed: Pushed) -> None:
    """While no webhook comes and no poll is due, Insightly gets no request."""
    since, before = pushed.calm_since
    time.sleep(max(0.0, since + UNASKED - time.monotonic()))
    assert searches(stack, "KnowledgeArticle") == before


def test_many_at_once(stack: Stack, pushed: Pushed) -> None:
    """Sixteen senders announce hundreds of changes. Each change is delivered once, in few runs."""
    before = len(runs(stack, "pushed_often"))

    def change_and_tell(_: int) -> tuple[int, int]:
        article = add(stack, "KnowledgeArticle", Title=CANARY)
        answer = post(stack, build_body(article, record_type="KnowledgeArticle"))
        return article["ARTICLE_ID"], answer.status_code

    with ThreadPoolExecutor(THREADS) as pool:
        done = list(pool.map(change_and_tell, range(CHANGES)))
    assert {status for _, status in done} == {200}
    expected = Counter(article for article, _ in done)
    wait_for_delivery(stack, "pushed_often", expected, "ARTICLE_ID")
    ids = {kept["headers"]["webhook-id"] for kept in stack.received("pushed_often")}
    assert len(ids) == CHANGES
    assert len(runs(stack, "pushed_often")) - before < CHANGES / 10


def test_the_pages_commands(stack: Stack, pushed: Pushed) -> None:
    """The how-to page's command makes a connection, which accepts the page's curl command."""
    page = (ROOT / "docs" / "how-to" / "incoming.md").read_text()
    add_connection, curl = (
        re.search(rf"^```bash\n({start} .*?)^```$", page, re.MULTILINE | re.DOTALL)[1]  # type: ignore[index]
        for start in ("airflow", "curl")
    )
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    env = {**stack.airflow.env, "PATH": path, "no_proxy": "127.0.0.1"}
    for command in (add_connection, curl.replace("https://airflow.example.com", stack.airflow.url)):
        done = subprocess.run(["bash", "-euc", command], env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    status, *_, answer = done.stdout.splitlines()
    assert status == "HTTP/1.1 200 OK"
    assert f"`{answer}`" in page


def test_a_paused_dag_reads_later_what_it_was_told(stack: Stack, pushed: Pushed) -> None:
    """Airflow keeps no event for a paused DAG. When unpaused, it reads the changes announced meanwhile."""
    before = delivered(stack, "pushed_often", "ARTICLE_ID")
    stack.pause("pushed_often")
    try:
        article = add(stack, "KnowledgeArticle", Title=CANARY)
        answer = post(stack, build_body(article, record_type="KnowledgeArticle"))
        time.sleep(3)
        assert delivered(stack, "pushed_often", "ARTICLE_ID") == before
    finally:
        stack.unpause("pushed_often")
    assert answer.status_code == 200
    wait_for_delivery(stack, "pushed_often", before + Counter([article["ARTICLE_ID"]]), "ARTICLE_ID")


def test_the_safety_net_finds_a_change_whose_webhook_is_lost(stack: Stack, pushed: Pushed) -> None:
    """If Airflow refuses a webhook three times, the next poll finds its change, which is delivered once."""
    wait_for_delivery(stack, "pushed_or_polled", Counter(pushed.pricebooks), "PRICEBOOK_ID")


def test_insightly_tells_of_creations_and_updates(stack: Stack, pushed: Pushed) -> None:
    """Insightly POSTs each creation and update. All are acknowledged, and each change is delivered."""
    insightly_posts(stack)
    before = delivered(stack, "pushed_or_polled", "PRICEBOOK_ID")
    ids = [add(stack, "Pricebook", DESCRIPTION=CANARY)["PRICEBOOK_ID"] for _ in range(4)]
    wait_for_delivery(stack, "pushed_or_polled", before + Counter(ids), "PRICEBOOK_ID")
    for pricebook in ids[:2]:
        stack.crm("PUT", "/Pricebook", {"PRICEBOOK_ID": pricebook, "DESCRIPTION": f"{CANARY} again"})
    wait_for_delivery(stack, "pushed_or_polled", before + Counter(ids + ids[:2]), "PRICEBOOK_ID")
    wait_for("the acknowledgements", lambda: webhook_counts(stack) == {"acknowledged": 6, "given_up": 0}, 60)


def test_a_lost_webhook_is_logged(stack: Stack, pushed: Pushed) -> None:
    """The number of changes without a webhook is logged a minute later. Until then a webhook may come."""
    log = stack.airflow.home / "triggerer.log"

    def logged() -> list[str]:
        return MISSED.findall(log.read_text(errors="replace"))

    wait_for("its log", logged, SOON)
    assert logged() == ["1"]
