"""Keeping what a task has counted in its own state (``core.state.run_counts``)."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from airflow_insightly_hooks.core.errors import told
from airflow_insightly_hooks.core.state.run_counts import RUN_COUNTS, RunCounts
from airflow_insightly_hooks.runs.airflow_runs import is_dry_run, is_test
from airflow_insightly_hooks.runs.task_state import TaskState

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_insightly_hooks.hooks.insightly import InsightlyHook

__all__ = ["keep_run_counts"]


def keep_run_counts(
    context: Context,
    log: Any,
    *,
    detected: int | None = None,
    met: int | None = None,
    hook: InsightlyHook | None = None,
    dry_run: bool = False,
) -> None:
    """Keep what a task has counted; a test, or a dry run, keeps nothing.

    A task never fails because of it.

    :param log: where a failure goes, without its text.
    :param detected: changes in the window.
    :param met: changes that met the criteria and went on.
    :param hook: what has asked the account: its requests of the day are kept, too, if it knows them.
    :param dry_run: whether the task's own argument says that this is one.
    """
    try:
        store = context.get("task_state_store")
        if store is None or is_test(context) or is_dry_run(context, dry_run):
            return
        counts = RunCounts(detected, met)
        with suppress(Exception):  # a hook that hasn't asked yet may fail where its connection is wrong
            if hook is not None and (day := hook.requests_left()) is not None:
                counts = RunCounts(detected, met, day.left, day.total, hook.insightly_conn_id)
        TaskState(store).set(RUN_COUNTS, counts.as_dict())
    except Exception as error:
        log.warning("What was counted can't be kept: %s", told(error))
