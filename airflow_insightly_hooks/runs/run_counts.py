"""Keep a task's counts in its own state (``core.state.run_counts``)."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from airflow_insightly_hooks.core.errors import type_and_place
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
    """Keep a task's counts. A test or a dry run keeps nothing.

    If this fails, the task goes on.

    :param log: the log for a failure; the failure's text is left out.
    :param detected: the number of changes in the window.
    :param met: the number of changes that met the criteria and were passed on.
    :param hook: the hook that has asked Insightly. If it knows how many of the day's requests are left, this
        is kept, too.
    :param dry_run: whether the task's own argument asks for a dry run.
    """
    try:
        store = context.get("task_state_store")
        if store is None or is_test(context) or is_dry_run(context, dry_run):
            return
        counts = RunCounts(detected, met)
        with suppress(Exception):  # a hook that hasn't asked yet may fail if its connection is wrong
            if hook is not None and (day := hook.requests_left()) is not None:
                counts = RunCounts(detected, met, day.left, day.total, hook.insightly_conn_id)
        TaskState(store).set(RUN_COUNTS, counts.as_dict())
    except Exception as error:
        log.warning(
            "The task's counts can't be kept, so the pages don't show them: %s", type_and_place(error)
        )
