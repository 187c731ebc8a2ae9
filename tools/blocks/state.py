"""The blocks of stored state: each key in Airflow's state stores of assets and of tasks.

The names of keys, and their versions, come from the modules that write them. This module describes their
contents. A test runs workflows on a real Airflow, and fails if a key is missing here.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from airflow_insightly_hooks.core.delivery import ledger_store, receiver_status, resend_requests
from airflow_insightly_hooks.core.detection import seen_store
from airflow_insightly_hooks.core.state import due_once, run_counts, state_store, trigger_once
from airflow_insightly_hooks.core.state.pending_webhooks import pending_key
from airflow_insightly_hooks.core.state.retry_queue import RETRY
from airflow_insightly_hooks.hooks.assets import ANNOUNCED, CURSOR_LISTS, WATCHED, cursor_key
from airflow_insightly_hooks.operators import pending, retry_queue, workflow, workflow_delivery
from airflow_insightly_hooks.operators.one_task import batch_scheduling, checkpoint
from airflow_insightly_hooks.runs import lookback, windows
from airflow_insightly_hooks.runs.shared_reading import shared_keys
from blocks.markdown import table

ASSET_LIFE = "as long as a DAG names the asset"
TASK_LIFE = "as long as the run"


class Key(NamedTuple):
    """A key, or keys with the same beginning. ``{…}`` means a name, and ``…`` numbers and further parts."""

    key: str
    version: int
    holds: str
    writer: str
    life: str = TASK_LIFE


CHUNKS, CLAIM = shared_keys("{dag_id}", "{task_id}")
_SECOND = state_store.VERSION
ASSET_KEYS = (
    Key(
        cursor_key("{name}"),
        1,
        "the time up to which one task has read; `{name}` is `{dag_id}/{task_id}`, or the argument `cursor`",
        "the sensor, `InsightlyWorkflowOperator`, `received_changes`",
        "as long as a DAG names the asset; deleted 90 days after its last move if its DAG is gone",
    ),
    Key(
        cursor_key("{name}~a…"),
        seen_store.VERSION,
        "what had been seen at one position of the cursor, so that a change that becomes visible late is "
        "returned once; `~b…` has it for the position before or after",
        "the task that moves the cursor",
        "as long as the cursor",
    ),
    Key(
        cursor_key("{name}~b…"),
        seen_store.VERSION,
        "see the key above",
        "the task that moves the cursor",
        "as long as the cursor",
    ),
    Key(
        f"{CURSOR_LISTS[0]}…",
        1,
        "which task has moved which cursor last, in 16 parts",
        "the task that moves the cursor",
        ASSET_LIFE,
    ),
    Key(
        WATCHED,
        1,
        "the time up to which the watcher has announced changes",
        "the triggerer, for DAGs that changes start",
        ASSET_LIFE,
    ),
    Key(
        ANNOUNCED,
        1,
        "the spans of time for which Insightly's webhooks have announced changes, 2,000 at most",
        "the API server, for each of Insightly's webhooks",
        ASSET_LIFE,
    ),
    Key(
        f"{trigger_once.TRIGGERED}/{{dag_id}}…",
        _SECOND,
        "the ids of records that have triggered (`until_triggered`), and decisions that are being carried "
        "out",
        "the task `evaluate`, or the one task",
        "for ever; a stopped run's decision for 30 days",
    ),
    Key(
        f"{pending_key('{dag_id}', '{webhook}')}…",
        _SECOND,
        "the webhooks with a time trigger that wait: record id, due time, event, time of the change",
        "the task `due` of the pending DAG",
        "until they are sent or cancelled",
    ),
    Key(
        f"{RETRY}/{{dag_id}}/{{webhook}}…",
        _SECOND,
        "the runs whose messages wait for a receiver: where their payloads are in XCom, and how many",
        "the task `collect` of the retry DAG",
        "until they are sent",
    ),
    Key(
        f"{RETRY}/{{dag_id}}__retry",
        1,
        "the names of the webhooks for which messages have waited",
        "the task `collect` of the retry DAG",
        ASSET_LIFE,
    ),
    Key(
        f"{receiver_status.RECEIVER}/{{dag_id}}/{{webhook}}",
        1,
        "since when the receiver has been failing, until when a task waits for it, and which task waits",
        "deliver tasks of workflows",
        ASSET_LIFE,
    ),
    Key(
        CHUNKS,
        1,
        "which runs of a backfill have read which changes for other runs: times, no records",
        "the sensor, in backfills and long catch-ups",
        "used for an hour",
    ),
    Key(
        CLAIM,
        1,
        "which run of a backfill is reading for the others",
        "the sensor, in backfills and long catch-ups",
        "until it has read",
    ),
)
TASK_KEYS = (
    Key(
        windows.TAKEN,
        1,
        "the window that the run has taken from its cursor, so that a retry reads it again",
        "the sensor, `InsightlyWorkflowOperator`",
        "`[state_store] default_retention_days` (30); 0: as long as the run",
    ),
    Key(
        f"{lookback.TOLD}…",
        seen_store.VERSION,
        "what the run has returned, so that a retry returns the same",
        "the sensor, `InsightlyWorkflowOperator`",
    ),
    Key(
        "received/{record_type}/…",
        1,
        "the two keys above, for `received_changes`",
        "a task that calls `received_changes`",
    ),
    Key(
        run_counts.RUN_COUNTS,
        run_counts.VERSION,
        "how many changes were detected and have met the criteria, and the requests that were left of the "
        "day; for the pages in Airflow's UI",
        "`detect`, `evaluate`, the one task",
    ),
    Key(
        f"{trigger_once.OWN}…",
        _SECOND,
        "the ids of records that the run has passed on (`until_triggered`)",
        "`evaluate`, the one task",
    ),
    Key(
        f"{ledger_store.HEAD}…",
        ledger_store.VERSION,
        "the ledger: for each message its state, its attempts, its change and its last three POSTs; no "
        "contents, except a receiver's answer that `keep_response` keeps",
        "deliver tasks",
    ),
    Key(
        f"{{webhook}}/{ledger_store.HEAD}…", ledger_store.VERSION, "the ledger of one webhook", "the one task"
    ),
    Key(
        f"{resend_requests.REQUESTS}…",
        resend_requests.VERSION,
        "the messages that are to be sent again on request, and who has asked",
        "`airflow insightly resend`, the page in Airflow's UI",
    ),
    Key(
        f"{workflow_delivery.LEFT}…",
        1,
        "the messages that the task has left to the retry DAG",
        "deliver tasks of workflows",
    ),
    Key(
        f"{retry_queue.TAKEN}…",
        _SECOND,
        "what the run has taken to send: runs with their messages, or pending webhooks",
        "`collect` of the retry DAG, `due` of the pending DAG",
    ),
    Key(
        retry_queue.ENTERED,
        1,
        "whether the run has entered what it was started for",
        "`collect` of the retry DAG; `due` in earlier versions",
    ),
    Key(due_once.DECIDED, 1, "whether the run has decided what it sends", "`due` of the pending DAG"),
    Key(
        pending.LOOKED_AT,
        1,
        "the time of the task's first try, from which `recheck` measures relative dates",
        "`due` of the pending DAG",
    ),
    Key(
        due_once.POSTPONED,
        1,
        "what the run has put back, since Insightly's answer was not the record",
        "`due` of the pending DAG",
    ),
    Key(workflow.READING, 1, "the window that is being read", "`InsightlyWorkflowOperator`"),
    Key(
        f"{checkpoint.KEY}…",
        checkpoint.VERSION,
        "which pages were read and settled, as ids and times, so that a retry goes on from there",
        "`InsightlyWorkflowOperator`",
        "until the task succeeds",
    ),
    Key(
        f"{batch_scheduling.NOTE}…",
        1,
        "the batch of webhooks with a time trigger that is being handed over",
        "`InsightlyWorkflowOperator`",
        "until it is handed over",
    ),
    Key(
        f"{batch_scheduling.SCHEDULED}…",
        _SECOND,
        "the ids of the records that the task has scheduled",
        "`InsightlyWorkflowOperator`",
    ),
)
STORES = {"asset": ASSET_KEYS, "task": TASK_KEYS}


def block(store: str) -> str:
    """Return the keys of a store: ``asset`` or ``task``."""
    rows = ((f"`{key.key}`", key.holds, key.writer, key.life, str(key.version)) for key in STORES[store])
    return table(("key", "what it holds", "who writes it", "how long it stays", "version"), rows)


def described(store: str, key: str) -> bool:
    """Whether the page lists a key of a store."""
    return any(_pattern(known.key).fullmatch(key) for known in STORES[store])


def _pattern(key: str) -> re.Pattern[str]:
    parts = re.split(r"(\{\w+\}|…)", key)
    return re.compile(
        "".join(".*" if part == "…" else ".+" if part[:1] == "{" else re.escape(part) for part in parts)
    )
